"""The bookkeeping of messages that travel in one direction of a session, without input or output.

A session carries one transfer at a time: TransferBegin, then TransferChunks without gaps, and, when the
receiver has the message whole and safe, TransferReceived the other way. A session may be cut anywhere:

    receiver                                          sender
      |   <- TransferBegin(id, total, offset=0)         |
      |   <- TransferChunk(0, ...), (1 MiB, ...)        |
      x  the link is cut                                x
      |   position = (id, 2 MiB), in Hello or Welcome ->|
      |   <- TransferBegin(id, total, offset=2 MiB)     |
      |   <- TransferChunk(2 MiB, ...) ...              |
      |   TransferReceived(id) ->                       |

`Incoming` and `Outgoing` outlive the session. A transfer that is repeated after it was received has no
effect but another TransferReceived. When to send, retry or give up is not decided here.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from federation.wire import codec, frames
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits


class TransferError(codec.WireError):
    """The frames of a transfer do not follow one another as they must."""


class TransferNotBegun(TransferError):
    """A chunk came outside any transfer."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"a chunk at offset {offset} outside any transfer")
        self.offset = offset


class OffsetMismatch(TransferError):
    """A chunk or the continuation of a transfer does not begin where the last one ended."""

    def __init__(self, transfer_id: str, want: int, got: int) -> None:
        super().__init__(f"transfer {transfer_id!r} goes on at offset {got}, want {want}")
        self.transfer_id, self.want, self.got = transfer_id, want, got


class LengthMismatch(TransferError):
    """A transfer's message is not as long as was announced."""

    def __init__(self, transfer_id: str, want_bytes: int, got_bytes: int) -> None:
        super().__init__(f"transfer {transfer_id!r} of {got_bytes} bytes, want {want_bytes}")
        self.transfer_id, self.want_bytes, self.got_bytes = transfer_id, want_bytes, got_bytes


class PartCorrupted(TransferError):
    """What was kept of a transfer is not what had come of it."""

    def __init__(self, transfer_id: str, position: int) -> None:
        super().__init__(f"the first {position} bytes of transfer {transfer_id!r} are not what came")
        self.transfer_id, self.position = transfer_id, position


class TransferIdInvalid(TransferError):
    """A transfer's id is empty, or is not the id of the message in it."""

    def __init__(self, transfer_id: str, message_id: str) -> None:
        super().__init__(f"transfer {transfer_id!r} carries message {message_id!r}, the ids must be equal")
        self.transfer_id, self.message_id = transfer_id, message_id


@dataclasses.dataclass(frozen=True, slots=True)
class TransferAbandoned:
    """The sender has given an unfinished transfer up, or begins it anew; what came of it is void."""

    transfer_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class TransferRepeated:
    """The sender repeats a transfer that was received: answer TransferReceived again, nothing else."""

    transfer_id: str


Event: TypeAlias = codec.Event | TransferAbandoned | TransferRepeated


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """What came of a transfer that is under way, in few bytes, beside the bytes of its arrays.

    head: the stream's preamble and header. unverified: the digest of what came of the array that is not
    whole, empty if nothing did; all before it has been compared with the header.
    """

    transfer_id: str
    total_bytes: int
    position: int
    head: bytes
    unverified: bytes


@dataclasses.dataclass(slots=True)
class _Partial:
    transfer_id: str
    total_bytes: int
    position: int
    decoder: codec.MessageDecoder | None  # None: received before, to be passed over


