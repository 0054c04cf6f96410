"""Runs a scenario, by its kind, and returns what was measured. Nothing is judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from . import machine, meters, peers, probe, tools
from .model import Contender, Load, Outcome, Sample, Scenario
from .process import Failed, Program, output_of, spawn, stop
from .stage import Ground, Server, servers

#: Starts of each server for the time of its first byte.
STARTS = 20
#: What the held connections are extrapolated to.
MANY = 100_000
#: How long memory may take to come to rest, and how long it has to be at rest: longer than any server's tick.
SETTLE_SECONDS, REST_SECONDS = 8.0, 2.5


@dataclass(frozen=True)
class Pace:
    rounds: int
    seconds: float
    starts: int = STARTS
    rest_seconds: float = REST_SECONDS


def run(scenario: Scenario, ground: Ground, pace: Pace) -> Outcome:
    outcome = Outcome(scenario)
    kinds: dict[str, Callable[[Outcome, Ground, Pace], None]] = {
        "throughput": _throughput,
        "growth": _growth,
        "idle": _held,
        "tunnels": _held,
        "start": _start,
    }
    kinds[scenario.kind](outcome, ground, pace)
    return outcome


# --- throughput ------------------------------------------------------------------------------------------------------


def _throughput(outcome: Outcome, ground: Ground, pace: Pace) -> None:
    scenario = outcome.scenario
    if _lacking(scenario.load, ground, outcome):
        return
    seconds = pace.seconds * scenario.longer
    with servers(scenario, ground, outcome.notes) as running:
        if scenario.load.share:
            _set_rate(running, scenario.load, ground, seconds, outcome)
        for turn in range(pace.rounds):
            # Every other round the other way round, so that a drift of the machine hits nobody more.
            for server in running if turn % 2 == 0 else reversed(running):
                sample = _turn(server, scenario.load, ground, seconds)
                outcome.samples.setdefault(server.label, []).append(sample)
                _say(f"  {server.label:<14} {_figures(sample)}")


def _turn(server: Server, load: Load, ground: Ground, seconds: float) -> Sample:
    words = tools.command(load, server.aim, seconds, ground.programs, ground.directory)
    cpu = meters.Cpu(server.program.pid)
    text = output_of(words, machine.cores().load, seconds)
    spent = cpu.spent()
    sample = tools.parse(load, text)
    if sample["requests"] == 0:
        raise Failed(f"{server.label} answered nothing: {text[-500:]}")
    sample["cpu_us"] = spent / sample["requests"] * 1e6
    if server.log.exists():
        # A run writes a gigabyte of it otherwise; servers append, so they go on at the beginning.
        os.truncate(server.log, 0)
    return sample


def _set_rate(running: list[Server], load: Load, ground: Ground, seconds: float, outcome: Outcome) -> None:
    """Gives every server the same rate: a share of the most that an nginx does in a closed loop."""
    closed = replace(load, tool="wrk", share=0.0)
    peaks = [
        _turn(server, closed, ground, seconds)["rps"] for server in running if server.contender.peer.startswith("nginx")
    ]
    if not peaks:
        raise Failed("no nginx to take the rate from")
    rate = max(peaks) * load.share
    outcome.notes.append(f"{rate:.0f} requests/s, {load.share:.0%} of nginx's peak of {max(peaks):.0f}")
    for server in running:
        server.aim = replace(server.aim, rate=rate)


# --- memory ----------------------------------------------------------------------------------------------------------


def _growth(outcome: Outcome, ground: Ground, pace: Pace) -> None:
    """Resident memory under load, with few and with many connections."""
    scenario = outcome.scenario
    if _lacking(scenario.load, ground, outcome):
        return
    steps = _steps(scenario, outcome)
    for alone in _one_by_one(scenario):
        with servers(alone, ground, outcome.notes) as running:
            for server in running:
                sample: Sample = {"start_kb": meters.resident_kb(server.program.pid), "failed": 0}
                sizes = []
                for count in steps:
                    size, failed = _loaded(server, replace(scenario.load, connections=count), ground, 2 * pace.seconds)
                    sizes.append(size)
                    sample["failed"] += failed
                sample["connection_kb"] = (sizes[-1] - sizes[0]) / (steps[-1] - steps[0])
                _keep(outcome, server.label, sample, f"{_joined(steps)} connections: {_joined(sizes)} KB")


def _loaded(server: Server, load: Load, ground: Ground, seconds: float) -> tuple[int, float]:
    """Resident memory towards the end of a load, and what failed."""
    words = tools.command(load, server.aim, seconds, ground.programs, ground.directory)
    process = spawn(words, machine.cores().load, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        time.sleep(seconds * 0.8)
        size = meters.resident_kb(server.program.pid)
        text = process.communicate(timeout=seconds + 60)[0].decode(errors="replace")
    finally:
        stop(process)
    return size, tools.parse(load, text)["failed"]


def _held(outcome: Outcome, ground: Ground, pace: Pace) -> None:
    """Resident memory with connections, or WebSockets, that stay open and silent."""
    scenario = outcome.scenario
    if ground.programs.load is None:
        outcome.notes.append(f"SKIPPED: bench: {scenario.name}: bench-load is not built")
        return
    steps = _steps(scenario, outcome)
    for alone in _one_by_one(scenario):
        with servers(alone, ground, outcome.notes) as running:
            for server in running:
                start = meters.resident_kb(server.program.pid)
                before, points = meters.kernel_kb(), []
                with _holder(server, scenario, ground) as hold:
                    for count in steps:
                        hold(count)
                        points.append((_settled(server.program.pid, pace.rest_seconds), meters.kernel_kb()))
                sample = _slopes(steps, points)
                sample["start_kb"] = start
                sizes = [size for size, _ in points]
                slab = [kernel["slab"] - before["slab"] for _, kernel in points]
                text = f"{_joined(steps)} held: {_joined(sizes)} KB resident, {_joined(slab)} KB of slab; "
                _keep(outcome, server.label, sample, text + _extrapolated(steps[-1], sizes[-1], slab[-1], sample))


def _extrapolated(held: int, size: int, slab: int, sample: Sample) -> str:
    more = MANY - held
    resident = (size + more * sample["connection_kb"]) / 1024
    kernel = (slab + more * sample["kernel_kb"]) / 1024
    take = "would take" if more > 0 else "take"
    return f"{MANY:,} {take} {resident:,.0f} MB and {kernel:,.0f} MB of slab"


def _slopes(steps: tuple[int, ...], points: list[tuple[int, dict[str, int]]]) -> Sample:
    """KB for each connection between the first and the last step."""
    (first, kernel_first), (last, kernel_last) = points[0], points[-1]
    more = steps[-1] - steps[0]
    return {
        "connection_kb": (last - first) / more,
        "kernel_kb": (kernel_last["slab"] - kernel_first["slab"]) / more,
        "socket_kb": (kernel_last["sockets"] - kernel_first["sockets"]) / more,
        "failed": 0,
    }


@contextmanager
def _holder(server: Server, scenario: Scenario, ground: Ground) -> Iterator[Callable[[int], None]]:
    """A program that opens connections up to the number it is told, and keeps them until it is ended."""
    what = "ws" if scenario.kind == "tunnels" else ("tls" if server.aim.setup.tls else "plain")
    words = [str(ground.programs.load), "hold", "--what", what, "--address", f"127.0.0.1:{server.aim.port}"]
    process = spawn(words, machine.cores().load, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def hold(count: int) -> None:
        assert process.stdin and process.stdout
        process.stdin.write(f"{count}\n".encode())
        process.stdin.flush()
        line = process.stdout.readline()
        told = json.loads(line) if line else {"open": 0, "error": "the holder ended"}
        if told["open"] != count:
            why = f"{told.get('error')}; {server.program.tail()}"
            raise Failed(f"{server.label}: {told['open']} of {count} connections could be held: {why}")

    try:
        yield hold
    finally:
        stop(process)


def _settled(pid: int, rest_seconds: float) -> int:
    """Resident memory once it no longer changes."""
    end, last, since = time.monotonic() + SETTLE_SECONDS, -1, time.monotonic()
    while time.monotonic() < end:
        now = meters.resident_kb(pid)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > rest_seconds:
            break
        time.sleep(0.1)
    return last


# --- start -----------------------------------------------------------------------------------------------------------


def _start(outcome: Outcome, ground: Ground, pace: Pace) -> None:
    for contender in outcome.scenario.contenders:
        if ground.programs.of(contender.peer) is None:
            outcome.notes.append(f"SKIPPED: bench: {outcome.scenario.name}: {contender.peer} is not installed")
            continue
        # Once beforehand, so that everybody's files are in the page cache.
        _first_byte(contender, ground)
        outcome.samples[contender.label] = []
    for _ in range(pace.starts):
        for contender in outcome.scenario.contenders:
            if contender.label in outcome.samples:
                outcome.samples[contender.label].append(_first_byte(contender, ground))


def _first_byte(contender: Contender, ground: Ground) -> Sample:
    possible = machine.connections_possible(contender.setup.connections, bool(contender.setup.upstream))
    setup = replace(contender.setup, connections=possible)
    place = ground.place(contender.label, "")
    launch = peers.launch(replace(contender, setup=setup), place, ground.programs)
    for name, text in launch.files.items():
        (place.directory / name).write_text(text)
    begun = time.perf_counter()
    program = Program(launch.command, machine.cores().server, place.directory / "output.log", launch.environment)
    try:
        if not probe.first_byte(place.plain_port, 20):
            raise Failed(f"{contender.label} does not answer: {program.tail()}")
        took = time.perf_counter() - begun
        return {"first_byte_ms": took * 1e3, "start_kb": meters.resident_kb(program.pid), "failed": 0}
    finally:
        program.stop()


# --- what they share -------------------------------------------------------------------------------------------------


def _one_by_one(scenario: Scenario) -> Iterator[Scenario]:
    """The scenario for one contender after the other, so that the kernel's memory is nobody else's."""
    for contender in scenario.contenders:
        yield replace(scenario, contenders=(contender,))


def _steps(scenario: Scenario, outcome: Outcome) -> tuple[int, ...]:
    """The connection counts, scaled down to what the machine's limits allow."""
    wanted = scenario.steps[-1]
    # The server has some descriptors for connections beside those that are counted.
    most = max(it.setup.connections for it in scenario.contenders)
    proxied = any(it.setup.upstream for it in scenario.contenders)
    possible = wanted - most + machine.connections_possible(most, proxied)
    if possible < wanted:
        outcome.notes.append(f"scaled down from {wanted} to {possible} connections: descriptors or ports do not allow more")
    return tuple(step * possible // wanted for step in scenario.steps)


def _lacking(load: Load, ground: Ground, outcome: Outcome) -> bool:
    program = tools.missing(load, ground.programs)
    if program:
        outcome.notes.append(f"SKIPPED: bench: {outcome.scenario.name}: {program} is not installed")
    return program is not None


def _keep(outcome: Outcome, label: str, sample: Sample, note: str) -> None:
    outcome.samples.setdefault(label, []).append(sample)
    outcome.notes.append(f"{label}: {note}")
    _say(f"  {label:<14} {note}")


def _figures(sample: Sample) -> str:
    text = f"{sample['rps']:>9.0f}/s {sample['cpu_us']:>9.2f} us"
    return text + (f" p50 {sample['p50_us']:.0f} p99 {sample['p99_us']:.0f} us" if "p50_us" in sample else "")


def _joined(numbers: tuple[int, ...] | list[int]) -> str:
    return " / ".join(map(str, numbers))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


