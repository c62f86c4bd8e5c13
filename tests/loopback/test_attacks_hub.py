"""Members that turn on their hub, and strangers at its door: the real coordinator, gRPC and mutual TLS."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import pathlib
import secrets
import stat
from typing import Any

import pytest

from coordinator import controller
from coordinator.issuing import tokens
from federation.api import cluster, meta, training, validation
from federation.store import port as stores
from federation.trust import calls, certificates, credentials, keys, pinning
from federation.trust import identity as identities
from federation.wire import denials
from federation.wire import hanse_pb2 as pb
from tests.loopback import test_gateway as gateway

import grpc.aio  # isort: skip  # after federation.trust

from federation.wire import hanse_pb2_grpc as pb_grpc  # isort: skip

HUGE = "x\x1b]0;pwned\x07\x9b2J" * 20_000
Hub, Agent, denied, running = gateway.Hub, gateway.Agent, gateway.denied, gateway.running


hub = gateway.hub


def assert_valid(kind: type[meta.Resource], resource: dict[str, Any]) -> None:
    """The resource, with its status, is one that an API server with our CRD would take."""
    validation.parse(resource, "the store")
    assert isinstance(kind.model_validate(resource), kind)
    assert not [c for c in repr(resource) if not (c.isprintable() or c == "\n")]


async def stored(hub: Hub, key: stores.Key) -> dict[str, Any]:
    return dict(await hub.app.store.get(key))


async def agreed(hub: Hub, channel: grpc.aio.Channel) -> tuple[Agent, str, credentials.CredentialDirectory]:
    """A session that offers and agrees, and the credentials of the aggregator that was started for it."""
    agent = Agent(channel)
    await agent.hello()
    await agent.offer("heart")
    uid = (await agent.assignment()).uid
    await agent.report(uid, pb.ASSIGNMENT_STATE_PREPARING)
    workload = await hub.aggregator()
    return agent, uid, credentials.CredentialDirectory(pathlib.Path(workload.directory) / "credentials")


async def progress_session(
    channel: grpc.aio.Channel, address: str = "127.0.0.1:9", name: str = ""
) -> grpc.aio.StreamStreamCall:
    call = pb_grpc.ProgressStub(channel).Session()
    version = pb.ProtocolRange(oldest=1, newest=1)
    hello = pb.AggregatorHello(protocol=version, exchange_address=address, server_name=name)
    await calls.admitted(call)
    await call.write(pb.AggregatorMessage(hello=hello))
    return call


# -- at the door ----------------------------------------------------------------------------------


async def test_two_joins_at_the_same_moment_spend_a_token_once(hub: Hub) -> None:
    """Of many that come at once with one token, one is let in."""
    outcomes = await asyncio.gather(
        *(hub.join(f"edge-{number}") for number in range(8)), return_exceptions=True
    )
    assert sum(isinstance(outcome, credentials.CredentialDirectory) for outcome in outcomes) == 1
    members = await hub.app.store.list("EdgeCluster")
    assert len(members.items) == 1


async def test_two_tokens_for_one_name_make_one_member(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even with a store that takes its time, and a member that its operator has described before."""
    await hub.app.store.create(cluster.EdgeCluster(metadata=meta.ObjectMeta(name="zurich")).manifest())
    find = hub.app._enrollment._roll.find

    async def slow(name: str) -> Any:
        found = await find(name)
        await asyncio.sleep(0.05)
        return found

    monkeypatch.setattr(hub.app._enrollment._roll, "find", slow)
    outcomes = await asyncio.gather(hub.join("zurich", 0), hub.join("zurich", 1), return_exceptions=True)
    assert sum(isinstance(outcome, credentials.CredentialDirectory) for outcome in outcomes) == 1


@pytest.mark.parametrize("name", ["", "../../etc", "a/b", "A", "x" * 64, "zurich\n", "zürich", "a.b", "-a"])
async def test_cluster_names_are_labels(hub: Hub, name: str) -> None:
    """No name that could be a path, another identity or another line is let in; the token stays good."""
    assert await denied(hub.join(name)) is denials.Reason.CLUSTER_NAME_INVALID
    assert await hub.app.store.list("EdgeCluster") is not None
    await hub.join("zurich")


