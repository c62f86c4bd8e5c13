"""The two ends of a client's session as the model runs them: the real Outbox and Incoming, frame by frame.

`AggregatorEnd` mirrors sessions.Client and sessions.Session (replace, send, confirm, write_until) and,
of Exchange, `_read` and `_take`. `ClientEnd` mirrors ExchangeLink's `_exchange`, `_read`, `_write` and
`_act`. A frame that is mentioned (see Departures) may leave later, and never after what follows it: that
is a slow link. What a frame brings about beyond the link is returned, for who knows what follows. An end
writes all that it has while it is linked; how much of that arrives is not known here.
"""

from __future__ import annotations

import collections
import dataclasses
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from federation.wire import codec, frames, outbox, transfers
from federation.wire import hanse_pb2 as pb
from tests.unit.model import automaton

Frame = tuple[Any, ...]
Position = tuple[str, int] | None


@dataclasses.dataclass(frozen=True)
class Out:
    """What an end did with an input: frames that it wrote, and what happened."""

    frames: tuple[Frame, ...] = ()
    happened: tuple[tuple[Any, ...], ...] = ()


def message_of(message_id: str, said: str) -> codec.OutgoingMessage:
    """A message without arrays; what it says lies in its header."""
    return codec.OutgoingMessage(pb.MessageHeader(message_id=message_id, group_id=said), {})


def reply_of(message_id: str, said: str) -> codec.OutgoingMessage:
    """The reply to a message."""
    header = pb.MessageHeader(
        message_id=outbox.reply_id(message_id), reply_to_message_id=message_id, group_id=said
    )
    return codec.OutgoingMessage(header, {})


class _End:
    def __init__(self, *, receiver_holds: bool) -> None:
        self._outbox = outbox.Outbox(receiver_holds=receiver_holds)
        self._incoming = transfers.Incoming()
        self._control: collections.deque[Frame] = collections.deque()
        self._linked = False
        self._frames: list[Frame] = []
        self._happened: list[tuple[Any, ...]] = []

    def take(self, given: tuple[Any, ...]) -> Out:
        """Let one thing happen, and write what can be written. Raises: WireError."""
        self._frames, self._happened = [], []
        what, *to = given
        getattr(self, f"_{what}")(*to)
        self._write()
        return Out(tuple(self._frames), tuple(self._happened))

    def _write(self) -> None:
        while self._linked:
            if self._control:
                self._frames.append(self._control.popleft())
                continue
            frame = self._outbox.next_frame()
            if frame is None:
                return
            if isinstance(frame, frames.Chunk):
                self._frames.append(("chunk", frame.offset, bytes(frame.data)))
            else:
                self._frames.append(("begin", frame.transfer_id, frame.total_bytes, frame.offset))

    def _frame(self, frame: Frame) -> None:
        match frame:
            case ("begin", transfer_id, total_bytes, offset):
                begin = pb.TransferBegin(transfer_id=transfer_id, total_bytes=total_bytes, offset=offset)
                self._act(self._incoming.begin(begin))
            case ("chunk", offset, data):
                self._act(self._incoming.data(offset, data))
            case ("received", transfer_id):
                if self._outbox.received(pb.TransferReceived(transfer_id=transfer_id)):
                    self._was_received(transfer_id)
            case _:
                raise AssertionError(frame)

    def _act(self, happened: list[transfers.Event]) -> None:
        raise NotImplementedError

    def _was_received(self, transfer_id: str) -> None:
        raise NotImplementedError

    def _down(self) -> None:
        self._linked = False
        self._outbox.link_lost()

    def looks(self) -> Hashable:
        """The outbox (whatever it begins it writes to the end), what came in, what is to be said."""
        said = [
            *(list(held)[-_REMEMBERED:] for held in (self._outbox._received, self._incoming._received)),
            [*self._control, self._linked],
        ]
        return automaton.picture((self._outbox, self._incoming, said), without=_WITHOUT, instead=_INSTEAD)


def _at(position: Position) -> pb.TransferPosition | None:
    return None if position is None else pb.TransferPosition(transfer_id=position[0], offset=position[1])


def _position(incoming: transfers.Incoming) -> Position:
    at = incoming.position
    return None if at is None else (at.transfer_id, at.offset)


class AggregatorEnd(_End):
    """Of one client: what outlives its sessions."""

    def __init__(self) -> None:
        super().__init__(receiver_holds=True)

    def _up(self, receiving: Position) -> None:
        self._down()
        self._control.clear()  # of the session before
        self._incoming.link_lost()
        self._outbox.link_up(_at(receiving))

    def _welcome(self) -> None:
        self._linked = True
        self._frames.append(("welcome", _position(self._incoming)))

    def _send(self, message_id: str, said: str, awaited: frozenset[str]) -> None:
        self._outbox.keep_only(awaited.__contains__)
        self._outbox.put(message_of(message_id, said))

    def _confirm(self, message_id: str) -> None:
        self._control.append(("received", outbox.reply_id(message_id)))

    def _act(self, happened: list[transfers.Event]) -> None:
        for event in happened:
            match event:
                case codec.HeaderReceived(header):
                    answered = outbox.answered_by(header.message_id)
                    if answered and self._outbox.received(pb.TransferReceived(transfer_id=answered)):
                        self._was_received(answered)
                case codec.MessageReceived(header):
                    self._happened.append(("replied", header.reply_to_message_id, header.group_id))
                case transfers.TransferRepeated(transfer_id):
                    self._control.append(("received", transfer_id))

    def _was_received(self, transfer_id: str) -> None:
        self._happened.append(("delivered", transfer_id))


class ClientEnd(_End):
    """Of one client's process."""

    def __init__(self) -> None:
        super().__init__(receiver_holds=False)

    def _dials(self) -> None:
        self._happened.append(("hello", _position(self._incoming)))

    def _down(self) -> None:
        super()._down()
        self._incoming.link_lost()

    def _send(self, message_id: str, said: str) -> None:
        self._outbox.put(reply_of(message_id, said))

    def _frame(self, frame: Frame) -> None:
        if frame[0] != "welcome":
            super()._frame(frame)
            return
        waiting = self._outbox.waiting
        self._outbox.link_up(_at(frame[1]))
        self._linked = True
        for transfer_id in sorted(waiting - self._outbox.waiting):
            self._was_received(transfer_id)

    def _act(self, happened: list[transfers.Event]) -> None:
        for event in happened:
            match event:
                case codec.MessageReceived(header):
                    self._happened.append(("message", header.message_id, header.group_id))
                    self._control.append(("received", header.message_id))
                case transfers.TransferRepeated(transfer_id):
                    self._control.append(("received", transfer_id))

    def _was_received(self, transfer_id: str) -> None:
        self._happened.append(("confirmed", transfer_id))


# Of those received only the last is looked at: a client has one message after the other, and ends that differ
# in what was long ago alone are one.
_REMEMBERED = 1

_WITHOUT = frozenset({"_received", "_limits", "_sink_factory", "_remembered", "_message"})


def _generator(frames_left: Any) -> Hashable:
    """How far a transfer is written: to its end, whenever an end is asked how it looks."""
    state: Hashable = inspect.getgeneratorstate(frames_left)
    return state


_INSTEAD: Mapping[type, Callable[[Any], Any]] = {
    codec.OutgoingMessage: lambda message: (message.header.message_id, message.header.group_id),
    codec.MessageDecoder: lambda decoder: decoder.expected_bytes,
    pb.TransferPosition: lambda position: (position.transfer_id, position.offset),
    type(_ for _ in ()): _generator,
}
