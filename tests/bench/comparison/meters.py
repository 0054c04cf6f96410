"""What a process tree has used, from /proc: CPU time by thread to the nanosecond, resident memory, and the kernel's share."""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")


def tree(root: int) -> set[int]:
    """The process and everything below it."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(f"/proc/{entry}/stat")
            if fields:
                parents[int(entry)] = int(fields[1])
    family = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return family
        family |= more


class Cpu:
    """CPU seconds (user and system) that the tree uses from now on.

    Threads are read one by one because a process's own counter moves in steps of 10 ms. A thread that ends in between
    is counted by the step of its process.
    """

    def __init__(self, root: int) -> None:
        self._pids = tree(root)
        self._threads = _threads(self._pids)
        self._coarse = _coarse(self._pids)

    def spent(self) -> float:
        now = _threads(self._pids)
        if not now or any(thread not in now for thread in self._threads):
            return _coarse(self._pids) - self._coarse
        return sum(seconds - self._threads.get(thread, 0.0) for thread, seconds in now.items())


def resident_kb(root: int) -> int:
    """VmRSS of the tree."""
    return sum(
        int(match[1]) for pid in tree(root) if (match := re.search(r"VmRSS:\s+(\d+)", _read(f"/proc/{pid}/status")))
    )


def kernel_kb() -> dict[str, int]:
    """What the kernel holds for everybody: slab (sockets, files, epoll items) and the pages of TCP buffers."""
    slab = re.search(r"^Slab:\s+(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    pages = re.search(r"^TCP:.* mem (\d+)", _read("/proc/net/sockstat"), re.MULTILINE)
    return {"slab": int(slab[1]) if slab else 0, "sockets": int(pages[1]) * PAGE_KB if pages else 0}


def _threads(pids: set[int]) -> dict[tuple[int, str], float]:
    found = {}
    for pid in pids:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            text = _read(f"/proc/{pid}/task/{thread}/schedstat")
            if text:
                found[(pid, thread)] = int(text.split()[0]) / 1e9
    return found


def _coarse(pids: set[int]) -> float:
    total = 0
    for pid in pids:
        fields = _stat(f"/proc/{pid}/stat")
        if fields:
            total += int(fields[11]) + int(fields[12])
    return total * _TICK_SECONDS


def _stat(path: str) -> list[str]:
    """The fields behind the name, which may hold spaces and brackets."""
    text = _read(path)
    return text.rsplit(")", 1)[1].split() if ")" in text else []


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
