"""The results: as a document for machines, as a table for a terminal, as Markdown for the README. Pure."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from . import judge, machine
from .model import METRICS, Outcome

#: A run's whole document, as JSON has it.
Document = dict[str, Any]
Entry = dict[str, Any]


def entry(outcome: Outcome, error: str = "") -> Entry:
    """What the document says about one scenario."""
    return {
        "name": outcome.scenario.name,
        "title": outcome.scenario.title,
        "kind": outcome.scenario.kind,
        "medians": judge.medians(outcome),
        "samples": outcome.samples,
        "verdicts": [asdict(verdict) for verdict in judge.verdicts(outcome)],
        "notes": outcome.notes,
        "error": error,
    }


def columns(entry: Entry) -> list[str]:
    """The metrics that a scenario has, in the order of their table."""
    present = {name for figures in entry["medians"].values() for name in figures}
    return [name for name in METRICS if name in present and not (name == "failed" and not _failures(entry))]


def headline(entry: Entry) -> str:
    """The metric that a scenario is about: that of its first target, else CPU time."""
    if entry["verdicts"]:
        return str(entry["verdicts"][0]["metric"])
    return next((name for name in columns(entry) if name != "rps"), "rps")


def figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    metric = METRICS[name]
    return f"{value:,.{metric.digits}f}"


def head(name: str) -> str:
    metric = METRICS[name]
    return metric.title if metric.unit in ("", "/s") else f"{metric.title}, {metric.unit}"


def terminal(entry: Entry) -> str:
    """One scenario as a table."""
    names = columns(entry)
    rows = [[entry["name"], *(head(name) for name in names)]]
    for label, figures in entry["medians"].items():
        rows.append([f"  {label}", *(figure(name, figures.get(name)) for name in names)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]) for row in rows]
    for verdict in entry["verdicts"]:
        lines.append(f"  {'reached' if verdict['reached'] else 'MISSED '}  {verdict['wanted']}: {verdict['got']}")
    lines += [f"  {note}" for note in entry["notes"]]
    if entry["error"]:
        lines.append(f"  FAILED: {entry['error']}")
    return "\n".join(line.rstrip() for line in lines)


def summary(document: Document) -> str:
    """The last lines of a run."""
    found = [verdict for entry in document["scenarios"] for verdict in entry["verdicts"]]
    reached = sum(verdict["reached"] for verdict in found)
    lines = [machine.line(document["machine"]), method(document)]
    if not document["short"]:
        lines.append(f"{reached} of {len(found)} targets reached")
    return "\n".join(lines)


def method(document: Document) -> str:
    return (
        f"miwid {document['build']} build, {document['rounds']} rounds of {document['seconds']:g} s, medians; "
        "server on one core, load on another, in turns"
    )


def markdown(document: Document) -> str:
    """One line for each target and for each scenario without one."""
    lines = [f"Machine: {machine.line(document['machine'])}. {method(document)}.", ""]
    lines += ["| scenario | miwid | beside it | target | measured | |", "|---|---|---|---|---|---|"]
    for entry in document["scenarios"]:
        lines += _markdown_rows(entry)
    return "\n".join(lines)


def _markdown_rows(entry: Entry) -> list[str]:
    if entry["error"] or not entry["medians"]:
        return [f"| {entry['title']} | | | | not measured | |"]
    if not entry["verdicts"]:
        name = headline(entry)
        return [f"| {entry['title']} | {_ours(entry, name)} | {_theirs(entry, name)} | | | |"]
    rows = []
    for verdict in entry["verdicts"]:
        name = verdict["metric"]
        mark = "reached" if verdict["reached"] else "**missed**"
        cells = [entry["title"], _ours(entry, name), _theirs(entry, name), verdict["wanted"], verdict["got"], mark]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def _ours(entry: Entry, name: str) -> str:
    return "; ".join(_named(entry, label, name) for label in entry["medians"] if label.startswith("miwid"))


def _theirs(entry: Entry, name: str) -> str:
    return "; ".join(_named(entry, label, name) for label in entry["medians"] if not label.startswith("miwid"))


def _named(entry: Entry, label: str, name: str) -> str:
    figures = entry["medians"][label]
    text = f"{figure(name, figures.get(name))} {METRICS[name].unit}"
    if name == "cpu_us" and "rps" in figures:
        text += f", {figure('rps', figures['rps'])}/s"
    if name == "connection_kb" and "kernel_kb" in figures:
        text += f" (kernel, both ends: {figure('kernel_kb', figures['kernel_kb'])} KB)"
    if name == "connection_kb" and "start_kb" in figures:
        text += f", at start {figures['start_kb'] / 1024:.0f} MB"
    return text if label == "miwid" else f"{label} {text}"


def _failures(entry: Entry) -> bool:
    return any(figures.get("failed") for figures in entry["medians"].values())
