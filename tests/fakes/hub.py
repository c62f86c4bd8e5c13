"""A hub that behaves, for one training: real gRPC and TLS, a roster that tests change, progress that they
read.

What it leaves out is everything that the coordinator decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from federation.trust import authorisation, credentials, interceptors
from federation.trust import identity as identities
from federation.wire import denials
from federation.wire import hanse_pb2 as pb
from tests.fakes import certificates

import grpc.aio  # isort: skip  # after federation.trust

from federation.wire import hanse_pb2_grpc as pb_grpc  # isort: skip

TRUST_DOMAIN = "hanse.local"


class Hub(pb_grpc.ProgressServicer):
    """Serves Progress.Session to one aggregator."""

    def __init__(self, directory: Path, authority: certificates.Authority) -> None:
        self._directory = directory
        self.authority = authority
        self.reports: list[pb.ProgressReport] = []
        self.exchange_address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.finished: asyncio.Future[pb.TrainingFinished] = asyncio.get_running_loop().create_future()
        self.changed = asyncio.Condition()
        self._roster: list[pb.RosterMember] = []
        self._directives: asyncio.Queue[pb.AggregatorDirective | denials.Denied] = asyncio.Queue()

    async def start(self) -> str:
        """Listen on any port; returns host:port."""
        identity = identities.CoordinatorIdentity(TRUST_DOMAIN)
        own = self.authority.server(identity).directory(self._directory / "hub")
        self._server = grpc.aio.server(
            interceptors=[interceptors.Guard(authorisation.control_scope(TRUST_DOMAIN))]
        )
        pb_grpc.add_ProgressServicer_to_server(self, self._server)
        port = self._server.add_secure_port("127.0.0.1:0", own.server_credentials())
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def stop(self) -> None:
        await self._server.stop(0)

    def expect(self, clusters: Iterable[str]) -> None:
        """Put these clusters, and no others, on the roster."""
        self._roster = [pb.RosterMember(cluster=name, expected=True) for name in clusters]
        self._say_roster()

    def remove(self, cluster: str, reason: str, message: str) -> None:
        """Take a cluster off the roster, with a reason."""
        self._roster = [
            pb.RosterMember(cluster=cluster, expected=False, reason=reason, message=message)
            if member.cluster == cluster
            else member
            for member in self._roster
        ]
        self._say_roster()

    def say(self, directive: pb.AggregatorDirective) -> None:
        """Send any directive."""
        self._directives.put_nowait(directive)

    def refuse(self, reason: denials.Reason, **fields: object) -> None:
        """End the session, or the next one, with a denial."""
        self._directives.put_nowait(denials.Denied(reason, **fields))

    def _say_roster(self) -> None:
        self.say(self._roster_now())

    def _roster_now(self) -> pb.AggregatorDirective:
        return pb.AggregatorDirective(roster=pb.Roster(members=self._roster))

    async def until(self, holds: Any) -> pb.ProgressReport:
        """Wait until a report satisfies a predicate, and return it."""
        async with self.changed:
            await self.changed.wait_for(lambda: any(holds(report) for report in self.reports))
        return next(report for report in self.reports if holds(report))

    async def Session(self, request_iterator: AsyncIterator[pb.AggregatorMessage], context: Any) -> None:
        reader = asyncio.create_task(self._read(request_iterator))
        try:
            await context.write(pb.AggregatorDirective(welcome=pb.AggregatorWelcome(protocol=1)))
            if self._roster:  # an aggregator that was started again does not know it
                await context.write(self._roster_now())
            while not reader.done():
                directive = asyncio.create_task(self._directives.get())
                await asyncio.wait({reader, directive}, return_when=asyncio.FIRST_COMPLETED)
                if directive.done():
                    if isinstance(said := directive.result(), denials.Denied):
                        raise said
                    await context.write(said)
                else:
                    directive.cancel()
            reader.result()
        finally:
            reader.cancel()

    async def _read(self, messages: AsyncIterator[pb.AggregatorMessage]) -> None:
        async for message in messages:
            match message.WhichOneof("body"):
                case "hello":
                    if not self.exchange_address.done():
                        self.exchange_address.set_result(message.hello.exchange_address)
                case "report":
                    async with self.changed:
                        self.reports.append(message.report)
                        self.changed.notify_all()
                case "finished":
                    if not self.finished.done():
                        self.finished.set_result(message.finished)


def credentials_of(
    authority: certificates.Authority, identity: identities.Identity, path: Path
) -> credentials.CredentialDirectory:
    """Credentials for an identity, written to a directory."""
    return authority.issue(identity).directory(path)
