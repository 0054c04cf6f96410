"""Starting and stopping programs on their cores. Every one is ended by its own pid, also when the benchmark is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

STOP_SECONDS = 10.0


class Failed(Exception):
    """A program did not do what it was started for."""


class Refused(Failed):
    """A server would not have its configuration."""


class Program:
    """A program in the background, its output in a file."""

    def __init__(
        self, command: Sequence[str], cores: frozenset[int], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self.name = Path(command[0]).name
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = spawn(command, cores, stdout=output, stderr=output, env={**os.environ, **(environment or {})})

    @property
    def pid(self) -> int:
        return self.process.pid

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:].strip()

    def wait_until(self, ready: Callable[[], bool], seconds: float = 30.0) -> None:
        """Waits for a condition, and no longer than the program lives."""
        end = time.monotonic() + seconds
        while not ready():
            code = self.process.poll()
            if code is not None:
                kind = Refused if code == 6 else Failed
                raise kind(f"{self.name} ended with {code}: {self.tail()}")
            if time.monotonic() > end:
                raise Failed(f"{self.name} is not ready after {seconds:.0f} s: {self.tail()}")
            time.sleep(0.01)

    def stop(self) -> None:
        stop(self.process)


def spawn(command: Sequence[str], cores: frozenset[int], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a program on `cores`. It inherits them from us, so that no helper stands between us and its pid.

    A session of its own keeps the terminal's Ctrl-C from it: we end it ourselves.
    """
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        options.setdefault("stdin", subprocess.DEVNULL)
        process: subprocess.Popen[bytes] = subprocess.Popen(list(command), start_new_session=True, **options)
        return process
    finally:
        os.sched_setaffinity(0, ours)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Asks, waits, insists."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def output_of(command: Sequence[str], cores: frozenset[int], seconds: float) -> str:
    """Runs a program to its end and returns what it wrote; an error says what went wrong."""
    process = spawn(command, cores, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, errors = process.communicate(timeout=seconds + 60)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[0]} does not end") from None
    finally:
        stop(process)
    if process.returncode != 0:
        told = (errors or out).decode(errors="replace")[-1500:].strip()
        raise Failed(f"{Path(command[0]).name} ended with {process.returncode}: {told}")
    return out.decode(errors="replace")
