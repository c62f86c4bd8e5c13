"""The hub on a real API server: what it makes of a training, who leads, how little it asks for at rest.

There is no kubelet: Jobs are made and no pod runs, so the aggregator is played by hand where one is needed.
"""

from __future__ import annotations

import asyncio
import base64
import collections
import contextlib
import datetime as dt
import itertools
import json
import pathlib
import re
import secrets
import shutil
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from coordinator import cluster, config, hub, parts, workloads
from coordinator.clients import last_words, secret_shelf
from coordinator.door import envoy
from coordinator.issuing import token_secrets, tokens
from coordinator.planning import snapshot
from federation.apps import bundle
from federation.kube import client, errors, leases
from federation.trust import credentials
from federation.trust import identity as identities
from federation.wire import addresses, denials
from federation.wire import hanse_pb2 as pb
from federation.wire import hanse_pb2_grpc as pb_grpc
from simulations.chaos import proxy
from tests.fakes import controlplane, kubelet
from tests.loopback import test_gateway

pytestmark = [pytest.mark.controlplane, pytest.mark.asyncio]
_numbers = itertools.count(1)
WAIT_SECONDS = 60
SLOW_LEASE = {"lease_seconds": 60, "renew_seconds": 45, "retry_seconds": 0.3}
QUICK_LEASE = {"lease_seconds": 6, "renew_seconds": 4, "retry_seconds": 0.3}


async def until(holds: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the answer is true; what is asked for comes by watches that the test does not see."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not (found := await holds()):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return found


class Scene:
    """A hub's namespace, a training's namespace, and as many replicas as a test wants."""

    def __init__(self, api: client.Client, plane: controlplane.ControlPlane, directory: pathlib.Path) -> None:
        number = next(_numbers)
        self.api, self.plane, self.directory = api, plane, directory
        self.system, self.namespace = f"hanse-system-{number}", f"cardiology-{number}"
        self.cluster = f"zurich-{number}"
        self.leaders: dict[str, hub.Coordinator] = {}
        self.overs: dict[str, asyncio.Event] = {}
        self.running: dict[str, asyncio.Task[None]] = {}
        source = directory / "app"
        source.mkdir()
        (source / "pyproject.toml").write_text(test_gateway.PYPROJECT)
        (source / "tiny.py").write_text("client = server = None\n")
        self.packed = bundle.pack(source)

    async def prepare(self) -> None:
        for name in (self.system, self.namespace):
            await self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def start(self, pod: str, **changes: Any) -> None:
        """Start one replica."""
        settings = config.CoordinatorConfig(
            state_directory=self.directory / pod,
            enrollment_listen="127.0.0.1:0",
            control_listen="127.0.0.1:0",
            start_grace_seconds=0,
            kubernetes=config.KubernetesConfig(
                namespace=self.system,
                pod_name=pod,
                pod_ip="127.0.0.1",
                aggregator_image="hanse/coordinator",
                client_image="hanse/client",
                door_directory=self.directory / pod / "door",
                door_listen="127.0.0.1:8443",
                health_listen="127.0.0.1:0",
                **({"kubeconfig": self.plane.kubeconfig} | SLOW_LEASE | changes),
            ),
        )
        over = self.overs[pod] = asyncio.Event()
        serving = cluster.serve(
            settings, over, on_leading=lambda leader: self.leaders.__setitem__(pod, leader)
        )
        self.running[pod] = asyncio.create_task(serving)

    async def leader(self, pod: str) -> hub.Coordinator:
        """Wait until a replica leads."""

        async def leads() -> hub.Coordinator | None:
            if self.running[pod].done():
                self.running[pod].result()
            return self.leaders.get(pod)

        found = await until(leads)
        assert isinstance(found, hub.Coordinator)
        return found

    async def end(self, pod: str) -> None:
        """Let a replica end as SIGTERM does."""
        self.overs[pod].set()
        await self.running.pop(pod)
        self.leaders.pop(pod, None)

    async def close(self) -> None:
        for pod in list(self.running):
            self.overs[pod].set()
        await asyncio.gather(*self.running.values(), return_exceptions=True)
        # The next scene's hub would wait to hear the aggregator of a training that runs.
        with contextlib.suppress(errors.NotFound):
            await self.api.delete("FederatedTraining", "hospitals", self.namespace)
        with contextlib.suppress(errors.NotFound):
            await self.api.delete("EdgeCluster", self.cluster)

    async def pod(self, name: str) -> None:
        """A pod object of a replica, which no kubelet runs."""
        container = {"name": "coordinator", "image": "hanse/coordinator"}
        await self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": self.system},
                "spec": {"containers": [container], "automountServiceAccountToken": False},
            }
        )

    async def labelled(self, name: str) -> bool:
        found = await self.api.get("Pod", name, self.system)
        return (found["metadata"].get("labels") or {}).get("hanse.dev/leader") == "true"

    async def member(self) -> None:
        """An accepted cluster that offers the data set."""
        await self.api.create(
            {
                "apiVersion": "hanse.dev/v1alpha1",
                "kind": "EdgeCluster",
                "metadata": {"name": self.cluster},
                "spec": {"acceptance": "Accepted", "labels": {"test": self.namespace}},
            }
        )

    async def app(self) -> None:
        """The app, as configMapGenerator makes it."""
        await self.api.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "tiny-app", "namespace": self.namespace},
                "binaryData": {"app.fab": base64.b64encode(self.packed.data).decode()},
            }
        )

    async def training(self, source: dict[str, Any] | None = None, **spec: Any) -> None:
        await self.api.apply(
            {
                "apiVersion": "hanse.dev/v1alpha1",
                "kind": "FederatedTraining",
                "metadata": {"name": "hospitals", "namespace": self.namespace},
                "spec": {
                    "app": {"source": source or {"configMap": {"name": "tiny-app"}}},
                    "dataset": "heart",
                    "clusters": {"minimum": 1, "selector": {"matchLabels": {"test": self.namespace}}},
                }
                | spec,
            },
            field_manager="kubectl",
        )

    async def stored(self) -> dict[str, Any]:
        return await self.api.get("FederatedTraining", "hospitals", self.namespace)

    async def condition(self, type_: str, status: str) -> dict[str, Any]:
        """Wait for a condition."""

        async def found() -> dict[str, Any] | None:
            conditions = ((await self.stored()).get("status") or {}).get("conditions") or ()
            return next((c for c in conditions if c["type"] == type_ and c["status"] == status), None)

        result: dict[str, Any] = await until(found)
        return result

    async def jobs(self) -> tuple[dict[str, Any], ...]:
        return (await self.api.list("Job", self.namespace)).items

    @contextlib.asynccontextmanager
    async def agent(self, leader: hub.Coordinator) -> AsyncIterator[test_gateway.Agent]:
        """An edge agent's session, with a certificate of the hub's own CA."""
        identity = identities.ClusterIdentity("hanse.local", self.cluster)
        path = self.directory / f"agent-{next(_numbers)}"
        leader.authority.equip(path, identity)
        own = credentials.CredentialDirectory(path)
        async with own.channel(leader.control_address, "coordinator.hanse.local") as channel:
            agent = test_gateway.Agent(channel)
            await agent.hello()
            await agent.offer("heart")
            yield agent
            agent.call.cancel()


