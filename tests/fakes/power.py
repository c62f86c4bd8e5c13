"""The disks that a loss of power may leave, from what was asked of the disk (`recorder`). Pure but for `lay`.

What was synced is there. Of what was not, any part may be: each write by sectors, each change of a file's
length, each name made or removed in a directory. A name counts as synced with its directory alone, as POSIX
has it, or a file's with the file as well, as Linux's file systems have it. A length that came to the disk
without its bytes reads as zeros.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

SECTOR_BYTES = 512
"""What a disk writes as a whole or not at all."""


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A file or directory of this name was made."""

    path: str
    directory: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Unnamed:
    """A file's name was removed."""

    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class Renamed:
    """A file of this name has another one of the same directory, in the place of a file that had it."""

    path: str
    to: str


@dataclasses.dataclass(frozen=True, slots=True)
class Wrote:
    """Bytes were written into a file."""

    path: str
    offset: int
    data: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """A file has this length now."""

    path: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Synced:
    """What steps before number `until` did to this file, or to the names in this directory, is durable."""

    path: str
    until: int


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """Somebody was told something."""

    said: Any


Step = Named | Unnamed | Renamed | Wrote | Cut | Synced | Told


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """What comes to the disk as a whole or not at all: a name, a length, or a sector of a write."""

    step: int
    sector: int = -1  # which of a write, from its beginning; -1: all that is not a sector
    inode: int = 0


@dataclasses.dataclass
class _Inode:
    number: int
    synced: int = 0  # the steps before this one are durable
    steps: list[int] = dataclasses.field(default_factory=list)


Content = bytes | None
"""Of a file; None for a directory."""

Disk = dict[str, Content]
"""What is there, by path."""


class Past:
    """The first steps of a list, up to the moment at which the power goes."""

    def __init__(self, trace: Sequence[Step], until: int, *, files_keep_names: bool = False) -> None:
        """Find out which of them are durable.

        files_keep_names: who syncs a file has synced its name, too.
        """
        self._files_keep_names = files_keep_names
        self._directories = {step for step in trace if isinstance(step, Named) and step.directory}
        self._trace = trace[:until]
        self._inodes: list[_Inode] = [_Inode(0)]
        self._of: dict[int, _Inode] = {}
        self._names_synced: dict[str, int] = {}
        now: dict[str, _Inode] = {"": self._inodes[0]}
        for number, step in enumerate(self._trace):
            match step:
                case Named(path):
                    now[path] = _Inode(len(self._inodes))
                    self._inodes.append(now[path])
                    self._of[number] = now[path]
                case Unnamed(path):
                    self._of[number] = now.pop(path)
                case Renamed(path, to):
                    now[to] = self._of[number] = now.pop(path)
                case Wrote(path) | Cut(path):
                    now[path].steps.append(number)
                    self._of[number] = now[path]
                case Synced(path, until_step):
                    if path not in now:  # it was removed, and whoever had it open has synced it
                        continue
                    now[path].synced = max(now[path].synced, until_step)
                    self._names_synced[path] = now[path].synced
                case Told():
                    pass
        self.told = [step.said for step in self._trace if isinstance(step, Told)]
        """What was said until then, in order."""
        self.pending = self._pending()
        """What may be on the disk or not, in the order in which it was asked for."""

    def _pending(self) -> list[Unit]:
        units: list[Unit] = []
        for number, step in enumerate(self._trace):
            match step:
                case Named(path) | Unnamed(path) | Renamed(path):
                    synced = self._names_synced.get(_directory_of(path), 0)
                    of_a_file = not isinstance(step, Unnamed) and step not in self._directories
                    if self._files_keep_names and of_a_file:
                        synced = max(synced, self._of[number].synced)
                    if number >= synced:
                        units.append(Unit(number))
                case Wrote(_, offset, data) if number >= self._of[number].synced:
                    units.append(Unit(number))
                    first, last = offset // SECTOR_BYTES, (offset + len(data) - 1) // SECTOR_BYTES
                    units += [Unit(number, sector) for sector in range(last - first + 1)]
                case Cut() if number >= self._of[number].synced:
                    units.append(Unit(number))
                case _:
                    pass
        return units

    def disk(self, there: Callable[[Unit], bool]) -> Disk:
        """What is on the disk if of what is pending exactly this is there."""
        pending = {unit for unit in self.pending if not there(unit)}
        held: dict[int, bytearray] = {}
        names: dict[str, _Inode | None] = {}
        for number, step in enumerate(self._trace):
            match step:
                case Named(path, directory) if Unit(number) not in pending:
                    names[path] = None if directory else self._of[number]
                case Unnamed(path) if Unit(number) not in pending:
                    names.pop(path, None)
                case Renamed(path, to) if Unit(number) not in pending:
                    names.pop(path, None)
                    names[to] = self._of[number]
                case Wrote(_, offset, data):
                    content = held.setdefault(self._of[number].number, bytearray())
                    self._write(content, number, offset, data, pending)
                case Cut(_, size) if Unit(number) not in pending:
                    content = held.setdefault(self._of[number].number, bytearray())
                    content[size:] = bytes(max(0, size - len(content)))
                case _:
                    pass
        found: Disk = {}
        for path, inode in sorted(names.items()):
            if not (parent := _directory_of(path)) or parent in found:
                found[path] = None if inode is None else bytes(held.get(inode.number, b""))
        return found

    def _write(self, content: bytearray, number: int, offset: int, data: bytes, lost: set[Unit]) -> None:
        end = offset + len(data)
        if Unit(number) not in lost and len(content) < end:
            content.extend(bytes(end - len(content)))
        first = offset // SECTOR_BYTES
        for sector in range((end - 1) // SECTOR_BYTES - first + 1):
            if Unit(number, sector) in lost:
                continue
            begin = max(offset, (first + sector) * SECTOR_BYTES)
            stop = min(end, (first + sector + 1) * SECTOR_BYTES)
            if len(content) < stop:
                content.extend(bytes(stop - len(content)))
            content[begin:stop] = data[begin - offset : stop - offset]


def _directory_of(path: str) -> str:
    return path.rpartition("/")[0]


def whole(trace: Sequence[Step]) -> Disk:
    """The disk on which all is there."""
    return Past(trace, len(trace)).disk(lambda _: True)


def losses(past: Past, rng: random.Random, chances: int) -> Iterator[Disk]:
    """Disks that may be left: with all or nothing of what is pending, with or without each step, random."""
    pending = past.pending
    steps = sorted({unit.step for unit in pending})
    yield past.disk(lambda _: True)
    if not steps:
        return
    yield past.disk(lambda _: False)
    if len(steps) > 1:
        for one in steps:
            yield past.disk(lambda unit, one=one: unit.step == one)
            yield past.disk(lambda unit, one=one: unit.step != one)
    for _ in range(chances):
        share = rng.random()
        kept = {unit for unit in pending if rng.random() < share}
        yield past.disk(kept.__contains__)


def lay(disk: Disk, root: Path) -> None:
    """Write it into an empty directory. Raises: OSError."""
    for path, content in disk.items():
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


def read(root: Path) -> Disk:
    """Return what is in a directory, but for what `recorder` does not look at. Raises: OSError."""
    found = (path for path in sorted(root.rglob("*")) if not path.name.endswith("-shm"))
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in found}
