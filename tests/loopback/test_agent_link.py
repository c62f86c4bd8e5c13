"""The edge agent against a hub that behaves: real gRPC, real mutual TLS, both ends in one test."""

import asyncio
import contextlib
import datetime as dt
import json
import pathlib
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc.aio
import pytest

from edge_agent import agent as agents
from edge_agent import app, credentials, link, process_site, resources, sites, workloads
from federation.api import reasons
from federation.apps import bundle
from federation.runtime import port, processes
from federation.trust import certificates
from federation.trust import credentials as trust
from federation.trust import identity as identities
from federation.wire import denials, hanse_pb2, hanse_pb2_grpc
from tests.fakes import certificates as fakes

CLUSTER = identities.ClusterIdentity(fakes.TRUST_DOMAIN, "budapest")
COORDINATOR = identities.CoordinatorIdentity(fakes.TRUST_DOMAIN)
PATIENCE_SECONDS = 60


class Hub(hanse_pb2_grpc.EnrollmentServicer, hanse_pb2_grpc.ControlServicer):
    """Enrolls whoever has the token, keeps what agents say, and sends what a test wants."""

    def __init__(self, authority: fakes.Authority, app: bundle.Bundle) -> None:
        self.authority = authority
        self.app = app
        self.heard: asyncio.Queue[hanse_pb2.AgentMessage] = asyncio.Queue()
        self.to_say: asyncio.Queue[hanse_pb2.HubMessage | denials.Denial | None] = asyncio.Queue()
        self.control_address = ""
        self.joins = 0
        self.lifetime = dt.timedelta(hours=1)

    def certify(self, csr_pem: bytes, identity: identities.Identity) -> hanse_pb2.CertificateReply:
        from coordinator.issuing import certificate_authority

        chain = certificate_authority.issue(
            self.authority.ca,
            csr_pem,
            identity,
            now=self.authority.now,
            lifetime=self.lifetime,
            serial=9000 + self.joins,
        )
        assert isinstance(chain, bytes)
        return hanse_pb2.CertificateReply(chain_pem=chain, trust_bundle_pem=self.authority.bundle_pem)

    async def Join(self, request, context):
        self.joins += 1
        if request.token != "hanse_1.secret":
            await deny(context, denials.denial(denials.Reason.TOKEN_UNKNOWN))
        return hanse_pb2.JoinReply(
            certificate=self.certify(request.csr_pem, CLUSTER),
            control_address=self.control_address,
            control_server_name=COORDINATOR.server_name,
        )

    async def IssueClientCertificate(self, request, context):
        identity = identities.ClientIdentity(
            fakes.TRUST_DOMAIN, CLUSTER.cluster, request.namespace, request.name, request.dataset
        )
        return self.certify(request.csr_pem, identity)

    async def FetchBundle(self, request, context):
        data = self.app.data[request.offset :]
        for start in range(0, len(data), 100):
            yield hanse_pb2.BundleChunk(data=data[start : start + 100])

    async def Session(self, requests, context):
        hello = await anext(aiter(requests))
        assert hello.WhichOneof("body") == "hello"
        yield hanse_pb2.HubMessage(
            welcome=hanse_pb2.AgentWelcome(protocol=1, heartbeat_interval_seconds=60, hub="hub.example")
        )

        async def listen() -> None:
            async for message in requests:
                self.heard.put_nowait(message)

        listening = asyncio.create_task(listen())
        try:
            while (message := await self.to_say.get()) is not None:
                if isinstance(message, denials.Denial):
                    await deny(context, message)
                yield message
        finally:
            listening.cancel()

    async def hear(self, kind: str) -> object:
        """Return the next message of this kind."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                message = await self.heard.get()
                if message.WhichOneof("body") == kind:
                    return getattr(message, kind)

    async def hear_state(self, state: str, saying: str = "") -> hanse_pb2.AssignmentStatus:
        """Return the next status of this state that says this."""
        while True:
            status = await self.hear("assignment")
            name = hanse_pb2.AssignmentState.Name(status.state)
            if name == f"ASSIGNMENT_STATE_{state}" and saying in status.message:
                return status

    async def hear_until_running(self) -> list[hanse_pb2.AssignmentStatus]:
        """Return every status up to the first that says that the client runs."""
        told = [await self.hear("assignment")]
        while told[-1].state != hanse_pb2.ASSIGNMENT_STATE_RUNNING:
            told.append(await self.hear("assignment"))
        return told

    def want(self, *assignments: hanse_pb2.Assignment) -> None:
        self.to_say.put_nowait(
            hanse_pb2.HubMessage(assignments=hanse_pb2.Assignments(assignments=assignments))
        )

    async def want_until(
        self, state: str, saying: str, assignment: hanse_pb2.Assignment
    ) -> hanse_pb2.AssignmentStatus:
        """Want it until the agent says this: what is said while a session ends is heard by nobody."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                self.want(assignment)
                with contextlib.suppress(TimeoutError):
                    return await asyncio.wait_for(self.hear_state(state, saying), 1)

    async def want_nothing_until(self, holds: Callable[[], bool]) -> None:
        """Want nothing, again and again until something is the case."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                self.want()
                await asyncio.sleep(0.05)

    def assignment(self, **fields: object) -> hanse_pb2.Assignment:
        return hanse_pb2.Assignment(
            uid="u1",
            namespace="cardiology",
            name="hospitals",
            dataset="heart-disease",
            app_digest=self.app.digest,
            app=hanse_pb2.AppSource(bundle=True),
            aggregator_address="127.0.0.1:9",
            aggregator_server_name="hospitals.cardiology.aggregator.hanse.local",
            run_config_json='{"lr": 0.5}',
            **fields,
        )


async def deny(context: grpc.aio.ServicerContext, denial: denials.Denial) -> None:
    await context.abort(
        getattr(grpc.StatusCode, denial.status), denial.message, denials.trailing_metadata(denial)
    )


class Runtime:
    """Runs nothing, and remembers what it was asked to run."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[port.Workload] = asyncio.Queue()
        self.running: dict[str, port.Workload] = {}
        self.happened: asyncio.Queue[port.WorkloadEvent] = asyncio.Queue()

    async def start(self, workload: port.Workload) -> None:
        self.running[workload.name] = workload
        self.started.put_nowait(workload)
        self.happened.put_nowait(port.Started(workload.name, "1"))

    async def stop(self, name: str, grace_seconds: float) -> None:
        if self.running.pop(name, None):
            self.happened.put_nowait(port.Exited(name, 0, None))

    async def list(self) -> tuple[port.RunningWorkload, ...]:
        return tuple(port.RunningWorkload(name, "1") for name in self.running)

    async def events(self) -> AsyncIterator[port.WorkloadEvent]:
        while True:
            yield await self.happened.get()

    durable = False

    async def refresh(self, name: str, directory: pathlib.PurePath, files: Mapping[str, bytes]) -> None:
        pass

    async def close(self, grace_seconds: float) -> None:
        return None


