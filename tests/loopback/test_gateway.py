"""The hub's listeners with real gRPC and mutual TLS, from joining to expulsion."""

import asyncio
import contextlib
import datetime as dt
import pathlib
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
import pytest

from coordinator import config, local
from coordinator.issuing import tokens
from federation.apps import bundle
from federation.runtime import port as runtimes
from federation.store import port as stores
from federation.trust import certificates, credentials, keys, pinning
from federation.trust import identity as identities
from federation.wire import denials
from federation.wire import hanse_pb2 as pb
from federation.wire import hanse_pb2_grpc as pb_grpc

TRAINING = stores.Key("FederatedTraining", "cardiology", "hospitals")
PYPROJECT = """
[project]
name = "tiny"
version = "1.0"
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "tiny:server"
clientapp = "tiny:client"
[tool.flwr.app.config]
num-server-rounds = 3
"""


class FakeRuntime:
    """Remembers what it was asked to run; a test says when it ends."""

    def __init__(self) -> None:
        self.running: dict[str, runtimes.Workload] = {}
        self.happened: asyncio.Queue[runtimes.WorkloadEvent | None] = asyncio.Queue()

    async def start(self, workload: runtimes.Workload) -> None:
        self.running[workload.name] = workload
        self.happened.put_nowait(runtimes.Started(workload.name, "1"))

    async def stop(self, name: str, grace_seconds: float) -> None:
        self.end(name, 0)

    def end(self, name: str, exit_code: int, *tail: str) -> None:
        if self.running.pop(name, None) is not None:
            self.happened.put_nowait(runtimes.Exited(name, exit_code, None, tail))

    async def list(self) -> tuple[runtimes.RunningWorkload, ...]:
        return tuple(runtimes.RunningWorkload(name, "1") for name in sorted(self.running))

    async def events(self) -> AsyncIterator[runtimes.WorkloadEvent]:
        while (event := await self.happened.get()) is not None:
            yield event

    durable = False

    async def refresh(self, name: str, directory: pathlib.PurePath, files: Mapping[str, bytes]) -> None:
        pass

    async def close(self, grace_seconds: float) -> None:
        for name in list(self.running):
            self.end(name, 0)
        self.happened.put_nowait(None)


class Hub:
    """A running hub with one training, and what a test needs of it."""

    def __init__(self, directory: pathlib.Path, minimum: int = 1, **changes: Any) -> None:
        self.directory = directory
        self.endpoints: config.Endpoints
        self.runtime = FakeRuntime()
        source = directory / "manifests" / "app"
        source.mkdir(parents=True)
        (source / "pyproject.toml").write_text(PYPROJECT)
        (source / "tiny.py").write_text("client = server = None\n" + "# padding\n" * 60_000)
        self.packed = bundle.pack(source)
        (directory / "manifests" / "training.yaml").write_text(
            "apiVersion: hanse.dev/v1alpha1\nkind: FederatedTraining\n"
            "metadata: {name: hospitals, namespace: cardiology}\n"
            "spec:\n  app: {source: {path: app}}\n  dataset: heart\n"
            f"  clusters: {{minimum: {minimum}}}\n  server: {{maximumRestarts: 1}}\n"
        )
        self.tokens: list[tokens.Token] = []
        records = []
        for approves, cluster in ((True, ""), (True, ""), (False, ""), (True, "zurich")):
            token, record = tokens.create(
                secrets.token_bytes(tokens.ID_BYTES + tokens.SECRET_BYTES),
                expires_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
                approves=approves,
                cluster=cluster,
            )
            self.tokens.append(token)
            records.append(config.JoinToken.of(record))
        self.app = local.coordinator(
            config.CoordinatorConfig(
                state_directory=directory / "state",
                resources=(directory / "manifests",),
                join_tokens=tuple(records),
                start_grace_seconds=0,
                **changes,
            ),
            runtime=self.runtime,
        )

    async def join(self, cluster: str, token: int = 0) -> credentials.CredentialDirectory:
        """Join as an edge does: pinned CA, a key that stays here."""
        endpoints = self.endpoints
        key = keys.generate()
        pinned = await pinning.dial(endpoints.enrollment_address, endpoints.ca_pin)
        async with pinned.channel as channel:
            reply = await pb_grpc.EnrollmentStub(channel).Join(
                pb.JoinRequest(
                    token=self.tokens[token].text,
                    cluster=cluster,
                    csr_pem=keys.request(key),
                    agent_version="0.1",
                    labels={"region": "europe"},
                )
            )
        assert reply.control_address == endpoints.control_address
        own = credentials.CredentialDirectory(self.directory / cluster)
        own.write(keys.to_pem(key), reply.certificate.chain_pem, reply.certificate.trust_bundle_pem)
        return own

    def channel(self, own: credentials.CredentialDirectory) -> grpc.aio.Channel:
        """Dial the control listener."""
        return own.channel(self.endpoints.control_address, self.endpoints.control_server_name)

    async def until(
        self, holds: Callable[[dict[str, Any]], bool], key: stores.Key = TRAINING
    ) -> dict[str, Any]:
        """Wait until a resource's status is as a test wants it."""
        seen: dict[str, Any] = {}
        async with asyncio.timeout(60):
            async for change in stores.follow(self.app.store, key.kind):
                if stores.key_of(change.resource) == key:
                    seen = change.resource.get("status") or {}
                    if seen and holds(seen):
                        return seen
        raise AssertionError(seen)

    async def aggregator(self) -> runtimes.Workload:
        """The aggregator's workload, once it was started."""
        async with asyncio.timeout(60):
            while True:
                for workload in self.runtime.running.values():
                    return workload
                await asyncio.sleep(0.01)


