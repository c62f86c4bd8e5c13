"""A message as one byte stream, and back, without input or output of its own.

    preamble   b"HNS1", length of the header (u32, big-endian), digest of the header bytes
    header     a MessageHeader, serialised
    arrays     the serialised bytes of each distinct array of the header, in order of first
               appearance, without those that the header says are omitted

An array's name is the digest of its serialised bytes, so a receiver that holds it need not be sent
it again. The sender says in the header which arrays it omits; the stream explains itself, and the two
sides cannot read it differently. Every byte is covered: the header by the preamble's checksum, the
arrays by their names.

The decoder hands array bytes on as they come and never holds more than the header. What the bytes
mean, where they are kept and how they travel is not known here.
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from collections.abc import Callable, Container, Iterator, Mapping
from typing import Protocol, TypeAlias

from google.protobuf import message as protobuf_message

from federation.wire import digests
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits

# Offered here too: who decodes, catches.
from federation.wire.errors import ArrayCorrupted as ArrayCorrupted
from federation.wire.errors import ArrayTooLarge as ArrayTooLarge
from federation.wire.errors import BadMagic as BadMagic
from federation.wire.errors import DecoderUnusable as DecoderUnusable
from federation.wire.errors import HeaderCorrupted as HeaderCorrupted
from federation.wire.errors import HeaderInvalid as HeaderInvalid
from federation.wire.errors import HeaderTooLarge as HeaderTooLarge
from federation.wire.errors import MessageTooLarge as MessageTooLarge
from federation.wire.errors import TooManyArrays as TooManyArrays
from federation.wire.errors import TrailingBytes as TrailingBytes
from federation.wire.errors import Truncated as Truncated
from federation.wire.errors import UnknownHeldArray as UnknownHeldArray
from federation.wire.errors import WireError as WireError

MAGIC = b"HNS1"
_PREAMBLE = struct.Struct(">4sI32s")
PREAMBLE_BYTES = _PREAMBLE.size

Buffer: TypeAlias = bytes | bytearray | memoryview
Held: TypeAlias = Container[bytes] | Callable[[bytes], bool]


class ByteSource(Protocol):
    """Serialised bytes that lie elsewhere, such as in a file, and are read a run at a time."""

    def __len__(self) -> int:
        """Return how many bytes there are."""
        ...

    def read(self, position: int, length: int) -> bytes:
        """Return the `length` bytes from `position` on."""
        ...


# --- events -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class HeaderReceived:
    """The header is whole, correct and within the limits; arrays follow."""

    header: pb.MessageHeader


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayBytes:
    """A run of an array's bytes; `data` is a view into what was fed, and is not verified yet."""

    digest: bytes
    offset: int
    data: memoryview


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayReceived:
    """An array has come whole and its bytes have the digest that names it."""

    digest: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class MessageReceived:
    """The message is whole: every array of it has been received now or was held before."""

    header: pb.MessageHeader


Event: TypeAlias = HeaderReceived | ArrayBytes | ArrayReceived | MessageReceived
Sink: TypeAlias = Callable[[memoryview], object]
SinkFactory: TypeAlias = Callable[[pb.ArrayEntry], Sink]


# --- what a header names ----------------------------------------------------------------------------


def entries_of(header: pb.MessageHeader) -> Iterator[pb.ArrayEntry]:
    """Yield every array entry and blob of the header in order, repeated ones each time."""
    for record in header.records:
        kind = record.WhichOneof("kind")
        if kind == "arrays":
            yield from record.arrays.entries
        elif kind is not None:
            for named in getattr(record, kind).entries:
                yield from _blobs_of(named.value)


def _blobs_of(value: pb.Value) -> Iterator[pb.ArrayEntry]:
    kind = value.WhichOneof("kind")
    if kind == "blob":
        yield value.blob
    elif kind == "list":
        for item in value.list.items:
            if item.HasField("blob"):
                yield item.blob


