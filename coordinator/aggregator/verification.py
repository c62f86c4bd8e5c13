"""Between a reply on disk and the pure checks: descriptions out of headers, values out of the spool.

Why it exists: `aggregation.checks` knows neither messages nor files. This module describes a message's arrays
to it and reads their values block by block, so that checking a reply of any size needs a few megabytes.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.aggregation import checks, events
from coordinator.aggregator import grid, received
from federation.api import reasons
from federation.flower import arrays as flower_arrays
from federation.flower import secagg
from federation.wire import codec
from federation.wire import hanse_pb2 as pb

_BLOCK_BYTES = 4 * 1024 * 1024

CHECKS_AT_ONCE = 2
"""Long replies are checked by so many threads, each with a few blocks in memory; the others wait on disk."""

_MAXIMUM_DIMENSIONS = 64
"""numpy's own limit. The product of a hundred thousand dimensions would take minutes."""

_MAXIMUM_DTYPE_CHARACTERS = 256
"""`float32` has seven; numpy parses the longer ones as Python source."""

SourceOf = Callable[[bytes], codec.Buffer | codec.ByteSource]
"""Gives an array's serialised bytes by their digest."""
_BRIEF_BYTES = 1280 * 1024
"""So much is checked in half a millisecond, which is what handing it to another thread and back takes."""


class Verifier:
    """Checks replies against the messages that they answer."""

    def __init__(self, limits: checks.Limits) -> None:
        """Take the bounds of spec.updateChecks."""
        self._limits = limits
        self._checking = concurrent.futures.ThreadPoolExecutor(CHECKS_AT_ONCE, thread_name_prefix="check")

    def header(self, sent: pb.MessageHeader, reply: pb.MessageHeader) -> events.Refused | None:
        """Check what the reply's header says, before its arrays have come."""
        refused = self._bounds(reply) or _other_serialization(sent, reply)
        if refused is not None:
            return refused
        later = _undescribed(sent) or _undescribed(reply)
        kind = events.Kind.QUERY if later or _is_free(sent) else grid.kind_of(sent.message_type)
        return checks.check_header(kind, describe(sent), describe(reply), metrics_of(reply), self._limits)

    def _bounds(self, reply: pb.MessageHeader) -> events.Refused | None:
        """Refuse what would take long to look at, much room, or hide behind another record."""
        distinct = codec.distinct_entries(reply).values()
        total = sum(entry.length_bytes for entry in distinct)
        if total > self._limits.maximum_update_bytes:  # with long bytes in configs, which are read whole
            text = f"the reply has {total} bytes, at most {self._limits.maximum_update_bytes} are allowed"
            return events.Refused(
                reasons.UpdateViolation.TOO_LARGE, f"{text} (spec.updateChecks.maximumUpdateBytes)"
            )
        for entry in codec.entries_of(reply):
            if len(entry.shape) > _MAXIMUM_DIMENSIONS or len(entry.dtype) > _MAXIMUM_DTYPE_CHARACTERS:
                text = (
                    f"array {entry.name[:100]} has {len(entry.shape)} dimensions"
                    f" and a type of {len(entry.dtype)} letters"
                )
                return events.Refused(reasons.UpdateViolation.UNREADABLE, text, entry.name[:100])
        for record in reply.records:
            if record.WhichOneof("kind") == "metrics":
                # Each record by itself: which one a strategy weighs by is not known here.
                refused = checks.check_header(
                    events.Kind.QUERY, {}, {}, _numbers_of(record.metrics), self._limits
                )
                if refused is not None:
                    return refused
        return None

    async def values(
        self, sent: codec.OutgoingMessage, header: pb.MessageHeader, reply: received.Reply
    ) -> events.Accepted | events.Refused:
        """Check a whole reply: its .npy headers, then its values; a long one beside the event loop."""
        if sum(entry.length_bytes for entry in codec.distinct_entries(header).values()) <= _BRIEF_BYTES:
            return self._values(sent, header, reply)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._checking, self._values, sent, header, reply)

    def _values(
        self, sent: codec.OutgoingMessage, header: pb.MessageHeader, reply: received.Reply
    ) -> events.Accepted | events.Refused:
        described = describe(header)
        entries = {(record, entry.name): entry for record, entry in _array_entries(header)}
        for record, arrays in described.items():
            for array in arrays:
                refused = _check_npy_header(
                    _npy_header(reply.source_of(entries[record, array.name].digest)), array
                )
                if refused is not None:
                    return refused
        if grid.kind_of(sent.header.message_type) is not events.Kind.TRAIN:
            return events.Accepted(
                checks.examples_of(metrics_of(header))
            )  # no update: any value may be an answer
        if (_undescribed(sent.header) or _undescribed(header)) and not _is_free(sent.header):
            # Flower's older API names neither dtype nor shape; the bytes do, now that they are here.
            described = describe(header, reply.source_of)
            before = describe(sent.header, sent.arrays.__getitem__)
            refused = checks.check_header(
                events.Kind.TRAIN, before, described, metrics_of(header), self._limits
            )
            if refused is not None:
                return refused
        counterparts = self._counterparts(sent, described) if self._limits.maximum_norm is not None else {}
        place = {name: index for index, name in enumerate(counterparts)}
        ordered = sorted(
            ((record, array) for record, arrays in described.items() for array in arrays),
            key=lambda pair: place.get(pair[1].name, len(place)),
        )
        values = (
            (
                array.name,
                _blocks(reply.source_of(entries[record, array.name].digest), counterparts.get(array.name)),
            )
            for record, array in ordered
            if array.serialization == checks.NUMPY_SERIALIZATION
        )
        return checks.check_values(values, metrics_of(header), self._limits)

    @staticmethod
    def _counterparts(
        sent: codec.OutgoingMessage, reply: checks.Description
    ) -> dict[str, codec.Buffer | codec.ByteSource]:
        """The serialised bytes of the arrays sent, by name, in the order sent; empty if the reply has none of
        them.
        """
        described = describe(sent.header)
        model = checks.sent_model(described)
        if model is None or not any(reply.values()):
            return {}
        record = next(record for record in sent.header.records if record.name == model)
        return {entry.name: sent.arrays[entry.digest] for entry in record.arrays.entries}