class Agent:
    """An edge agent's session, by hand."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = pb_grpc.ControlStub(channel)
        self.call = self.stub.Session()

    async def hello(self) -> pb.AgentWelcome:
        await self.call.write(
            pb.AgentMessage(
                hello=pb.AgentHello(protocol=pb.ProtocolRange(oldest=1, newest=1), agent_version="0.1")
            )
        )
        welcome = await self.read()
        assert welcome.WhichOneof("body") == "welcome"
        return welcome.welcome

    async def offer(self, *names: str) -> None:
        offered = pb.OfferedDatasets(datasets=[pb.OfferedDataset(name=name, examples=7) for name in names])
        await self.call.write(pb.AgentMessage(datasets=offered))

    async def report(self, uid: str, state: pb.AssignmentState, reason: str = "", message: str = "") -> None:
        status = pb.AssignmentStatus(uid=uid, state=state, reason=reason, message=message)
        await self.call.write(pb.AgentMessage(assignment=status))

    async def read(self) -> pb.HubMessage:
        async with asyncio.timeout(60):
            message = await self.call.read()
        assert isinstance(message, pb.HubMessage), message
        return message

    async def assignment(self, wanted: Callable[[pb.Assignment], bool] = lambda entry: True) -> pb.Assignment:
        while True:
            message = await self.read()
            for entry in message.assignments.assignments:
                if wanted(entry):
                    return entry


@contextlib.asynccontextmanager
async def running(hub: Hub) -> AsyncIterator[Hub]:
    """The hub from its start to its end."""
    hub.endpoints = await hub.app.start()
    work = asyncio.create_task(hub.app.run())
    try:
        yield hub
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await hub.app.stop()


@pytest.fixture
async def hub(tmp_path: pathlib.Path) -> AsyncIterator[Hub]:
    """A hub whose training needs one cluster."""
    async with running(Hub(tmp_path)) as started:
        yield started


def first_reason(want: str) -> Callable[[dict[str, Any]], bool]:
    """Whether the first cluster of a training's status has this reason."""
    return lambda seen: bool(seen["clusters"]) and seen["clusters"][0].get("reason") == want


def said(type_: str, status: str, reason: str) -> Callable[[dict[str, Any]], bool]:
    """Whether a status has this condition."""
    return lambda seen: any(
        (entry["type"], entry["status"], entry["reason"]) == (type_, status, reason)
        for entry in seen.get("conditions", ())
    )


def is_true(status: dict[str, Any], type_: str) -> bool:
    """Whether a condition of a status holds."""
    return any((e["type"], e["status"]) == (type_, "True") for e in status.get("conditions", ()))


async def ended(agent: "Agent") -> None:
    """Read a session until it is denied."""
    while True:
        await agent.read()


