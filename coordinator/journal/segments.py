"""The bytes of large arrays, in files beside the journal's index.

Why it exists: a reply's arrays go to disk as they come, many replies into one file, since making a file and
making it durable cost the same for one megabyte as for sixty. Which reply a region belongs to stands in the
index alone: bytes that no entry names are of a reply that never became whole, and go with their file. What an
entry names stays: the volume is the only bound, and one that is full is waited for (`room`).
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Collection, Sequence
from pathlib import Path

from federation import durable
from federation.flower import arrays as flower_arrays

SEGMENT_BYTES = 64 * 1024 * 1024
"""A file that has so many bytes takes no more regions; one reply may make it larger."""

_NAME = re.compile(r"segment-(\d{8})")


class Region(flower_arrays.SpoolRegion):
    """A run of bytes that can be found again: in which segment, and where."""

    __slots__ = ("__weakref__", "number")

    def __init__(self, file: flower_arrays.SpoolFile, offset: int, length: int, number: int) -> None:
        """Use Segments.allocate."""
        super().__init__(file, offset, length)
        self.number = number


class Segments:
    """The files of one journal. Any thread may allocate; regions are written and read by whoever has them."""

    def __init__(self, directory: Path) -> None:
        """Go on after the files that are there. Raises: OSError."""
        self._directory = directory
        durable.make_directory(directory, mode=0o700)
        self._lock = threading.Lock()
        self._files: dict[int, flower_arrays.SpoolFile] = {}
        self._newest = max(self.numbers(), default=0)
        self._current: flower_arrays.SpoolFile | None = None
        self._current_number = 0
        self._unnamed: dict[int, weakref.WeakValueDictionary[int, Region]] = {}
        """Regions that somebody fills, and no entry names yet, by segment."""

    def allocate(self, length: int) -> Region:
        """Set bytes aside for one array. Raises: OSError."""
        with self._lock:
            if self._current is None or self._current.size >= SEGMENT_BYTES:
                self._current, self._current_number = self._begin(), self._newest
            return self._set_aside(self._current, self._current_number, length)

    def allocate_apart(self, lengths: Sequence[int]) -> list[Region]:
        """Set bytes aside in a segment of their own, which is kept or goes as a whole. Raises: OSError."""
        with self._lock:
            file = self._begin()
            return [self._set_aside(file, self._newest, length) for length in lengths]

    def allocate_alone(self, length: int, number: int | None) -> Region:
        """Set bytes aside in the segment `number`, of which nobody else has any. Raises: OSError.

        None, or one that is gone, begins another. `drop` gives its room back, unlike that of a shared one.
        """
        with self._lock:
            file = None if number is None else self._files.get(number)
            if number is None or file is None:
                file, number = self._begin(), self._newest
            return self._set_aside(file, number, length)

    def _begin(self) -> flower_arrays.SpoolFile:
        """Make the next segment. With the lock held."""
        self._newest += 1
        made = flower_arrays.SpoolFile.create(self._path(self._newest))
        durable.sync(self._directory)  # its name; its bytes are made durable by `sync`
        self._files[self._newest] = made
        return made

    def _set_aside(self, file: flower_arrays.SpoolFile, number: int, length: int) -> Region:
        return self._filled(Region(file, file.allocate(length).offset, length, number))

    def _filled(self, region: Region) -> Region:
        self._unnamed.setdefault(region.number, weakref.WeakValueDictionary())[region.offset] = region
        return region

    def named(self, number: int, offset: int) -> None:
        """An entry names the region that begins there."""
        with self._lock:
            if number in self._unnamed:
                self._unnamed[number].pop(offset, None)

    def keep_only(self, named: Collection[int]) -> None:
        """Remove segments that no entry names, but for those that somebody still fills for one."""
        with self._lock:
            for number in self.numbers():
                if number not in named and not self._unnamed.get(number):
                    self._drop(number)

    def find(self, number: int, offset: int, length: int) -> Region:
        """Return a region that an earlier process wrote. Raises: OSError if its file is gone or too short."""
        with self._lock:
            file = self._opened(number)
        if offset + length > file.size:
            raise EOFError(
                f"{self._path(number).name} has {file.size} bytes, {offset + length} are looked for"
            )
        return Region(file, offset, length, number)

    def take_up(self, number: int, offset: int, length: int) -> Region:
        """Return a region that an earlier process began to fill, to be filled further.

        Raises: OSError if its file is gone; EOFError if nothing was written there.
        """
        with self._lock:
            file = self._opened(number, to_write=True)
            if offset >= file.size:
                raise EOFError(f"{self._path(number).name} has {file.size} bytes, {offset} are looked for")
            file.reserve(offset + length)
            return self._filled(Region(file, offset, length, number))

    def _opened(self, number: int, *, to_write: bool = False) -> flower_arrays.SpoolFile:
        """Return the file of a segment that there is. With the lock held. Raises: OSError."""
        file = self._files.get(number)
        if file is None or file.closed or (to_write and not file.writable):
            file = self._files[number] = flower_arrays.SpoolFile.open(self._path(number), to_write=to_write)
        return file

    def sync(self, numbers: Collection[int]) -> None:
        """Make what was written to these segments outlive the machine's power. Raises: OSError."""
        for number in sorted(numbers):
            with self._lock:
                file = self._files.get(number)
            if file is not None:
                file.sync()

    def numbers(self) -> list[int]:
        """The segments that there are, ascending."""
        found = (number_of(path) for path in self._directory.iterdir())
        return sorted(number for number in found if number is not None)

    def drop(self, numbers: Collection[int]) -> None:
        """Remove segments; whoever still reads one keeps it until then."""
        with self._lock:
            for number in numbers:
                self._drop(number)

    def _drop(self, number: int) -> None:
        if number == self._current_number:
            self._current = None
        self._files.pop(number, None)
        self._unnamed.pop(number, None)
        self._path(number).unlink(missing_ok=True)

    def _path(self, number: int) -> Path:
        return self._directory / name_of(number)


def name_of(number: int) -> str:
    """Return the name of a segment's file."""
    return f"segment-{number:08d}"


def number_of(path: Path) -> int | None:
    """Return the number of a segment by its file; None for other files."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else None