class Incoming:
    """The receiving end of one direction.

    Law:    wherever links are cut and the transfer goes on at `position`, the message is the same.
    Law:    a repeated transfer gives TransferRepeated and nothing else, whatever it is cut into.
    After a WireError the transfer is void: `position` no longer names it, so its sender begins anew.
    """

    def __init__(
        self,
        limits: wire_limits.MessageLimits = wire_limits.DEFAULT_MESSAGE_LIMITS,
        held: codec.Held = (),
        sink_factory: codec.SinkFactory | None = None,
        remembered: int = wire_limits.REMEMBERED_TRANSFERS,
    ) -> None:
        """Start with nothing received; limits, held and sink_factory are MessageDecoder's."""
        self._limits, self._held, self._sink_factory = limits, held, sink_factory
        self._remembered = remembered
        self._received: collections.OrderedDict[str, int] = collections.OrderedDict()  # id -> total bytes
        self._partial: _Partial | None = None
        self._linked = False

    @property
    def position(self) -> pb.TransferPosition | None:
        """What to announce when a link is up again: the transfer under way, else the last one received.

        A transfer at its last byte is a received one, for a sender that has not heard of it.
        """
        if self._partial is not None:
            return pb.TransferPosition(transfer_id=self._partial.transfer_id, offset=self._partial.position)
        if self._received:
            transfer_id, total_bytes = next(reversed(self._received.items()))
            return pb.TransferPosition(transfer_id=transfer_id, offset=total_bytes)
        return None

    @property
    def arrived_bytes(self) -> int:
        """How many bytes came of the transfer under way; 0 if there is none, or it is a repeated one."""
        partial = self._partial
        return partial.position if partial is not None and partial.decoder is not None else 0

    @property
    def part(self) -> Part | None:
        """What to keep of the transfer under way for `go_on`; None until its header has come."""
        partial = self._partial
        if partial is None or partial.decoder is None or partial.decoder.expected_bytes is None:
            return None
        decoder = partial.decoder
        return Part(
            partial.transfer_id, partial.total_bytes, partial.position, decoder.head, decoder.unverified
        )

    def go_on(self, part: Part, kept: Callable[[pb.ArrayEntry, int], Iterable[codec.Buffer]]) -> list[Event]:
        """Take up a transfer of which an earlier process had this part; return what that brings about.

        kept: gives the first so many bytes of an array, which go to its sink again.
        Law:    afterwards all is as if the link had been cut there, or nothing is under way.
        Raises: WireError for what is not the beginning of a message, or not what came; what `kept` raises.
        """
        try:
            if not len(part.head) <= part.position < part.total_bytes:
                raise PartCorrupted(part.transfer_id, part.position)
            begin = pb.TransferBegin(transfer_id=part.transfer_id, total_bytes=part.total_bytes)
            happened = [*self.begin(begin), *self.data(0, part.head)]
            left = part.position - len(part.head)
            for header in [event.header for event in happened if isinstance(event, codec.HeaderReceived)]:
                for entry in codec.distinct_entries(header).values():
                    for data in kept(entry, min(left, entry.length_bytes)) if left > 0 else ():
                        happened += self.data(self.arrived_bytes, data)
                        left -= len(data)
            if self.part != part:
                raise PartCorrupted(part.transfer_id, part.position)
        except BaseException:
            self._partial = None
            raise
        finally:
            self._linked = False
        return happened

    def link_lost(self) -> None:
        """Say that the link is cut: the next frame is a TransferBegin of a new link."""
        self._linked = False
        if self._partial is not None and self._partial.decoder is None:
            self._partial = None

    def forget(self, transfer_id: str) -> None:
        """Say that a received message could not be kept; its transfer counts as not received."""
        self._received.pop(transfer_id, None)

    def begin(self, frame: pb.TransferBegin) -> list[Event]:
        """Take the begin of a transfer, or of its continuation.

        Raises: OffsetMismatch, LengthMismatch, TransferIdInvalid, codec.MessageTooLarge.
        """
        partial, self._partial = self._partial, None
        self._linked = True
        if not 0 < len(frame.transfer_id) <= wire_limits.MAX_ID_CHARACTERS:
            raise TransferIdInvalid(frame.transfer_id[:40], "")
        if frame.total_bytes > self._limits.message_bytes:
            raise codec.MessageTooLarge(self._limits.message_bytes, frame.total_bytes)
        if frame.offset > frame.total_bytes:
            raise OffsetMismatch(frame.transfer_id, frame.total_bytes, frame.offset)
        goes_on = partial is not None and partial.transfer_id == frame.transfer_id and frame.offset > 0
        if partial is not None and goes_on:
            if frame.total_bytes != partial.total_bytes:
                raise LengthMismatch(frame.transfer_id, partial.total_bytes, frame.total_bytes)
            if frame.offset != partial.position:
                raise OffsetMismatch(frame.transfer_id, partial.position, frame.offset)
            self._partial = partial
            return []
        events: list[Event] = []
        if partial is not None and partial.decoder is not None:
            events.append(TransferAbandoned(partial.transfer_id))
        if frame.transfer_id in self._received:
            if frame.offset < frame.total_bytes:
                self._partial = _Partial(frame.transfer_id, frame.total_bytes, frame.offset, None)
            return [*events, TransferRepeated(frame.transfer_id)]
        if frame.offset:
            raise OffsetMismatch(frame.transfer_id, 0, frame.offset)
        decoder = codec.MessageDecoder(self._limits, self._held, self._sink_factory)
        self._partial = _Partial(frame.transfer_id, frame.total_bytes, 0, decoder)
        return events

    def chunk(self, frame: frames.Chunk | pb.TransferChunk) -> list[Event]:
        """Take the next chunk, and return what it brings about.

        Raises: WireError, after which the transfer is void.
        """
        return self.data(frame.offset, frame.data)

    def data(self, offset: int, data: codec.Buffer) -> list[Event]:
        """Take the next chunk, as `chunk` does, from bytes that lie anywhere."""
        partial, self._partial = self._partial, None
        if partial is None or not self._linked:
            self._partial = partial
            raise TransferNotBegun(offset)
        if offset != partial.position:
            raise OffsetMismatch(partial.transfer_id, partial.position, offset)
        end = partial.position + len(data)
        if end > partial.total_bytes:
            raise LengthMismatch(partial.transfer_id, partial.total_bytes, end)
        events: list[Event] = (
            [] if partial.decoder is None else self._decode(partial, partial.decoder, data, end)
        )
        partial.position = end
        if end < partial.total_bytes:
            self._partial = partial
        elif partial.decoder is not None:
            self._remember(partial)
        return events

    def _decode(
        self, partial: _Partial, decoder: codec.MessageDecoder, data: codec.Buffer, end: int
    ) -> list[Event]:
        known = decoder.expected_bytes is not None
        events: list[Event] = list(decoder.feed(data))
        if not known and decoder.expected_bytes is not None:
            if decoder.expected_bytes != partial.total_bytes:
                raise LengthMismatch(partial.transfer_id, partial.total_bytes, decoder.expected_bytes)
            for event in events:
                if isinstance(event, codec.HeaderReceived) and event.header.message_id != partial.transfer_id:
                    raise TransferIdInvalid(partial.transfer_id, event.header.message_id)
        if end == partial.total_bytes:
            decoder.close()
        return events

    def _remember(self, partial: _Partial) -> None:
        self._received[partial.transfer_id] = partial.total_bytes
        self._received.move_to_end(partial.transfer_id)
        while len(self._received) > self._remembered:
            self._received.popitem(last=False)


