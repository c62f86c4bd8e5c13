"""The edge agent in a namespace of a real API server, with the least rights that it needs, and a real hub's
protocol. No kubelet: the test says of pods what one would.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import json
import os
import pathlib
import signal
import sys
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import yaml

from edge_agent import config as configs
from edge_agent import credentials, departure, link, on_kubernetes, vault
from federation.api import leaving
from federation.kube import client, errors
from federation.trust import certificates, tls
from federation.wire import denials, protocol
from tests.fakes import controlplane
from tests.loopback import test_agent_link as loopback

pytestmark = pytest.mark.controlplane
hub = loopback.hub
ROOT = pathlib.Path(__file__).parents[2]

MANIFESTS = pathlib.Path(__file__).parents[2] / "manifests" / "edge" / "base" / "rbac.yaml"
(RULES,) = (
    document["rules"] for document in yaml.safe_load_all(MANIFESTS.read_text()) if document["kind"] == "Role"
)
"""All that the agent may do, as it is installed; so what is missing there fails here."""

CLIENTS = "app.kubernetes.io/component=client"


class Cluster:
    """One namespace as its owner sees it, and the node that the test plays."""

    def __init__(self, api: client.Client, namespace: str) -> None:
        self.api = api
        self.namespace = namespace

    async def apply(self, kind: str, name: str, api_version: str = "v1", **fields: Any) -> None:
        await self.api.apply(
            {
                "apiVersion": api_version,
                "kind": kind,
                "metadata": {"name": name, "namespace": self.namespace},
                **fields,
            }
        )

    async def dataset(self, **volume: Any) -> None:
        await self.apply(
            "EdgeDataset",
            "heart",
            "hanse.dev/v1alpha1",
            spec={
                "name": "heart-disease",
                "volume": volume or {"configMap": {"name": "heart-rows"}},
                "mountPath": "/data",
                "nodeConfig": {"data-path": "$(MOUNT_PATH)/rows.csv"},
                "declare": {"examples": 294},
            },
        )

    async def policy(self, effect: str) -> None:
        rules = [{"name": "cardiology-only", "effect": effect}]
        await self.apply("EdgePolicy", "owner", "hanse.dev/v1alpha1", spec={"rules": rules})

    async def until(self, kind: str, wanted: Any, labels: str = "") -> dict[str, Any]:
        """Return the first object of which `wanted` is true, now or as soon as it is."""
        async with asyncio.timeout(loopback.PATIENCE_SECONDS):
            listing = await self.api.list(kind, self.namespace, labels=labels)
            for item in listing.items:
                if wanted(item):
                    return item
            async for change in self.api.watch(kind, listing.resource_version, self.namespace, labels=labels):
                if change.type != "DELETED" and wanted(change.object):
                    return change.object
        raise AssertionError

    async def pod(self) -> dict[str, Any]:
        return await self.until("Pod", lambda pod: not pod["metadata"].get("deletionTimestamp"), CLIENTS)

    async def say(self, pod: dict[str, Any], **status: Any) -> None:
        """Say of a pod what its kubelet or the scheduler would."""
        name = pod["metadata"]["name"]
        await self.api.patch("Pod", name, self.namespace, {"status": status}, subresource="status")

    async def runs(self, pod: dict[str, Any]) -> None:
        state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        await self.say(pod, phase="Running", containerStatuses=[container(state)])

    async def left(self) -> list[str]:
        """Return what there is of clients."""
        found = []
        for kind in ("Job", "Pod", "Secret", "ConfigMap", "NetworkPolicy"):
            listing = await self.api.list(kind, self.namespace, labels=CLIENTS)
            for item in listing.items:
                about = item["metadata"]
                deleted = about.get("deletionTimestamp")
                found.append(f"{kind} {about['name']}" + (f", deleted at {deleted}" if deleted else ""))
        return found

    async def condition(self, kind: str, type_: str, status: str) -> dict[str, Any]:
        """Return the condition, once it has that status."""

        def of(item: dict[str, Any]) -> dict[str, Any]:
            listed = (item.get("status") or {}).get("conditions", [])
            return next((one for one in listed if one["type"] == type_ and one["status"] == status), {})

        return of(await self.until(kind, of))


def container(state: dict[str, Any]) -> dict[str, Any]:
    return {"name": "main", "image": "i", "imageID": "i", "ready": True, "restartCount": 0, "state": state}


@pytest.fixture
async def cluster(control_plane: controlplane.ControlPlane) -> AsyncIterator[Cluster]:
    """Give a namespace with a data set and a policy, where the user nobody may do what the agent needs."""
    async with await client.Client.connect(control_plane.kubeconfig) as api:
        name = f"edge-{uuid.uuid4().hex[:8]}"
        await api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        made = Cluster(api, name)
        group = "rbac.authorization.k8s.io"
        await made.apply("Role", "agent", f"{group}/v1", rules=RULES)
        await made.apply(
            "RoleBinding",
            "agent",
            f"{group}/v1",
            roleRef={"apiGroup": group, "kind": "Role", "name": "agent"},
            subjects=[{"apiGroup": group, "kind": "User", "name": "nobody"}],
        )
        await made.apply("ConfigMap", "heart-rows", data={"rows.csv": "1,2,3"})
        await made.dataset()
        await made.policy("Allow")
        yield made
        await api.delete("Namespace", name)


class Agent:
    """An agent's configuration, on a disk of its own; `working` runs one."""

    def __init__(
        self,
        tmp_path: pathlib.Path,
        the_hub: loopback.Hub,
        address: str,
        cluster: Cluster,
        plane: controlplane.ControlPlane,
    ) -> None:
        (tmp_path / "token").write_text("hanse_1.secret\n")
        (tmp_path / "ca-pin").write_text(the_hub.authority.pin + "\n")
        self.kubernetes = configs.KubernetesConfig(
            namespace=cluster.namespace,
            client_image="client:1",
            kubeconfig=plane.kubeconfig_for("nobody"),
        )
        self.tmp_path = tmp_path
        self.address = address
        self.restarts = 0
        self.stop = asyncio.Event()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run an agent on an empty disk until the block ends, and stop it as SIGTERM does."""
        self.restarts += 1
        config = configs.AgentConfig(
            cluster=loopback.CLUSTER.cluster,
            enrollment_address=self.address,
            token_file=self.tmp_path / "token",
            ca_pin_file=self.tmp_path / "ca-pin",
            trust_domain=loopback.fakes.TRUST_DOMAIN,
            state_directory=self.tmp_path / f"state-{self.restarts}",
            kubernetes=self.kubernetes,
            stop_grace_seconds=1,
        )
        self.stop = stop = asyncio.Event()
        task = asyncio.create_task(on_kubernetes.run(config, self.kubernetes, stop))
        try:
            yield task
        finally:
            stop.set()
            await asyncio.wait({task}, timeout=loopback.PATIENCE_SECONDS)
            assert task.done()
            task.exception()


@pytest.fixture
def agent(
    hub: tuple[loopback.Hub, str],
    cluster: Cluster,
    control_plane: controlplane.ControlPlane,
    tmp_path: pathlib.Path,
) -> Agent:
    the_hub, address = hub
    return Agent(tmp_path, the_hub, address, cluster, control_plane)


async def test_from_joining_to_a_running_pod_and_back(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """Offer, decide, start a pod; the owner's No ends it; a withdrawn training leaves nothing at all."""
    the_hub, _ = hub
    async with agent.working():
        offered = await the_hub.hear("datasets")
        assert [(one.name, one.examples) for one in offered.datasets] == [("heart-disease", 294)]
        assert (await cluster.condition("EdgeDataset", "Available", "True"))["reason"] == "VolumeFound"
        assert (await cluster.condition("EdgePolicy", "Enforced", "True"))["reason"] == "Valid"
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["containers"][0]["image"] == "client:1"
        mounts = {
            one["mountPath"]: one.get("readOnly", False)
            for one in pod["spec"]["containers"][0]["volumeMounts"]
        }
        assert mounts["/data"] is True
        await cluster.runs(pod)
        await the_hub.hear_state("RUNNING")
        assert "cardiology/hospitals" in (await cluster.condition("EdgeDataset", "InUse", "True"))["message"]
        policies = await cluster.api.list("NetworkPolicy", cluster.namespace, labels=CLIENTS)
        (policy,) = policies.items
        assert policy["spec"]["egress"] == [
            {"to": [{"ipBlock": {"cidr": "127.0.0.1/32"}}], "ports": [{"port": 9, "protocol": "TCP"}]}
        ]
        await cluster.policy("Deny")
        assert (await the_hub.hear_state("REFUSED")).reason == "PolicyDenied"
        await cluster.condition("EdgeDataset", "InUse", "False")
        assert await cluster.left() == []
        await cluster.policy("Allow")
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")
        the_hub.want()
        await the_hub.hear_state("STOPPED")
        assert await cluster.left() == []


