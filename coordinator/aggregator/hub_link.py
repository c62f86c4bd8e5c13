"""The aggregator's conversation with the coordinator: progress up; roster, rules and stop down.

Why it exists: the coordinator is the only writer of a training's status and the only one that knows which
clusters are wanted. The link dials again when it is cut; the training goes on meanwhile. It decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable

from federation.telemetry import logs
from federation.trust import credentials, keys
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


class HubLink:
    """Keeps one Progress.Session open until the training is finished."""

    def __init__(
        self,
        address: str,
        server_name: str,
        credential_directory: credentials.CredentialDirectory,
        *,
        hello: pb.AggregatorHello,
        report: Callable[[], pb.ProgressReport],
        on_directive: Callable[[pb.AggregatorDirective], None],
        rng: random.Random,
    ) -> None:
        """`report` gives the whole picture when asked; on_directive is called on the event loop."""
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
        delay = FIRST_RETRY_SECONDS
        while not self._delivered.is_set():
            try:
                async with self._credentials.channel(self._address, self._server_name) as channel:
                    await self._session(channel)
                delay = FIRST_RETRY_SECONDS
            except grpc.aio.AioRpcError as error:
                denied = denials.from_rpc_error(error)
                if denied is not None and not denied.may_retry:
                    raise denials.Denied(denied) from error
                log.warning("hub link lost", code=error.code().name, detail=error.details())
            if not self._delivered.is_set():
                await asyncio.sleep(delay * self._rng.uniform(0.5, 1.0))
                delay = min(delay * 2, LONGEST_RETRY_SECONDS)

    async def _session(self, channel: grpc.aio.Channel) -> None:
        call = pb_grpc.ProgressStub(channel).Session(wait_for_ready=True)
        await call.write(pb.AggregatorMessage(hello=self._hello))
        self._changed.set()
        writer = asyncio.create_task(self._write(call))
        try:
            while (directive := await call.read()) is not grpc.aio.EOF:
                self._on_directive(directive)
            if self._finished is not None and writer.done():
                # The coordinator closes the stream once it has read the end.
                self._delivered.set()
        finally:
            writer.cancel()
            with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await writer
            call.cancel()

    async def _write(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            finished = self._finished
            await call.write(pb.AggregatorMessage(report=self._report()))
            if finished is not None:
                await call.write(pb.AggregatorMessage(finished=finished))
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