DATASET = """
apiVersion: hanse.dev/v1alpha1
kind: EdgeDataset
metadata: {name: heart, namespace: default}
spec:
  name: heart-disease
  volume: {configMap: {name: heart-rows}}
  nodeConfig: {data-path: $(MOUNT_PATH)/rows.csv, fold: 3}
  declare: {examples: 294}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: heart-rows, namespace: default}
data: {rows.csv: "1,2,3"}
"""
POLICY = """
apiVersion: hanse.dev/v1alpha1
kind: EdgePolicy
metadata: {name: owner, namespace: default}
spec: {rules: [{name: cardiology-only, effect: %s}]}
"""


class Edge:
    """An agent with its directories and its runtime, running in the background."""

    def __init__(self, tmp_path: pathlib.Path, hub: Hub, enrollment_address: str) -> None:
        self.declared = tmp_path / "declared"
        self.declared.mkdir()
        (self.declared / "data.yaml").write_text(DATASET)
        self.allow("Allow")
        self.places = workloads.Places(tmp_path / "state")
        (tmp_path / "token").write_text("hanse_1.secret\n")
        self.invitation = credentials.Invitation(
            cluster=CLUSTER.cluster,
            enrollment_address=enrollment_address,
            token_file=tmp_path / "token",
            ca_pin=hub.authority.pin,
            trust_domain=fakes.TRUST_DOMAIN,
            labels={},
            agent_version="0",
        )
        self.runtime = Runtime()
        self.now = hub.authority.now
        self.leaving = asyncio.Event()

    def allow(self, effect: str) -> None:
        (self.declared / "policy.yaml").write_text(POLICY % effect)

    async def enroll(self) -> credentials.Enrollment:
        return await credentials.enroll(
            self.invitation, self.places.identity, rng=random.Random(1), now=lambda: self.now
        )

    async def run(self) -> None:
        enrollment = await self.enroll()
        channel = trust.CredentialDirectory(self.places.identity).reloading_channel(
            enrollment.control_address, enrollment.control_server_name
        )
        surroundings = agents.Surroundings(
            cluster=CLUSTER.cluster,
            trust_domain=fakes.TRUST_DOMAIN,
            site=process_site.ProcessSite(
                cluster=CLUSTER.cluster,
                places=self.places,
                runtime=self.runtime,
                directory=resources.Directory(self.declared),
                log_directory=self.places.logs,
                python="python",
                environment={},
                log_level="INFO",
            ),
            channel=channel,
            stop_grace_seconds=1,
            rng=random.Random(1),
            now=lambda: self.now,
            leaving=self.leaving,
        )
        try:
            await agents.Agent(surroundings, agent_version="0").run()
        finally:
            await channel.close()


