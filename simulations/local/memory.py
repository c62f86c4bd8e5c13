"""How much memory each process of a simulation used at its peak.

Why it exists: the report names the peak of every process, and a process that was killed cannot say it
itself. The kernel keeps the high-water mark for as long as the process lives, so reading it now and then
is enough. Linux only; elsewhere the report has no memory figures.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

_HIGH_WATER = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_PROC = Path("/proc")


class PeakMemory:
    """The highest resident memory seen of each named process below one parent, in bytes."""

    def __init__(self) -> None:
        self._peaks: dict[str, int] = {}

    def sample_children(self) -> None:
        """Read the high-water mark of every descendant of this process."""
        for pid in descendants(os.getpid()):
            name = process_name(pid)
            peak = high_water_bytes(pid)
            if name and peak:
                self._peaks[name] = max(self._peaks.get(name, 0), peak)

    def by_process(self) -> dict[str, int]:
        """The peaks so far, by process name, in name order."""
        return dict(sorted(self._peaks.items()))


def descendants(pid: int) -> Iterator[int]:
    """Every living descendant of a process, parents before children."""
    try:
        children = (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()
    except OSError:
        return
    for child in children:
        yield int(child)
        yield from descendants(int(child))


def high_water_bytes(pid: int) -> int | None:
    """The kernel's high-water mark of resident memory, or None if the process is gone."""
    try:
        found = _HIGH_WATER.search((_PROC / str(pid) / "status").read_text())
    except OSError:
        return None
    return int(found.group(1)) * 1024 if found else None


def process_name(pid: int) -> str | None:
    """What the process calls itself in HANSE_PROCESS, the name its log and its memory are filed under."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(b"HANSE_PROCESS="):
            return entry.partition(b"=")[2].decode(errors="replace")
    return None
