"""The sending end of a session that may be cut and come back, without input or output.

Messages leave in the order they were put, one transfer at a time, and stay here until the receiver has them.
A transfer that was cut goes on where the receiver says. Which arrays the receiver holds is kept here too: a
client holds those of the last message that had any, an aggregator holds none. When to connect, and what a
message means, is not known here.

An aggregator that goes on where another one was makes the same messages again: the arrays, their order and
the ids are the same, the header has another time. What a client has of such a message beyond its header is
of the same stream, if what the client holds was left out of both; if not, a length or a digest does not fit,
which the client finds, and it has the message sent anew. A client's process that follows another may make
another reply, so it begins at the first byte.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator

from federation.wire import codec, frames, limits, transfers
from federation.wire import hanse_pb2 as pb

Frame = pb.TransferBegin | frames.Chunk

_REPLY_SUFFIX = ".reply"


def reply_id(message_id: str) -> str:
    """The id of the one reply to a message, so that a transfer's id alone says what it answers."""
    return message_id + _REPLY_SUFFIX


def answered_by(transfer_id: str) -> str | None:
    """The id of the message that a reply with this id answers, or None if it is not a reply's id."""
    return transfer_id.removesuffix(_REPLY_SUFFIX) if transfer_id.endswith(_REPLY_SUFFIX) else None


def history_of(message_id: str) -> str:
    """What a message's id begins with: messages of one history follow from one another.

    An aggregator that goes on where another one was goes on with its history; one that begins the training
    anew has its own. An app's state belongs to one history.
    """
    return message_id.partition("-")[0].partition(".")[0]


def another_prefix(prefix: str, word: str) -> str:
    """Return a beginning of message ids that goes on with the history of `prefix` and repeats no id of it.

    word: was used with no other prefix of this history.
    """
    return f"{history_of(prefix)}.{word}"


class Outbox:
    """Messages on their way to one receiver.

    Law: every message put is offered on each new link until it is received, in the order of putting.
    Law: a receiver that goes on where it was is not offered again what it has: neither what it confirmed,
    nor what came before the message that it names.
    """

    def __init__(self, *, receiver_holds: bool) -> None:
        """Start empty, without a link; `receiver_holds`: the receiver keeps a message's arrays."""
        self._receiver_holds = receiver_holds
        self._waiting: collections.OrderedDict[str, codec.OutgoingMessage] = collections.OrderedDict()
        self._frames: Iterator[Frame] | None = None
        self._transfer: transfers.Outgoing | None = None
        self._begun: dict[str, transfers.Outgoing] = {}  # those that were offered and still wait
        self._received: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._offered: set[str] = set()
        self._held: frozenset[bytes] = frozenset()
        self._receiving: pb.TransferPosition | None = None
        self._chunk_bytes = 0
        self._linked = False

    @property
    def waiting(self) -> frozenset[str]:
        """The ids of the messages that the receiver is not known to have."""
        return frozenset(self._waiting)

    def put(self, message: codec.OutgoingMessage) -> None:
        """Add a message; one that waits already, is under way, or was received is not added again."""
        if message.header.message_id not in self._received:
            self._waiting.setdefault(message.header.message_id, message)

    def received(self, frame: pb.TransferReceived) -> bool:
        """Take the receiver's word that it has a message; return whether it was still waiting."""
        if self._transfer is not None and self._transfer.received(frame):
            self._sent()
            self._transfer = None  # it holds the message's arrays
        waited = frame.transfer_id in self._waiting
        if waited:
            self._remember(frame.transfer_id)
        return waited

    def _remember(self, message_id: str) -> None:
        self._waiting.pop(message_id, None)
        self._begun.pop(message_id, None)
        self._received[message_id] = None
        while len(self._received) > limits.REMEMBERED_TRANSFERS:
            self._received.popitem(last=False)

    def keep_only(self, wanted: Callable[[str], bool]) -> None:
        """Forget the messages that nobody waits for any more, so that a silent receiver costs no memory."""
        for message_id in [message_id for message_id in self._waiting if not wanted(message_id)]:
            self.drop(message_id)

    def drop(self, message_id: str) -> None:
        """Forget a message that nobody waits for any more, unless it is under way."""
        if self._transfer is None or self._transfer.transfer_id != message_id:
            self._waiting.pop(message_id, None)
            self._begun.pop(message_id, None)

    def link_up(
        self, receiving: pb.TransferPosition | None, held: Iterable[bytes] = (), chunk_bytes: int = 0
    ) -> None:
        """A new link: what the receiver announced on it. One that names no transfer has received none.

        chunk_bytes: the longest chunk that is to travel on it; 0: any.
        """
        self._linked = True
        self._chunk_bytes = chunk_bytes
        self._held = frozenset(held)
        self._receiving = receiving if receiving is not None and receiving.transfer_id else None
        self._frames = None
        self._offered = set()
        if self._receiving is None:
            self._received.clear()
            self._begun.clear()
        elif self._receiving.transfer_id in self._waiting:
            for earlier in list(self._waiting):
                if earlier == self._receiving.transfer_id:
                    break
                self._remember(earlier)  # its confirmation was lost with the link

    def link_lost(self) -> None:
        """The link is gone; nothing leaves until the next one."""
        self._linked = False
        self._frames = None

    def next_frame(self) -> Frame | None:
        """The next frame to send, or None while there is nothing to send."""
        while self._linked:
            if self._frames is not None:
                frame = next(self._frames, None)
                if frame is not None:
                    return frame
                self._sent()
            message = self._following()
            if message is None:
                return None
            self._begin(message)
        return None

    def _following(self) -> codec.OutgoingMessage | None:
        """The message to begin now: first the one that has come in part, which another one would void."""
        if not self._offered and self._receiving and self._receiving.transfer_id in self._waiting:
            return self._waiting[self._receiving.transfer_id]
        return next((m for key, m in self._waiting.items() if key not in self._offered), None)

    def _begin(self, message: codec.OutgoingMessage) -> None:
        message_id = message.header.message_id
        receiving = self._receiving if self._receiving and self._receiving.transfer_id == message_id else None
        # A transfer that goes on keeps the arrays that it omitted before the cut: they are of its stream.
        transfer = self._begun.get(message_id) if receiving is not None else None
        if transfer is None:
            transfer = transfers.Outgoing(message, self._held)
            if receiving is not None and not self._is_of_a_predecessor(transfer, receiving):
                receiving = None
        elif receiving is not None and receiving.offset > transfer.total_bytes:
            transfer, receiving = transfers.Outgoing(message, self._held), None
        self._transfer = transfer
        self._begun[message_id] = transfer
        self._offered.add(message_id)
        self._frames = self._cut(transfer, receiving)

    def _is_of_a_predecessor(self, transfer: transfers.Outgoing, receiving: pb.TransferPosition) -> bool:
        """Whether what the receiver has was sent by another process, and is the beginning of this one's."""
        return self._receiver_holds and not self._offered and transfer.is_among_arrays(receiving.offset)

    def _cut(self, transfer: transfers.Outgoing, receiving: pb.TransferPosition | None) -> Iterator[Frame]:
        yield transfer.begin(receiving)
        yield from transfer.chunks(limits.chunk_bytes(self._chunk_bytes))

    def _sent(self) -> None:
        self._frames = None
        if self._receiver_holds and self._transfer is not None and self._transfer.digests:
            self._held = self._transfer.digests