@pytest.fixture
async def hub(tmp_path: pathlib.Path) -> AsyncIterator[tuple[Hub, str]]:
    """Give a hub on two listeners, and the address of the one for enrollment."""
    source = tmp_path / "app"
    source.mkdir()
    (source / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    (source / "client.py").write_text("app = None\n" * 40)
    hub = Hub(fakes.Authority(), bundle.pack(source))
    store = hub.authority.server(COORDINATOR).directory(tmp_path / "hub")
    enrollment, control = grpc.aio.server(), grpc.aio.server()
    hanse_pb2_grpc.add_EnrollmentServicer_to_server(hub, enrollment)
    hanse_pb2_grpc.add_ControlServicer_to_server(hub, control)
    enrollment_port = enrollment.add_secure_port(
        "127.0.0.1:0", store.server_credentials(require_clients=False)
    )
    control_port = control.add_secure_port("127.0.0.1:0", store.server_credentials())
    hub.control_address = f"127.0.0.1:{control_port}"
    await enrollment.start()
    await control.start()
    yield hub, f"127.0.0.1:{enrollment_port}"
    await enrollment.stop(0)
    await control.stop(0)


@contextlib.asynccontextmanager
async def working(edge: Edge) -> AsyncIterator[asyncio.Task[None]]:
    """Run the edge while the block runs."""
    task = asyncio.create_task(edge.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def check_files(config: dict) -> None:
    assert pathlib.Path(config["node_config"]["data-path"]).read_text() == "1,2,3"
    assert (pathlib.Path(config["app_directory"]) / "client.py").is_file()


async def test_from_joining_to_a_running_client_and_back(
    hub: tuple[Hub, str], tmp_path: pathlib.Path
) -> None:
    """Offer, decide, prepare, start; a new policy ends the client; a withdrawn training leaves nothing."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    async with working(edge):
        offered = await the_hub.hear("datasets")
        assert [(one.name, one.examples) for one in offered.datasets] == [("heart-disease", 294)]
        the_hub.want(the_hub.assignment())
        workload = await asyncio.wait_for(edge.runtime.started.get(), PATIENCE_SECONDS)
        await the_hub.hear_state("RUNNING")
        config = json.loads(workload.files["config.json"])
        assert config["run_config"] == {"lr": 0.5}
        assert config["node_config"]["fold"] == 3
        check_files(config)
        chain = trust.CredentialDirectory(config["credential_directory"]).read().chain_pem
        assert certificates.summarise(chain).identity == identities.ClientIdentity(
            fakes.TRUST_DOMAIN, "budapest", "cardiology", "hospitals", "heart-disease"
        )
        edge.allow("Deny")
        refused = await the_hub.hear_state("REFUSED")
        assert refused.reason == "PolicyDenied"
        assert (
            refused.message
            == "policy cardiology-only of budapest denies everything; ask its owner to change it"
        )
        edge.allow("Allow")
        await the_hub.hear_state("RUNNING")
        the_hub.want()
        await the_hub.hear_state("STOPPED")
        assert edge.runtime.running == {}


async def test_the_key_of_what_a_client_keeps_goes_with_its_assignment(
    hub: tuple[Hub, str], tmp_path: pathlib.Path
) -> None:
    """It is the same at each start of the client; a training that is asked for anew meets another one."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    async with working(edge):
        keys = []
        for _ in range(2):
            edge.allow("Allow")
            the_hub.want(the_hub.assignment())
            workload = await asyncio.wait_for(edge.runtime.started.get(), PATIENCE_SECONDS)
            for name, content in workload.files.items():  # as the runtime of processes does
                processes.write_private_file(pathlib.Path(workload.directory) / name, content)
            keys.append(workload.files["state.key"])
            edge.allow("Deny")
            await the_hub.hear_state("REFUSED")
        assert keys[0] == keys[1]
        assert len(keys[0]) == 32
        the_hub.want()
        await the_hub.hear_state("STOPPED")
        edge.allow("Allow")
        the_hub.want(the_hub.assignment())
        workload = await asyncio.wait_for(edge.runtime.started.get(), PATIENCE_SECONDS)
        assert workload.files["state.key"] != keys[0]


async def test_what_a_client_keeps_stays_while_its_training_rests(
    hub: tuple[Hub, str], tmp_path: pathlib.Path
) -> None:
    """Its directory and key are those that the next client meets; they go when nobody asks any more."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    resting = the_hub.assignment(resting=True)
    resting.aggregator_address = resting.aggregator_server_name = ""
    async with working(edge):
        keys = []
        for _ in range(2):
            the_hub.want(the_hub.assignment())
            workload = await asyncio.wait_for(edge.runtime.started.get(), PATIENCE_SECONDS)
            for name, content in workload.files.items():  # as the runtime of processes does
                processes.write_private_file(pathlib.Path(workload.directory) / name, content)
            keys.append(workload.files["state.key"])
            the_hub.want(resting)
            await the_hub.hear_state("PREPARING", "until the training goes on")
            assert not edge.runtime.running
        assert keys[0] == keys[1]
        left = pathlib.Path(workload.directory)
        await the_hub.want_nothing_until(lambda: not left.exists())
    processes.make_private_directory(left)
    processes.write_private_file(left / "state.key", keys[0])
    async with working(edge):
        await the_hub.want_nothing_until(lambda: not left.exists())


async def test_a_client_is_started_when_what_runs_it_answers_again(
    hub: tuple[Hub, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub hears of no failure: an API server that is away is no trouble of the client's."""
    monkeypatch.setattr(agents, "AGAIN_SECONDS", 0.01)
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    start, tries = edge.runtime.start, 0

    async def away_at_first(workload: port.Workload) -> None:
        nonlocal tries
        tries += 1
        if tries < 9:
            raise port.RuntimeAway(f"workload {workload.name}: not started yet: no answer")
        await start(workload)

    edge.runtime.start = away_at_first  # type: ignore[method-assign]
    async with working(edge):
        the_hub.want(the_hub.assignment())
        reported = await the_hub.hear_until_running()
        assert {one.reason for one in reported} == {""}
        assert edge.runtime.started.qsize() == 1


async def test_a_start_that_nobody_answers_is_told_and_given_up_when_nobody_wants_it(
    hub: tuple[Hub, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while the hub hears why the client does not come; what is not wanted any more ends."""
    monkeypatch.setattr(agents, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(agents, "TOLD_AFTER_SECONDS", 0.1)
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)

    async def never(workload: port.Workload) -> None:
        raise port.RuntimeAway(f"workload {workload.name}: not started yet: a webhook does not answer")

    edge.runtime.start = never  # type: ignore[method-assign]
    async with working(edge):
        the_hub.want(the_hub.assignment())
        told = await the_hub.hear_state("WAITING", "a webhook does not answer")
        assert told.reason == reasons.ClusterReason.NOT_ADMITTED
        the_hub.want()
        await the_hub.hear_state("STOPPED")


async def test_a_client_whose_aggregator_has_no_address_for_now_is_started_later(
    hub: tuple[Hub, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name server that is away uses up no restart; the hub hears the sentence, and then that it runs."""
    monkeypatch.setattr(agents, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(agents, "TOLD_AFTER_SECONDS", 0.1)
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    prepare, answers = process_site.ProcessSite.workload, asyncio.Event()

    async def once_the_name_is_found(site: process_site.ProcessSite, *asked: Any) -> port.Workload:
        if not answers.is_set():
            raise sites.NameWithoutAnswer("the aggregator's address hub.example:443 cannot be found")
        return await prepare(site, *asked)

    monkeypatch.setattr(process_site.ProcessSite, "workload", once_the_name_is_found)
    async with working(edge):
        the_hub.want(the_hub.assignment(maximum_restarts=0))
        told = await the_hub.hear_state("WAITING", "hub.example:443 cannot be found")
        assert told.reason == reasons.ClusterReason.NETWORK_NOT_READY
        assert told.reason in reasons.CLIENT_HELD
        answers.set()
        assert [one.reason for one in await the_hub.hear_until_running()] == [""]
        assert edge.runtime.started.qsize() == 1


async def test_the_end_of_a_client_before_is_not_that_of_the_one_which_starts(
    hub: tuple[Hub, str], tmp_path: pathlib.Path
) -> None:
    """What an earlier agent left behind makes room while the new one waits; it is started once."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    start = edge.runtime.start

    async def make_room_first(workload: port.Workload) -> None:
        edge.runtime.happened.put_nowait(port.Exited(workload.name, None, "SIGKILL"))
        for _ in range(9):
            await asyncio.sleep(0)  # whoever reads events has read it
        await start(workload)

    edge.runtime.start = make_room_first  # type: ignore[method-assign]
    async with working(edge):
        the_hub.want(the_hub.assignment())
        reported = await the_hub.hear_until_running()
        assert "SIGKILL" not in str(reported)
        assert edge.runtime.started.qsize() == 1


async def test_clients_run_on_while_the_hub_is_away(hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    """After a cut the agent comes back and says all again: offers and states."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    async with working(edge):
        the_hub.want(the_hub.assignment())
        await the_hub.hear_state("RUNNING")
        the_hub.to_say.put_nowait(None)  # the hub ends the stream
        await the_hub.hear("datasets")
        assert (await the_hub.hear_state("RUNNING")).uid == "u1"
        assert len(edge.runtime.running) == 1
        assert edge.runtime.started.qsize() == 1


async def test_a_denial_that_may_be_retried_is(hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    """A hub that shuts down is come back to."""
    the_hub, address = hub
    the_hub.to_say.put_nowait(denials.denial(denials.Reason.SHUTTING_DOWN))
    async with working(Edge(tmp_path, the_hub, address)):
        the_hub.want()
        await the_hub.hear("datasets")


async def test_late_heartbeats_cost_a_session_only(hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    """A laptop that slept is denied its old session and opens another."""
    the_hub, address = hub
    the_hub.to_say.put_nowait(denials.denial(denials.Reason.BAD_MESSAGE, detail="heartbeats are missing"))
    async with working(Edge(tmp_path, the_hub, address)):
        await the_hub.hear("datasets")
        the_hub.want(the_hub.assignment())
        await the_hub.hear_state("RUNNING")


@pytest.mark.parametrize("how", ["denial", "goodbye"])
async def test_an_expelled_agent_ends(hub: tuple[Hub, str], tmp_path: pathlib.Path, how: str) -> None:
    """A typed reason that says not to return ends the agent, with the hub's sentence."""
    the_hub, address = hub
    denial = denials.denial(denials.Reason.EXPELLED, cluster="budapest")
    goodbye = hanse_pb2.Goodbye(reason=denial.reason, message=denial.message, may_return=False)
    the_hub.to_say.put_nowait(denial if how == "denial" else hanse_pb2.HubMessage(goodbye=goodbye))
    async with working(Edge(tmp_path, the_hub, address)) as task:
        with pytest.raises(link.SentAway, match="expelled from the federation") as caught:
            await asyncio.wait_for(task, PATIENCE_SECONDS)
        assert caught.value.reason == "Expelled"


async def test_who_leaves_says_so_and_goes_when_the_hub_knows(
    hub: tuple[Hub, str], tmp_path: pathlib.Path
) -> None:
    """It is the last that the hub hears, once, and its answer ends the agent."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    async with working(edge) as task:
        await the_hub.hear("datasets")
        edge.leaving.set()
        await the_hub.hear("leaving")
        the_hub.to_say.put_nowait(denials.denial(denials.Reason.REVOKED, identity=CLUSTER.uri))
        with pytest.raises(link.SentAway, match="join again with a new token") as caught:
            await asyncio.wait_for(task, PATIENCE_SECONDS)
        assert caught.value.reason == "Revoked"
        assert the_hub.heard.empty()


async def test_a_hub_that_is_away_is_told_of_leaving_when_it_is_back(
    hub: tuple[Hub, str], tmp_path: pathlib.Path
) -> None:
    """And soon: who leaves does not wait out the pause between two tries."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    async with working(edge):
        await the_hub.hear("datasets")
        the_hub.to_say.put_nowait(None)
        edge.leaving.set()
        await the_hub.hear("leaving")


async def test_a_hub_that_does_not_know_of_leaving_is_told_in_vain(
    hub: tuple[Hub, str], tmp_path: pathlib.Path
) -> None:
    """An older one denies the message; the agent neither ends nor takes it for an answer."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    async with working(edge) as task:
        await the_hub.hear("datasets")
        edge.leaving.set()
        for _ in range(2):
            await the_hub.hear("leaving")
            detail = "unexpected message in a session"
            the_hub.to_say.put_nowait(denials.denial(denials.Reason.BAD_MESSAGE, detail=detail))
        await the_hub.hear("leaving")
        assert not task.done()


async def test_an_unknown_token_is_final(hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    """No retry can help, so there is none."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    edge.invitation.token_file.write_text("hanse_2.other")
    with pytest.raises(credentials.NotEnrolled, match="no such join token"):
        await edge.enroll()
    assert the_hub.joins == 1


async def test_a_wrong_pin_sends_no_token(hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    """A hub that is not the pinned one never sees the token."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    import dataclasses

    edge.invitation = dataclasses.replace(edge.invitation, ca_pin="sha256:" + "00" * 32)
    with pytest.raises(credentials.NotEnrolled, match="no CA certificate with hash"):
        await edge.enroll()
    assert the_hub.joins == 0


async def test_a_restart_reuses_the_identity(hub: tuple[Hub, str], tmp_path: pathlib.Path) -> None:
    """The token is used once; an expired identity joins again."""
    the_hub, address = hub
    edge = Edge(tmp_path, the_hub, address)
    first = await edge.enroll()
    edge.invitation.token_file.unlink()
    assert await edge.enroll() == first
    assert the_hub.joins == 1
    key = edge.places.identity / "tls.key"
    assert key.resolve().stat().st_mode & 0o777 == 0o600
    assert not (edge.places.identity / "pending.key").exists()
    edge.invitation.token_file.write_text("hanse_1.secret")
    edge.now += dt.timedelta(hours=2)
    await edge.enroll()
    assert the_hub.joins == 2


def test_a_bad_configuration_ends_with_code_two(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what is wrong; nothing is started."""
    from federation.telemetry import logs

    path = tmp_path / "agent.json"
    path.write_text('{"cluster": "zurich"}')
    try:
        assert app.main(["--config", str(path)]) == app.EXIT_CONFIGURATION
    finally:
        logs.reset()
    assert "configuration not usable" in capsys.readouterr().err
