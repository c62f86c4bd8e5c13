"""The aggregator's conversation with the coordinator: progress up; roster, rules and stop down.

Why it exists: the coordinator is the only writer of a training's status and the only one that knows which
clusters are wanted. The link dials again when it is cut; the training goes on meanwhile. It decides nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from federation.telemetry import logs
from federation.trust import calls, credentials, directory, keys
from federation.wire import denials, protocol
from federation.wire import hanse_pb2 as pb

import grpc  # isort: skip  # after federation.trust, which decides what TLS gRPC speaks
import grpc.aio  # isort: skip

from federation.wire import hanse_pb2_grpc as pb_grpc  # isort: skip

log = logs.get_logger(__name__)

REPORT_INTERVAL_SECONDS = 0.1
"""At most so often a report is sent: a person cannot read faster, and the hub has other things to do."""

FIRST_RETRY_SECONDS = 0.2
LONGEST_RETRY_SECONDS = 10.0

CHANNEL_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
"""A link that died without a word is dialled again in time to tell the end of the training on the next one:
`delivery_seconds` is twice as long."""

WHY_SECONDS = 1.0
"""How long a failed write waits for the reader to learn why the session ended."""


class _SessionClosed(Exception):
    """The coordinator ended the stream without a reason; dial again."""

    def __init__(self) -> None:
        super().__init__("the hub closed the session")


class HubLink:
    """Keeps one Progress.Session open until the training is finished."""

    def __init__(
        self,
        address: str,
        server_name: str,
        credential_directory: credentials.CredentialDirectory,
        *,
        hello: pb.AggregatorHello,
        report: Callable[[bool], pb.ProgressReport],
        on_directive: Callable[[pb.AggregatorDirective], None],
        rng: random.Random,
    ) -> None:
        """Take what to say and whom to tell.

        report: gives the picture when asked; asked with True, also what earlier reports carried, which may
            have been lost with their link. on_directive: is called on the event loop.
        """
        self._address = address
        self._server_name = server_name
        self._credentials = credential_directory
        self._hello = hello
        self._report = report
        self._on_directive = on_directive
        self._rng = rng
        self._changed = asyncio.Event()
        self._finished: pb.TrainingFinished | None = None
        self._delivered = asyncio.Event()
        self._said = False
        """Whether the end was written whole on this session."""
        self._retry_seconds = FIRST_RETRY_SECONDS

    def changed(self) -> None:
        """There is something new to report."""
        self._changed.set()

    def finish(self, finished: pb.TrainingFinished) -> None:
        """Report the end, after a last report."""
        self._finished = finished
        self._changed.set()

    async def delivered(self) -> None:
        """Wait until the coordinator has read the end."""
        await self._delivered.wait()

    async def run(self) -> None:
        """Converse until the end is delivered. A denial that no retry can heal ends the run with Denied."""
        while not self._delivered.is_set():
            try:
                async with self._credentials.channel(
                    self._address, self._server_name, CHANNEL_OPTIONS
                ) as channel:
                    await self._session(channel)
            except grpc.aio.AioRpcError as error:
                denied = denials.from_rpc_error(error)
                if denied is not None and not denied.may_retry:
                    raise denials.Denied(denied) from error
                log.warning("hub link lost", code=error.code().name, detail=error.details())
            except (_SessionClosed, asyncio.InvalidStateError, directory.CredentialsUnusable) as error:
                # An InvalidStateError is what grpc.aio says of a write to a call that has ended.
                log.warning("hub link lost", detail=str(error))
            if not self._delivered.is_set():
                await asyncio.sleep(self._retry_seconds * self._rng.uniform(0.5, 1.0))
                self._retry_seconds = min(self._retry_seconds * 2, LONGEST_RETRY_SECONDS)

    async def _session(self, channel: grpc.aio.Channel) -> None:
        call = pb_grpc.ProgressStub(channel).Session(wait_for_ready=True)
        tasks: set[asyncio.Task[None]] = set()
        try:
            await calls.admitted(call)
            await call.write(pb.AggregatorMessage(hello=self._hello))
            self._changed.set()
            reader, writer = asyncio.create_task(self._read(call)), asyncio.create_task(self._write(call))
            tasks = {reader, writer}
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if reader not in done:  # the write failed; the reader may know why
                await asyncio.wait({reader}, timeout=WHY_SECONDS)
            for task in (reader, writer):
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            call.cancel()

    async def _read(self, call: grpc.aio.StreamStreamCall) -> None:
        while (directive := await call.read()) is not grpc.aio.EOF:
            self._retry_seconds = FIRST_RETRY_SECONDS
            self._on_directive(directive)
        if not self._said:
            raise _SessionClosed
        # The coordinator closes the stream once it has read the end.
        self._delivered.set()

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        self._said, whole = False, True
        while True:
            await self._changed.wait()
            self._changed.clear()
            finished = self._finished
            await call.write(pb.AggregatorMessage(report=self._report(whole)))
            whole = False
            if finished is not None:
                await call.write(pb.AggregatorMessage(finished=finished))
                self._said = True
                await call.done_writing()
                return
            await asyncio.sleep(REPORT_INTERVAL_SECONDS)


def hello(exchange_address: str, server_name: str) -> pb.AggregatorHello:
    """What an aggregator says of itself."""
    return pb.AggregatorHello(
        protocol=pb.ProtocolRange(oldest=protocol.OLDEST, newest=protocol.NEWEST),
        exchange_address=exchange_address,
        server_name=server_name,
    )


async def renew(
    credential_directory: credentials.CredentialDirectory, address: str, server_name: str
) -> None:
    """Get a new certificate for the identity that is held, with a new key; open streams keep the old one.

    Raises: grpc.aio.AioRpcError.
    """
    key = keys.generate()
    request = keys.request(key, credential_directory.identity())
    async with credential_directory.channel(address, server_name) as channel:
        reply = await pb_grpc.EnrollmentStub(channel).Renew(pb.RenewRequest(csr_pem=request), timeout=30)
    credential_directory.write(keys.to_pem(key), reply.chain_pem, reply.trust_bundle_pem)
