"""Replies that have come in part, so that the next aggregator goes on where this one was.

Why it exists: a large reply takes minutes on a slow link, and what came of it lies in a segment already. A
record says where, how far it came, and what is needed to go on. It is a help and no promise, so nothing waits
for the disk here: who takes a record up reads all the bytes that it names and compares their digests
(`transfers.Incoming.go_on`), and one that is torn, or says what is not so, is as good as none. A client has
one at most. Nothing of it stands in the index, and a version that does not know these files passes them over.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import pydantic

from coordinator.journal import entries
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.wire import transfers

log = logs.get_logger(__name__)

MAXIMUM_BYTES = 16 * 1024 * 1024
"""Of a record's file; those that are written are far shorter."""

HEAD_BYTES = 1024 * 1024
"""A reply with a longer header has no record, which would be written again and again."""

_NAME = re.compile(r"reply-([0-9a-f]{16})")


class Record(entries.Entry):
    """What came of a reply. The attachment is the head of its stream, then its small arrays.

    position: how far it came; unverified: transfers.Part's, hexadecimal.
    alone: its segments have nothing else in them. arrays: those that have begun to come.
    """

    cluster: str
    node: Annotated[int, pydantic.Field(ge=0, lt=2**64)]
    transfer_id: str
    total_bytes: entries.FilePlace
    position: entries.FilePlace
    unverified: Annotated[str, pydantic.Field(pattern=r"^([0-9a-f]{64})?$")]
    head_bytes: Annotated[int, pydantic.Field(ge=0, le=HEAD_BYTES)]
    alone: bool
    arrays: tuple[entries.StoredArray, ...]

    def part(self, attachment: bytes) -> transfers.Part:
        """Return the part of the transfer that it is a record of."""
        return transfers.Part(
            transfer_id=self.transfer_id,
            total_bytes=self.total_bytes,
            position=self.position,
            head=attachment[: self.head_bytes],
            unverified=bytes.fromhex(self.unverified),
        )


class Unfinished:
    """The records of one journal. Any thread may call."""

    def __init__(self, directory: Path, usable: Callable[[Record], bool] = lambda _: True) -> None:
        """Remove what is torn or not usable; without a record there is no directory."""
        self._directory = directory
        self._lock = threading.Lock()
        self._kept: dict[int, tuple[str, frozenset[int]]] = {}
        """Of which transfer a node's record is, and the segments that it names."""
        self._over = False
        paths: list[Path] = []
        with contextlib.suppress(OSError):
            paths = list(directory.iterdir())
        for path in paths:
            node = _node_of(path)
            found = None if node is None else _read(path)
            if found is not None and found[0].node == node and usable(found[0]):
                self._kept[found[0].node] = _index(found[0])
            else:
                with contextlib.suppress(OSError):  # a directory, say
                    path.unlink()

    def read(self) -> Iterator[tuple[Record, bytes]]:
        """Yield the records with their attachments."""
        with self._lock:
            nodes = list(self._kept)
        for node in nodes:
            if (found := _read(self._path(node))) is not None:
                yield found

    def segments(self) -> set[int]:
        """The segments that records name."""
        with self._lock:
            return set().union(*(segments for _, segments in self._kept.values()))

    def put(self, record: Record, attachment: bytes) -> None:
        """Write a record in the place of the node's last one; if there is no room, that one stays."""
        line = record.model_dump_json()
        checksum = entries.checksum(line, attachment)
        new = self._directory / "new"
        with self._lock, contextlib.suppress(OSError):
            if self._over:
                return
            self._directory.mkdir(mode=0o700, exist_ok=True)
            try:
                new.write_bytes(b"%08x %s\n%s" % (checksum, line.encode(), attachment))
                new.replace(self._path(record.node))
            except OSError:
                new.unlink(missing_ok=True)
                raise
            self._kept[record.node] = _index(record)
        failpoints.reach("aggregator.part-kept")

    def is_of(self, node: int, transfer_id: str) -> bool:
        """Whether the node's record is of this transfer."""
        kept = self._kept.get(node)
        return kept is not None and kept[0] == transfer_id

    def forget(self, node: int, transfer_id: str | None = None) -> None:
        """Remove the node's record, if there is one; or only if it is of this transfer."""
        if node not in self._kept:
            return
        with self._lock:
            kept = self._kept.get(node)
            if kept is not None and transfer_id in (None, kept[0]):
                del self._kept[node]
                with contextlib.suppress(OSError):
                    self._path(node).unlink()

    def keep_only(self, wanted: Callable[[int, str], bool]) -> None:
        """Remove the records of transfers that nobody waits for any more."""
        for node, (transfer_id, _) in list(self._kept.items()):
            if not wanted(node, transfer_id):
                self.forget(node, transfer_id)

    def end(self) -> None:
        """Remove all of them, and write none any more."""
        with self._lock:
            self._over = True
        self.keep_only(lambda *_: False)

    def _path(self, node: int) -> Path:
        return self._directory / f"reply-{node:016x}"


def _index(record: Record) -> tuple[str, frozenset[int]]:
    return record.transfer_id, frozenset(array.segment for array in record.arrays if array.segment)


def _node_of(path: Path) -> int | None:
    match = _NAME.fullmatch(path.name)
    return int(match[1], 16) if match else None


def _read(path: Path) -> tuple[Record, bytes] | None:
    """Read a record; None for what is none."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            data = file.read(MAXIMUM_BYTES + 1)
        checksum, _, said = data.partition(b" ")
        line, _, attachment = said.partition(b"\n")
        if len(data) > MAXIMUM_BYTES or checksum != b"%08x" % entries.checksum(line.decode(), attachment):
            return None
        return Record.model_validate_json(line), attachment
    except (OSError, ValueError) as error:
        log.info("record of a reply not readable", path=str(path), error=str(error))
        return None
