"""Charts as SVG, drawn by hand: one for each metric of a scenario, a bar for each contender."""

from __future__ import annotations

from html import escape

from .model import METRICS
from .report import Entry, columns, figure, head

_WIDTH, _LABELS, _FIGURES, _BAR, _GAP, _TOP = 640, 120, 110, 20, 8, 34
_COLOURS = {"miwid": "#c2410c", "nginx": "#15803d", "haproxy": "#1d4ed8", "caddy": "#6d28d9"}


def colour(label: str) -> str:
    """One for each server, whatever its variant."""
    return next((value for name, value in _COLOURS.items() if label.startswith(name)), "#525252")


def chart(entry: Entry, name: str) -> str:
    """The bars of one metric, the best one on top."""
    rows = [(label, figures[name]) for label, figures in entry["medians"].items() if name in figures]
    rows.sort(key=lambda row: row[1], reverse=METRICS[name].rate)
    height = _TOP + len(rows) * (_BAR + _GAP)
    longest = max((value for _, value in rows), default=0.0)
    title = f"{entry['title']}: {head(name)} ({'more' if METRICS[name].rate else 'less'} is better)"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{escape(title)}">',
        f'<text x="0" y="16" font-weight="600" fill="currentColor">{escape(title)}</text>',
    ]
    for row, (label, value) in enumerate(rows):
        parts += _bar(_TOP + row * (_BAR + _GAP), label, value, longest, figure(name, value))
    return "\n".join([*parts, "</svg>"])


def charts(entry: Entry) -> dict[str, str]:
    """Metric -> chart, for those that more than one contender has."""
    wanted = [name for name in columns(entry) if name != "failed"]
    return {name: chart(entry, name) for name in wanted if sum(name in it for it in entry["medians"].values()) > 1}


def _bar(top: int, label: str, value: float, longest: float, text: str) -> list[str]:
    room = _WIDTH - _LABELS - _FIGURES
    length = max(1.0, room * max(value, 0.0) / longest) if longest > 0 else 1.0
    middle = top + _BAR - 5
    return [
        f'<text x="{_LABELS - 8}" y="{middle}" text-anchor="end" fill="currentColor">{escape(label)}</text>',
        f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour(label)}"/>',
        f'<text x="{_LABELS + length + 6:.1f}" y="{middle}" fill="currentColor">{escape(text)}</text>',
    ]