def describe(
    header: pb.MessageHeader, source_of: SourceOf | None = None
) -> dict[str, list[checks.ArrayDescription]]:
    """A message's array records, as `checks` wants them.

    With source_of, arrays that the header does not describe are described by their own .npy headers.
    """
    return {
        record.name: [_description(entry, source_of) for entry in record.arrays.entries]
        for record in header.records
        if record.WhichOneof("kind") == "arrays"
    }


def _description(entry: pb.ArrayEntry, source_of: SourceOf | None) -> checks.ArrayDescription:
    dtype, shape = entry.dtype, tuple(entry.shape)
    if source_of is not None and not dtype and entry.serialization == checks.NUMPY_SERIALIZATION:
        layout = _layout(source_of(entry.digest))
        dtype, shape = layout.dtype.str, layout.shape
    return checks.ArrayDescription(entry.name, dtype, shape, entry.length_bytes, entry.serialization)


def _is_free(sent: pb.MessageHeader) -> bool:
    """Whether the answer may have any structure: own actions (train.something) and secure aggregation."""
    return "." in sent.message_type or any(record.name == secagg.RECORD_NAME for record in sent.records)


def _undescribed(header: pb.MessageHeader) -> bool:
    return any(not entry.dtype for _, entry in _array_entries(header))


def _array_entries(header: pb.MessageHeader) -> Iterator[tuple[str, pb.ArrayEntry]]:
    """Each array with its record's name; without the blobs of configs, which codec.entries_of yields too."""
    for record in header.records:
        if record.WhichOneof("kind") == "arrays":
            for entry in record.arrays.entries:
                yield record.name, entry


def metrics_of(header: pb.MessageHeader) -> dict[str, object]:
    """The numbers of a message's metric records, single or in lists, by key."""
    found: dict[str, object] = {}
    for record in header.records:
        if record.WhichOneof("kind") == "metrics":
            found.update(_numbers_of(record.metrics))
    return found


