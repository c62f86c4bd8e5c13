"""A reply on its way in: its arrays go to an unnamed file, the small ones stay in memory.

Why it exists: the aggregator's memory must not grow with the number of clients. What a reply means, and
whether it is acceptable, is not known here.
"""

from __future__ import annotations

from pathlib import Path

from flwr.app import Array

from federation.flower import arrays as flower_arrays
from federation.wire import codec
from federation.wire import hanse_pb2 as pb

IN_MEMORY_BYTES = 16 * 1024
"""Smaller arrays are kept in memory: a bias vector is not worth a read from a file."""

IN_MEMORY_TOTAL_BYTES = 1024 * 1024
"""Of one reply; beyond that, small arrays go to the file as well."""


class Reply:
    """The arrays of one reply, by digest."""

    def __init__(self, spool_directory: Path) -> None:
        """Start without arrays; the file is made with the first large one."""
        self._directory = spool_directory
        self._spool: flower_arrays.SpoolFile | None = None
        self._regions: dict[bytes, flower_arrays.SpoolRegion] = {}
        self._small: dict[bytes, bytearray] = {}
        self._small_bytes = 0
        self.refused = False

    def refuse(self) -> None:
        """Drop what came, and whatever still comes."""
        self.refused = True
        self._spool = None
        self._regions.clear()
        self._small.clear()

    def sink(self, entry: pb.ArrayEntry) -> codec.Sink:
        """Where the bytes of one array go, in order. Raises OSError if the disk is full."""
        fits = self._small_bytes + entry.length_bytes <= IN_MEMORY_TOTAL_BYTES
        if entry.length_bytes < IN_MEMORY_BYTES and fits:
            self._small_bytes += entry.length_bytes
            small = self._small.setdefault(entry.digest, bytearray())

            def keep(data: memoryview) -> None:
                if not self.refused:
                    small.extend(data)

            return keep
        if self._spool is None:
            self._spool = flower_arrays.SpoolFile(self._directory)
        region = self._regions.setdefault(entry.digest, self._spool.allocate(entry.length_bytes))
        position = 0

        def write(data: memoryview) -> None:
            nonlocal position
            if not self.refused:
                region.write(position, data)
                position += len(data)

        return write

    def array_of(self, entry: pb.ArrayEntry) -> Array:
        """The array that an entry of the reply's header names."""
        shape = tuple(entry.shape)
        region = self._regions.get(entry.digest)
        if region is None:
            return Array(entry.dtype, shape, entry.serialization, bytes(self._small.get(entry.digest, b"")))
        return flower_arrays.SpooledArray(entry.dtype, shape, entry.serialization, region, entry.digest)

    def source_of(self, digest: bytes) -> codec.ByteSource | bytes:
        """The serialised bytes of an array, to be read piece by piece."""
        region = self._regions.get(digest)
        return bytes(self._small.get(digest, b"")) if region is None else region
