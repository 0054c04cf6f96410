"""One HTML page with everything in it: the verdicts, the charts, the tables. It loads nothing."""

from __future__ import annotations

from html import escape

from . import machine
from .charts import charts
from .report import Document, Entry, columns, figure, head, headline, method

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; }
td:first-child, th:first-child, .words td, .words th { text-align: left; }
.reached { color: #15803d; } .missed { color: #b91c1c; font-weight: 600; }
svg { max-width: 100%; height: auto; display: block; margin: .5rem 0; }
details { margin: .5rem 0; } .note { opacity: .75; font-size: .9em; }
"""


def page(document: Document) -> str:
    scenarios = document["scenarios"]
    body = [
        "<h1>miwid beside its peers</h1>",
        f"<p>{escape(machine.line(document['machine']))}<br>{escape(method(document))}<br>{escape(document['begun'])}</p>",
        _verdicts(scenarios),
        *(_scenario(entry) for entry in scenarios),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>miwid beside its peers</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _verdicts(scenarios: list[Entry]) -> str:
    rows = []
    for entry in scenarios:
        for verdict in entry["verdicts"]:
            mark = "reached" if verdict["reached"] else "missed"
            cells = [_link(entry), escape(verdict["wanted"]), escape(verdict["got"]), f'<span class="{mark}">{mark}</span>']
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = "<tr><th>scenario</th><th>target</th><th>measured</th><th></th></tr>"
    return f'<h2>Targets</h2><table class="words">{heads}{"".join(rows)}</table>' if rows else ""


def _link(entry: Entry) -> str:
    return f'<a href="#{escape(entry["name"])}">{escape(entry["title"])}</a>'


def _scenario(entry: Entry) -> str:
    drawn = charts(entry)
    first = headline(entry) if headline(entry) in drawn else next(iter(drawn), "")
    others = "".join(chart for name, chart in drawn.items() if name != first)
    parts = [f'<h2 id="{escape(entry["name"])}">{escape(entry["title"])}</h2>', drawn.get(first, "")]
    if others:
        parts.append(f"<details><summary>more charts</summary>{others}</details>")
    parts.append(_table(entry))
    parts += [f'<p class="note">{escape(note)}</p>' for note in entry["notes"]]
    if entry["error"]:
        parts.append(f'<p class="missed">{escape(entry["error"])}</p>')
    return "".join(parts)


def _table(entry: Entry) -> str:
    names = columns(entry)
    if not names:
        return ""
    rows = ["<tr><th></th>" + "".join(f"<th>{escape(head(name))}</th>" for name in names) + "</tr>"]
    for label, figures in entry["medians"].items():
        cells = "".join(f"<td>{figure(name, figures.get(name))}</td>" for name in names)
        rows.append(f"<tr><td>{escape(label)}</td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"
