"""The machine: its cores, its limits, and the line that says what it is."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))

#: Descriptors that are left to everything that is no connection, and what is kept for each connection.
SPARE, EACH = 1024, 2
#: What the largest scenario takes; who may raise the hard limit does.
WANTED = 204_000
#: Connections that every machine is expected to have room for.
FEW = 64


@dataclass(frozen=True)
class Cores:
    """Which cores the servers and the load may use. With one core they share it, and the figures say little."""

    server: frozenset[int]
    load: frozenset[int]
    every: frozenset[int]


def cores() -> Cores:
    return Cores(frozenset(_CORES[:1]), frozenset(_CORES[-1:]), frozenset(_CORES))


def descriptors() -> int:
    """Raises the limits as far as they go, and as far as anybody needs, and returns what came of it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < WANTED:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (WANTED, WANTED))
            return WANTED
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else 1_000_000


def ephemeral_ports() -> int:
    """Connections that one client address can have to one port."""
    try:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):
        return 28_000
    return high - low


def connections_possible(wanted: int, proxied: bool) -> int:
    """How many of `wanted` client connections fit. Servers refuse to promise more than they have descriptors for.

    Proxied or not, miwid keeps two descriptors for each. A proxied one takes a port of the one address that the server
    has; clients have as many as they like: whoever holds connections comes from several addresses.
    """
    room = (descriptors() - SPARE) // EACH
    return min(wanted, max(min(room, ephemeral_ports() - 1000) if proxied else room, FEW))


def describe() -> dict[str, str | int]:
    model = re.search(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s+(\d+)", _read("/proc/meminfo"))
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(_CORES),
        "memory_mb": int(memory[1]) // 1024 if memory else 0,
        "kernel": platform.release(),
        "descriptors": descriptors(),
    }


def line(machine: dict[str, str | int]) -> str:
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_mb']} MB, Linux {machine['kernel']}, "
        f"{machine['descriptors']} descriptors"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
