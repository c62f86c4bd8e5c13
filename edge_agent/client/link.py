"""The client's end of Exchange.Session: it dials, dials again, and loses nothing while a link is down.

Why it exists: the worker answers messages on the process's main thread; this keeps the conversation with the
aggregator going meanwhile, on an event loop in a thread of its own. It knows transfers and frames, and
nothing of what the messages mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from flwr.app import Array, Message

from federation.flower import messages as flower_messages
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.trust import calls, credentials, directory
from federation.wire import codec, denials, departures, frames, outbox, protocol, transfers
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits

import grpc  # isort: skip  # after federation.trust, which decides what TLS gRPC speaks
import grpc.aio  # isort: skip

log = logs.get_logger(__name__)

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", wire_limits.MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", wire_limits.MAX_FRAME_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""A half-open link is noticed within half a minute: NATs drop idle connections without a word."""

METHOD = "/hanse.v1.Exchange/Session"

FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 10.0

LOOK_SECONDS = 5.0
"""So often one who is not let in looks whether there is another certificate by now: gRPC goes on dialling
with the one that there was when it began, however long ago that is."""

WHY_SECONDS = 1.0
"""How long a failed write waits for the reader to learn why the session ended."""


_MENDED_HERE = frozenset({denials.Reason.CERTIFICATE_EXPIRED})
"""Denials that no aggregator takes back, and that the edge's agent ends by itself."""


@dataclass(frozen=True)
class End:
    """Why the session is over for good."""

    reason: str
    message: str
    failed: bool = False


@dataclass
class _Arriving:
    """The arrays of the message that is coming in, and those of the last message that had any."""

    parts: dict[bytes, list[memoryview]] = field(default_factory=dict)
    came: dict[bytes, bytes] = field(default_factory=dict)
    held: dict[bytes, bytes] = field(default_factory=dict)


