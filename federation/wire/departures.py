"""What leaves next on one end of a session, put together so that few messages carry it.

Why it exists: each message of gRPC costs both sides as much as 100 KB of bytes do. A confirmation that
nobody waits for leaves with whatever leaves next, and a transfer's begin with its first chunk. It does no
input or output and knows no clock: its owner says when it is time.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Generic, TypeVar

from federation.wire import frames, outbox
from federation.wire import hanse_pb2 as pb

SMALL_BYTES = 256 * 1024
"""From so many bytes on, what was said leaves without more of its kind: a line of a log may be long, and all
together must stay below what gRPC takes."""

_Frame = TypeVar("_Frame", pb.ClientFrame, pb.AggregatorFrame)

MENTION_SECONDS = 0.02
"""So long a confirmation waits for company. It only frees the other side's memory and disk."""


class Departures(Generic[_Frame]):
    """Frames of one session on their way to gRPC.

    Law: every frame leaves once, those of each kind in their order, a chunk after all that it leaves with.
    """

    def __init__(self, box: outbox.Outbox, begin: Callable[[pb.TransferBegin], _Frame]) -> None:
        """Take the messages that leave too; `begin` makes a frame of a transfer's begin."""
        self._box = box
        self._begin: Callable[[pb.TransferBegin], _Frame] = begin
        self._said: collections.deque[_Frame] = collections.deque()
        self._mentioned: collections.deque[_Frame] = collections.deque()
        self._due = False

    def __bool__(self) -> bool:
        """Whether a frame waits that is part of no message."""
        return bool(self._said or self._mentioned)

    def say(self, frame: _Frame) -> None:
        """Let a frame leave as soon as possible; it overtakes a message that is on its way."""
        self._said.append(frame)

    def mention(self, frame: _Frame) -> None:
        """Let a frame leave with the next ones; call `due` some MENTION_SECONDS later."""
        self._mentioned.append(frame)

    def due(self) -> None:
        """What was mentioned leaves now, if it has not left."""
        self._due = bool(self._mentioned)

    def next(self, *, messages: bool = True) -> list[_Frame | frames.Chunk]:
        """The frames to send now, in one message of gRPC; none if nothing is to be sent.

        messages: False leaves those of the outbox where they are, and everything else leaves.
        """
        room, size = frames.MAXIMUM_TOGETHER, 0
        together: list[_Frame | frames.Chunk] = []
        while self._said and len(together) < room and size < SMALL_BYTES:
            small = self._said.popleft()
            together.append(small)
            size += small.ByteSize()
        while messages and len(together) < room:
            frame = self._box.next_frame()
            if frame is None:
                break
            together.append(frame if isinstance(frame, frames.Chunk) else self._begin(frame))
            if isinstance(frame, frames.Chunk):
                break
        if not together and not self._due and messages:
            return []
        carried = min(room - len(together), len(self._mentioned))
        together[:0] = [self._mentioned.popleft() for _ in range(carried)]
        self._due = self._due and bool(self._mentioned)
        return together
