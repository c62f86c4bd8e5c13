"""Reading a journal without being in its way: what happened, and whether it is whole.

Why it exists: `book` cuts back what is damaged and makes a journal ready to be written. This only looks. It
copies the index and reads the copy, so it takes no lock, makes no file beside the journal and works on a
read-only volume, and while an aggregator writes.

What SQLite wrote last stands in a file of its own (-wal) until it is moved into the index. Both are copied.
As long as the log has not begun anew meanwhile, every page that changed in the index is in the log as well,
and the copies say the same as the files. What an entry means for the training is not known here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from coordinator.journal import book, entries, schema, segments
from federation.wire import digests

ATTEMPTS = 20
"""The log begins anew every few megabytes; one copy in so many falls between two such moments."""

_WAL_HEADER_BYTES = 32
_READ_BYTES = 1024 * 1024


class JournalUnreadable(Exception):
    """There is no journal, or nothing of it can be read; the message is a part of a sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One entry as it stands in the index.

    entry: what it says; None if it is not what was written, or of a kind that this version does not know.
    kind: which kind of entry it says it is. whole: whether its checksum holds. size_bytes: of the entry with
    its attachment.
    """

    number: int
    entry: entries.Any | None
    kind: str
    whole: bool
    size_bytes: int

    @property
    def known(self) -> bool:
        """Whether this version can read it."""
        return self.entry is not None


@dataclasses.dataclass(frozen=True, slots=True)
class Journal:
    """What stands in a journal. broken: why the index could not be read to its end; empty if it could."""

    directory: Path
    facts: Mapping[str, str]
    lines: Sequence[Line]
    index_bytes: int
    segments: Mapping[int, int]
    """The files of arrays: how many bytes each has, by number."""
    broken: str = ""


def read(directory: Path) -> Journal:
    """Read a journal's index. Raises: JournalUnreadable."""
    index = directory / book.INDEX
    try:
        with tempfile.TemporaryDirectory(prefix="hanse-journal-") as temporary:
            copy = Path(temporary) / book.INDEX
            _copy(index, copy)
            size = sum(path.stat().st_size for path in Path(temporary).iterdir())
            facts, lines, broken = _contents(copy, index)
        return Journal(directory, facts, lines, size, _segments(directory / book.ARRAYS), broken)
    except FileNotFoundError as error:
        raise JournalUnreadable(f"{error.filename or directory}: there is no journal") from error
    except OSError as error:
        raise JournalUnreadable(f"{error.filename or directory}: {error.strerror or error}") from error


def why_not_found(journal: Journal, array: entries.StoredArray) -> str:
    """Say what is wrong with the bytes of an array that lies in a segment; empty: nothing."""
    name = segments.name_of(array.segment)
    hasher, offset, left = digests.start(), array.offset, array.length
    try:
        with open(journal.directory / book.ARRAYS / name, "rb", buffering=0, opener=_open) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return f"{name} is no file"
            while left:
                data = os.pread(file.fileno(), min(left, _READ_BYTES), offset)
                if not data:
                    return f"{name} ends {left} bytes too early"
                hasher.update(data)
                offset, left = offset + len(data), left - len(data)
    except OSError as error:
        return f"{name}: {error.strerror or error}"
    got = hasher.digest(digests.DIGEST_BYTES).hex()
    return "" if got == array.digest else f"{name} holds other bytes than were received"


def _open(path: str, flags: int) -> int:
    """Open without waiting for somebody who writes, should it be a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _copy(index: Path, to: Path) -> None:
    log, log_copy = _log_of(index), _log_of(to)
    for _ in range(ATTEMPTS):
        before = _epoch(index, log)
        shutil.copyfile(index, to)
        log_copy.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(log, log_copy)
        if _epoch(index, log) == before:
            return
    raise JournalUnreadable(f"{index}: it is written to faster than it can be read; try again")


def _log_of(index: Path) -> Path:
    return index.with_name(f"{index.name}-wal")


def _epoch(index: Path, log: Path) -> object:
    """What changes when the log begins anew: its header. Without a log, what changes with the index."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        if header := file.read(_WAL_HEADER_BYTES):
            return header
    found = index.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _contents(copy: Path, index: Path) -> tuple[dict[str, str], list[Line], str]:
    lines: list[Line] = []
    with contextlib.closing(sqlite3.connect(copy)) as connection:
        try:
            schema.distrust(connection)
            if why := schema.why_not(connection):
                raise JournalUnreadable(f"{index}: {why}")
            facts = dict(connection.execute("select name, value from facts order by name"))
        except sqlite3.DatabaseError as error:
            raise JournalUnreadable(f"{index}: {error}") from error
        if not all(isinstance(said, str) for fact in facts.items() for said in fact):
            raise JournalUnreadable(f"{index}: its facts are no words")
        try:
            for number, row in schema.rows(connection):
                if row is None:
                    lines.append(Line(number if type(number) is int else 0, None, "", False, 0))
                else:
                    lines.append(_line(*row))
        except sqlite3.DatabaseError as error:
            return facts, lines, str(error)
    return facts, lines, ""


def _line(number: int, line: str, attachment: bytes, checksum: int) -> Line:
    whole = entries.checksum(line, attachment) == checksum
    kind, entry = "", None
    with contextlib.suppress(ValueError, RecursionError):
        said: Any = json.loads(line)
        kind = str(said.get("entry", "")) if isinstance(said, dict) else ""
        with contextlib.suppress(pydantic.ValidationError):
            entry = entries.read(line)
    return Line(number, entry if whole else None, kind, whole, len(line.encode()) + len(attachment))


def _segments(directory: Path) -> dict[int, int]:
    try:
        found = [(segments.number_of(path), path) for path in sorted(directory.iterdir())]
    except FileNotFoundError:
        return {}
    sizes: dict[int, int] = {}
    for number, path in found:
        if number is not None:
            with contextlib.suppress(FileNotFoundError):  # dropped meanwhile
                sizes[number] = path.stat().st_size
    return sizes
