"""The load tools: the command for a load, and the figures out of what the tool prints. Pure, but for the script for wrk."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .model import Load, Sample, Setup
from .peers import Programs

_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True)
class Aim:
    """Where a load goes."""

    plain_port: int
    tls_port: int
    setup: Setup
    #: For conditional requests, the tag that the server gave.
    entity_tag: str = ""
    #: For the open loop, requests a second.
    rate: float = 0.0

    @property
    def port(self) -> int:
        return self.tls_port if self.setup.tls else self.plain_port

    @property
    def scheme(self) -> str:
        return "https" if self.setup.tls else "http"


def missing(load: Load, programs: Programs) -> str | None:
    """The program that this load needs and that is not there."""
    needed = {"wrk": ("wrk", programs.wrk), "h2load": ("h2load", programs.h2load)}
    name, program = needed.get(load.tool, ("bench-load", programs.load))
    return None if program else name


def command(load: Load, aim: Aim, seconds: float, programs: Programs, directory: Path) -> list[str]:
    if load.tool == "wrk":
        return _wrk(load, aim, seconds, programs, directory)
    if load.tool == "h2load":
        return _h2load(load, aim, seconds, programs)
    return _own(load, aim, seconds, programs)


def parse(load: Load, text: str) -> Sample:
    """Requests, requests a second, failures and, where the tool tells, percentiles."""
    if load.tool == "wrk":
        return parse_wrk(text)
    return parse_h2load(text) if load.tool == "h2load" else parse_own(text)


def _wrk(load: Load, aim: Aim, seconds: float, programs: Programs, directory: Path) -> list[str]:
    # wrk takes whole seconds.
    whole = max(1, round(seconds))
    words = [str(programs.wrk), "-t1", f"-c{load.connections}", f"-d{whole}s", "--latency"]
    headers = [*load.headers, ("Host", aim.setup.host)]
    if aim.entity_tag:
        headers.append(("If-None-Match", aim.entity_tag))
    for name, value in headers:
        words += ["-H", f"{name}: {value}"]
    if load.post_bytes:
        script = directory / "post.lua"
        script.write_text(f'wrk.method = "POST"\nwrk.body = string.rep("x", {load.post_bytes})\n')
        words += ["-s", str(script)]
    return [*words, f"{aim.scheme}://127.0.0.1:{aim.port}{load.path}"]


def _h2load(load: Load, aim: Aim, seconds: float, programs: Programs) -> list[str]:
    # Windows of 1 MB a stream and 16 MB a connection, so that the client is not the limit.
    words = [str(programs.h2load), "-t1", f"-c{load.connections}", f"-m{load.streams}", f"-D{max(1, round(seconds))}"]
    # The name that is asked for stays the address: a `host` beside `:authority` is refused, and rightly.
    words += ["-w20", "-W24"]
    for name, value in load.headers:
        words += ["-H", f"{name}: {value}"]
    return [*words, f"{aim.scheme}://127.0.0.1:{aim.port}{load.path}"]


def _own(load: Load, aim: Aim, seconds: float, programs: Programs) -> list[str]:
    words = [str(programs.load), load.tool, "--address", f"127.0.0.1:{aim.port}", "--path", load.path]
    words += ["--seconds", f"{seconds:g}", "--connections", str(load.connections)]
    if load.tool == "h3":
        words += ["--streams", str(load.streams)]
    if load.tool == "open":
        words += ["--rate", f"{aim.rate:.0f}"]
    if load.tool == "connect":
        words += ["--handshake", load.handshake]
    return words


def parse_wrk(text: str) -> Sample:
    requests = int(_find(r"(\d+) requests in", text))
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    sample: Sample = {
        "requests": requests,
        "rps": float(_find(r"Requests/sec:\s+([\d.]+)", text)),
        "failed": (int(wrong[1]) if wrong else 0) + (sum(map(int, errors.groups())) if errors else 0),
    }
    for share, name in ((50, "p50_us"), (90, "p90_us"), (99, "p99_us")):
        found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
        if found:
            sample[name] = float(found[1]) * _UNITS[found[2]]
    return sample


def parse_h2load(text: str) -> Sample:
    done, _, _, timeouts = _numbers(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    # What is under way when the time is over is counted as failed, though nobody failed.
    wrong = _numbers(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    return {
        "requests": done,
        "rps": float(_find(r"finished in [\d.]+m?s, ([\d.]+) req/s", text)),
        "failed": sum(wrong) + timeouts,
    }


def parse_own(text: str) -> Sample:
    told = json.loads(text.splitlines()[-1])
    sample: Sample = {name: float(value) for name, value in told.items() if name != "seconds"}
    sample["rps"] = sample["requests"] / told["seconds"]
    return sample


def _find(pattern: str, text: str) -> str:
    return _match(pattern, text)[1]


def _numbers(pattern: str, text: str) -> list[int]:
    return [int(group) for group in _match(pattern, text).groups()]


def _match(pattern: str, text: str) -> re.Match[str]:
    found = re.search(pattern, text)
    if not found:
        raise ValueError(f"no {pattern!r} in what the tool said:\n{text[-1000:]}")
    return found