def _numbers_of(metrics: pb.Values) -> dict[str, object]:
    """The numbers of one metric record; an example count that is none as well, so that it is seen."""
    found: dict[str, object] = {}
    for entry in metrics.entries:
        kind = entry.value.WhichOneof("kind")
        if kind in ("integer", "large_integer", "real", "boolean"):
            found[entry.name] = getattr(entry.value, kind)
        elif kind == "list":
            found[entry.name] = list(entry.value.list.reals)
        elif entry.name == checks.EXAMPLES_KEY:
            found[entry.name] = None
    return found


def _other_serialization(sent: pb.MessageHeader, reply: pb.MessageHeader) -> events.Refused | None:
    """Refuse an array that was sent in numpy's format and comes back in one that nobody would look into."""
    numpy_arrays = {
        entry.name for _, entry in _array_entries(sent) if entry.serialization == checks.NUMPY_SERIALIZATION
    }
    for _, entry in _array_entries(reply):
        if entry.serialization != checks.NUMPY_SERIALIZATION and entry.name in numpy_arrays:
            text = f"array {entry.name[:100]} was sent in numpy's format and came back in another"
            return events.Refused(reasons.UpdateViolation.UNREADABLE, text, entry.name[:100])
    return None


def _npy_header(source: codec.Buffer | codec.ByteSource) -> bytes:
    """The .npy header at the beginning of an array, or what stands in its place."""
    length = min(len(source), checks.NPY_PREFIX_BYTES)
    return flower_arrays.npy_header(bytes(codec.slice_of(source, 0, length)))


def _blocks(
    reply: codec.Buffer | codec.ByteSource, sent: codec.Buffer | codec.ByteSource | None
) -> Iterator[checks.Block]:
    """The values of a serialised array, with those of its counterpart if that has the same type and shape.

    However the two files are laid out (a longer header, Fortran's order), equal elements stand side by side.
    """
    layout = _layout(reply)
    start, dtype, fortran = layout.start, layout.dtype, layout.fortran_order
    before: Callable[[int, int], npt.NDArray[Any]] | None = None
    if sent is not None:
        other = _layout(sent)
        if (other.dtype, other.shape) == (dtype, layout.shape):
            if other.fortran_order == fortran:
                before = functools.partial(_elements, sent, other.start, dtype)
            else:  # rare, and then one array is read whole
                ordered = _read(sent, other.start, len(sent) - other.start, dtype)
                turned = ordered.reshape(layout.shape, order="F" if other.fortran_order else "C").ravel(
                    "F" if fortran else "C"
                )

                def before(first: int, last: int) -> npt.NDArray[Any]:
                    return turned[first:last]

    count = (len(reply) - start) // max(1, dtype.itemsize)
    step = max(1, _BLOCK_BYTES // max(1, dtype.itemsize))
    for first in range(0, count, step):
        last = min(first + step, count)
        yield _elements(reply, start, dtype, first, last), None if before is None else before(first, last)


def _elements(
    source: codec.Buffer | codec.ByteSource, start: int, dtype: np.dtype[Any], first: int, last: int
) -> npt.NDArray[Any]:
    return _read(source, start + first * dtype.itemsize, (last - first) * dtype.itemsize, dtype)


def _layout(source: codec.Buffer | codec.ByteSource) -> flower_arrays.NpyHeader:
    """Read a .npy header that was checked before."""
    header = flower_arrays.describe_npy(_npy_header(source))
    if header is None:
        raise ValueError("the array does not begin with a .npy header")
    return header


# A training's replies have the same few headers in every round, and numpy parses each as Python source.
_check_npy_header = functools.lru_cache(maxsize=1024)(checks.check_npy_header)


def _read(
    source: codec.Buffer | codec.ByteSource, position: int, length: int, dtype: np.dtype[Any]
) -> npt.NDArray[Any]:
    return np.frombuffer(codec.slice_of(source, position, length), dtype=dtype)
