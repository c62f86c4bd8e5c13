"""A data set in a bucket, in a namespace of a real API server: the claim, what fills it, and who waits.

No kubelet and no storage: the test says of pods what one would. tests/process/test_fetch.py has the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from edge_agent import bucket_claims, buckets, watching
from federation.kube import errors
from tests.loopback import test_agent_kubernetes as edge
from tests.loopback import test_agent_link as loopback

pytestmark = pytest.mark.controlplane
hub, cluster, agent = edge.hub, edge.cluster, edge.agent

FETCH = "app.kubernetes.io/component=dataset-fetch"
CLAIM = "app.kubernetes.io/component=dataset"
S3 = {
    "url": "s3://cardiology/heart",
    "endpoint": "http://192.0.2.7:9000",
    "secretName": "heart-keys",  # of which there is none here: the agent needs none
    "storageClassName": "standard",
}
Object = dict[str, Any]


@pytest.fixture(autouse=True)
def image(agent: edge.Agent) -> None:
    """As its Deployment says."""
    agent.kubernetes = agent.kubernetes.model_copy(update={"agent_image": "agent:1"})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens in minutes happens at once."""
    monkeypatch.setattr(bucket_claims, "FIRST_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(watching, "VOLUMES_SECONDS", 0.2)


async def fetching(cluster: edge.Cluster, but: Object | None = None) -> Object:
    """Return the pod that fetches, once there is one; not `but`."""
    known = but["metadata"]["uid"] if but else ""
    return await cluster.until(
        "Pod",
        lambda pod: pod["metadata"]["uid"] != known and not pod["metadata"].get("deletionTimestamp"),
        FETCH,
    )


async def ended(cluster: edge.Cluster, pod: Object, exit_code: int, **words: Any) -> None:
    """Say that what fetches ended, with these last words."""
    state = {"terminated": {"exitCode": exit_code, "reason": "x", "message": json.dumps(words)}}
    phase = "Failed" if exit_code else "Succeeded"
    await cluster.say(pod, phase=phase, containerStatuses=[edge.container(state)])


async def available(cluster: edge.Cluster, want: Callable[[Object], bool]) -> Object:
    """Return the data set's condition Available, once it is as wanted."""

    def of(item: Object) -> Object:
        listed = (item.get("status") or {}).get("conditions", [])
        return next((one for one in listed if one["type"] == "Available" and want(one)), {})

    return of(await cluster.until("EdgeDataset", of))


async def gone(cluster: edge.Cluster, kind: str, name: str) -> None:
    """Wait until an object is not there any more."""
    async with asyncio.timeout(loopback.PATIENCE_SECONDS):
        listing = await cluster.api.list(kind, cluster.namespace)
        if all(item["metadata"]["name"] != name for item in listing.items):
            return
        async for change in cluster.api.watch(kind, listing.resource_version, cluster.namespace):
            if change.type == "DELETED" and change.object["metadata"]["name"] == name:
                return


async def test_from_a_bucket_to_a_client_and_back(
    hub: tuple[loopback.Hub, str], cluster: edge.Cluster, agent: edge.Agent
) -> None:
    """Who wants the data waits until all is there, mounts a claim, and can reach the hub only; a change of
    the data set fetches anew, and its end leaves nothing.
    """
    the_hub, _ = hub
    await cluster.dataset(s3=S3)
    async with agent.working():
        the_hub.want(the_hub.assignment())
        waiting = await the_hub.hear_state("WAITING")
        assert waiting.reason == "DatasetUnavailable"
        assert "is being fetched from s3://cardiology/heart; clients wait" in waiting.message
        assert (await available(cluster, lambda one: one["status"] == "False"))["reason"] == "Fetching"

        pod = await fetching(cluster)
        assert pod["spec"]["containers"][0]["image"] == "agent:1"
        assert pod["spec"]["automountServiceAccountToken"] is False
        secrets = [one["secret"]["secretName"] for one in pod["spec"]["volumes"] if "secret" in one]
        assert secrets == ["heart-keys"]
        (policy,) = (await cluster.api.list("NetworkPolicy", cluster.namespace, labels=FETCH)).items
        assert policy["spec"]["egress"] == [
            {"to": [{"ipBlock": {"cidr": "192.0.2.7/32"}}], "ports": [{"port": 9000, "protocol": "TCP"}]}
        ]
        (claim,) = (await cluster.api.list("PersistentVolumeClaim", cluster.namespace, labels=CLAIM)).items
        assert claim["spec"]["resources"]["requests"] == {"storage": "10Gi"}
        assert claim["metadata"]["ownerReferences"][0]["kind"] == "EdgeDataset"

        await cluster.runs(pod)
        await ended(cluster, pod, 0, objects=2, bytes=2048)
        there = await available(cluster, lambda one: one["status"] == "True")
        assert (there["reason"], there["message"]) == (
            "VolumeFound", "2 objects (2.0 KiB) fetched; clients mount them read-only",
        )  # fmt: skip
        client = await cluster.pod()
        mounts = {one["mountPath"]: one for one in client["spec"]["containers"][0]["volumeMounts"]}
        assert (mounts["/data"]["subPath"], mounts["/data"]["readOnly"]) == ("objects", True)
        assert "heart-keys" not in json.dumps(client)
        (way,) = (await cluster.api.list("NetworkPolicy", cluster.namespace, labels=edge.CLIENTS)).items
        assert "192.0.2.7" not in json.dumps(way)
        await gone(cluster, "Job", pod["metadata"]["labels"]["hanse.dev/workload"])
        await cluster.runs(client)
        await the_hub.hear_state("RUNNING")

        await cluster.dataset(s3={**S3, "revision": "2026-06"})
        await the_hub.hear_state("WAITING")
        await gone(cluster, "PersistentVolumeClaim", claim["metadata"]["name"])
        again = await fetching(cluster, but=pod)
        await cluster.runs(again)
        await ended(cluster, again, 0, objects=3, bytes=1)
        assert "3 objects" in (await available(cluster, lambda one: one["status"] == "True"))["message"]
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")

        await cluster.api.delete("EdgeDataset", "heart", cluster.namespace)
        assert (await the_hub.hear_state("REFUSED")).reason == "DatasetUnavailable"
        await gone(cluster, "PersistentVolumeClaim", again["metadata"]["labels"]["hanse.dev/workload"])


async def test_a_fetch_that_fails_says_why_and_is_tried_again(
    hub: tuple[loopback.Hub, str], cluster: edge.Cluster, agent: edge.Agent, impatient: None
) -> None:
    """The owner and the data scientist read the same sentence, until it works."""
    the_hub, _ = hub
    await cluster.dataset(s3=S3)
    async with agent.working():
        the_hub.want(the_hub.assignment())
        pod = await fetching(cluster)
        await cluster.runs(pod)
        why = (
            "there is no bucket cardiology at http://192.0.2.7:9000; create it, or correct spec.volume.s3.url"
        )
        await ended(cluster, pod, 1, reason="StorageRefused", message=why)
        said = await available(cluster, lambda one: one["reason"] == "FetchFailed")
        assert why in said["message"]
        assert "it is tried again every few minutes" in said["message"]
        refused = await the_hub.hear_state("REFUSED")
        assert (refused.reason, refused.message) == ("DatasetUnavailable", said["message"])
        again = await fetching(cluster, but=pod)
        assert (await available(cluster, lambda one: True))["reason"] == "FetchFailed"
        await cluster.runs(again)
        await ended(cluster, again, 0, objects=2, bytes=10)
        await available(cluster, lambda one: one["status"] == "True")
        await cluster.runs(await cluster.pod())
        await the_hub.hear_state("RUNNING")


async def test_what_a_fetch_waits_for_is_told(
    hub: tuple[loopback.Hub, str], cluster: edge.Cluster, agent: edge.Agent
) -> None:
    """A cluster without a default class of storage; then a Secret that is not there."""
    await cluster.dataset(s3={key: value for key, value in S3.items() if key != "storageClassName"})
    async with agent.working():
        said = await available(cluster, lambda one: one["reason"] == "FetchFailed")
        assert "no default StorageClass; name one in spec.volume.s3.storageClassName" in said["message"]
        assert (await cluster.api.list("Pod", cluster.namespace, labels=FETCH)).items == ()
        await cluster.dataset(s3=S3)
        pod = await fetching(cluster)
        await cluster.api.create(
            {
                "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "FailedMount",
                "message": 'MountVolume.SetUp failed for volume "mount-1" : secret "heart-keys" not found',
                "metadata": {"generateName": "kubelet-", "namespace": cluster.namespace},
                "involvedObject": {
                    "apiVersion": "v1", "kind": "Pod", "namespace": cluster.namespace,
                    "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
                },
            }
        )  # fmt: skip
        said = await available(cluster, lambda one: "heart-keys" in one["message"])
        assert said["reason"] == "Fetching"
        assert "The Secret heart-keys does not exist in the pod's namespace. Create it" in said["message"]


async def test_a_name_that_leads_nowhere_is_said(
    hub: tuple[loopback.Hub, str], cluster: edge.Cluster, agent: edge.Agent
) -> None:
    """Nothing is started: nobody would know where its way out is."""
    await cluster.dataset(s3={**S3, "endpoint": "https://s3.nowhere.invalid"})
    async with agent.working():
        said = await available(cluster, lambda one: one["reason"] == "FetchFailed")
        assert "the name s3.nowhere.invalid cannot be resolved; correct" in said["message"]
        assert (await cluster.api.list("Job", cluster.namespace, labels=FETCH)).items == ()


async def test_an_agent_with_the_role_of_an_earlier_version_says_what_to_apply(
    hub: tuple[loopback.Hub, str], cluster: edge.Cluster, agent: edge.Agent, impatient: None
) -> None:
    """And goes on by itself when that is done."""
    claims, kind = "persistentvolumeclaims", "PersistentVolumeClaim"
    narrow = [{**rule, "verbs": ["get"]} if rule["resources"] == [claims] else rule for rule in edge.RULES]
    await cluster.apply("Role", "agent", "rbac.authorization.k8s.io/v1", rules=narrow)
    async with asyncio.timeout(loopback.PATIENCE_SECONDS):
        # The API server learns of it in its own time.
        while await cluster.api.may("create", kind, cluster.namespace, user="nobody"):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await cluster.dataset(s3=S3)
    async with agent.working():
        said = await available(cluster, lambda one: one["reason"] == "FetchFailed")
        assert "apply the manifests of this version of the agent" in said["message"]
        await cluster.apply("Role", "agent", "rbac.authorization.k8s.io/v1", rules=edge.RULES)
        await fetching(cluster)


async def test_another_agent_goes_on_with_what_was_begun(
    hub: tuple[loopback.Hub, str], cluster: edge.Cluster, agent: edge.Agent
) -> None:
    """It waits for the same pod; and what is filled stays filled, for whichever agent."""
    the_hub, _ = hub
    await cluster.dataset(s3=S3)
    async with agent.working():
        await the_hub.hear("datasets")
        pod = await fetching(cluster)
        await cluster.runs(pod)
    the_hub.to_say.put_nowait(None)  # ends the session that the first agent had
    async with agent.working():
        await the_hub.hear("datasets")
        assert (await fetching(cluster))["metadata"]["uid"] == pod["metadata"]["uid"]
        await ended(cluster, pod, 0, objects=2, bytes=10)
        await available(cluster, lambda one: one["status"] == "True")
        the_hub.want(the_hub.assignment())
        client = await cluster.pod()
        await cluster.runs(client)
        await the_hub.hear_state("RUNNING")
    the_hub.to_say.put_nowait(None)
    async with agent.working():
        await the_hub.hear("datasets")
        the_hub.want(the_hub.assignment())
        await the_hub.hear_state("RUNNING")
        assert (await cluster.pod())["metadata"]["uid"] == client["metadata"]["uid"]
        assert (await cluster.api.list("Job", cluster.namespace, labels=FETCH)).items == ()


async def test_a_data_set_that_goes_takes_its_fetch_along(
    hub: tuple[loopback.Hub, str], cluster: edge.Cluster, agent: edge.Agent
) -> None:
    """Also if it went while no agent looked; a claim that is not the agent's stays."""
    the_hub, _ = hub
    await cluster.apply(
        "PersistentVolumeClaim", "mine",
        spec={"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    )  # fmt: skip
    await cluster.dataset(s3=S3)
    async with agent.working():
        pod = await fetching(cluster)
        await cluster.runs(pod)
    name = pod["metadata"]["labels"]["hanse.dev/workload"]
    await cluster.api.delete("EdgeDataset", "heart", cluster.namespace)
    the_hub.to_say.put_nowait(None)
    async with agent.working():
        await gone(cluster, "Job", name)
        with contextlib.suppress(errors.NotFound):
            # Nobody plays the node here that would end the pod.
            await cluster.api.delete("Pod", pod["metadata"]["name"], cluster.namespace, grace_seconds=0)
        await gone(cluster, "PersistentVolumeClaim", name)
    assert (await cluster.api.get("PersistentVolumeClaim", "mine", cluster.namespace))["metadata"]["name"]


def test_the_labels_tell_claims_fetches_and_clients_apart() -> None:
    """What tidies one up must not find another."""
    components = [
        labels["app.kubernetes.io/component"] for labels in (buckets.CLAIM_LABELS, buckets.FETCH_LABELS)
    ]
    assert {*components, "client"} == {"dataset", "dataset-fetch", "client"}