def distinct_entries(header: pb.MessageHeader) -> dict[bytes, pb.ArrayEntry]:
    """Return the first entry of each distinct array, by digest, in the order in which they travel."""
    distinct: dict[bytes, pb.ArrayEntry] = {}
    for entry in entries_of(header):
        distinct.setdefault(entry.digest, entry)
    return distinct


def holds(held: Held) -> Callable[[bytes], bool]:
    """Return `held` as a function that says whether a digest is held."""
    return held if callable(held) else held.__contains__


# --- encoding ---------------------------------------------------------------------------------------


class OutgoingMessage:
    """A header and the bytes of its arrays, ready to be sent to any number of receivers.

    The arrays may be bytes, views, or sources that are read a run at a time; they are not copied and
    must not change. `held` says which arrays the receiver holds: give the same answer again when a
    transfer goes on where it stopped, since the omitted arrays are part of the stream.
    """

    def __init__(self, header: pb.MessageHeader, arrays: Mapping[bytes, Buffer | ByteSource]) -> None:
        """Take a header and the bytes of every array that it names, by digest.

        Raises: ValueError if an array of the header is missing, or has another length than the header says.
        """
        self.header = header
        self.arrays = arrays
        self._lengths: dict[bytes, int] = {}
        for digest, entry in distinct_entries(header).items():
            if digest not in arrays:
                raise ValueError(f"no bytes for array {entry.name!r} with digest {digest.hex()}")
            length = len(arrays[digest])
            if length != entry.length_bytes:
                raise ValueError(
                    f"array {entry.name!r} has {length} bytes, its header says {entry.length_bytes}"
                )
            self._lengths[digest] = entry.length_bytes

    @property
    def digests(self) -> frozenset[bytes]:
        """The distinct arrays of the message, whether they are sent or held."""
        return frozenset(self._lengths)

    def _plan(self, held: Held) -> tuple[bytes, list[bytes]]:
        """Return the preamble with header, and the digests whose arrays follow."""
        is_held = holds(held)
        omitted: list[bytes] = []
        sent: list[bytes] = []
        for digest in self._lengths:
            (omitted if is_held(digest) else sent).append(digest)
        header = pb.MessageHeader()
        header.CopyFrom(self.header)
        del header.omitted[:]
        header.omitted.extend(omitted)
        body = header.SerializeToString(deterministic=True)
        return _PREAMBLE.pack(MAGIC, len(body), digests.digest(body)) + body, sent

    def total_bytes(self, held: Held = ()) -> int:
        """Return the length of the whole stream for a receiver that holds `held`."""
        head, sent = self._plan(held)
        return len(head) + sum(self._lengths[digest] for digest in sent)

    def chunks(
        self, held: Held = (), offset: int = 0, chunk_bytes: int = wire_limits.CHUNK_BYTES
    ) -> Iterator[Buffer]:
        """Yield the stream from `offset` on, in chunks of `chunk_bytes` (the last may be shorter).

        A chunk within one array is a view of it, not a copy; small arrays are put together into one
        chunk. The array bytes are read when their chunk is asked for.

        Law:    the chunks from any offset, joined, are the suffix of the whole stream.
        Raises: ValueError if `offset` lies outside the stream or `chunk_bytes` is not above zero.
        """
        head, sent = self._plan(held)
        total = len(head) + sum(self._lengths[digest] for digest in sent)
        if not 0 <= offset <= total:
            raise ValueError(f"offset {offset} lies outside a stream of {total} bytes")
        if chunk_bytes <= 0:
            raise ValueError(f"chunks of {chunk_bytes} bytes cannot be sent")
        return self._cut(head, sent, offset, chunk_bytes)

    def _cut(self, head: bytes, sent: list[bytes], offset: int, chunk_bytes: int) -> Iterator[Buffer]:
        parts: list[Buffer] = []
        room = chunk_bytes
        for piece in self._pieces(head, sent):
            length = len(piece)
            if offset >= length:
                offset -= length
                continue
            position, offset = offset, 0
            while position < length:
                taken = min(room, length - position)
                parts.append(slice_of(piece, position, taken))
                position += taken
                room -= taken
                if room == 0:
                    yield parts[0] if len(parts) == 1 else b"".join(parts)
                    parts, room = [], chunk_bytes
        if parts:
            yield parts[0] if len(parts) == 1 else b"".join(parts)

    def _pieces(self, head: bytes, sent: list[bytes]) -> Iterator[Buffer | ByteSource]:
        yield head
        for digest in sent:
            yield self.arrays[digest]


