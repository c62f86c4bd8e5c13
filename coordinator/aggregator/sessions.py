"""A client as the aggregator keeps it, and its open stream.

Why it exists: a client's transfers outlive the streams that carry them, so the two are kept apart: `Client`
has both directions' transfers, `Session` writes one stream. What a frame means is for exchange.py, which
reads it.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Callable, Sequence
from typing import Any

from coordinator.aggregator import progress as progress_module
from coordinator.aggregator import received
from coordinator.journal import segments, unfinished
from federation.runtime import tasks
from federation.telemetry import logs
from federation.wire import codec, departures, frames, outbox, transfers
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits

log = logs.get_logger(__name__)

KEPT_EACH_BYTES = 4 * 1024 * 1024
"""After so many bytes of a reply, or a sixteenth of it, it is written down how far it came: as much is sent
again at most when the aggregator dies. Shorter replies are not worth it."""

LAST_FRAME_SECONDS = 2.0
"""How long a goodbye waits for a client that reads nothing; then its stream is cut."""


class Client:
    """What outlives a client's sessions: both directions' transfers."""

    def __init__(
        self,
        cluster: str,
        node: int,
        limits: wire_limits.MessageLimits,
        files: segments.Segments,
        parts: unfinished.Unfinished,
        progress: progress_module.Progress,
        chunk_bytes: int,
    ) -> None:
        self.cluster = cluster
        self.node = node
        self.progress = progress
        self.chunk_bytes = chunk_bytes
        self.outbox = outbox.Outbox(receiver_holds=True)
        self.reply: received.Reply | None = None
        self.transfer_id = ""
        self.refused_transfer = ""
        self.checking: set[asyncio.Task[None]] = set()
        self.happened: collections.deque[transfers.Event] = collections.deque()
        self.storing: asyncio.Task[None] | None = None
        """Set while bytes of its reply wait for room; no frame of it is taken then."""
        self.keep_at = KEPT_EACH_BYTES
        """When so many bytes of its reply have come, `keep` is due."""
        self._files = files
        self._parts = parts
        self._session: Session | None = None
        self._has_wasted = False
        """Whether it had a reply dropped whose room in a segment, shared with others, cannot be given back.

        Its replies have segments of their own from then on, so that one who begins and drops them again and
        again does not fill the volume, for whose room everybody would wait.
        """
        self.incoming = transfers.Incoming(limits, sink_factory=self._sink)

    def _sink(self, entry: pb.ArrayEntry) -> codec.Sink:
        return self.arriving().sink(entry)

    def arriving(self) -> received.Reply:
        """The reply that comes, which begins now if none does."""
        if self.reply is None:
            self.reply = received.Reply(self._files, alone=self._has_wasted)
        return self.reply

    def drop(self, reply: received.Reply | None) -> None:
        """Give up what came of a reply, and whatever still comes of it."""
        self._parts.forget(self.node)
        if reply is not None:
            self._has_wasted = self._has_wasted or reply.stored
            reply.refuse()

    def take_up(self, record: unfinished.Record, attachment: bytes) -> None:
        """Have what came of a reply in an earlier process; what cannot be gone on with begins anew."""
        self._has_wasted = record.alone
        reply = self.reply = received.Reply(self._files, alone=record.alone)
        try:
            self.happened.extend(reply.go_on(self.incoming, record, attachment))
        except (codec.WireError, OSError, EOFError, ValueError) as error:
            log.info("reply begins anew", transfer_id=record.transfer_id, detail=str(error))
            self.drop(reply)
            self.reply = None
        else:
            log.info("reply goes on", transfer_id=record.transfer_id, offset=record.position)

    def keep(self, transfer_id: str) -> None:
        """Write down how far a reply came, if it is still on its way."""
        part = self.incoming.part
        if part is not None and part.transfer_id == transfer_id and self.reply is not None:
            written = self.reply.record(self.cluster, self.node, part)
            if written is not None:
                self._parts.put(*written)

    def replace(self, session: Session, hello: pb.ClientHello) -> None:
        """Put a new session in the place of the old one."""
        if self._session is not None and self._session.open:
            self._session.goodbye("SessionReplaced", "the client opened a newer session")
            self._session.close()
        self._session = session
        self.incoming.link_lost()
        receiving = hello.receiving if hello.HasField("receiving") else None
        self.outbox.link_up(receiving, hello.held, self.chunk_bytes)

    def confirm_transfer(self, transfer_id: str) -> None:
        """Tell the client, if it is there, that a reply is safe."""
        if self._session is not None:
            self._session.control(pb.AggregatorFrame(received=pb.TransferReceived(transfer_id=transfer_id)))


class Session:
    """One open stream; implements driver.Session."""

    def __init__(
        self,
        client: Client,
        write: Callable[[Sequence[frames.Outgoing]], Any],
        is_awaited: Callable[[str, int], bool],
    ) -> None:
        self._client = client
        self._write = write
        self._is_awaited = is_awaited
        self._ended = asyncio.Event()
        self._departures = departures.Departures(client.outbox, lambda begin: pb.AggregatorFrame(begin=begin))
        self._wake = asyncio.Event()
        self._leaving = False
        self.open = True

    async def welcome(self, version: int, run_id: int) -> None:
        welcome = pb.ClientWelcome(
            protocol=version,
            node_id=self._client.node,
            run_id=run_id,
            receiving=self._client.incoming.position,
            chunk_bytes=self._client.chunk_bytes,
        )
        await self._write([pb.AggregatorFrame(welcome=welcome)])

    def send(self, message_id: str, message: codec.OutgoingMessage) -> None:
        del message_id  # it stands in the message's header
        self._client.outbox.keep_only(lambda waiting: self._is_awaited(waiting, self._client.node))
        self._client.outbox.put(message)
        self._wake.set()

    def confirm(self, message_id: str) -> None:
        """Queue a confirmation, which leaves with what leaves next."""
        received = pb.TransferReceived(transfer_id=outbox.reply_id(message_id))
        self._departures.mention(pb.AggregatorFrame(received=received))
        asyncio.get_running_loop().call_later(departures.MENTION_SECONDS, self._mentions_due)

    def _mentions_due(self) -> None:
        self._departures.due()
        self._wake.set()

    def withdraw(self, message_id: str) -> None:
        self._client.outbox.drop(message_id)
        self.control(pb.AggregatorFrame(withdrawn=pb.MessageWithdrawn(message_id=message_id)))

    def goodbye(self, reason: str, message: str) -> None:
        self._leaving = True
        self._end_soon()
        self.control(pb.AggregatorFrame(goodbye=pb.Goodbye(reason=reason, message=message)))

    def control(self, frame: pb.AggregatorFrame) -> None:
        """Queue a small frame; it overtakes a message that is on its way."""
        self._departures.say(frame)
        self._wake.set()

    def close(self) -> None:
        """No frame is written or read any more."""
        if self.open:
            self.open = False
            self._client.outbox.link_lost()
            self._wake.set()
            self._end_soon()

    def _end_soon(self) -> None:
        asyncio.get_running_loop().call_later(LAST_FRAME_SECONDS, self._ended.set)

    async def serve(self, reader: asyncio.Task[None]) -> None:
        """Write as `write_until` does; a client that reads nothing cannot keep an ended session open."""
        await tasks.together(self.write_until(reader), self._ended.wait())

    async def write_until(self, reader: asyncio.Task[None]) -> None:
        """Write frames until goodbye is said, the reader ends, or another session takes over."""
        reader.add_done_callback(lambda _: self._wake.set())
        while (self.open or self._departures) and not reader.done():
            self._wake.clear()
            goes_on = self.open and not self._leaving
            together = self._departures.next(messages=goes_on)
            if together:
                await self._write(together)
                sent = sum(len(frame.data) for frame in together if isinstance(frame, frames.Chunk))
                self._client.progress.transferred(self._client.cluster, sent=sent)
            elif goes_on:
                await self._wake.wait()
            else:
                return
