"""Every RPC of the protocol against every kind of caller, over real mutual TLS."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor

from federation.trust import authorisation, calls, interceptors
from federation.trust.authorisation import Listener, Revocations
from federation.trust.identity import (
    AggregatorIdentity,
    ClientIdentity,
    ClusterIdentity,
    CoordinatorIdentity,
    Identity,
    Kind,
)
from federation.wire import denials, hanse_pb2
from federation.wire.denials import Reason
from tests.fakes import certificates as fakes

TD = fakes.TRUST_DOMAIN
HUB = CoordinatorIdentity(TD)
AGGREGATOR = AggregatorIdentity(TD, "cardiology", "hospitals")

METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for service in hanse_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}

MEMBERS: dict[Kind, Identity] = {
    "coordinator": HUB,
    "cluster": ClusterIdentity(TD, "zurich"),
    "aggregator": AGGREGATOR,
    "client": ClientIdentity(TD, "zurich", "cardiology", "hospitals", "heart-disease"),
}
OTHERS: dict[Kind, Identity] = {
    "coordinator": HUB,
    "cluster": ClusterIdentity(TD, "budapest"),
    "aggregator": AggregatorIdentity(TD, "cardiology", "stroke"),
    "client": ClientIdentity(TD, "zurich", "cardiology", "stroke", "heart-disease"),
}

SCOPES = {
    Listener.ENROLLMENT: authorisation.enrollment_scope(TD),
    Listener.CONTROL: authorisation.control_scope(TD),
    Listener.EXCHANGE: authorisation.exchange_scope(TD, "cardiology", "hospitals"),
}
SERVERS: dict[Listener, CoordinatorIdentity | AggregatorIdentity] = {
    Listener.ENROLLMENT: HUB,
    Listener.CONTROL: HUB,
    Listener.EXCHANGE: AGGREGATOR,
}


class EveryService(grpc.GenericRpcHandler):
    """Serves every RPC of the protocol with an empty answer, and remembers who got through."""

    def __init__(self) -> None:
        self.served: list[tuple[str, Identity | None]] = []

    def service(self, handler_call_details: Any) -> Any:
        method = METHODS.get(handler_call_details.method)
        if method is None:
            return None
        request_type = getattr(hanse_pb2, method.input_type.name)
        reply = getattr(hanse_pb2, method.output_type.name)()

        def note(context: Any) -> None:
            caller = interceptors.peer(context)
            self.served.append((handler_call_details.method, caller.identity if caller else None))

        async def read(request: Any) -> None:
            """All that the caller says: a call that ends while its client writes loses its status."""
            for one in [each async for each in request] if method.client_streaming else [request]:
                assert isinstance(one, request_type)

        async def unary(request: Any, context: Any) -> Any:
            note(context)
            await read(request)
            return reply

        async def streamed(request: Any, context: Any) -> AsyncIterator[Any]:
            note(context)
            await read(request)
            yield reply

        make: Callable[..., Any] = getattr(
            grpc,
            f"{'stream' if method.client_streaming else 'unary'}"
            f"_{'stream' if method.server_streaming else 'unary'}_rpc_method_handler",
        )
        behaviour = streamed if method.server_streaming else unary
        return make(behaviour, request_type.FromString, type(reply).SerializeToString)


@dataclass
class Hub:
    """One listener that serves everything behind its guard."""

    listener: Listener
    address: str
    guard: interceptors.Guard
    services: EveryService
    authority: fakes.Authority
    path: Path
    channels: list[grpc.aio.Channel] = field(default_factory=list)

    async def call(self, method: str, caller: fakes.Issued | None) -> denials.Denial | str:
        """Call with one empty message: "served", the denial, or the status if the connection failed."""
        server_name = SERVERS[self.listener].server_name
        if caller is None:
            channel = grpc.aio.secure_channel(
                self.address,
                grpc.ssl_channel_credentials(self.authority.bundle_pem),
                options=[("grpc.ssl_target_name_override", server_name)],
            )
        else:
            # The caller believes this hub, whoever vouches for the caller.
            believed = dataclasses.replace(caller, bundle_pem=self.authority.bundle_pem)
            directory = believed.directory(self.path / f"caller-{len(self.channels)}")
            channel = directory.channel(self.address, server_name)
        self.channels.append(channel)
        described = METHODS.get(method)
        try:
            if described is not None and described.client_streaming:
                stream = channel.stream_stream(method)()
                await calls.admitted(stream)
                await stream.write(b"")
                await stream.done_writing()
                assert [reply async for reply in stream] == [b""]
            else:
                assert [reply async for reply in channel.unary_stream(method)(b"")] == [b""]
        except grpc.aio.AioRpcError as error:
            return denials.from_rpc_error(error) or error.code().name
        return "served"


@pytest.fixture
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Hub]:
    listener: Listener = request.param
    authority = fakes.Authority()
    guard = interceptors.Guard(SCOPES[listener])
    services = EveryService()
    server = grpc.aio.server(interceptors=[guard])
    server.add_generic_rpc_handlers((services,))
    credentials = authority.server(SERVERS[listener]).directory(tmp_path / "server")
    port = server.add_secure_port(
        "127.0.0.1:0", credentials.server_credentials(require_clients=listener is not Listener.ENROLLMENT)
    )
    await server.start()
    made = Hub(listener, f"127.0.0.1:{port}", guard, services, authority, tmp_path)
    yield made
    for channel in made.channels:
        await channel.close()
    await server.stop(None)


def cases() -> list[Any]:
    """RPC × caller -> what must happen, on the listener where the RPC is served."""
    made = []

    def case(method: str, caller: str, kind: Kind | None, want: str | Reason) -> None:
        listener = authorisation.TABLE[method].listener
        made.append(pytest.param(listener, method, caller, kind, want, id=f"{method[10:]}-{caller}-{kind}"))

    for method in METHODS:
        rule = authorisation.TABLE[method]
        if rule.anonymous:
            # No certificate is asked for, so none is seen: a stranger and a member are the same to Join.
            for caller in ("none", "expired", "wrong-ca", "right"):
                case(method, caller, None if caller == "none" else "cluster", "served")
            continue
        case(method, "none", None, "UNAVAILABLE")
        for kind in sorted(rule.kinds):
            case(method, "expired", kind, "UNAVAILABLE")
            case(method, "wrong-ca", kind, "UNAVAILABLE")
            case(method, "right", kind, "served")
            case(method, "revoked-serial", kind, Reason.REVOKED)
            if kind == "cluster":
                case(method, "revoked-cluster", kind, Reason.EXPELLED)
            if kind == "aggregator":
                case(method, "revoked-training", kind, Reason.REVOKED)
            if kind == "client":
                case(method, "revoked-cluster", kind, Reason.EXPELLED)
                case(method, "revoked-training", kind, Reason.REVOKED)
            # At the control listener each member speaks for itself; an aggregator serves one training only.
            other = Reason.WRONG_TRAINING if rule.listener is Listener.EXCHANGE else "served"
            case(method, "other", kind, other)
        for kind in sorted(MEMBERS.keys() - rule.kinds):
            case(method, "right", kind, Reason.NOT_AUTHORISED)
            case(method, "other", kind, Reason.NOT_AUTHORISED)
    return made


@pytest.mark.parametrize("hub, method, caller, kind, want", cases(), indirect=["hub"])
async def test_every_rpc_against_every_caller(
    hub: Hub, method: str, caller: str, kind: Kind | None, want: str | Reason
) -> None:
    """Only the right identity reaches a handler; everybody else gets the reason or no connection at all."""
    identity = None if kind is None else (OTHERS if caller == "other" else MEMBERS)[kind]
    presented: fakes.Issued | None = None
    if identity is not None:
        if caller == "expired":
            presented = hub.authority.expired(identity)
        elif caller == "wrong-ca":
            presented = fakes.Authority().client(identity)
        else:
            presented = hub.authority.client(identity)
    if caller == "revoked-serial":
        assert presented is not None
        hub.guard.revoke(Revocations(serials=frozenset({presented.serial})))
    if caller == "revoked-cluster":
        hub.guard.revoke(Revocations(clusters=frozenset({"zurich"})))
    if caller == "revoked-training":
        hub.guard.revoke(Revocations(trainings=frozenset({("cardiology", "hospitals")})))

    got = await hub.call(method, presented)

    assert (got.reason if isinstance(got, denials.Denial) else got) == want
    seen = None if hub.listener is Listener.ENROLLMENT else identity
    assert hub.services.served == ([(method, seen)] if want == "served" else [])


@pytest.mark.parametrize("hub", list(Listener), indirect=True)
async def test_each_listener_serves_its_own_rpcs_only(hub: Hub) -> None:
    """A method of another listener is refused by name, although a servicer for it is registered."""
    for method, rule in authorisation.TABLE.items():
        if rule.listener is hub.listener:
            continue
        for kind, identity in MEMBERS.items():
            got = await hub.call(method, hub.authority.client(identity))
            assert isinstance(got, denials.Denial), (method, kind, got)
            assert got.reason is Reason.WRONG_LISTENER, (method, kind, got)
            assert rule.listener.value in got.message
    assert hub.services.served == []


@pytest.mark.parametrize("hub", [Listener.ENROLLMENT], indirect=True)
async def test_join_is_the_only_rpc_without_a_certificate(hub: Hub) -> None:
    """At the enrollment listener an anonymous caller gets Join and nothing else, nor an invented method."""
    got = {method: await hub.call(method, None) for method in [*METHODS, "/hanse.v1.Enrollment/Invented"]}
    assert [method for method, outcome in got.items() if outcome == "served"] == ["/hanse.v1.Enrollment/Join"]
    assert all(isinstance(outcome, denials.Denial) for outcome in got.values() if outcome != "served")


@pytest.mark.parametrize("hub", [Listener.CONTROL], indirect=True)
async def test_a_malformed_request_is_denied_by_name(hub: Hub) -> None:
    """Bytes that are no message of the protocol end as BadMessage, and the handler does not see them."""
    caller = hub.authority.client(MEMBERS["cluster"]).directory(hub.path / "caller")
    async with caller.channel(hub.address, HUB.server_name) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/hanse.v1.Enrollment/Renew")(b"\xff\xff\xff")
    denied = denials.from_rpc_error(caught.value)
    assert denied is not None
    assert denied.reason is Reason.BAD_MESSAGE
    assert hub.services.served == []
