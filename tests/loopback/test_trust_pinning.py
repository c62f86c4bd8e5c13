"""Dialling a hub that is known by the hash of its CA only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from federation.trust import authorisation, bundle, interceptors, pinning
from federation.trust.identity import ClusterIdentity, CoordinatorIdentity
from federation.wire import hanse_pb2, hanse_pb2_grpc
from tests.fakes import certificates as fakes

HUB = CoordinatorIdentity(fakes.TRUST_DOMAIN)


class Joining(hanse_pb2_grpc.EnrollmentServicer):
    def __init__(self) -> None:
        self.tokens: list[str] = []

    async def Join(self, request: Any, context: Any) -> Any:
        self.tokens.append(request.token)
        return hanse_pb2.JoinReply(control_server_name=HUB.server_name)


@dataclass
class Hub:
    authority: fakes.Authority
    joining: Joining
    address: str


async def serve(authority: fakes.Authority, issued: fakes.Issued, path: Path) -> tuple[Hub, Any]:
    joining = Joining()
    guard = interceptors.Guard(authorisation.enrollment_scope(fakes.TRUST_DOMAIN))
    server = grpc.aio.server(interceptors=[guard])
    hanse_pb2_grpc.add_EnrollmentServicer_to_server(joining, server)
    port = server.add_secure_port(
        "127.0.0.1:0", issued.directory(path).server_credentials(require_clients=False)
    )
    await server.start()
    return Hub(authority, joining, f"127.0.0.1:{port}"), server


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    authority = fakes.Authority()
    made, server = await serve(authority, authority.server(HUB), tmp_path / "hub")
    yield made
    await server.stop(None)


async def test_the_right_pin_opens_a_channel(hub: Hub) -> None:
    """Address and pin are enough; trust domain and server name come out of the pinned CA's certificate."""
    dialled = await pinning.dial(hub.address, hub.authority.pin)
    async with dialled.channel as channel:
        reply = await hanse_pb2_grpc.EnrollmentStub(channel).Join(hanse_pb2.JoinRequest(token="t"))
    assert reply.control_server_name == "coordinator.hanse.local"
    assert dialled.server_name == "enrollment.hanse.local"
    assert dialled.trust_domain == "hanse.local"
    bundle.verify_contains(dialled.authority_pem, hub.authority.pin)


async def test_a_wrong_pin_is_refused_before_anything_is_said(hub: Hub) -> None:
    """The error is one sentence with both hashes and the next step; no token left this side."""
    wrong = "sha256:" + "0" * 64
    with pytest.raises(pinning.HubNotTrusted) as caught:
        await pinning.dial(hub.address, wrong)
    message = str(caught.value)
    assert wrong in message
    assert hub.authority.pin in message
    assert "compare the hash" in message
    assert "\n" not in message
    assert hub.joining.tokens == []


async def test_who_shows_the_right_ca_without_its_key_gets_no_token(tmp_path: Path) -> None:
    """A server that appends the real CA to a chain of its own passes the look, and fails the handshake."""
    real, imposter = fakes.Authority(), fakes.Authority()
    forged = imposter.server(HUB)
    shown = fakes.Issued(forged.key_pem, forged.chain_pem + real.bundle_pem, imposter.bundle_pem)
    hub, server = await serve(imposter, shown, tmp_path / "imposter")
    dialled = await pinning.dial(hub.address, real.pin)
    async with dialled.channel as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await hanse_pb2_grpc.EnrollmentStub(channel).Join(hanse_pb2.JoinRequest(token="t"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert hub.joining.tokens == []
    await server.stop(None)


async def test_a_member_cannot_pose_as_the_hub(tmp_path: Path) -> None:
    """A cluster's certificate of the same CA is for calling, not for serving: no token gets to it."""
    authority = fakes.Authority()
    member = authority.client(ClusterIdentity(fakes.TRUST_DOMAIN, "zurich"))
    hub, server = await serve(authority, member, tmp_path / "member")
    dialled = await pinning.dial(hub.address, authority.pin)
    async with dialled.channel as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await hanse_pb2_grpc.EnrollmentStub(channel).Join(hanse_pb2.JoinRequest(token="t"))
    assert hub.joining.tokens == []
    await server.stop(None)


async def test_nobody_there_is_said_plainly() -> None:
    """A closed port is HubUnreachable, with the address in the sentence."""
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    listener.close()
    await listener.wait_closed()
    with pytest.raises(pinning.HubUnreachable, match=f"{host}:{port}"):
        await pinning.dial(f"{host}:{port}", "sha256:" + "0" * 64)


async def test_a_malformed_pin_is_refused_without_dialling() -> None:
    """The address is not even looked at."""
    with pytest.raises(bundle.InvalidPin, match="want sha256: and 64 hexadecimal digits"):
        await pinning.dial("nowhere", "sha256:123")