async def test_a_request_cannot_ask_for_another_identity(hub: Hub) -> None:
    """The certificate names the cluster that joined, whatever its request asks for; so does a renewal."""
    key = keys.generate()
    wanted = identities.CoordinatorIdentity("hanse.local")
    pinned = await pinning.dial(hub.endpoints.enrollment_address, hub.endpoints.ca_pin)
    async with pinned.channel as channel:
        reply = await pb_grpc.EnrollmentStub(channel).Join(
            pb.JoinRequest(token=hub.tokens[0].text, cluster="zurich", csr_pem=keys.request(key, wanted))
        )
    zurich = identities.ClusterIdentity("hanse.local", "zurich")
    assert certificates.summarise(reply.certificate.chain_pem).identity == zurich
    own = credentials.CredentialDirectory(hub.directory / "own")
    own.write(keys.to_pem(key), reply.certificate.chain_pem, reply.certificate.trust_bundle_pem)
    async with hub.channel(own) as channel:
        renewed = await pb_grpc.EnrollmentStub(channel).Renew(
            pb.RenewRequest(csr_pem=keys.request(key, wanted))
        )
    summary = certificates.summarise(renewed.chain_pem)
    assert (summary.identity, summary.dns_names) == (zurich, ())


async def test_strangers_cannot_send_much(hub: Hub) -> None:
    """The open listener reads small requests only, and no others than Join."""
    pinned = await pinning.dial(hub.endpoints.enrollment_address, hub.endpoints.ca_pin)
    async with pinned.channel as channel:
        stub = pb_grpc.EnrollmentStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Join(pb.JoinRequest(token=hub.tokens[0].text, cluster="a", csr_pem=b"x" * 100_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        many = {f"label-{number}": "x" for number in range(65)}
        join = stub.Join(pb.JoinRequest(token=hub.tokens[0].text, cluster="a", labels=many))
        assert await denied(join) is denials.Reason.BAD_MESSAGE


async def test_an_expelled_cluster_is_not_renewed(hub: Hub) -> None:
    """Not even in the moment before the guard knows."""
    own = await hub.join("zurich")
    member = await stored(hub, stores.Key("EdgeCluster", "", "zurich"))
    member["spec"]["acceptance"] = "Expelled"
    async with hub.channel(own) as channel:
        stub = pb_grpc.EnrollmentStub(channel)
        await hub.app.store.apply(member)
        renewal = stub.Renew(pb.RenewRequest(csr_pem=keys.request(keys.generate())))
        assert await denied(renewal) is denials.Reason.EXPELLED


async def test_hub_listens_on_loopback_only(hub: Hub) -> None:
    """By default nobody on the network can even try."""
    for address in (hub.endpoints.enrollment_address, hub.endpoints.control_address):
        assert ipaddress.ip_address(address.rpartition(":")[0]).is_loopback


async def test_what_the_hub_writes_is_its_users_alone(hub: Hub) -> None:
    """Keys are 0600 in directories of 0700, from the first moment on; so is everything else."""
    await hub.join("zurich")
    for path in (hub.directory / "state").rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            assert stat.S_IMODE(mode) & 0o077 == 0 or path.parent.lstat().st_mode & 0o077 == 0, path
        elif stat.S_ISREG(mode) and path.suffix in {".key", ".json", ".pem"}:
            assert stat.S_IMODE(mode) & 0o077 == 0, path
    assert (hub.directory / "state").stat().st_mode & 0o077 == 0


# -- as an edge -----------------------------------------------------------------------------------


async def test_an_edges_words_fit_into_status(hub: Hub) -> None:
    """Names, labels, numbers, reasons and sentences of an agent make no status that the schema refuses."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        hello = pb.AgentHello(protocol=pb.ProtocolRange(oldest=1, newest=1), agent_version=HUGE)
        await agent.call.write(pb.AgentMessage(hello=hello))
        await agent.read()
        offered = pb.OfferedDataset(name="heart", examples=2**64 - 1, labels={"region": "europe"})
        await agent.call.write(pb.AgentMessage(datasets=pb.OfferedDatasets(datasets=[offered])))
        uid = (await agent.assignment()).uid
        status = pb.AssignmentStatus(
            uid=uid, state=pb.ASSIGNMENT_STATE_FAILED, reason=HUGE, message=HUGE, log_tail=[HUGE] * 3
        )
        await agent.call.write(pb.AgentMessage(assignment=status))
        await hub.until(lambda seen: bool(seen["clusters"]) and seen["clusters"][0]["state"] == "Failed")
        assert_valid(training.FederatedTraining, await stored(hub, gateway.TRAINING))
        assert_valid(cluster.EdgeCluster, await stored(hub, stores.Key("EdgeCluster", "", "zurich")))


@pytest.mark.parametrize(
    "labels",
    [{"a b": "x"}, {"a": "x y"}, {"a": HUGE}, {f"k{n}": "v" for n in range(65)}],
    ids=["key", "value", "huge", "many"],
)
async def test_labels_of_a_data_set_are_labels(hub: Hub, labels: dict[str, str]) -> None:
    """What is no label ends the session that said it."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        offered = pb.OfferedDatasets(datasets=[pb.OfferedDataset(name="heart", labels=labels)])
        await agent.call.write(pb.AgentMessage(datasets=offered))
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # noqa: PT012
            while True:
                await agent.read()
        found = denials.from_rpc_error(caught.value)
        assert found is not None and found.reason is denials.Reason.BAD_MESSAGE


async def test_certificates_and_bundles_only_for_what_is_assigned(hub: Hub) -> None:
    """Other trainings, namespaces and data sets, and digests that are paths, are unknown."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        await agent.offer("heart")
        await agent.assignment()
        csr = keys.request(keys.generate(), identities.ClusterIdentity("hanse.local", "budapest"))
        for namespace, name, dataset in (
            ("cardiology", "hospitals", "brain"),
            ("oncology", "hospitals", "heart"),
            ("cardiology", "other", "heart"),
            ("cardiology/hospitals", "", "heart"),
        ):
            request = pb.IssueClientCertificateRequest(
                namespace=namespace, name=name, dataset=dataset, csr_pem=csr
            )
            assert (
                await denied(agent.stub.IssueClientCertificate(request)) is denials.Reason.UNKNOWN_ASSIGNMENT
            )
        for digest in ("", "sha256:" + "0" * 64, "../ca/tls.key", "sha256:../../ca/tls.key", "/etc/passwd"):
            fetching = agent.stub.FetchBundle(pb.FetchBundleRequest(digest=digest))
            assert await denied(fetching.read()) is denials.Reason.UNKNOWN_BUNDLE
        beyond = pb.FetchBundleRequest(digest=hub.packed.digest, offset=2**63)
        assert await denied(agent.stub.FetchBundle(beyond).read()) is denials.Reason.BAD_MESSAGE


async def test_a_replaced_session_ends_though_nobody_reads_it(hub: Hub) -> None:
    """Sessions of one cluster do not pile up."""
    async with hub.channel(await hub.join("zurich")) as channel:
        for _ in range(5):
            await Agent(channel).hello()
        async with asyncio.timeout(60):
            while len(hub.app.control_guard.open_calls()) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


# -- as an app's author, with the aggregator's key -------------------------------------------------


async def test_an_aggregators_words_fit_into_status(hub: Hub) -> None:
    """Nothing that an aggregator says makes a status that the schema refuses, or ends the hub."""
    nan, inf = float("nan"), float("inf")
    async with hub.channel(await hub.join("zurich")) as channel:
        agent, uid, own = await agreed(hub, channel)
        async with hub.channel(own) as theirs:
            call = await progress_session(theirs)
            await agent.report(uid, pb.ASSIGNMENT_STATE_RUNNING)
            for moment in (nan, inf, 1e300, -1e300):
                report = pb.ProgressReport(
                    round=2**32 - 1,
                    rounds_total=2**32 - 1,
                    phase=HUGE,
                    message=HUGE,
                    round_started_at=moment,
                    clusters=[
                        pb.ClusterProgress(
                            cluster="zurich",
                            state=HUGE,
                            reason=HUGE,
                            message=HUGE,
                            round=2**32 - 1,
                            examples=2**64 - 1,
                            last_update_at=moment,
                            bytes_sent=2**64 - 1,
                            bytes_received=2**64 - 1,
                        )
                    ],
                    metrics=[
                        pb.RoundMetrics(
                            round=2**32 - 1,
                            phase="Train",
                            values={f"m{n}{HUGE[:200]}": nan for n in range(2000)},
                        ),
                        pb.RoundMetrics(round=1, phase=HUGE[:1000], values={"loss": inf}),
                    ],
                    bytes_sent=2**64 - 1,
                    bytes_received=2**64 - 1,
                    phase_seconds={
                        "a": nan,
                        "b": -1.0,
                        "c": inf,
                        "d": 1e300,
                        **{f"p{n}": 1.0 for n in range(100)},
                    },
                )
                await call.write(pb.AggregatorMessage(report=report))
                await asyncio.sleep(0.1)
            await hub.until(lambda seen: seen["phase"] == "Running")
            assert_valid(training.FederatedTraining, await stored(hub, gateway.TRAINING))
            finished = pb.TrainingFinished(
                succeeded=False,
                reason=HUGE,
                message=HUGE,
                model_uri="x" * 5000,
                model_sha256="../..",
                model_round=2**32 - 1,
                log_tail=[HUGE] * 5,
            )
            await call.write(pb.AggregatorMessage(finished=finished))
            status = await hub.until(lambda seen: seen["phase"] == "Failed")
            assert "model" not in status
            assert_valid(training.FederatedTraining, await stored(hub, gateway.TRAINING))


async def test_an_aggregator_is_met_under_its_own_name(hub: Hub) -> None:
    """Edges are told the name in its certificate, whatever it says."""
    async with hub.channel(await hub.join("zurich")) as channel:
        agent, _, own = await agreed(hub, channel)
        async with hub.channel(own) as theirs:
            await progress_session(theirs, name="coordinator.hanse.local")
            told = await agent.assignment(lambda entry: bool(entry.aggregator_address))
            assert told.aggregator_server_name == "hospitals.cardiology.aggregator.hanse.local"


@pytest.mark.parametrize(
    "address", ["", "unix:/run/docker.sock", "dns://8.8.8.8/x:1", "host", "host:1\n", "h" * 300]
)
async def test_an_aggregators_address_is_host_and_port(hub: Hub, address: str) -> None:
    """Nothing else is passed on to edges, where gRPC would dial it."""
    async with hub.channel(await hub.join("zurich")) as channel:
        _, _, own = await agreed(hub, channel)
        async with hub.channel(own) as theirs:
            call = await progress_session(theirs, address)
            assert await denied(call.read()) is denials.Reason.BAD_MESSAGE


async def test_the_key_of_an_ended_training_is_good_for_nothing(hub: Hub) -> None:
    """After its training, an aggregator is neither renewed nor heard; nor in a later one of the same name."""
    async with hub.channel(await hub.join("zurich")) as channel:
        _, uid, own = await agreed(hub, channel)
        key = identities.AggregatorIdentity("hanse.local", "cardiology", "hospitals")
        assert own.identity() == key
        hub.app.aggregators.forget(uid)
        async with hub.channel(own) as theirs:
            renewal = pb_grpc.EnrollmentStub(theirs).Renew(
                pb.RenewRequest(csr_pem=keys.request(keys.generate()))
            )
            assert await denied(renewal) is denials.Reason.UNKNOWN_TRAINING
            # A training of the same name, some seconds later.
            hub.app.aggregators._now = lambda: dt.datetime.now(dt.UTC).timestamp() + 5
            hub.app.aggregators.expect("another", "cardiology", "hospitals")
            # Not a word is said: gRPC reports a write into a refused call as an error of its own.
            session = pb_grpc.ProgressStub(theirs).Session()
            assert await denied(session.read()) is denials.Reason.REVOKED
            renewal = pb_grpc.EnrollmentStub(theirs).Renew(
                pb.RenewRequest(csr_pem=keys.request(keys.generate()))
            )
            assert await denied(renewal) is denials.Reason.REVOKED


async def test_one_training_that_cannot_be_planned_does_not_end_the_hub(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong with it, the hub goes on, and the training too once it is over."""
    broken = True
    render = controller.status.render

    def breaking(*arguments: Any) -> Any:
        if broken:
            raise ZeroDivisionError
        return render(*arguments)

    monkeypatch.setattr(controller.status, "render", breaking)
    async with hub.channel(await hub.join("zurich")) as channel:
        agent = Agent(channel)
        await agent.hello()
        await agent.offer("heart")
        await agent.assignment()
        broken = False
        hub.app.controller.notify()
        await hub.until(lambda seen: bool(seen["clusters"]))


def test_tokens_say_nothing_to_those_who_guess() -> None:
    """A wrong secret, an unknown id and a used token of another get the same answer."""
    now = dt.datetime.now(dt.UTC)
    token, record = tokens.create(secrets.token_bytes(37), expires_at=now + dt.timedelta(hours=1))
    used = tokens.redeem(record, token, cluster="a", now=now)
    assert isinstance(used, tokens.TokenRecord)
    guess = tokens.Token(token.token_id, "A" * 43)
    answers = {tokens.redeem(known, guess, cluster="a", now=now) for known in (None, record, used)}
    assert len(answers) == 1