@pytest.fixture
async def scene(control_plane: controlplane.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[Scene]:
    """Two namespaces and no replica yet."""
    async with await client.Client.connect(control_plane.kubeconfig) as api:
        made = Scene(api, control_plane, tmp_path)
        await made.prepare()
        yield made
        await made.close()


async def test_a_training_becomes_a_job_and_goes_again(scene: Scene) -> None:
    """Applied: Job, Secret, claim, account and policy are there, and status; deleted: all of it is gone."""
    await scene.member()
    await scene.app()
    scene.start("a")
    leader = await scene.leader("a")
    async with scene.agent(leader) as agent:
        await scene.training()
        wanted = await agent.assignment()
        assert (wanted.name, wanted.image, wanted.same_address) == ("hospitals", "hanse/client", False)
        assert wanted.app_digest == scene.packed.digest
        (job,) = await until(scene.jobs)
        uid = (await scene.stored())["metadata"]["uid"]
        assert job["metadata"]["name"] == workloads.workload_name(uid)
        pod = job["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == "hanse-aggregator"
        assert pod["automountServiceAccountToken"] is False
        assert {"claimName": "hanse-models"} in [v.get("persistentVolumeClaim") for v in pod["volumes"]]
        (policy,) = (await scene.api.list("NetworkPolicy", scene.namespace)).items
        assert policy["spec"]["ingress"][0]["ports"][0]["port"] == 7443
        assert policy["spec"]["egress"][0]["to"][0]["namespaceSelector"]["matchLabels"] == {
            "kubernetes.io/metadata.name": scene.system
        }
        assert (await scene.condition("Accepted", "True"))["reason"] == "Valid"
        assert (await scene.condition("QuorumReached", "False"))["reason"] in (
            "WaitingForClusters", "QuorumNotReached", "QuorumLost",
        )  # fmt: skip
        stored = await scene.stored()
        assert stored["status"]["app"]["digest"] == scene.packed.digest
        assert "finalizers" not in stored["metadata"]
        assert "annotations" not in stored["metadata"]
        assert {entry["manager"] for entry in stored["metadata"]["managedFields"]} == {
            "kubectl", "hanse-coordinator",
        }  # fmt: skip

        await scene.api.delete("FederatedTraining", "hospitals", scene.namespace)
        while (await agent.read()).assignments.assignments:
            pass
        tidy = workloads.tidy_name(uid)
        await until(lambda: _empty(scene, but_for=tidy))
        (job,) = await until(scene.jobs)
        assert job["metadata"]["name"] == tidy
        pod = job["spec"]["template"]["spec"]
        assert pod["containers"][0]["command"][-2:] == [f"/var/lib/hanse/models/.journals/{uid}", uid]
        assert {"claimName": "hanse-models"} in [v.get("persistentVolumeClaim") for v in pod["volumes"]]


async def _empty(scene: Scene, but_for: str = "") -> bool:
    """Nothing is left of a training but, if one is named, the Job that removes its journal and what belongs
    to that: it ends when it has, and no kubelet runs it here.
    """
    for kind in ("Job", "Secret", "ConfigMap", "NetworkPolicy"):
        for item in (await scene.api.list(kind, scene.namespace)).items:
            name = item["metadata"]["name"]
            excepted = but_for and name.startswith(but_for)
            if not excepted and name not in ("tiny-app", "kube-root-ca.crt"):
                return False
    return True


async def test_an_aggregator_runs_the_image_that_its_training_names_if_that_is_allowed(scene: Scene) -> None:
    """Refused with who can change it; once that is done the Job has it, and nothing else changes."""
    image = "registry.example/apps/cardiology@sha256:" + "5f" * 32
    await scene.member()
    await scene.app()
    scene.start("a")
    await scene.leader("a")
    await scene.training(server={"image": image})
    accepted = await scene.condition("Accepted", "False")
    assert accepted["reason"] == "ImageNotAllowed"
    assert "the hub's own image (hanse/coordinator) only" in accepted["message"]
    assert "ask the hub's operator to add it to kubernetes.aggregator_images" in accepted["message"]
    assert not await scene.jobs()
    await scene.end("a")
    scene.start("b", aggregator_images=("registry.example/apps/*@sha256:*",))
    leader = await scene.leader("b")
    async with scene.agent(leader) as agent:
        assert (await agent.assignment()).image == "hanse/client"
        (job,) = await until(scene.jobs)
        pod = job["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert (container["image"], container["imagePullPolicy"]) == (image, "IfNotPresent")
        assert container["command"][:4] == ["python3", "-P", "-m", "coordinator.aggregator"]
        assert pod["serviceAccountName"] == "hanse-aggregator"
        (policy,) = (await scene.api.list("NetworkPolicy", scene.namespace)).items
        assert len(policy["spec"]["egress"]) == 1
    with pytest.raises(errors.KubernetesError, match="image cannot change after creation"):
        await scene.training(server={"image": "registry.example/apps/other:1"})


async def test_a_path_is_refused_with_the_way_out(scene: Scene) -> None:
    """What only simulations can do is said at once."""
    scene.start("a")
    await scene.leader("a")
    await scene.training({"path": "app"})
    accepted = await scene.condition("Accepted", "False")
    assert accepted["reason"] == "AppNotFound"
    assert "hanse app build" in accepted["message"]
    assert "configMapGenerator" in accepted["message"]


async def test_one_leads_and_the_other_takes_over(scene: Scene) -> None:
    """The label follows the Lease, both hubs have one CA, and a running aggregator is taken over as it is."""
    for name in ("a", "b"):
        await scene.pod(name)
    await scene.member()
    await scene.app()
    scene.start("a")
    first = await scene.leader("a")
    assert await scene.labelled("a")
    scene.start("b")
    async with scene.agent(first) as agent:
        await scene.training()
        await agent.assignment()
        (before,) = await until(scene.jobs)
    assert "b" not in scene.leaders
    await scene.end("a")
    second = await scene.leader("b")
    assert (await scene.labelled("a"), await scene.labelled("b")) == (False, True)
    assert second.authority.pin == first.authority.pin
    async with scene.agent(second) as agent:
        await agent.assignment()
        (after,) = await scene.jobs()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_an_app_that_is_pruned_is_found_with_its_aggregator(scene: Scene) -> None:
    """A hub that has neither file nor ConfigMap hands out what the aggregator was given, and ends nobody."""
    await scene.member()
    await scene.app()
    scene.start("a")
    async with scene.agent(await scene.leader("a")) as agent:
        await scene.training()
        await agent.assignment()
        (before,) = await until(scene.jobs)
        await until(lambda: _runs_soon(scene))
    await scene.end("a")
    await scene.api.delete("ConfigMap", "tiny-app", scene.namespace)
    scene.start("b")
    async with scene.agent(await scene.leader("b")) as agent:
        wanted = await agent.assignment()
        assert wanted.app_digest == scene.packed.digest
        asked = pb.FetchBundleRequest(digest=wanted.app_digest)
        fetched = b"".join([chunk.data async for chunk in agent.stub.FetchBundle(asked)])
        assert fetched == scene.packed.data
        (after,) = await scene.jobs()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]

    async def told() -> bool:
        accepted = await scene.condition("Accepted", "True")
        return accepted["reason"] == "AppNotFound" and "which the hub still has" in accepted["message"]

    await until(told)


async def _runs_soon(scene: Scene) -> bool:
    """Whether the status says that an aggregator starts, and the Job's pod would have its app."""
    (job,) = await scene.jobs()
    conditions = ((await scene.stored()).get("status") or {}).get("conditions") or ()
    starting = any(c["type"] == "Running" and c["reason"] == "Starting" for c in conditions)
    return starting and not job["spec"].get("suspend")


async def test_who_loses_the_lease_ends(scene: Scene) -> None:
    """Another holder in the Lease is enough."""
    scene.start("a")
    await scene.leader("a")
    held = await scene.api.get("Lease", "hanse-coordinator", scene.system)
    taken = {"spec": {"holderIdentity": "somebody-else", "renewTime": held["spec"]["renewTime"]}}
    await scene.api.patch("Lease", "hanse-coordinator", scene.system, taken)
    with pytest.raises(leases.LeaseLost):
        async with asyncio.timeout(WAIT_SECONDS):
            await scene.running.pop("a")


async def test_a_token_is_redeemed_once_by_two_hubs(scene: Scene) -> None:
    """Whoever writes first has used it; given back, it is good again."""
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    token, record = tokens.create(secrets.token_bytes(37), expires_at=now + dt.timedelta(hours=1))
    await scene.api.create(token_secrets.secret_of(record, scene.system))
    async with await client.Client.connect(scene.plane.kubeconfig) as other:
        shelves = [secret_shelf.SecretShelf(api, scene.system) for api in (scene.api, other)]
        outcomes = await asyncio.gather(
            *(
                shelf.redeem(token.text, name, now)
                for shelf in shelves
                for name in ("zurich", "basel", "bern")
            ),
            return_exceptions=True,
        )
        used = [outcome for outcome in outcomes if isinstance(outcome, tokens.TokenRecord)]
        refused = [outcome for outcome in outcomes if isinstance(outcome, denials.Denied)]
        assert len(used) == 1
        assert {outcome.reason for outcome in refused} == {denials.Reason.TOKEN_USED}
        await shelves[0].give_back(used[0])
        assert (await shelves[1].redeem(token.text, "bern", now)).used_by == "bern"
        assert await shelves[0].tidy(now) == 0
        assert await shelves[0].tidy(now + dt.timedelta(days=3)) == 1
        with pytest.raises(denials.Denied) as unknown:
            await shelves[1].redeem(token.text, "bern", now)
        assert unknown.value.reason is denials.Reason.TOKEN_UNKNOWN


async def test_a_finished_training_is_deleted_when_its_time_is_over(scene: Scene) -> None:
    """Its ttlSecondsAfterFinished counts from the end that status names."""
    await scene.app()
    await scene.training(ttlSecondsAfterFinished=1)
    ended = {
        "phase": "Completed",
        "completedAt": "2026-01-01T00:00:00Z",
        "conditions": [
            {
                "type": "Completed", "status": "True", "reason": "AllRoundsDone", "message": "Done.",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }  # fmt: skip
    await scene.api.replace_status("FederatedTraining", "hospitals", scene.namespace, ended)
    scene.start("a")
    await scene.leader("a")

    async def gone() -> bool:
        try:
            await scene.stored()
        except errors.NotFound:
            return True
        return False

    await until(gone)


BROKEN = {
    "no certificate": {"tls.crt": b"", "tls.key": b""},
    "nonsense": {"tls.crt": b"x", "tls.key": b"y"},
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
async def test_an_unusable_ca_is_one_sentence(scene: Scene, data: dict[str, bytes]) -> None:
    """The hub does not start with a CA that cannot sign, and says which Secret it is."""
    encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": "hanse-ca", "namespace": scene.system}
    await scene.api.create(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": metadata,
            "data": encoded,
        }
    )
    scene.start("a")
    with pytest.raises(
        parts.StartFailure, match=f"Secret {scene.system}/hanse-ca is no CA for the federation"
    ):
        async with asyncio.timeout(WAIT_SECONDS):
            await scene.running.pop("a")


FOLLOWED = {("hanse.dev", "federatedtrainings"), ("hanse.dev", "edgeclusters")}


async def answered(api: client.Client) -> collections.Counter[tuple[str, str, str]]:
    """Return what the API server has answered to anybody, by verb, group and resource; a watch at its end."""
    found: collections.Counter[tuple[str, str, str]] = collections.Counter()
    async with api.http.answer("GET", "/metrics", what="read metrics", verb="get") as answer:
        for line in (await answer.read()).decode().splitlines():
            if line.startswith("apiserver_request_total{"):
                labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
                key = (labels["verb"], labels["group"], labels["resource"])
                found[key] += int(float(line.rpartition(" ")[2]))
    return found


async def test_an_idle_hub_asks_for_little(scene: Scene) -> None:
    """With a settled training, half a minute costs the Lease's renewals and hardly anything else."""
    await scene.app()
    scene.start("a")
    leader = await scene.leader("a")
    for left in (
        await scene.api.list("FederatedTraining")
    ).items:  # other tests', some of which wait for an app
        await scene.api.delete("FederatedTraining", left["metadata"]["name"], left["metadata"]["namespace"])
    await scene.training()
    await scene.condition("QuorumReached", "False")

    async def settled() -> bool:
        """On a slow machine the last words on a new training come late."""
        planned = leader.controller.reconciled
        await asyncio.sleep(3)
        return leader.controller.reconciled == planned

    await until(settled)
    counted = await answered(scene.api)
    before, planned = dict(leader.store._api.requests), leader.controller.reconciled  # type: ignore[attr-defined]
    await asyncio.sleep(30)
    after = leader.store._api.requests  # type: ignore[attr-defined]
    by_all = await answered(scene.api) - counted  # kopf, which has a client of its own, is among them
    spent = {verb: after[verb] - before.get(verb, 0) for verb in after if after[verb] != before.get(verb, 0)}
    assert sum(spent.values()) <= 4, spent
    renewals = sum(count for (_, _, resource), count in by_all.items() if resource == "leases")
    # One in 0.3 s; on a slow machine one comes too late, and the Lease is read again before the next.
    assert renewals <= 1.25 * 30 / 0.3
    followed = {key: count for key, count in by_all.items() if key[1:] in FOLLOWED}
    assert sum(followed.values()) <= 4, followed
    assert leader.controller.reconciled - planned <= 3  # a plan that changes nothing writes nothing


EXCHANGE = "10.0.0.3:7443"


@contextlib.asynccontextmanager
async def aggregator(
    scene: Scene, leader: hub.Coordinator, round_number: int = 7
) -> AsyncIterator[Callable[[str], Awaitable[pb.AggregatorDirective]]]:
    """An aggregator's session by hand; gives a function that waits for a directive of a kind."""
    identity = identities.AggregatorIdentity("hanse.local", scene.namespace, "hospitals")
    path = scene.directory / f"aggregator-{next(_numbers)}"
    leader.authority.equip(path, identity)
    own = credentials.CredentialDirectory(path)
    async with own.channel(leader.control_address, "coordinator.hanse.local") as channel:
        session = pb_grpc.ProgressStub(channel).Session()
        hello = pb.AggregatorHello(
            protocol=pb.ProtocolRange(oldest=1, newest=1), exchange_address=EXCHANGE, server_name="x"
        )
        await session.write(pb.AggregatorMessage(hello=hello))
        cluster = pb.ClusterProgress(cluster=scene.cluster, state="Training", round=round_number, examples=7)
        metrics = [
            pb.RoundMetrics(round=number, phase="Evaluate", values={"accuracy": 0.806 + number / 1000})
            for number in range(1, round_number)
        ]
        report = pb.ProgressReport(round=round_number, rounds_total=20, clusters=[cluster], metrics=metrics)
        await session.write(pb.AggregatorMessage(report=report))

        async def told(kind: str) -> pb.AggregatorDirective:
            async with asyncio.timeout(WAIT_SECONDS):
                while (directive := await session.read()).WhichOneof("body") != kind:
                    pass
            return directive

        yield told
        session.cancel()


async def change(scene: Scene, spec: dict[str, Any]) -> None:
    await scene.api.patch("FederatedTraining", "hospitals", scene.namespace, {"spec": spec})


async def phase(scene: Scene, wanted: str) -> dict[str, Any]:
    """Wait for a phase; return the status."""

    async def found() -> dict[str, Any] | None:
        for replica in scene.running.values():
            if replica.done():
                replica.result()
        status: dict[str, Any] = (await scene.stored()).get("status") or {}
        return status if status.get("phase") == wanted else None

    result: dict[str, Any] = await until(found)
    return result


async def test_what_may_change_reaches_a_running_training(scene: Scene) -> None:
    """Quorum, deadline and fraction are told for the next round; stop ends it and keeps its status."""
    await scene.member()
    await scene.app()
    scene.start("a")
    leader = await scene.leader("a")
    async with scene.agent(leader) as agent:
        await scene.training()
        wanted = await agent.assignment()
        await agent.report(wanted.uid, pb.ASSIGNMENT_STATE_RUNNING)
        await until(scene.jobs)
        async with aggregator(scene, leader) as told:
            assert (await told("rules")).rules == pb.RoundRules(
                quorum=1,
                minimum_fraction="0",
                deadline_seconds=600,
                late_replies="Discard",
                over_provision_fraction="0",
            )
            await phase(scene, "Running")
            await change(
                scene,
                {
                    "round": {
                        "deadlineSeconds": 30,
                        "minimumFraction": "0.5",
                        "lateReplies": "NextRound",
                        "graceSeconds": 0,
                        "overProvisionFraction": "0.3",
                    },
                    "clusters": {"minimum": 2},
                },
            )
            assert (await told("rules")).rules == pb.RoundRules(
                quorum=2,
                minimum_fraction="0.5",
                deadline_seconds=30,
                late_replies="NextRound",
                grace_seconds=0,
                over_provision_fraction="0.3",
            )
            running = await phase(scene, "Running")
            assert running["summary"]["round"] == "7/20"
            await change(scene, {"stop": True})
            stop = (await told("stop")).stop
            assert stop.reason == "StopRequested"
        uid = (await scene.stored())["metadata"]["uid"]
        leader.aggregators.finish(
            leader.aggregators.find(scene.namespace, "hospitals"),
            snapshot.Finished(False, "StopRequested", "Stopped.", "pvc://m/6", "5b" * 32, 6),
        )
        status = await phase(scene, "Stopped")
        assert status["summary"]["round"] == "7/20"
        assert status["summary"]["metric"] == "accuracy=0.812"
        assert status["model"] == {"uri": "pvc://m/6", "sha256": "5b" * 32, "round": 6}
        assert [entry["state"] for entry in status["clusters"]] == ["Completed"]
        while (await agent.read()).assignments.assignments:
            pass
        assert uid == (await scene.stored())["metadata"]["uid"]
        await until(lambda: _empty(scene))
        events = (await scene.api.list("Event", scene.namespace)).items
        about = [e for e in events if e["involvedObject"]["kind"] == "FederatedTraining"]
        assert {"StopRequested", "RoundInProgress"} <= {e["reason"] for e in about}
        assert all(e["message"].splitlines()[0].endswith(".") for e in about), about
    with pytest.raises(errors.Invalid, match="a training that was stopped stays stopped; create another"):
        await change(scene, {"stop": False})


async def test_more_rounds_reach_a_running_training(scene: Scene) -> None:
    """The aggregator is told of them, and so is each edge, whose policy may not want as many."""
    installed = {"image": {"clientApp": "tiny:client"}}
    await scene.member()
    scene.start("a")
    leader = await scene.leader("a")
    async with scene.agent(leader) as agent:
        await scene.training(installed, strategy={"name": "FedAdam", "rounds": 20})
        wanted = await agent.assignment()
        assert wanted.rounds == 20
        await agent.report(wanted.uid, pb.ASSIGNMENT_STATE_RUNNING)
        await until(scene.jobs)
        async with aggregator(scene, leader) as told:
            assert (await told("rules")).rules.rounds == 20
            await phase(scene, "Running")
            await change(scene, {"strategy": {"rounds": 30}})
            assert (await told("rules")).rules.rounds == 30
            while (again := await agent.assignment()).rounds == 20:
                pass
            assert (again.uid, again.rounds) == (wanted.uid, 30)
        leader.aggregators.finish(
            leader.aggregators.find(scene.namespace, "hospitals"),
            snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "pvc://m/20", "5b" * 32, 20),
        )
        await phase(scene, "Completed")
        completed = await scene.condition("Completed", "True")
        assert "raised to 30 came too late; create another FederatedTraining" in completed["message"]
    with pytest.raises(
        errors.Invalid, match="a training that has ended takes no more rounds; create another"
    ):
        await change(scene, {"strategy": {"rounds": 40}})
    await change(scene, {"ttlSecondsAfterFinished": 60})


OF_A_STRATEGY: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "fewer rounds": ({}, {"rounds": 2}, "rounds can be raised, not lowered; to end sooner, set spec.stop"),
    "more versions of FedBuff": (
        {"strategy": {"name": "FedBuff", "rounds": 3}},
        {"rounds": 4},
        "FedBuff takes its number of versions when it starts; create another",
    ),
    "more rounds with an epsilon": (
        {"privacy": {"differentialPrivacy": {"epsilon": "2"}}},
        {"rounds": 4},
        "rounds cannot be raised where privacy.differentialPrivacy.epsilon is a promise",
    ),
    "another strategy": ({}, {"name": "FedAvg"}, "name cannot change after creation; create another"),
    "no strategy": ({}, {}, "strategy cannot be added or removed after creation; create another"),
}


@pytest.mark.parametrize(("spec", "changes", "want"), OF_A_STRATEGY.values(), ids=OF_A_STRATEGY)
async def test_what_of_a_strategy_is_refused_plainly(
    scene: Scene, spec: dict[str, Any], changes: dict[str, Any], want: str
) -> None:
    """All but a raise of its rounds, which the API server takes as often as it is asked for."""
    installed = {"image": {"clientApp": "tiny:client"}}
    await scene.training(installed, **({"strategy": {"name": "FedAdam", "rounds": 3}} | spec))
    with pytest.raises(errors.Invalid) as refused:
        await change(scene, {"strategy": changes or None})
    assert want in str(refused.value)
    if not spec:
        await change(scene, {"strategy": {"rounds": 4}})
        await change(scene, {"strategy": {"rounds": 5}})


ROUNDS = "nor can the number of rounds of its own ServerApp, which takes it when it starts; create another"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "more rounds": ({"app": {"runConfig": {"num-server-rounds": 9}}}, ROUNDS),
    "a strategy": (
        {"strategy": {"name": "FedAvg", "rounds": 9}},
        "strategy cannot be added or removed after creation; create another",
    ),
    "another app": (
        {"app": {"source": {"configMap": {"name": "other"}}}},
        "app cannot change after creation",
    ),
    "another data set": ({"dataset": "other"}, "dataset cannot change after creation; create another"),
    "another image": ({"client": {"image": "other"}}, "image cannot change after creation; create another"),
    "another store": ({"model": {"store": "pvc://other"}}, "store cannot change after creation"),
    "a maximum below the quorum": ({"clusters": {"maximum": 1, "minimum": 2}}, "maximum must be at least"),
    "a fraction above one": ({"round": {"minimumFraction": "1.5"}}, "round.minimumFraction"),
}


@pytest.mark.parametrize(("spec", "want"), REFUSED.values(), ids=REFUSED)
async def test_what_may_not_change_is_refused_plainly(scene: Scene, spec: dict[str, Any], want: str) -> None:
    """The API server says so, with the next step, and nothing changes."""
    await scene.training(
        app={"source": {"configMap": {"name": "tiny-app"}}, "runConfig": {"num-server-rounds": 3}}
    )
    with pytest.raises(errors.Invalid) as refused:
        await change(scene, spec)
    assert want in str(refused.value)


async def test_what_finished_while_nobody_led_is_not_run_again(scene: Scene) -> None:
    """The next leader reads the pod's last words, and what the last status knew stays."""
    await scene.member()
    await scene.app()
    scene.start("a")
    leader = await scene.leader("a")
    async with scene.agent(leader) as agent, kubelet.Kubelet(scene.api, scene.namespace) as node:
        await scene.training()
        wanted = await agent.assignment()
        await agent.report(wanted.uid, pb.ASSIGNMENT_STATE_RUNNING)
        (job,) = await until(scene.jobs)
        name = job["metadata"]["name"]
        await node.run(name)
        async with aggregator(scene, leader):
            await phase(scene, "Running")
        await scene.end("a")
        done = snapshot.Finished(
            True, "AllRoundsDone", "All 20 rounds are done.", "pvc://m/20", "5b" * 32, 20
        )
        await node.end(name, 0, message=last_words.write(done))
        scene.start("b")
        await scene.leader("b")
        status = await phase(scene, "Completed")
        assert status["model"] == {"uri": "pvc://m/20", "sha256": "5b" * 32, "round": 20}
        assert status["summary"]["round"] == "20/20"
        assert [(c["state"], c["examples"]) for c in status["clusters"]] == [("Completed", 7)]
        await until(lambda: _empty(scene))
        assert await scene.jobs() == ()


def led_to(scene: Scene, pod: str) -> dict[str, str]:
    """Where a replica's door leads, by name; empty for a closed one."""
    directory = scene.directory / pod / "door"
    found = {}
    if json.loads((directory / envoy.LISTENERS).read_bytes())["resources"]:
        for one in json.loads((directory / envoy.CLUSTERS).read_bytes())["resources"]:
            place = one["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
            found[one["name"]] = "{address}:{port_value}".format(**place["socket_address"])
    return found


async def begun(scene: Scene, leader: hub.Coordinator) -> None:
    """A training that runs, with a cluster that is at work."""
    async with scene.agent(leader) as agent:
        await scene.training()
        wanted = await agent.assignment()
        await agent.report(wanted.uid, pb.ASSIGNMENT_STATE_RUNNING)
        await until(scene.jobs)
        async with aggregator(scene, leader):
            await phase(scene, "Running")


async def is_expected(scene: Scene, leader: hub.Coordinator) -> bool:
    """Whether a leader has found the aggregator, which would be sent away before, and dial again."""
    with contextlib.suppress(denials.Denied):
        return bool(leader.aggregators.find(scene.namespace, "hospitals"))
    return False


async def test_what_is_suspended_while_nobody_leads_is_told_by_the_next_leader(scene: Scene) -> None:
    """Its aggregator is let in, which would be sent away otherwise, and its Job goes."""
    await scene.member()
    await scene.app()
    scene.start("a")
    await begun(scene, await scene.leader("a"))
    await scene.end("a")
    await change(scene, {"suspend": True})
    scene.start("b")
    second = await scene.leader("b")
    await until(lambda: is_expected(scene, second))
    async with aggregator(scene, second) as told:
        assert (await told("stop")).stop.reason == "SuspendRequested"
    assert (await phase(scene, "Suspended"))["summary"]["round"] == "7/20"
    await until(lambda: _empty(scene))
    await change(scene, {"suspend": False})
    async with scene.agent(second):
        await until(scene.jobs)
        await phase(scene, "Preparing")


async def acts_no_more(scene: Scene, pod: str) -> None:
    """Wait until a replica has stopped acting, and see that its process goes on."""

    async def rests() -> bool:
        if scene.running[pod].done():
            scene.running[pod].result()
        return not (scene.directory / pod / hub.ENDPOINTS).exists()

    await until(rests)


@pytest.mark.parametrize("program", ["kube-apiserver", "etcd"])
async def test_without_an_api_server_the_routes_stay_and_it_leads_again(scene: Scene, program: str) -> None:
    """The process and the way to aggregators outlast it; then status has what was missed meanwhile."""
    await scene.member()
    await scene.app()
    await scene.pod("a")
    scene.start("a", **QUICK_LEASE)
    first = await scene.leader("a")
    await begun(scene, first)
    exchange = f"hospitals.{scene.namespace}.aggregator.hanse.local"
    with scene.plane.standing_still(program):
        await acts_no_more(scene, "a")
        assert led_to(scene, "a")[exchange] == EXCHANGE
        with pytest.raises(OSError):
            await asyncio.open_connection(*addresses.split(first.control_address))

    async def again() -> hub.Coordinator | None:
        if scene.running["a"].done():
            scene.running["a"].result()
        return scene.leaders["a"] if scene.leaders["a"] is not first else None

    second = await until(again)
    assert led_to(scene, "a")[exchange] == EXCHANGE  # before it has heard of any aggregator
    assert await scene.labelled("a")
    await until(lambda: is_expected(scene, second))
    async with scene.agent(second), aggregator(scene, second, 12):

        async def caught_up() -> bool:
            status = (await scene.stored())["status"]
            return bool(status["summary"]["round"] == "12/20" and status["round"]["current"] == 12)

        await until(caught_up)
        assert led_to(scene, "a")[exchange] == EXCHANGE
        await scene.api.delete("FederatedTraining", "hospitals", scene.namespace)

        async def gone() -> bool:
            return exchange not in led_to(scene, "a")

        await until(gone)


async def test_who_was_away_while_another_took_over_writes_nothing(scene: Scene) -> None:
    """Cut off alone, it keeps its routes, but nothing of it is heard; it ends when it sees the other."""
    await scene.member()
    await scene.app()
    server = urllib.parse.urlsplit(scene.plane.server)
    assert server.hostname and server.port
    wire = await proxy.Proxy(server.hostname, server.port).start()
    through = controlplane.through(scene.plane.kubeconfig, wire.address)
    exchange = f"hospitals.{scene.namespace}.aggregator.hanse.local"
    try:
        scene.start("a", kubeconfig=through, **QUICK_LEASE)
        first = await scene.leader("a")
        scene.start("b", **QUICK_LEASE)
        await begun(scene, first)
        async with scene.agent(first):
            wire.freeze()
            second = await scene.leader("b")
            await acts_no_more(scene, "a")
            assert led_to(scene, "a")[exchange] == EXCHANGE
        await until(lambda: is_expected(scene, second))
        async with scene.agent(second), aggregator(scene, second):
            await phase(scene, "Running")
            wire.thaw()
            with pytest.raises(leases.LeaseLost, match="b holds it now"):
                async with asyncio.timeout(WAIT_SECONDS):
                    await scene.running.pop("a")
            assert led_to(scene, "a") == {}
            (connected,) = [
                one
                for one in (await scene.api.get("EdgeCluster", scene.cluster))["status"]["conditions"]
                if one["type"] == "Connected"
            ]
            assert connected["reason"] == "SessionOpen"
    finally:
        wire.thaw()
        await wire.stop()


async def test_a_replica_that_begins_without_an_api_server_waits_for_it(scene: Scene) -> None:
    """It does not end, which would make its kubelet wait longer and longer before the next try; and it leaves
    the door as one that died here has left it.
    """
    exchange = f"hospitals.{scene.namespace}.aggregator.hanse.local"
    await scene.member()
    await scene.app()
    scene.start("a", **QUICK_LEASE)
    await begun(scene, await scene.leader("a"))
    shutil.copytree(scene.directory / "a" / "door", scene.directory / "b" / "door")
    await scene.end("a")
    with scene.plane.standing_still("kube-apiserver"):
        scene.start("b", **QUICK_LEASE)
        done, _ = await asyncio.wait({scene.running["b"]}, timeout=2)
        assert not done
        assert led_to(scene, "b")[exchange] == EXCHANGE
    await scene.leader("b")
    assert exchange not in led_to(scene, "b")