STATES = "app.kubernetes.io/component=client-state"


async def kept(cluster: Cluster) -> dict[str, str]:
    """Return the claims and keys that are there and not about to go, with their uids."""
    found = {}
    for kind in ("PersistentVolumeClaim", "Secret"):
        for item in (await cluster.api.list(kind, cluster.namespace, labels=STATES)).items:
            if not item["metadata"].get("deletionTimestamp"):
                found[f"{kind} {item['metadata']['name']}"] = item["metadata"]["uid"]
    return found


async def test_what_a_client_keeps_outlives_its_pod_and_goes_with_the_training(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """The same claim and key while pods and agents come and go and while it rests; none after it."""
    the_hub, _ = hub
    resting = the_hub.assignment(resting=True)
    resting.aggregator_address = resting.aggregator_server_name = ""
    async with agent.working():
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        claims = [
            one["persistentVolumeClaim"] for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one
        ]
        (claim,) = [one for one in await kept(cluster) if one.startswith("PersistentVolumeClaim")]
        assert [one["claimName"] for one in claims] == [claim.split()[1]]
        before = await kept(cluster)
        assert len(before) == 2
        await cluster.runs(pod)
        await the_hub.hear_state("RUNNING")
        await the_hub.want_until("PREPARING", "until the training goes on", resting)
        assert await cluster.left() == []
    async with agent.working():
        await the_hub.want_until("PREPARING", "until the training goes on", resting)
        assert await kept(cluster) == before
        the_hub.want(the_hub.assignment())
        await cluster.runs(await cluster.pod())
        assert await kept(cluster) == before
        await the_hub.want_until("PREPARING", "until the training goes on", resting)
    async with agent.working(), asyncio.timeout(loopback.PATIENCE_SECONDS):
        while await kept(cluster):
            the_hub.want()
            await asyncio.sleep(0.05)


async def test_a_cluster_without_storage_keeps_it_in_the_pod(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """As its owner said when it joined."""
    the_hub, _ = hub
    agent.kubernetes = agent.kubernetes.model_copy(update={"client_state": "pod"})
    async with agent.working():
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        assert not [one for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one]
        assert await kept(cluster) == {}


async def test_what_a_pod_waits_for_is_told(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """The scheduler's word reaches the hub with a reason of the catalogue, and is taken back."""
    the_hub, _ = hub
    async with agent.working():
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        await cluster.say(
            pod,
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient cpu.",
                }
            ],
        )
        waiting = await the_hub.hear_state("WAITING")
        assert waiting.reason == "Unschedulable"
        assert waiting.message
        await cluster.runs(pod)
        await the_hub.hear_state("RUNNING")


async def test_how_a_pod_ended_is_told(hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent) -> None:
    """Memory over the limit is no mere exit code; the client is started again."""
    the_hub, _ = hub
    async with agent.working():
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        await cluster.runs(pod)
        await the_hub.hear_state("RUNNING")
        ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
        await cluster.say(pod, phase="Failed", containerStatuses=[container(ended)])
        told = await the_hub.hear_state("PREPARING")
        while not told.reason:
            told = await the_hub.hear_state("PREPARING")
        assert told.reason == "OutOfMemory"
        assert "smaller model. Restart 1 of 3" in told.message
        again = await cluster.until(
            "Pod", lambda one: one["metadata"]["name"] != pod["metadata"]["name"], CLIENTS
        )
        await cluster.runs(again)
        await the_hub.hear_state("RUNNING")


async def test_clients_outlive_their_agent_and_are_taken_over(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """A new agent on an empty disk has the same identity, joins no second time, and knows its clients."""
    the_hub, _ = hub
    async with agent.working():
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        await cluster.runs(pod)
        await the_hub.hear_state("RUNNING")
    assert (await cluster.pod())["metadata"]["uid"] == pod["metadata"]["uid"]
    certificate = await client_certificate(cluster)
    the_hub.to_say.put_nowait(None)  # ends the session that the first agent had
    async with agent.working():
        await the_hub.hear("datasets")
        the_hub.want(the_hub.assignment())
        await the_hub.hear_state("RUNNING")
        assert the_hub.joins == 1
        assert (await cluster.pod())["metadata"]["uid"] == pod["metadata"]["uid"]
        fresh = await cluster.until(
            "Secret",
            lambda one: "tls.crt" in one.get("data", {}) and one["data"]["tls.crt"] != certificate,
            CLIENTS,
        )
        chain = base64.b64decode(fresh["data"]["tls.crt"])
        assert "training/cardiology/hospitals" in certificates.summarise(chain).identity.uri
        the_hub.want()
        await the_hub.hear_state("STOPPED")
    assert await cluster.left() == []


async def client_certificate(cluster: Cluster) -> str:
    secret = await cluster.until("Secret", lambda one: "tls.crt" in one.get("data", {}), CLIENTS)
    return str(secret["data"]["tls.crt"])


async def test_a_permission_withdrawn_while_no_agent_looked(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """The next agent ends the client before it has heard of the hub."""
    the_hub, _ = hub
    async with agent.working():
        the_hub.want(the_hub.assignment())
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")
    await cluster.policy("Deny")
    the_hub.to_say.put_nowait(None)
    async with agent.working():
        refused = await the_hub.hear_state("REFUSED")
        assert refused.reason == "PolicyDenied"
        await cluster.condition("EdgeDataset", "InUse", "False")
        assert await cluster.left() == []


async def test_an_expelled_cluster_ends_its_clients(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """Nobody watches over them any more."""
    the_hub, _ = hub
    async with agent.working() as task:
        the_hub.want(the_hub.assignment())
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")
        the_hub.to_say.put_nowait(denials.denial(denials.Reason.EXPELLED, cluster="budapest"))
        with pytest.raises(link.SentAway):
            await asyncio.wait_for(task, loopback.PATIENCE_SECONDS)
        assert await cluster.left() == []


AGENT_POD = "hanse-agent-1"


async def agent_pod(cluster: Cluster, agent: Agent, **annotations: str) -> None:
    """Make the agent's own pod, with these annotations."""
    agent.kubernetes = agent.kubernetes.model_copy(update={"pod": AGENT_POD})
    await cluster.api.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": AGENT_POD, "namespace": cluster.namespace, "annotations": annotations},
            "spec": {"containers": [{"name": "agent", "image": "agent:1"}]},
        }
    )


async def receipt(cluster: Cluster) -> bool:
    try:
        await cluster.api.get("ConfigMap", leaving.RECEIPT, cluster.namespace)
    except errors.NotFound:
        return False
    return True


async def test_an_agent_that_is_ended_for_good_tells_the_hub_and_ends_its_clients(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """`hanse leave` has marked its pod; that the hub knows is written down for it."""
    the_hub, _ = hub
    await agent_pod(cluster, agent, **{leaving.MARK: "true"})
    async with agent.working() as task:
        the_hub.want(the_hub.assignment())
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")
        agent.stop.set()
        await the_hub.hear("leaving")
        assert not await receipt(cluster)
        the_hub.to_say.put_nowait(denials.denial(denials.Reason.REVOKED, identity=loopback.CLUSTER.uri))
        await asyncio.wait_for(task, loopback.PATIENCE_SECONDS)  # as asked: it raises nothing
        assert await receipt(cluster)
        assert await cluster.left() == []


async def test_an_agent_that_is_ended_leaves_nothing_unless_it_is_marked(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """A restart or a drained node is no news for the hub, and its client goes on."""
    the_hub, _ = hub
    await agent_pod(cluster, agent)
    async with agent.working() as task:
        the_hub.want(the_hub.assignment())
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")
        agent.stop.set()
        await asyncio.wait_for(task, loopback.PATIENCE_SECONDS)
    said = [the_hub.heard.get_nowait().WhichOneof("body") for _ in range(the_hub.heard.qsize())]
    assert "leaving" not in said
    assert await cluster.left() != []
    assert not await receipt(cluster)


async def test_a_hub_that_is_away_does_not_keep_an_edge(
    hub: tuple[loopback.Hub, str],
    cluster: Cluster,
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The agent ends after a while, without a receipt; before it has joined it has nothing to say."""
    the_hub, _ = hub
    monkeypatch.setattr(departure, "TELLING_SECONDS", 0.5)
    await agent_pod(cluster, agent, **{leaving.MARK: "true"})
    async with agent.working() as task:
        await the_hub.hear("datasets")
        agent.stop.set()
        await the_hub.hear("leaving")  # and this hub does not answer
        await asyncio.wait_for(task, loopback.PATIENCE_SECONDS)
    assert not await receipt(cluster)
    monkeypatch.setattr(departure, "TELLING_SECONDS", 2 * loopback.PATIENCE_SECONDS)
    await cluster.api.delete("Secret", vault.SECRET_NAME, cluster.namespace)
    agent.address = "127.0.0.1:9"  # nobody answers there
    async with agent.working() as task:
        agent.stop.set()
        await asyncio.wait_for(task, loopback.PATIENCE_SECONDS)


LIFETIME = dt.timedelta(seconds=15)
"""Long enough to start a client in, also on a slow machine."""


@pytest.mark.parametrize("there", [True, False], ids=["while an agent is there", "while no agent is there"])
async def test_an_edge_that_never_hears_from_its_hub_again_keeps_nothing(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent, there: bool
) -> None:
    """When the certificate has ended that only a hub can renew, clients end, and all that is theirs goes."""
    the_hub, _ = hub
    the_hub.lifetime = dt.datetime.now(dt.UTC) - the_hub.authority.now + LIFETIME
    async with agent.working() as task:
        the_hub.want(the_hub.assignment())
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")
        if there:  # this hub renews nothing
            with pytest.raises(credentials.NotEnrolled, match="before it was renewed; join again"):
                await asyncio.wait_for(task, LIFETIME.total_seconds() + loopback.PATIENCE_SECONDS)
    if not there:
        secret = await cluster.api.get("Secret", vault.SECRET_NAME, cluster.namespace)
        ends = certificates.summarise(base64.b64decode(secret["data"]["tls.crt"])).not_after
        assert await cluster.left() != []
        await asyncio.sleep((ends - dt.datetime.now(dt.UTC)).total_seconds())
        agent.address = "127.0.0.1:9"  # nobody answers there
        async with agent.working() as task, asyncio.timeout(loopback.PATIENCE_SECONDS):
            while await cluster.left():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
            assert not task.done(), "it goes on trying to join"
    assert await cluster.left() == []


async def test_a_hub_of_a_version_too_far_away_ends_no_client(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """The agent goes and says why; when it is updated, or the hub is put back, the client is at work."""
    the_hub, _ = hub
    async with agent.working() as task:
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        await cluster.runs(pod)
        await the_hub.hear_state("RUNNING")
        far = protocol.agree(protocol.OURS, protocol.Versions(protocol.NEWEST + 1, protocol.NEWEST + 2))
        assert isinstance(far, denials.Denial)
        the_hub.to_say.put_nowait(far)
        with pytest.raises(link.SentAway, match="update the older of the two"):
            await asyncio.wait_for(task, loopback.PATIENCE_SECONDS)
    assert await cluster.left() != []
    async with agent.working():
        await the_hub.hear_state("RUNNING")
        assert (await cluster.pod())["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_the_owners_objects_take_effect_at_once(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """A data set that goes is no longer offered; a volume that is not there is said with a sentence."""
    the_hub, _ = hub
    async with agent.working():
        await the_hub.hear("datasets")
        assert (agent.tmp_path / "state-1" / "session-open").exists()
        await cluster.api.delete("EdgeDataset", "heart", cluster.namespace)
        assert list((await the_hub.hear("datasets")).datasets) == []
        await cluster.dataset(persistentVolumeClaim={"claimName": "gone"})
        await the_hub.hear("datasets")
        missing = await cluster.condition("EdgeDataset", "Available", "False")
        assert missing["reason"] == "VolumeNotFound"
        assert "PersistentVolumeClaim gone" in missing["message"]
        the_hub.want(the_hub.assignment())
        refused = await the_hub.hear_state("REFUSED")
        assert (refused.reason, refused.message) == ("DatasetUnavailable", missing["message"])


async def test_the_identity_is_a_secret(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent, control_plane: controlplane.ControlPlane
) -> None:
    """Its keys are the files that an agent needs, and the key that was pending goes from it."""
    the_hub, _ = hub
    async with agent.working():
        await the_hub.hear("datasets")
    secret = await cluster.api.get("Secret", vault.SECRET_NAME, cluster.namespace)
    assert set(secret["data"]) == {"tls.key", "tls.crt", "ca.crt", "enrollment.json"}
    assert secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "hanse"
    enrollment = json.loads(base64.b64decode(secret["data"]["enrollment.json"]))
    assert enrollment["control_address"] == the_hub.control_address
    async with await client.Client.connect(control_plane.kubeconfig_for("nobody")) as api:
        with pytest.raises(errors.Forbidden):
            await api.list("Secret", cluster.namespace)


async def test_the_process_ends_when_asked_and_its_pods_go_on(
    hub: tuple[loopback.Hub, str], cluster: Cluster, agent: Agent
) -> None:
    """`python -m edge_agent` with a configuration as `hanse join` writes it."""
    the_hub, address = hub
    config = {
        "cluster": "budapest",
        "enrollment_address": address,
        "token_file": str(agent.tmp_path / "token"),
        "ca_pin_file": str(agent.tmp_path / "ca-pin"),
        "trust_domain": "hanse.local",
        "state_directory": str(agent.tmp_path / "state"),
        "kubernetes": {"kubeconfig": str(agent.kubernetes.kubeconfig)},
    }
    path = agent.tmp_path / "config.json"
    path.write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-P", "-m", "edge_agent", "--config", str(path)),
        stderr=asyncio.subprocess.DEVNULL,
        env={
            **os.environ,
            tls.VARIABLE: "",
            "PYTHONPATH": str(ROOT),
            "POD_NAMESPACE": cluster.namespace,
            "HANSE_CLIENT_IMAGE": "client:2",
        },
    )
    try:
        the_hub.want(the_hub.assignment())
        pod = await cluster.pod()
        assert pod["spec"]["containers"][0]["image"] == "client:2"
        await cluster.runs(pod)
        await the_hub.hear_state("RUNNING")
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), loopback.PATIENCE_SECONDS) == 0
    finally:
        if process.returncode is None:
            process.kill()
    assert (await cluster.pod())["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_an_agent_whose_api_server_is_away_ends_when_it_is_asked_to(
    agent: Agent, control_plane: controlplane.ControlPlane
) -> None:
    """It waits for the server without limit, and does not wait for it to end: SIGTERM would be ignored."""
    with control_plane.standing_still("kube-apiserver"):
        async with agent.working() as task:
            await asyncio.sleep(0.5)  # it has asked, and waits
            assert not task.done()
        assert task.done()
        assert task.exception() is None