async def denied(call: Any) -> denials.Reason | None:
    """Why a call was denied."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(60):
            await call
    denial = denials.from_rpc_error(caught.value)
    return denial.reason if denial else None


async def test_a_training_from_join_to_model(hub: Hub) -> None:
    """Join, offer, be assigned, agree, get certificate and bundle, meet the aggregator, see it finish."""
    own = await hub.join("zurich")
    assert own.identity() == identities.ClusterIdentity("hanse.local", "zurich")
    async with hub.channel(own) as channel:
        agent = Agent(channel)
        assert (await agent.hello()).hub == "hanse.local"
        await agent.offer("heart")
        first = await agent.assignment()
        assert (first.namespace, first.name, first.dataset) == ("cardiology", "hospitals", "heart")
        assert (first.aggregator_address, first.app_digest, first.app.bundle) == ("", hub.packed.digest, True)
        await agent.report(first.uid, pb.ASSIGNMENT_STATE_PREPARING)

        fetched = b""
        async for chunk in agent.stub.FetchBundle(pb.FetchBundleRequest(digest=first.app_digest)):
            assert len(chunk.data) <= 256 * 1024
            fetched += chunk.data
        assert fetched == hub.packed.data
        rest = agent.stub.FetchBundle(pb.FetchBundleRequest(digest=first.app_digest, offset=len(fetched) - 5))
        assert b"".join([chunk.data async for chunk in rest]) == fetched[-5:]

        issued = await agent.stub.IssueClientCertificate(
            pb.IssueClientCertificateRequest(
                namespace="cardiology",
                name="hospitals",
                dataset="heart",
                csr_pem=keys.request(keys.generate()),
            )
        )
        assert certificates.summarise(issued.chain_pem).identity == identities.ClientIdentity(
            "hanse.local", "zurich", "cardiology", "hospitals", "heart"
        )

        workload = await hub.aggregator()
        theirs = credentials.CredentialDirectory(pathlib.Path(workload.directory) / "credentials")
        async with hub.channel(theirs) as aggregator_channel:
            session = pb_grpc.ProgressStub(aggregator_channel).Session()
            await session.write(
                pb.AggregatorMessage(
                    hello=pb.AggregatorHello(
                        protocol=pb.ProtocolRange(oldest=1, newest=1),
                        exchange_address="127.0.0.1:9",
                        server_name="x",
                    )
                )
            )
            told = [(await session.read()).WhichOneof("body") for _ in range(3)]
            assert told == ["welcome", "rules", "roster"]
            second = await agent.assignment(lambda entry: bool(entry.aggregator_address))
            assert (second.uid, second.aggregator_address) == (first.uid, "127.0.0.1:9")
            await agent.report(first.uid, pb.ASSIGNMENT_STATE_RUNNING)
            await session.write(
                pb.AggregatorMessage(
                    report=pb.ProgressReport(
                        round=2,
                        rounds_total=3,
                        phase="Train",
                        message="Round 2 of 3.",
                        diverged="After a restart, call 3 differs.",
                        clusters=[
                            pb.ClusterProgress(cluster="zurich", state="Training", round=2, examples=7)
                        ],
                        metrics=[pb.RoundMetrics(round=1, phase="Evaluate", values={"accuracy": 0.5})],
                    )
                )
            )
            status = await hub.until(lambda seen: seen["phase"] == "Running")
            assert status["summary"] == {
                "round": "2/3", "clusters": "1/1", "metric": "accuracy=0.5", "reason": "RoundInProgress",
            }  # fmt: skip
            assert status["clusters"] == [{"name": "zurich", "state": "Training", "round": 2, "examples": 7}]
            await session.write(
                pb.AggregatorMessage(
                    finished=pb.TrainingFinished(
                        succeeded=True,
                        reason="AllRoundsDone",
                        message="All 3 rounds are done.",
                        model_uri="file:///m/3",
                        model_sha256="5b" * 32,
                        model_round=3,
                    )
                )
            )
            await session.done_writing()
            hub.runtime.end(workload.name, 0)
        status = await hub.until(lambda seen: seen["phase"] == "Completed")
        assert status["model"] == {"uri": "file:///m/3", "sha256": "5b" * 32, "round": 3}
        assert status["conditions"][-1]["type"] == "Diverged"
        assert status["conditions"][-1]["message"] == "After a restart, call 3 differs."
        assert status["clusters"][0]["state"] == "Completed"
        assert (await agent.read()).assignments == pb.Assignments()
        member = await hub.until(
            lambda seen: not seen.get("trainings"), stores.Key("EdgeCluster", "", "zurich")
        )
        assert member["datasets"] == [{"name": "heart", "examples": 7}]


async def test_an_aggregator_that_keeps_dying_fails_the_training(hub: Hub) -> None:
    """Without a finish report the last exit ends the training, with the log's last lines in the condition."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        await agent.offer("heart")
        for _ in range(2):
            workload = await hub.aggregator()
            hub.runtime.end(workload.name, 1, "ValueError: no")
        status = await hub.until(lambda seen: seen["phase"] == "Failed")
        failed = next(entry for entry in status["conditions"] if entry["type"] == "Failed")
        assert failed["reason"] == "ServerAppExited"
        assert failed["message"].endswith("exit status 1. Its last lines say why.\nValueError: no")


