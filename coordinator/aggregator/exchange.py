"""The aggregator's side of Exchange.Session: frames in and out, for each client.

Why it exists: between a gRPC stream and the driver lie the protocol's hello, transfers that survive a cut
link, the spool on disk and the checks of an update. A reply's arrays go to disk as they come and are never
whole in memory. Rounds are not known here; authorisation has happened before
(federation/trust/interceptors.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, TypeVar

from flwr.app import Message

from coordinator.aggregation import events
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import progress as progress_module
from coordinator.aggregator import received, sessions, verification
from coordinator.journal import book as journal
from coordinator.journal import entries
from coordinator.journal import room as rooms
from federation.api import reasons
from federation.flower import host, replies
from federation.flower import messages as flower_messages
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.trust import identity as identities
from federation.trust import interceptors
from federation.wire import codec, denials, frames, outbox, protocol, transfers
from federation.wire import hanse_pb2 as pb
from federation.wire import hanse_pb2_grpc as pb_grpc
from federation.wire import limits as wire_limits

import grpc  # isort: skip  # after federation.trust, which decides what TLS gRPC speaks
import grpc.aio  # isort: skip

log = logs.get_logger(__name__)


SERVICE = "hanse.v1.Exchange"

HELLO_SECONDS = 10.0
"""A client says hello as soon as its stream is open; who does not is none of ours."""

MAXIMUM_TEXT_CHARACTERS = 2000
"""Of what a client says in words. It goes into status, and a report with a client's megabytes in it would not
pass."""


class Exchange(pb_grpc.ExchangeServicer):
    """Serves the clients of one training."""

    def __init__(
        self,
        driver: driver_module.Driver,
        progress: progress_module.Progress,
        verifier: verification.Verifier,
        *,
        node_of: Callable[[str], int],
        run_id: int,
        book: journal.Book,
        message_limits: wire_limits.MessageLimits,
        chunk_bytes: int = wire_limits.CHUNK_BYTES,
    ) -> None:
        """Take what a session needs, and the replies that an earlier process has had in part.

        node_of gives a cluster's node id, chunk_bytes is the longest chunk of a session, either way.
        """
        self._driver = driver
        self._progress = progress
        self._verifier = verifier
        self._node_of = node_of
        self._run_id = run_id
        self._book = book
        self._room = book.room
        self._limits = message_limits
        self._chunk_bytes = chunk_bytes
        self._clients: dict[str, sessions.Client] = {}
        self._expected: frozenset[str] | None = None
        for record, attachment in book.unfinished.read():
            if node_of(record.cluster) == record.node:
                self._client(record.cluster).take_up(record, attachment)

    def add_to_server(self, server: grpc.aio.Server) -> None:
        """Serve on `server`, with frames as `federation.wire.frames` makes and reads them."""
        handlers = {
            "Session": grpc.stream_stream_rpc_method_handler(
                self.Session, request_deserializer=frames.client_frames, response_serializer=frames.serialise
            )
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))

    def expect(self, clusters: Iterable[str]) -> None:
        """Which clusters may open a session from now on; before the first call all may."""
        self._expected = frozenset(clusters)

    async def Session(
        self, request_iterator: AsyncIterator[Sequence[pb.ClientFrame | frames.Chunk]], context: Any
    ) -> None:
        """Serve one session from hello to goodbye.

        Raises: Denied for a cluster that is not expected, a protocol that is not spoken, a malformed frame.
        """
        identity = interceptors.peer_identity(context)
        assert isinstance(identity, identities.ClientIdentity)  # the authorisation table lets nobody else in
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                opening = await anext(aiter(request_iterator), None)
        except TimeoutError as error:
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="no hello came in time") from error
        if opening is None:
            return
        if len(opening) != 1:
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="hello comes alone")
        (first,) = opening
        # Now that it has spoken, it listens: a denial is not lost in its writing.
        if self._expected is not None and identity.cluster not in self._expected:
            raise denials.Denied(
                denials.Reason.NOT_EXPECTED,
                cluster=identity.cluster,
                training=f"{identity.namespace}/{identity.training}",
                detail="the hub has not asked it to, or no longer does",
            )
        if isinstance(first, frames.Chunk):
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="a session begins with hello")
        if first.WhichOneof("body") == "failure":
            self._failed_to_load(identity.cluster, first.failure)
            return
        if first.WhichOneof("body") != "hello":
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="a session begins with hello")
        agreed = protocol.agree(first.hello.protocol)
        if isinstance(agreed, denials.Denial):
            raise denials.Denied(agreed)
        failpoints.reach("aggregator.hello-heard")
        await self._driver.admits.wait()
        client = self._client(identity.cluster)
        # First what an earlier process has had of a reply: a client that begins anew gets its message again.
        self._take(client, list)
        session = sessions.Session(client, context.write, self._driver.awaits)
        client.replace(session, first.hello)
        self._driver.connected(client.node, session)
        try:
            # The welcome names what came on links before this one, and a client forgets such replies.
            if client.storing is not None:
                await asyncio.wait({client.storing})
            if client.checking:  # a session that ends meanwhile must not take the checks with it
                await asyncio.wait(set(client.checking))
            await self._driver.written()
            await session.welcome(agreed, self._run_id)
            failpoints.reach("aggregator.client-welcomed")
            reader = asyncio.create_task(self._read(client, session, request_iterator))
            try:
                await session.serve(reader)
                if reader.done():
                    reader.result()
            finally:
                reader.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await reader
        finally:
            session.close()
            self._driver.disconnected(client.node, session)

    def _client(self, cluster: str) -> sessions.Client:
        if cluster not in self._clients:
            node = self._node_of(cluster)
            self._clients[cluster] = sessions.Client(
                cluster,
                node,
                self._limits,
                self._book.segments,
                self._book.unfinished,
                self._progress,
                self._chunk_bytes,
            )
        return self._clients[cluster]

    def _failed_to_load(self, cluster: str, failure: pb.ClientFailure) -> None:
        known = {reason.value for reason in reasons.ClusterReason}
        reason = failure.reason if failure.reason in known else reasons.ClusterReason.APP_NOT_LOADABLE
        message = failure.message[:MAXIMUM_TEXT_CHARACTERS]
        log.error("client app not loadable", cluster=cluster, reason=str(reason), detail=message)
        self._progress.client_log(cluster, failure.log_tail)
        self._driver.handle(events.NodeRemoved(self._node_of(cluster), reason, message, self._driver.now()))

    async def _read(
        self,
        client: sessions.Client,
        session: sessions.Session,
        requests: AsyncIterator[Sequence[pb.ClientFrame | frames.Chunk]],
    ) -> None:
        async for frame in _each(requests):
            if client.storing is not None:
                await asyncio.wait({client.storing})
            if not session.open:
                return
            if isinstance(frame, frames.Chunk):
                self._progress.transferred(client.cluster, received=len(frame.data))
                self._take(client, functools.partial(client.incoming.chunk, frame))
                if client.incoming.arrived_bytes >= client.keep_at:
                    self._keep_part(client)
                continue
            match frame.WhichOneof("body"):
                case "begin":
                    client.transfer_id = frame.begin.transfer_id
                    client.keep_at = sessions.KEPT_EACH_BYTES
                    failpoints.reach("aggregator.reply-begins")
                    self._take(client, functools.partial(client.incoming.begin, frame.begin))
                case "received":
                    if client.outbox.received(frame.received):
                        self._driver.delivered(frame.received.transfer_id)
                case "log":
                    self._progress.client_log(client.cluster, frame.log.lines)
                case "failure":
                    self._failed_to_load(client.cluster, frame.failure)
                    return
                case other:
                    raise denials.Denied(
                        denials.Reason.BAD_MESSAGE, detail=f"a {other} frame within a session"
                    )

    def _take(self, client: sessions.Client, feed: Callable[[], list[transfers.Event]]) -> None:
        """Feed a frame into the client's transfer and act on what it brings about."""
        try:
            client.happened.extend(feed())
            self._act(client)
        except codec.WireError as error:
            self._refuse_transfer(client, error)
        except OSError as error:
            self._not_stored(client, error)

    def _keep_part(self, client: sessions.Client) -> None:
        """Write down how far a reply came, when the client's earlier ones are in the journal for good.

        A client that is told where this one goes on takes those before it for received.
        """
        if client.checking or (part := client.incoming.part) is None:
            return
        client.keep_at = part.position + max(sessions.KEPT_EACH_BYTES, part.total_bytes // 16)
        if not self._may_come(client.node, part.transfer_id):
            return
        self._book.unfinished.keep_only(self._may_come)
        keep = functools.partial(client.keep, part.transfer_id)
        loop = asyncio.get_running_loop()
        self._book.when_durable(functools.partial(loop.call_soon_threadsafe, keep))

    def _may_come(self, node: int, transfer_id: str) -> bool:
        return self._driver.outgoing(outbox.answered_by(transfer_id) or "", node) is not None

    def _not_stored(self, client: sessions.Client, error: OSError, how: str = "be stored") -> None:
        log.error("disk failed", cluster=client.cluster, error=str(error))
        client.reply = None
        why = f"a reply of {client.cluster} could not {how}: {error}"
        self._driver.handle(events.StopAsked(reasons.TrainingReason.STORAGE_UNAVAILABLE, why))

    def _act(self, client: sessions.Client) -> bool:
        """Act on what frames brought about; returns whether it must wait for room. Raises: OSError."""
        if client.reply is not None and (missing := client.reply.write_again()):
            self._room.missing(f"reply of {client.cluster}", missing, "a reply waits")
            if client.storing is None:
                client.storing = asyncio.create_task(self._store(client))
            return True
        while client.happened:
            match client.happened.popleft():
                case codec.HeaderReceived(header):
                    self._look_at_header(client, header)
                case codec.MessageReceived(header):
                    reply, client.reply = client.arriving(), None
                    if not reply.refused:
                        client.checking.add(task := asyncio.create_task(self._check(client, header, reply)))
                        task.add_done_callback(client.checking.discard)
                case transfers.TransferRepeated(transfer_id):
                    client.confirm_transfer(transfer_id)
                case transfers.TransferAbandoned():
                    client.drop(client.reply)
                    client.reply = None
        return False

    async def _store(self, client: sessions.Client) -> None:
        """Try again until the bytes of a reply have found room, whether or not its client is still there."""
        try:
            while True:
                await asyncio.sleep(rooms.RETRY_SECONDS)
                if not self._act(client):
                    return
        except OSError as error:
            self._not_stored(client, error)
        finally:
            client.storing = None
            self._room.there(f"reply of {client.cluster}")

    def _look_at_header(self, client: sessions.Client, header: pb.MessageHeader) -> None:
        """Refuse what the header alone shows to be unacceptable, before its arrays take time and room."""
        answered = outbox.answered_by(header.message_id)
        refused: events.Refused | None
        if answered is not None and client.outbox.received(pb.TransferReceived(transfer_id=answered)):
            self._driver.delivered(answered)  # who answers a message has it, whether or not it says so
        if answered != header.reply_to_message_id:
            text = f"{header.message_id[:100]} says that it answers {header.reply_to_message_id[:100]}"
            refused = _unreadable(client, text)
        else:
            sent = self._driver.outgoing(answered, client.node)
            try:
                if sent is None:  # nothing of it is written; the machine says what it was
                    refused = _unreadable(client, "nobody waits for it any more")
                else:
                    # An error reply may carry anything beside its error, which is not looked into.
                    refused = None if header.HasField("error") else self._verifier.header(sent.header, header)
                    if header.HasField("error") and header.records:
                        refused = _unreadable(client, "it has both an error and records")
            except Exception as error:
                log.exception("reply not readable", cluster=client.cluster)
                refused = _unreadable(client, error)
        if refused is not None:
            client.drop(client.arriving())
            self._refuse(client, answered or header.reply_to_message_id, refused)

    async def _check(self, client: sessions.Client, header: pb.MessageHeader, reply: received.Reply) -> None:
        """Check a whole reply's values, beside the event loop, and hand it on."""
        message_id = header.reply_to_message_id
        sent = self._driver.outgoing(message_id, client.node)
        if sent is None:  # the machine says what becomes of it; what cannot be checked never counts
            client.drop(reply)
            self._refuse(client, message_id, _unreadable(client, "it came too late to be checked"))
            return
        try:
            verdict: events.Verdict
            if header.HasField("error"):
                header.error.reason = header.error.reason[:MAXIMUM_TEXT_CHARACTERS]
                verdict = events.Errored(header.error.code, header.error.reason)
            else:
                verdict = await self._verifier.values(sent, header, reply)
            message = self._message(client, sent.header, header, reply)
        except Exception as error:  # whatever a hostile reply provokes ends as its refusal
            if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of a parser
                self._not_stored(client, error, "be read from the disk")
                return
            log.exception("reply not readable", cluster=client.cluster)
            client.drop(reply)
            self._refuse(client, message_id, _unreadable(client, error))
            return

        def build(answered_id: str) -> Message:
            replies.set_answered(message, answered_id)
            return message

        written = reply.written(message_id, client.node, verdict, header)
        self._driver.replied(client.node, driver_module.ReceivedReply(message_id, verdict, build, written))
        if self._book.unfinished.is_of(client.node, header.message_id):
            forget = functools.partial(self._book.unfinished.forget, client.node, header.message_id)
            self._book.when_durable(forget)

    def _message(
        self, client: sessions.Client, sent: pb.MessageHeader, header: pb.MessageHeader, reply: received.Reply
    ) -> Message:
        """The reply as the app sees it. Whose it is and what it answers is not the client's to say."""
        header.source_node_id, header.destination_node_id = client.node, host.SERVER_NODE_ID
        header.run_id = self._run_id
        header.created_at, header.ttl_seconds = time.time(), max(sent.ttl_seconds, 1.0)
        header.message_type, header.group_id = sent.message_type, sent.group_id
        return flower_messages.to_flower(header, reply.array_of)

    def _refuse(self, client: sessions.Client, message_id: str, refused: events.Refused) -> None:
        written = entries.Received(
            message_id=message_id, node=client.node, verdict=entries.verdict_of(refused)
        )
        self._driver.replied(
            client.node, driver_module.ReceivedReply(message_id, refused, _never, (written, b""))
        )

    def _refuse_transfer(self, client: sessions.Client, error: codec.WireError) -> None:
        """A reply whose bytes are not a message, or too many: its message is answered by the refusal."""
        message_id = outbox.answered_by(client.transfer_id)
        client.drop(client.reply)
        client.reply = None
        if message_id is None or isinstance(error, transfers.TransferNotBegun):
            if client.transfer_id and client.refused_transfer == client.transfer_id:
                return  # the rest of a transfer that was refused at its beginning
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail=str(error))
        too_large = isinstance(
            error, codec.MessageTooLarge | codec.ArrayTooLarge | codec.TooManyArrays | codec.HeaderTooLarge
        )
        reason = reasons.UpdateViolation.TOO_LARGE if too_large else reasons.UpdateViolation.UNREADABLE
        client.refused_transfer = client.transfer_id
        text = f"the reply of {client.cluster} was refused: {error}"
        self._refuse(client, message_id, events.Refused(reason, text[:MAXIMUM_TEXT_CHARACTERS]))


_Frame = TypeVar("_Frame")


async def _each(requests: AsyncIterator[Sequence[_Frame]]) -> AsyncIterator[_Frame]:
    async for together in requests:
        for frame in together:
            yield frame


def _unreadable(client: sessions.Client, why: object) -> events.Refused:
    text = f"the reply of {client.cluster} cannot be read: {why}"
    return events.Refused(reasons.UpdateViolation.UNREADABLE, text[:MAXIMUM_TEXT_CHARACTERS])


def _never(_: str) -> Message:
    raise AssertionError("a refused reply is never handed on")