class ExchangeLink:
    """One client's conversation with its aggregator, until goodbye."""

    def __init__(
        self,
        address: str,
        server_name: str,
        credential_directory: credentials.CredentialDirectory,
        *,
        on_message: Callable[[Message], None],
        on_end: Callable[[End], None],
        on_confirmed: Callable[[str], None] = lambda _: None,
        on_withdrawn: Callable[[str], None] = lambda _: None,
        rng: random.Random,
        limits: wire_limits.MessageLimits = wire_limits.DEFAULT_MESSAGE_LIMITS,
    ) -> None:
        """on_message, on_end and the others are called on the link's thread and must not block.

        on_confirmed: hears the transfer's id of each reply that the aggregator has.
        on_withdrawn: hears the id of each message whose reply nobody waits for any more.
        """
        self._address = address
        self._server_name = server_name
        self._credentials = credential_directory
        self._on_message = on_message
        self._on_end = on_end
        self._on_confirmed = on_confirmed
        self._on_withdrawn = on_withdrawn
        self._rng = rng
        self._arriving = _Arriving()
        self._incoming = transfers.Incoming(
            limits, held=self._arriving.held.__contains__, sink_factory=self._sink
        )
        self._outbox = outbox.Outbox(receiver_holds=False)
        self._departures = departures.Departures(self._outbox, lambda begin: pb.ClientFrame(begin=begin))
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._failure: pb.ClientFailure | None = None
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._conversation: asyncio.Task[End] | None = None
        self._thread = threading.Thread(target=self._run_thread, name="exchange", daemon=True)

    def start(self) -> None:
        """Begin to dial, on a thread of its own."""
        self._thread.start()

    def join(self) -> None:
        """Wait until the conversation is over."""
        self._thread.join()

    def refuse(self, reason: str, message: str) -> None:
        """Say on the first session, instead of hello, that the app cannot be loaded. Before `start` only."""
        self._failure = pb.ClientFailure(reason=reason, message=message)

    def send(self, reply: codec.OutgoingMessage) -> None:
        """Send a reply, now or when the link is back; may be called from any thread, also before `start`.

        One that waits already, or was received, is not sent again.
        """
        self._post(self._put, reply)

    def tell(self, lines: Iterable[str]) -> None:
        """Send lines of the log; those written while the link is down are lost."""
        frame = pb.ClientFrame(log=pb.LogLines(lines=lines))
        self._post(self._say, frame)

    def stop(self) -> None:
        """End the conversation without a word, as if the process had died."""
        self._post(lambda: self._conversation and self._conversation.cancel())

    def _post(self, call: Callable[..., object], *arguments: object) -> None:
        # A loop that is closed belongs to a conversation that is over: nobody waits for what would be said.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *arguments)

    def _put(self, outgoing: codec.OutgoingMessage) -> None:
        self._outbox.put(outgoing)
        self._wake.set()

    def _say(self, frame: pb.ClientFrame) -> None:
        self._departures.say(frame)
        self._wake.set()

    # -- the thread ------------------------------------------------------------------------------

    def _run_thread(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._conversation = self._loop.create_task(self._converse())
            end = self._loop.run_until_complete(self._conversation)
        except asyncio.CancelledError:
            end = End("Stopped", "the client was stopped")
        except Exception as error:  # a bug of ours must not leave the process waiting for ever
            log.exception("link failed")
            end = End("InternalError", f"the client's link failed: {error}", failed=True)
        finally:
            if left := asyncio.all_tasks(self._loop):  # gRPC's own; they end by themselves
                self._loop.run_until_complete(asyncio.wait(left, timeout=WHY_SECONDS))
            self._loop.close()
        self._on_end(end)

    async def _converse(self) -> End:
        while True:
            try:
                stamp = self._credentials.stamp()
                async with self._credentials.channel(
                    self._address, self._server_name, CHANNEL_OPTIONS
                ) as channel:
                    end = await self._session(channel, stamp)
                if end is not None:
                    return end
            except grpc.aio.AioRpcError as error:
                denied = denials.from_rpc_error(error)
                if denied is not None and not denied.may_retry and denied.reason not in _MENDED_HERE:
                    return End(denied.reason, denied.message, failed=True)
                log.warning(
                    "link lost",
                    code=error.code().name,
                    detail=error.details(),
                    retry_seconds=self._retry_seconds,
                )
            except (codec.WireError, asyncio.InvalidStateError, directory.CredentialsUnusable) as error:
                # An InvalidStateError is what grpc.aio says of a write to a call that has ended.
                log.warning("link broken off", detail=str(error))
            finally:
                self._incoming.link_lost()
                self._outbox.link_lost()
            await asyncio.sleep(self._retry_seconds * self._rng.uniform(0.5, 1.0))
            self._retry_seconds = min(self._retry_seconds * 2, LONGEST_RETRY_SECONDS)

    async def _session(self, channel: grpc.aio.Channel, stamp: tuple[object, ...]) -> End | None:
        """One session; returns why it is over for good, or None if it is to be dialled again."""
        session = channel.stream_stream(
            METHOD, request_serializer=frames.serialise, response_deserializer=frames.aggregator_frames
        )
        call = session(wait_for_ready=True)
        try:
            if not await self._admitted(call, stamp):
                return None
            if self._failure is not None:
                return await self._give_up(call, self._failure)
            return await self._exchange(call)
        finally:
            call.cancel()

    async def _admitted(self, call: grpc.aio.StreamStreamCall, stamp: tuple[object, ...]) -> bool:
        """Wait until the aggregator lets this call in; False: there are other credentials to come with."""
        admitted = asyncio.ensure_future(calls.admitted(call))
        try:
            while not (await asyncio.wait({admitted}, timeout=LOOK_SECONDS))[0]:
                if self._credentials.stamp() != stamp:
                    log.info("dialling with another certificate")
                    return False
            admitted.result()
            return True
        finally:
            admitted.cancel()

    async def _give_up(self, call: grpc.aio.StreamStreamCall, failure: pb.ClientFailure) -> End:
        await call.write([pb.ClientFrame(failure=failure)])
        await call.done_writing()
        while await call.read() is not grpc.aio.EOF:
            pass
        return End(failure.reason, failure.message, failed=True)

    async def _exchange(self, call: grpc.aio.StreamStreamCall) -> End | None:
        hello = pb.ClientHello(
            protocol=pb.ProtocolRange(oldest=protocol.OLDEST, newest=protocol.NEWEST),
            held=list(self._arriving.held),
            receiving=self._incoming.position,
            warm=True,
        )
        await call.write([pb.ClientFrame(hello=hello)])
        opening = await call.read()
        if opening is grpc.aio.EOF:
            return None
        if len(opening) != 1:
            raise transfers.TransferError("the aggregator's first frame comes alone")
        (first,) = opening
        if isinstance(first, frames.Chunk):
            raise transfers.TransferNotBegun(first.offset)
        if first.WhichOneof("body") == "goodbye":
            return End(first.goodbye.reason, first.goodbye.message)
        receiving = first.welcome.receiving if first.welcome.HasField("receiving") else None
        waiting = self._outbox.waiting
        self._outbox.link_up(receiving, chunk_bytes=first.welcome.chunk_bytes)
        for transfer_id in sorted(waiting - self._outbox.waiting):  # its confirmation was lost with a link
            self._on_confirmed(transfer_id)
        self._retry_seconds = FIRST_RETRY_SECONDS
        failpoints.reach("client.link-up")
        log.info("link up", node_id=first.welcome.node_id, protocol=first.welcome.protocol)
        reader, writer = asyncio.create_task(self._read(call)), asyncio.create_task(self._write(call))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                await asyncio.wait({reader}, timeout=WHY_SECONDS)
            return await (reader if reader.done() else writer)
        finally:
            reader.cancel()
            writer.cancel()
            await asyncio.wait({reader, writer})
            for task in (reader, writer):
                if not task.cancelled():
                    task.exception()  # one of the two was raised; the other says nothing new

    async def _write(self, call: grpc.aio.StreamStreamCall) -> NoReturn:
        while True:
            self._wake.clear()
            together = self._departures.next()
            if together:
                await call.write(together)
                said = {frame.WhichOneof("body") for frame in together if not isinstance(frame, frames.Chunk)}
                if "begin" in said:
                    failpoints.reach("client.reply-begins")
                if "received" in said:
                    failpoints.reach("client.message-confirmed")
            else:
                await self._wake.wait()

    async def _read(self, call: grpc.aio.StreamStreamCall) -> End | None:
        while (together := await call.read()) is not grpc.aio.EOF:
            for frame in together:
                if (end := self._take(frame)) is not None:
                    return end
        return None

    def _take(self, frame: pb.AggregatorFrame | frames.Chunk) -> End | None:
        if isinstance(frame, frames.Chunk):
            self._act(self._incoming.chunk(frame))
            return None
        match frame.WhichOneof("body"):
            case "begin":
                self._act(self._incoming.begin(frame.begin))
            case "received":
                if self._outbox.received(frame.received):
                    failpoints.reach("client.reply-confirmed")
                    self._on_confirmed(frame.received.transfer_id)
            case "withdrawn":
                self._on_withdrawn(frame.withdrawn.message_id)
            case "goodbye":
                return End(frame.goodbye.reason, frame.goodbye.message)
        return None

    def _act(self, happened: list[transfers.Event]) -> None:
        for event in happened:
            match event:
                case codec.MessageReceived(header):
                    self._received(header)
                    self._confirm(header.message_id)
                case transfers.TransferRepeated(transfer_id):
                    self._confirm(transfer_id)
                case codec.ArrayReceived(digest):
                    self._arriving.came[digest] = b"".join(self._arriving.parts.pop(digest, ()))
                case transfers.TransferAbandoned():
                    self._arriving.parts.clear()
                    self._arriving.came.clear()

    def _received(self, header: pb.MessageHeader) -> None:
        """Put the message together; afterwards its arrays, and no others, are held."""
        digests = codec.distinct_entries(header)
        known = self._arriving.held | self._arriving.came
        self._arriving.came.clear()

        def array_of(entry: pb.ArrayEntry) -> Array:
            data = known.get(entry.digest, b"")
            array = Array(entry.dtype, tuple(entry.shape), entry.serialization, data)
            flower_messages.remember_digest(array, entry.digest)
            return array

        message = flower_messages.to_flower(header, array_of)
        if digests:
            self._arriving.held.clear()
            self._arriving.held.update({digest: known.get(digest, b"") for digest in digests})
        failpoints.reach("client.message-received")
        self._on_message(message)

    def _sink(self, entry: pb.ArrayEntry) -> codec.Sink:
        # Views of the frames that gRPC received: the one copy is the joining.
        parts: list[memoryview] = []
        self._arriving.parts[entry.digest] = parts
        return parts.append

    def _confirm(self, transfer_id: str) -> None:
        received = pb.TransferReceived(transfer_id=transfer_id)
        self._departures.mention(pb.ClientFrame(received=received))
        self._loop.call_later(departures.MENTION_SECONDS, self._mentions_due)

    def _mentions_due(self) -> None:
        self._departures.due()
        self._wake.set()