async def test_a_refusal_reaches_the_status_with_its_reason(hub: Hub) -> None:
    """The edge's typed reason and sentence are what people read."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        await agent.offer("heart")
        uid = (await agent.assignment()).uid
        await agent.report(uid, pb.ASSIGNMENT_STATE_REFUSED, "PolicyDenied", "Rule a of zurich says no.")
        status = await hub.until(
            lambda seen: bool(seen["clusters"]) and seen["clusters"][0]["state"] == "Refused"
        )
        assert status["clusters"][0]["reason"] == "PolicyDenied"
        assert status["clusters"][0]["message"] == "Rule a of zurich says no."


async def test_a_token_is_good_once(hub: Hub) -> None:
    """The second join with a token is refused, and so is a name that is taken; the token stays good then."""
    await hub.join("zurich", token=0)
    assert await denied(hub.join("budapest", token=0)) is denials.Reason.TOKEN_USED
    assert await denied(hub.join("zurich", token=1)) is denials.Reason.CLUSTER_NAME_TAKEN
    await hub.join("budapest", token=1)


async def test_a_member_that_was_not_approved_is_asked_nothing(hub: Hub) -> None:
    """A token without approval makes a pending member; status says how to go on."""
    async with hub.channel(await hub.join("zurich", token=2)) as channel:
        agent = Agent(channel)
        await agent.hello()
        await agent.offer("heart")
        status = await hub.until(first_reason("NotAccepted"))
        assert "hanse clusters approve zurich" in status["clusters"][0]["message"]
        request = pb.IssueClientCertificateRequest(
            namespace="cardiology", name="hospitals", dataset="heart", csr_pem=keys.request(keys.generate())
        )
        assert await denied(agent.stub.IssueClientCertificate(request)) is denials.Reason.UNKNOWN_ASSIGNMENT
        fetching = agent.stub.FetchBundle(pb.FetchBundleRequest(digest=hub.packed.digest))
        assert await denied(fetching.read()) is denials.Reason.UNKNOWN_BUNDLE


async def test_a_newer_session_replaces_the_older(hub: Hub) -> None:
    """The older stream gets a goodbye and is not to return."""
    async with hub.channel(await hub.join("zurich")) as channel:
        older = Agent(channel)
        await older.hello()
        assert (await older.read()).WhichOneof("body") == "assignments"
        newer = Agent(channel)
        await newer.hello()
        goodbye = (await older.read()).goodbye
        assert (goodbye.reason, goodbye.may_return) == ("SessionReplaced", False)
        await newer.offer("heart")
        await newer.assignment()


async def test_expelling_cuts_the_stream_and_keeps_it_out(hub: Hub) -> None:
    """An expelled cluster's open stream ends with the reason, and so does its next call."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        assert (await agent.read()).WhichOneof("body") == "assignments"
        member = await hub.app.store.get(stores.Key("EdgeCluster", "", "zurich"))
        member["spec"]["acceptance"] = "Expelled"
        await hub.app.store.apply(member)
        assert await denied(agent.call.read()) is denials.Reason.EXPELLED
        again = Agent(channel)
        assert await denied(again.call.read()) is denials.Reason.EXPELLED
        await hub.until(first_reason("Expelled"))
        zurich = stores.Key("EdgeCluster", "", "zurich")
        await hub.until(said("Connected", "False", "Expelled"), zurich)
        await hub.until(said("CertificateValid", "False", "Expelled"), zurich)
        member = await hub.app.store.get(zurich)
        member["spec"]["acceptance"] = "Accepted"
        await hub.app.store.apply(member)
        await hub.until(said("CertificateValid", "True", "Issued"), zurich)


