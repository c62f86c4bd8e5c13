"""A reply on its way in: its arrays go to a file of the journal's, the small ones stay in memory.

Why it exists: the aggregator's memory must not grow with the number of clients. What a reply means, and
whether it is acceptable, is not known here.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator

from flwr.app import Array

from coordinator.aggregation import events
from coordinator.journal import entries, room, segments, unfinished
from federation.flower import arrays as flower_arrays
from federation.wire import codec, transfers
from federation.wire import hanse_pb2 as pb

IN_MEMORY_BYTES = 16 * 1024
"""Smaller arrays are kept in memory: a bias vector is not worth a read from a file."""

BEGIN_SYNC_BYTES = 8 * 1024 * 1024
"""Arrays of up to so many bytes are on their way to the disk before anybody syncs their file, which a round
of a small model would wait for. With longer ones the disk's queue could fill, and whoever adds to it wait.
"""

_READ_BYTES = 1024 * 1024

IN_MEMORY_TOTAL_BYTES = 1024 * 1024
"""Of one reply; beyond that, small arrays go to the file as well."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """An array that goes to the file: its digest, and how long it is."""

    digest: bytes
    length: int


class Reply:
    """The arrays of one reply, by digest."""

    def __init__(self, files: segments.Segments, alone: bool = False) -> None:
        """Start without arrays; `alone` keeps them in a segment of their own, which goes if it is refused."""
        self._files = files
        self._alone = alone
        self._own_segments: list[int] = []
        self._regions: dict[bytes, segments.Region] = {}
        self._small: dict[bytes, bytearray] = {}
        self._small_bytes = 0
        self._unwritten: collections.deque[tuple[_Place, int, bytes]] = collections.deque()
        self._there: set[bytes] = set()
        """Arrays whose bytes are given again, and lie where they go; see `go_on`."""
        self.refused = False

    def go_on(
        self, incoming: transfers.Incoming, record: unfinished.Record, attachment: bytes
    ) -> list[transfers.Event]:
        """Have what an earlier process wrote of a reply, which `incoming` reads again; return its events.

        Raises: WireError, OSError, EOFError or ValueError for what is not what came.
        """
        small: dict[bytes, bytes] = {}
        if self._alone:  # first: one that cannot be gone on with gives back all of them
            self._own_segments = sorted({array.segment for array in record.arrays if array.segment})
        for array in record.arrays:
            digest, end = bytes.fromhex(array.digest), array.offset + array.length
            if array.segment:
                self._regions[digest] = self._files.take_up(array.segment, array.offset, array.length)
            else:
                small[digest] = attachment[array.offset : end]
        self._there = set(self._regions)

        def kept(entry: pb.ArrayEntry, length: int) -> Iterator[codec.Buffer]:
            region = self._regions.get(entry.digest)
            if region is None or entry.digest not in self._there:
                yield small.get(entry.digest, b"")[:length]
                return
            if len(region) != entry.length_bytes:
                raise ValueError(f"array {entry.name!r} has {len(region)} bytes set aside")
            for start in range(0, length, _READ_BYTES):
                yield region.read(start, min(_READ_BYTES, length - start))

        happened = incoming.go_on(record.part(attachment), kept)
        self._there.clear()
        return happened

    @property
    def stored(self) -> bool:
        """Whether it has room in a file."""
        return bool(self._regions)

    def refuse(self) -> None:
        """Drop what came, and whatever still comes."""
        self.refused = True
        self._files.drop(self._own_segments)
        self._own_segments.clear()
        self._regions.clear()
        self._small.clear()
        self._unwritten.clear()

    def write_again(self) -> int:
        """Write what found no room before; returns how many bytes still find none. Raises: OSError."""
        while self._unwritten:
            place, position, data = self._unwritten[0]
            try:
                self._write(place, position, data)
            except OSError as error:
                if not room.is_full(error):
                    raise
                return sum(len(data) for _, _, data in self._unwritten)
            self._unwritten.popleft()
        return 0

    def _write(self, place: _Place, position: int, data: codec.Buffer) -> None:
        if place.digest in self._there:
            return
        region = self._regions.get(place.digest)
        if region is None:
            region = self._regions[place.digest] = self._allocate(place.length)
        region.write(position, data)

    def _allocate(self, length: int) -> segments.Region:
        if not self._alone:
            return self._files.allocate(length)
        own = self._own_segments
        region = self._files.allocate_alone(length, own[-1] if own else None)
        if region.number not in own:
            own.append(region.number)
        return region

    def sink(self, entry: pb.ArrayEntry) -> codec.Sink:
        """Where the bytes of one array go, in order; those for which there is no room wait for `write_again`.

        Raises: OSError, from what is returned, if the disk fails.
        """
        fits = self._small_bytes + entry.length_bytes <= IN_MEMORY_TOTAL_BYTES
        if entry.length_bytes < IN_MEMORY_BYTES and fits and entry.digest not in self._there:
            self._small_bytes += entry.length_bytes
            small = self._small.setdefault(entry.digest, bytearray())

            def keep(data: memoryview) -> None:
                if not self.refused:
                    small.extend(data)

            return keep
        place, position = _Place(entry.digest, entry.length_bytes), 0

        def write(data: memoryview) -> None:
            nonlocal position
            if self.refused:
                return
            try:
                if self._unwritten:
                    self._unwritten.append((place, position, bytes(data)))
                else:
                    self._write(place, position, data)
            except OSError as error:
                if not room.is_full(error):
                    raise
                self._unwritten.append((place, position, bytes(data)))
            position += len(data)

        return write

    def array_of(self, entry: pb.ArrayEntry) -> Array:
        """The array that an entry of the reply's header names."""
        shape = tuple(entry.shape)
        region = self._regions.get(entry.digest)
        if region is None:
            return Array(entry.dtype, shape, entry.serialization, bytes(self._small.get(entry.digest, b"")))
        return flower_arrays.SpooledArray(entry.dtype, shape, entry.serialization, region, entry.digest)

    def written(
        self, message_id: str, node: int, verdict: events.Verdict, header: pb.MessageHeader
    ) -> tuple[entries.Received, bytes]:
        """The reply as the journal has it: an entry, and what is attached to it."""
        head = header.SerializeToString()
        arrays, attachment = self._laid_out(head)
        for region in self._regions.values():
            if len(region) <= BEGIN_SYNC_BYTES:
                region.begin_sync()
        written = entries.Received(
            message_id=message_id,
            node=node,
            verdict=entries.verdict_of(verdict),
            header_bytes=len(head),
            arrays=arrays,
        )
        return written, attachment

    def record(self, cluster: str, node: int, part: transfers.Part) -> tuple[unfinished.Record, bytes] | None:
        """What came of the reply as the journal keeps it; None if not all of it is written."""
        if self.refused or self._unwritten or len(part.head) > unfinished.HEAD_BYTES:
            return None
        arrays, attachment = self._laid_out(part.head)
        record = unfinished.Record(
            cluster=cluster,
            node=node,
            transfer_id=part.transfer_id,
            total_bytes=part.total_bytes,
            position=part.position,
            unverified=part.unverified.hex(),
            head_bytes=len(part.head),
            alone=self._alone,
            arrays=arrays,
        )
        return record, attachment

    def _laid_out(self, head: bytes) -> tuple[tuple[entries.StoredArray, ...], bytes]:
        """Where the arrays are, the small ones in an attachment that begins with this."""
        offset, parts = len(head), [head]
        stored = [
            _stored(digest, region.number, region.offset, len(region))
            for digest, region in self._regions.items()
        ]
        for digest, small in self._small.items():
            stored.append(_stored(digest, 0, offset, len(small)))
            parts.append(bytes(small))
            offset += len(small)
        return tuple(stored), b"".join(parts)

    def source_of(self, digest: bytes) -> codec.ByteSource | bytes:
        """The serialised bytes of an array, to be read piece by piece."""
        region = self._regions.get(digest)
        return bytes(self._small.get(digest, b"")) if region is None else region


def _stored(digest: bytes, segment: int, offset: int, length: int) -> entries.StoredArray:
    return entries.StoredArray(digest=digest.hex(), segment=segment, offset=offset, length=length)