def slice_of(piece: Buffer | ByteSource, position: int, length: int) -> Buffer:
    """Return `length` bytes from `position` on, not copied where they lie in memory."""
    if isinstance(piece, bytes | bytearray | memoryview):
        return memoryview(piece).cast("B")[position : position + length]
    return piece.read(position, length)


# --- decoding ---------------------------------------------------------------------------------------


class _State(enum.Enum):
    PREAMBLE = enum.auto()
    HEADER = enum.auto()
    ARRAYS = enum.auto()
    DONE = enum.auto()
    FAILED = enum.auto()


class MessageDecoder:
    """Bytes of one message in, events out.

    Law:    any split of the bytes gives the same message.
    Law:    a stream with a changed byte gives a typed error, from `feed` or at the latest from `close`,
            and never a MessageReceived.
    Law:    nothing is set aside for what a header announces before it is within the limits; the decoder
            keeps no array bytes.
    """

    def __init__(
        self,
        limits: wire_limits.MessageLimits = wire_limits.DEFAULT_MESSAGE_LIMITS,
        held: Held = (),
        sink_factory: SinkFactory | None = None,
    ) -> None:
        """Start at the first byte of a message.

        limits: caps on what the header may announce.
        held: the digests of arrays that this side holds; others may not be omitted by the sender.
        sink_factory: makes, for each array that comes, a function that takes its bytes in order. With
            it there are no ArrayBytes events; without it the events carry the bytes.
        """
        self._limits = limits
        self._holds = holds(held)
        self._sink_factory = sink_factory
        self._state = _State.PREAMBLE
        self._buffer = bytearray()
        self._need = PREAMBLE_BYTES
        self._checksum = b""
        self._header = pb.MessageHeader()
        self._coming: Iterator[pb.ArrayEntry] = iter(())
        self._entry = pb.ArrayEntry()
        self._entry_position = 0
        self._hash = digests.start()
        self._sink: Sink | None = None
        self.position = 0
        """How many bytes of the stream have been taken: where a cut transfer goes on."""
        self.expected_bytes: int | None = None
        """The length of the whole stream, as soon as the header has come."""
        self.head = b""
        """What came of the preamble and the header, once each is whole."""

    @property
    def done(self) -> bool:
        """Whether the message is whole."""
        return self._state is _State.DONE

    @property
    def unverified(self) -> bytes:
        """The digest of what came of an array that is not whole; empty if nothing did."""
        return self._hash.digest() if self._state is _State.ARRAYS and self._entry_position else b""

    def feed(self, data: Buffer) -> list[Event]:
        """Take the next bytes of the stream, and return what they bring about.

        Raises: WireError; what these bytes brought about is lost with it, and the decoder is unusable.
        """
        if self._state is _State.FAILED:
            raise DecoderUnusable
        try:
            return self._take(memoryview(data).cast("B"))
        except BaseException:
            self._state = _State.FAILED
            self._buffer.clear()
            raise

    def close(self) -> None:
        """Say that no more bytes come.

        Raises: Truncated if the message is not whole; DecoderUnusable after an error.
        """
        if self._state is _State.FAILED:
            raise DecoderUnusable
        if self._state is not _State.DONE:
            self._state = _State.FAILED
            raise Truncated(self.position)

    def _take(self, view: memoryview) -> list[Event]:
        events: list[Event] = []
        while len(view):
            if self._state is _State.ARRAYS:
                taken = self._array_bytes(view, events)
            elif self._state is _State.DONE:
                raise TrailingBytes(len(view))
            else:
                taken = min(self._need - len(self._buffer), len(view))
                self._buffer += view[:taken]
                if len(self._buffer) == self._need:
                    self._head_piece(events)
            view = view[taken:]
            self.position += taken
        return events

    def _head_piece(self, events: list[Event]) -> None:
        piece, self._buffer = bytes(self._buffer), bytearray()
        self.head += piece
        if self._state is _State.PREAMBLE:
            magic, length, self._checksum = _PREAMBLE.unpack(piece)
            if magic != MAGIC:
                raise BadMagic(MAGIC, magic)
            if length > self._limits.header_bytes:
                raise HeaderTooLarge(self._limits.header_bytes, length)
            self._state, self._need = _State.HEADER, length
            if length:
                return
            piece = b""
        got = digests.digest(piece)
        if got != self._checksum:
            raise HeaderCorrupted(self._checksum, got)
        try:
            header = pb.MessageHeader.FromString(piece)
        except protobuf_message.DecodeError as error:
            raise HeaderInvalid("it is not a MessageHeader") from error
        self._accept_header(header, len(piece))
        events.append(HeaderReceived(header))
        self._next_array(events)

    def _accept_header(self, header: pb.MessageHeader, header_bytes: int) -> None:
        distinct: dict[bytes, pb.ArrayEntry] = {}
        for count, entry in enumerate(entries_of(header), start=1):
            if count > self._limits.arrays:
                raise TooManyArrays(self._limits.arrays, sum(1 for _ in entries_of(header)))
            if len(entry.digest) != digests.DIGEST_BYTES:
                raise HeaderInvalid(f"the digest of array {entry.name!r} has {len(entry.digest)} bytes")
            if entry.length_bytes > self._limits.array_bytes:
                raise ArrayTooLarge(entry.name, self._limits.array_bytes, entry.length_bytes)
            if distinct.setdefault(entry.digest, entry).length_bytes != entry.length_bytes:
                raise HeaderInvalid(f"array {entry.name!r} has two lengths")
        if header.has_content and header.HasField("error"):
            raise HeaderInvalid("it has both content and an error")
        whole = PREAMBLE_BYTES + header_bytes + sum(entry.length_bytes for entry in distinct.values())
        if whole > self._limits.message_bytes:
            raise MessageTooLarge(self._limits.message_bytes, whole)
        omitted = frozenset(header.omitted)
        if len(omitted) != len(header.omitted) or not omitted <= distinct.keys():
            raise HeaderInvalid("the omitted arrays are not all arrays of this message, each once")
        for digest in header.omitted:
            if not self._holds(digest):
                raise UnknownHeldArray(digest)
        coming = [entry for digest, entry in distinct.items() if digest not in omitted]
        self.expected_bytes = PREAMBLE_BYTES + header_bytes + sum(entry.length_bytes for entry in coming)
        self._header, self._coming, self._state = header, iter(coming), _State.ARRAYS

    def _next_array(self, events: list[Event]) -> None:
        """Go to the next array that has bytes to come, or end the message."""
        for entry in self._coming:
            self._entry, self._entry_position, self._hash = entry, 0, digests.start()
            self._sink = self._sink_factory(entry) if self._sink_factory is not None else None
            if entry.length_bytes:
                return
            self._verify(events)
        self._state, self._sink = _State.DONE, None
        events.append(MessageReceived(self._header))

    def _array_bytes(self, view: memoryview, events: list[Event]) -> int:
        entry = self._entry
        run = view[: entry.length_bytes - self._entry_position]
        self._hash.update(run)
        if self._sink is not None:
            self._sink(run)
        else:
            events.append(ArrayBytes(entry.digest, self._entry_position, run))
        self._entry_position += len(run)
        if self._entry_position == entry.length_bytes:
            self._verify(events)
            self._next_array(events)
        return len(run)

    def _verify(self, events: list[Event]) -> None:
        got = self._hash.digest()
        if got != self._entry.digest:
            raise ArrayCorrupted(self._entry.name, self._entry.digest, got)
        events.append(ArrayReceived(self._entry.digest))
