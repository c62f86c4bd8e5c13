"""Open streams: they outlive a renewal, and do not outlive a revocation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from federation.trust import authorisation, bundle, calls, credentials, interceptors, pinning
from federation.trust.authorisation import Revocations
from federation.trust.identity import ClusterIdentity, CoordinatorIdentity
from federation.wire import denials, hanse_pb2, hanse_pb2_grpc
from federation.wire.denials import Denied, Reason
from tests.fakes import certificates as fakes

HUB = CoordinatorIdentity(fakes.TRUST_DOMAIN)
ZURICH = ClusterIdentity(fakes.TRUST_DOMAIN, "zurich")
BUDAPEST = ClusterIdentity(fakes.TRUST_DOMAIN, "budapest")


class Echo(hanse_pb2_grpc.ControlServicer):
    """Answers each heartbeat with a welcome that tells the serial number of the certificate it sees."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.stubborn = asyncio.Event()

    async def Session(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for _ in requests:
                yield self.answer(context)
        finally:
            self.ended.set()

    async def IssueClientCertificate(self, request: Any, context: Any) -> Any:
        if request.name == "crash":
            raise RuntimeError("secret detail")
        if request.name == "stubborn":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await self.stubborn.wait()
        raise Denied(
            Reason.UNKNOWN_ASSIGNMENT,
            cluster=interceptors.peer_identity(context).cluster,
            training=f"{request.namespace}/{request.name}",
            dataset=request.dataset,
        )

    def answer(self, context: Any) -> Any:
        caller = interceptors.peer(context)
        assert caller is not None
        return hanse_pb2.HubMessage(welcome=hanse_pb2.AgentWelcome(hub=str(caller.serial)))


@dataclass
class Pair:
    """Both ends of a control channel."""

    authority: fakes.Authority
    guard: interceptors.Guard
    echo: Echo
    server: credentials.CredentialDirectory
    edge: credentials.CredentialDirectory
    address: str
    listener: Any

    def channel(self) -> Any:
        return self.edge.channel(self.address, HUB.server_name)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    authority = fakes.Authority()
    echo = Echo()
    guard = interceptors.Guard(authorisation.control_scope(fakes.TRUST_DOMAIN))
    hub = authority.server(HUB).directory(tmp_path / "hub")
    server = grpc.aio.server(interceptors=[guard])
    hanse_pb2_grpc.add_ControlServicer_to_server(echo, server)
    port = server.add_secure_port("127.0.0.1:0", hub.server_credentials())
    await server.start()
    edge = authority.client(ZURICH).directory(tmp_path / "zurich")
    yield Pair(authority, guard, echo, hub, edge, f"127.0.0.1:{port}", server)
    echo.stubborn.set()
    await server.stop(None)


async def beat(stream: Any) -> str:
    """Send a heartbeat; returns the serial number that the hub saw."""
    await stream.write(hanse_pb2.AgentMessage(heartbeat=hanse_pb2.Heartbeat()))
    reply = await stream.read()
    return str(reply.welcome.hub)


def renew(pair: Pair, directory: credentials.CredentialDirectory, identity: Any) -> fakes.Issued:
    fresh = pair.authority.issue(identity)
    directory.write(fresh.key_pem, fresh.chain_pem, fresh.bundle_pem)
    return fresh


async def test_server_takes_a_renewed_certificate_without_dropping_a_stream(pair: Pair) -> None:
    """The next handshake shows the new certificate; the open stream notices nothing."""
    async with pair.channel() as old:
        stream = hanse_pb2_grpc.ControlStub(old).Session()
        await beat(stream)
        before = await shown_serial(pair)

        fresh = renew(pair, pair.server, HUB)

        assert before != fresh.serial
        assert await shown_serial(pair) == fresh.serial
        await beat(stream)
        async with pair.channel() as new:
            await beat(hanse_pb2_grpc.ControlStub(new).Session())


async def test_client_takes_a_renewed_certificate_without_dropping_a_stream(pair: Pair) -> None:
    """A use that began before goes on with the old certificate, the next one shows the new one."""
    first = pair.edge.summary().serial
    reloading = pair.edge.reloading_channel(pair.address, HUB.server_name)
    async with reloading.use() as old:
        stream = hanse_pb2_grpc.ControlStub(old).Session()
        assert await beat(stream) == str(first)

        fresh = renew(pair, pair.edge, ZURICH)

        async with reloading.use() as new:
            assert new is not old
            assert await beat(hanse_pb2_grpc.ControlStub(new).Session()) == str(fresh.serial)
        assert await beat(stream) == str(first)
    async with reloading.use() as same:
        assert same is new
    await reloading.close()


async def test_both_sides_move_to_another_authority(pair: Pair, tmp_path: Path) -> None:
    """With both CAs in the bundles, members of the old and of the new one meet, and streams stay up."""
    successor = fakes.Authority()
    both = bundle.merge(pair.authority.bundle_pem, successor.bundle_pem)
    async with pair.channel() as old:
        stream = hanse_pb2_grpc.ControlStub(old).Session()
        await beat(stream)
        hub = pair.authority.issue(HUB)
        pair.server.write(hub.key_pem, hub.chain_pem, both)
        newcomer = successor.client(BUDAPEST)
        directory = credentials.CredentialDirectory(tmp_path / "budapest")
        directory.write(newcomer.key_pem, newcomer.chain_pem, both)
        async with directory.channel(pair.address, HUB.server_name) as channel:
            await beat(hanse_pb2_grpc.ControlStub(channel).Session())
        await beat(stream)


async def test_server_keeps_its_certificate_while_the_files_cannot_be_used(pair: Pair) -> None:
    """Broken files are not loaded; the next connection still works."""
    (pair.server.path / "tls.crt").write_bytes(b"not a certificate")
    async with pair.channel() as channel:
        await beat(hanse_pb2_grpc.ControlStub(channel).Session())


async def test_revocation_cuts_an_open_stream(pair: Pair) -> None:
    """The stream ends with the reason at once, its handler is ended, and a new call is refused alike."""
    async with pair.channel() as channel:
        stub = hanse_pb2_grpc.ControlStub(channel)
        stream = stub.Session()
        await beat(stream)
        assert pair.guard.open_calls() == [("/hanse.v1.Control/Session", ZURICH)]

        assert pair.guard.revoke(Revocations(clusters=frozenset({"zurich"}))) == 1

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert reason(caught.value) is Reason.EXPELLED
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        await pair.echo.ended.wait()
        with pytest.raises(grpc.aio.AioRpcError) as again:
            await stub.Session().read()
        assert reason(again.value) is Reason.EXPELLED


async def test_revocation_leaves_others_alone(pair: Pair, tmp_path: Path) -> None:
    """Only the streams of the revoked identity are cut, and a lifted revocation lets it in again."""
    budapest = pair.authority.client(BUDAPEST).directory(tmp_path / "budapest")
    async with pair.channel() as channel, budapest.channel(pair.address, HUB.server_name) as other:
        stream = hanse_pb2_grpc.ControlStub(other).Session()
        await beat(stream)
        await beat(hanse_pb2_grpc.ControlStub(channel).Session())
        assert pair.guard.revoke(Revocations(clusters=frozenset({"zurich"}))) == 1
        await beat(stream)
        assert pair.guard.replace_revocations(authorisation.NONE_REVOKED) == 0
        await beat(hanse_pb2_grpc.ControlStub(channel).Session())


async def test_a_client_that_waits_to_be_admitted_always_learns_the_reason(pair: Pair) -> None:
    """A client that waits before it writes learns that it is refused without having written."""
    pair.guard.revoke(Revocations(clusters=frozenset({"zurich"})))
    async with pair.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await calls.admitted(hanse_pb2_grpc.ControlStub(channel).Session())
    assert reason(caught.value) is Reason.EXPELLED


async def test_a_handler_that_resists_is_cut_too(pair: Pair) -> None:
    """The caller is cut at once, even if the handler does not end when it is cancelled."""
    async with pair.channel() as channel:
        stub = hanse_pb2_grpc.ControlStub(channel)
        call = stub.IssueClientCertificate(hanse_pb2.IssueClientCertificateRequest(name="stubborn"))
        stream = stub.Session()
        await beat(stream)
        while len(pair.guard.open_calls()) < 2:
            await beat(stream)
        denied = denials.denial(Reason.SESSION_REPLACED, identity=ZURICH.uri)
        assert pair.guard.cut(lambda identity: identity == ZURICH, denied) == 2
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert reason(caught.value) is Reason.SESSION_REPLACED


async def test_a_denial_raised_by_a_handler_reaches_the_caller(pair: Pair) -> None:
    """Status, sentence and reason arrive."""
    async with pair.channel() as channel:
        request = hanse_pb2.IssueClientCertificateRequest(namespace="a", name="b", dataset="c")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hanse_pb2_grpc.ControlStub(channel).IssueClientCertificate(request)
    assert reason(caught.value) is Reason.UNKNOWN_ASSIGNMENT
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "cluster zurich has no assignment for training a/b and data set c"


async def test_a_crash_of_a_handler_tells_nothing(pair: Pair) -> None:
    """The caller learns that the hub failed, not why."""
    async with pair.channel() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hanse_pb2_grpc.ControlStub(channel).IssueClientCertificate(
                hanse_pb2.IssueClientCertificateRequest(name="crash")
            )
    assert reason(caught.value) is Reason.INTERNAL
    assert "secret detail" not in str(caught.value)


async def test_a_stream_that_its_caller_ends_leaves_nothing(pair: Pair) -> None:
    """After a cancelled call the handler is ended and the list of open calls is empty."""
    async with pair.channel() as channel:
        stream = hanse_pb2_grpc.ControlStub(channel).Session()
        await beat(stream)
        stream.cancel()
        await pair.echo.ended.wait()
        await pair.listener.stop(None)
    assert pair.guard.open_calls() == []


async def test_a_connection_that_outlives_its_certificate_gets_no_new_call(tmp_path: Path) -> None:
    """TLS looks at the dates once; the guard looks again at each call. An open stream goes on."""
    authority = fakes.Authority()
    clock = [authority.now]
    guard = interceptors.Guard(authorisation.control_scope(fakes.TRUST_DOMAIN), now=lambda: clock[0])
    server = grpc.aio.server(interceptors=[guard])
    hanse_pb2_grpc.add_ControlServicer_to_server(Echo(), server)
    hub = authority.server(HUB).directory(tmp_path / "hub")
    port = server.add_secure_port("127.0.0.1:0", hub.server_credentials())
    await server.start()
    edge = authority.client(ZURICH).directory(tmp_path / "edge")
    async with edge.channel(f"127.0.0.1:{port}", HUB.server_name) as channel:
        stub = hanse_pb2_grpc.ControlStub(channel)
        stream = stub.Session()
        await beat(stream)
        clock[0] += timedelta(hours=2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Session().read()
        assert reason(caught.value) is Reason.CERTIFICATE_EXPIRED
        await beat(stream)
    await server.stop(None)


async def test_an_authority_bound_to_its_trust_domain_serves_it(tmp_path: Path) -> None:
    """With name constraints in the CA, both ends of the federation still verify each other."""
    authority = fakes.Authority(constrain_names=True)
    guard = interceptors.Guard(authorisation.control_scope(fakes.TRUST_DOMAIN))
    server = grpc.aio.server(interceptors=[guard])
    hanse_pb2_grpc.add_ControlServicer_to_server(Echo(), server)
    hub = authority.server(HUB).directory(tmp_path / "hub")
    port = server.add_secure_port("127.0.0.1:0", hub.server_credentials())
    await server.start()
    edge = authority.client(ZURICH).directory(tmp_path / "edge")
    async with edge.channel(f"127.0.0.1:{port}", HUB.server_name) as channel:
        await beat(hanse_pb2_grpc.ControlStub(channel).Session())
    await server.stop(None)


def reason(error: grpc.aio.AioRpcError) -> Reason | None:
    denied = denials.from_rpc_error(error)
    return denied.reason if denied else None


async def shown_serial(pair: Pair) -> int:
    """The serial number of the certificate that the server shows to a new connection."""
    chain = await asyncio.to_thread(pinning.presented_chain, pair.address, 10.0)
    return chain[0].serial_number
