"""The command line: which scenarios, how long, and where the results go. Standard output is data, standard error is talk."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from . import machine, report, runner
from .charts import charts
from .model import Outcome, Scenario
from .page import page
from .peers.place import find
from .process import Failed
from .runner import Pace
from .scenarios import ALL, shortened
from .stage import Ground

RESULTS = Path(__file__).resolve().parents[1] / "results"


def main() -> int:
    options = _options()
    if options.list:
        print("\n".join(f"{scenario.name:<16} {scenario.title}" for scenario in ALL))
        return 0
    if options.markdown:
        print(report.markdown(json.loads(options.markdown.read_text())))
        return 0
    chosen = [it for it in ALL if re.search(options.only or "", it.name) and (it.short or not options.short)]
    if not chosen:
        print(f"no scenario matches {options.only!r}; --list names them", file=sys.stderr)
        return 2
    if options.short:
        chosen = [shortened(it) for it in chosen]
    return _run(chosen, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/bench/run", description=sys.modules["comparison"].__doc__)
    parser.add_argument("--short", action="store_true", help="every kind of scenario for a moment, nothing judged")
    parser.add_argument("--only", metavar="PATTERN", help="scenarios whose name matches this regular expression")
    parser.add_argument("--rounds", type=int, help="turns of every server (default 5, short 1)")
    parser.add_argument("--seconds", type=float, help="time of a turn (default 2, short 1)")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("--markdown", type=Path, metavar="RESULTS.json", help="print the table of a run")
    parser.add_argument("binary", type=Path, nargs="?", help="the miwid to measure")
    return parser.parse_args()


def _run(chosen: list[Scenario], options: argparse.Namespace) -> int:
    # However it is interrupted, the servers are ended on the way out.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, _interrupt)
    machine.descriptors()
    os.sched_setaffinity(0, machine.cores().load)
    programs = find(options.binary)
    if programs.miwid is None or not os.access(programs.miwid, os.X_OK):
        print(f"no binary at {options.binary}; build miwid first", file=sys.stderr)
        return 1
    pace = Pace(options.rounds or 5, options.seconds or 2.0)
    if options.short:
        pace = Pace(options.rounds or 1, options.seconds or 1.0, starts=3, rest_seconds=0.3)
    minutes = sum(_estimate(it, pace) for it in chosen) / 60
    print(f"{len(chosen)} scenarios, about {minutes:.0f} minutes; {machine.line(machine.describe())}", file=sys.stderr)
    document: report.Document = {
        "machine": machine.describe(),
        "build": "release" if "release" in programs.miwid.parts else "debug",
        "begun": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "short": options.short,
        "rounds": pace.rounds,
        "seconds": pace.seconds,
        "scenarios": [],
    }
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="miwi-bench-") as directory:
        # Workers of other servers may run as somebody else.
        os.chmod(directory, 0o755)
        ground = Ground(Path(directory), programs)
        try:
            for number, scenario in enumerate(chosen, 1):
                print(f"[{number}/{len(chosen)}] {scenario.name}: {scenario.title}", file=sys.stderr, flush=True)
                entry = _measured(scenario, ground, pace)
                document["scenarios"].append(entry)
                print(report.terminal(entry) + "\n", flush=True)
        except KeyboardInterrupt:
            interrupted = True
            print("interrupted; what was measured is kept", file=sys.stderr)
    name = "short" if options.short else ("only" if options.only else "full")
    _save(document, RESULTS, name)
    print(report.summary(document))
    return 130 if interrupted else _verdict(document)


def _estimate(scenario: Scenario, pace: Pace) -> float:
    """Seconds, roughly: what is loaded, and two for a start."""
    each = {
        "throughput": pace.rounds * pace.seconds * scenario.longer,
        "growth": 4 * pace.seconds,
        "start": pace.starts * 0.2,
    }.get(scenario.kind, 3 * len(scenario.steps) + scenario.steps[-1] / 1000 if scenario.steps else 0.0)
    return len(scenario.contenders) * (each + 2)


def _measured(scenario: Scenario, ground: Ground, pace: Pace) -> report.Entry:
    try:
        return report.entry(runner.run(scenario, ground, pace))
    except (Failed, OSError, ValueError) as error:
        return report.entry(Outcome(scenario), str(error))


def _save(document: report.Document, results: Path, name: str) -> None:
    folder = results / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(document, indent=1))
    (folder / "index.html").write_text(page(document))
    tables = [report.terminal(entry) for entry in document["scenarios"]]
    (folder / "results.txt").write_text("\n\n".join([*tables, report.summary(document)]) + "\n")
    for entry in document["scenarios"]:
        for metric, drawing in charts(entry).items():
            # A file of its own has no page to take its colour from.
            (folder / f"{entry['name']}-{metric}.svg").write_text(drawing.replace("currentColor", "#444"))
    print(f"results: {folder}", file=sys.stderr)


def _verdict(document: report.Document) -> int:
    """Speed is reported, not asserted; but a scenario that broke or a request that failed is an error."""
    wrong = [f"{entry['name']}: {entry['error']}" for entry in document["scenarios"] if entry["error"]]
    for entry in document["scenarios"]:
        for label, figures in entry["medians"].items():
            if label.startswith("miwid") and figures.get("failed"):
                wrong.append(f"{entry['name']}: {label} failed {figures['failed']:.0f} requests")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