async def test_leaving_ends_a_membership_until_the_cluster_joins_again(hub: Hub) -> None:
    """The hub writes it down, trainings go on without it, and its certificates count no longer."""
    zurich = stores.Key("EdgeCluster", "", "zurich")
    own = await hub.join("zurich")
    async with hub.channel(own) as channel:
        agent = Agent(channel)
        await agent.hello()
        await agent.offer("heart")
        await agent.assignment()
        await agent.call.write(pb.AgentMessage(leaving=pb.Leaving()))
        assert await denied(ended(agent)) is denials.Reason.REVOKED
        status = await hub.until(first_reason("ClusterLeft"))
        assert status["clusters"][0]["state"] == "Left"
        assert "`hanse token create --cluster zurich`" in status["clusters"][0]["message"]
        for type_ in ("Joined", "Connected", "CertificateValid"):
            seen = await hub.until(said(type_, "False", "Left"), zurich)
            assert "`hanse leave`" in next(e["message"] for e in seen["conditions"] if e["type"] == type_)
        assert seen["datasets"] == []
        assert await denied(Agent(channel).call.read()) is denials.Reason.REVOKED
        renewal = pb_grpc.EnrollmentStub(channel).Renew(
            pb.RenewRequest(csr_pem=keys.request(keys.generate()))
        )
        assert await denied(renewal) is denials.Reason.REVOKED
    assert await denied(hub.join("zurich", token=1)) is denials.Reason.CLUSTER_NAME_TAKEN
    async with hub.channel(await hub.join("zurich", token=3)) as channel:
        agent = Agent(channel)  # at once: there is no moment in which it counts as one that left
        await agent.hello()
        await agent.offer("heart")
        await agent.assignment()
        for type_ in ("Joined", "Connected", "CertificateValid"):
            await hub.until(lambda seen, type_=type_: is_true(seen, type_), zurich)


async def test_who_only_goes_has_not_left(hub: Hub) -> None:
    """A restart of an agent is a lost link, and its certificate lets it back in."""
    zurich = stores.Key("EdgeCluster", "", "zurich")
    own = await hub.join("zurich")
    for _ in range(2):
        async with hub.channel(own) as channel:
            agent = Agent(channel)
            await agent.hello()
            await agent.offer("heart")
            await agent.assignment()
            await agent.call.done_writing()
            await hub.until(said("Connected", "False", "SessionClosed"), zurich)
    await hub.until(said("CertificateValid", "True", "Issued"), zurich)


async def test_missing_heartbeats_end_the_session(tmp_path: pathlib.Path) -> None:
    """An agent that falls silent is disconnected, and its status says why."""

    def silent(seen: dict[str, Any]) -> bool:
        return any(entry["reason"] == "HeartbeatMissed" for entry in seen["conditions"])

    hub = Hub(tmp_path, heartbeat_interval_seconds=0.05)
    async with running(hub), hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        await hub.until(silent, stores.Key("EdgeCluster", "", "zurich"))


async def test_a_certificate_is_renewed_for_its_own_identity(hub: Hub) -> None:
    """Renew gives a new certificate for the same name."""
    own = await hub.join("zurich")
    async with hub.channel(own) as channel:
        stub = pb_grpc.EnrollmentStub(channel)
        reply = await stub.Renew(pb.RenewRequest(csr_pem=keys.request(keys.generate())))
    renewed = certificates.summarise(reply.chain_pem)
    assert renewed.identity == own.identity()
    assert renewed.serial != own.summary().serial


async def test_quiet_means_quiet(hub: Hub) -> None:
    """When nothing changes any more, nothing is planned any more."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        await agent.offer("heart")
        await agent.assignment()
        await hub.aggregator()
        await hub.until(lambda seen: bool(seen["clusters"]) and seen["clusters"][0]["state"] == "Selected")
        while True:
            before = hub.app.controller.reconciled
            await asyncio.sleep(0.2)
            if hub.app.controller.reconciled == before:
                break
        assert before < 30