class Outgoing:
    """The sending end of one transfer: a message on its way to one receiver.

    The arrays that the receiver holds are settled when the transfer is made, and are part of it: a
    receiver that has lost them since gets a new Outgoing.
    """

    def __init__(self, message: codec.OutgoingMessage, held: codec.Held = ()) -> None:
        """Prepare to send `message` to a receiver that holds the arrays `held`."""
        self.digests = message.digests
        """The arrays of the message, sent or held."""
        self._held = frozenset(filter(codec.holds(held), self.digests))
        self._message = message
        self.transfer_id = message.header.message_id
        self.total_bytes = message.total_bytes(self._held)
        self.offset = 0
        self.done = False
        """Whether the receiver has said that it has the message."""

    def is_among_arrays(self, offset: int) -> bool:
        """Whether the header lies before this offset, and bytes of arrays behind it."""
        sent = sum(len(self._message.arrays[digest]) for digest in self.digests - self._held)
        return self.total_bytes - sent <= offset < self.total_bytes

    def begin(self, receiving: pb.TransferPosition | None = None) -> pb.TransferBegin:
        """Return the first frame on a new link; `receiving` is what the receiver announced there.

        Raises: OffsetMismatch if the receiver claims more than there is.
        """
        self.offset = 0
        if receiving is not None and receiving.transfer_id == self.transfer_id:
            if receiving.offset > self.total_bytes:
                raise OffsetMismatch(self.transfer_id, self.total_bytes, receiving.offset)
            self.offset = receiving.offset
        return pb.TransferBegin(
            transfer_id=self.transfer_id, total_bytes=self.total_bytes, offset=self.offset
        )

    def chunks(self, chunk_bytes: int = wire_limits.CHUNK_BYTES) -> Iterator[frames.Chunk]:
        """Yield the chunks that follow `begin`, until the end or until the message is received."""
        for data in self._message.chunks(self._held, self.offset, chunk_bytes):
            if self.done:
                return
            yield frames.Chunk(self.offset, data)
            self.offset += len(data)

    def received(self, frame: pb.TransferReceived) -> bool:
        """Take a TransferReceived; return whether it is about this transfer."""
        if frame.transfer_id == self.transfer_id:
            self.done = True
        return frame.transfer_id == self.transfer_id
