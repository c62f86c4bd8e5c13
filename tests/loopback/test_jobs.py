"""The runtime over Kubernetes Jobs, against a real API server and its controllers; the node is a fake."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import itertools
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from federation.kube import client
from federation.runtime import jobs, mirror, pods, port
from tests.fakes import controlplane, kubelet

pytestmark = pytest.mark.controlplane
_numbers = itertools.count(1)
EVERYTHING = ("Job", "Pod", "Secret", "ConfigMap", "NetworkPolicy")


@dataclasses.dataclass
class Place:
    """A namespace with a node, and a runtime that works in it."""

    api: client.Client
    namespace: str
    node: kubelet.Kubelet
    runtime: jobs.Jobs

    def workload(self, name: str, **pod: object) -> port.Workload:
        fields = {"namespace": self.namespace, "egress": (), **pod}
        return port.Workload(
            name=name,
            argv=("python", "-m", "program"),
            directory=pathlib.PurePosixPath("/hanse"),
            image="example.org/client:1",
            files={"config.json": b"{}"},
            pod=port.Pod(**fields),
        )

    async def left(self) -> list[str]:
        """What is there of any workload."""
        return [
            f"{kind} {item['metadata']['name']}"
            for kind in EVERYTHING
            for item in (await self.api.list(kind, self.namespace, labels=pods.MANAGED_BY)).items
        ]


@pytest.fixture
async def place(control_plane: controlplane.ControlPlane) -> AsyncIterator[Place]:
    name = f"jobs-{next(_numbers)}"
    async with await client.Client.connect(control_plane.kubeconfig) as api:
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": restricted},
        }
        await api.create(namespace)
        runtime = jobs.Jobs(api, [name], owner="test")
        async with kubelet.Kubelet(api, name) as node:
            yield Place(api, name, node, runtime)
            await runtime.close(0)


async def nexts(runtime: port.Runtime, count: int) -> list[port.WorkloadEvent]:
    """The next events."""
    events = runtime.events()
    async with asyncio.timeout(30):
        return [await anext(events) for _ in range(count)]


async def test_a_workload_runs_to_its_end_and_leaves_nothing(place: Place) -> None:
    """Started, Exited with the exit code; every object that was made is gone when Exited is told."""
    workload = place.workload(
        "client",
        secret_directories={pathlib.PurePosixPath("/identity"): {"tls.key": b"k"}},
        blobs={pathlib.PurePosixPath("/app"): b"x" * (2 * pods.BLOB_PART_BYTES)},
    )
    await place.runtime.start(workload)
    pod = await place.node.run("client")
    assert await nexts(place.runtime, 1) == [port.Started("client", pod)]
    assert await place.runtime.list() == (port.RunningWorkload("client", pod),)
    assert sorted(line.split()[0] for line in await place.left()) == sorted(
        ["Job", "Pod", "NetworkPolicy", "Secret", "Secret", "ConfigMap", "ConfigMap"]
    )
    await place.node.end("client", 3)
    assert await nexts(place.runtime, 1) == [port.Exited("client", 3, None)]
    assert await place.left() == []
    assert await place.runtime.list() == ()


async def test_everything_stands_before_the_pod_does(place: Place) -> None:
    """The policy and all volumes' sources are older than the pod, so it never runs without them."""
    await place.runtime.start(place.workload("client"))
    pod = await place.node.pod_of("client")
    for kind, name in (("NetworkPolicy", "client"), ("Secret", "client-files")):
        made = await place.api.get(kind, name, place.namespace)
        assert int(made["metadata"]["resourceVersion"]) < int(pod["metadata"]["resourceVersion"])
        assert made["metadata"]["ownerReferences"][0]["kind"] == "Job"


async def test_stop_ends_the_pod_and_tells_how_it_ended(place: Place) -> None:
    """What the program made of the request is its exit status; afterwards nothing is left."""
    place.node.exit_code_when_asked = 0
    await place.runtime.start(place.workload("client"))
    pod = await place.node.run("client")
    await place.runtime.stop("client", 5)
    assert await place.left() == []
    assert await nexts(place.runtime, 2) == [port.Started("client", pod), port.Exited("client", 0, None)]


async def test_a_pod_that_never_ran_is_stopped_too(place: Place) -> None:
    """It is told as ended, without an exit status."""
    await place.runtime.start(place.workload("client"))
    await place.node.pod_of("client")
    await place.runtime.stop("client", 5)
    assert await nexts(place.runtime, 1) == [port.Exited("client", None, None)]
    assert await place.left() == []


async def test_a_node_that_does_not_answer_is_not_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the grace the pod goes by force."""
    monkeypatch.setattr(jobs, "CLEAN_UP_SECONDS", 1.0)
    await place.runtime.start(place.workload("client"))
    await place.node.run("client")
    await nexts(place.runtime, 1)
    place.node.away = True
    async with asyncio.timeout(60):
        await place.runtime.stop("client", 0)
    assert await place.left() == []


async def test_a_second_start_of_a_name_that_goes_on_is_refused(place: Place) -> None:
    """By this runtime and by another that has just come."""
    await place.runtime.start(place.workload("client"))
    with pytest.raises(port.WorkloadExists):
        await place.runtime.start(place.workload("client"))
    other = jobs.Jobs(place.api, [place.namespace], owner="test")
    with pytest.raises(port.WorkloadExists):
        await other.start(place.workload("client"))
    await other.close(0)


async def test_a_name_is_used_again_after_its_end(place: Place) -> None:
    """A start right after the end waits for what is left to be gone."""
    told = []
    for _ in range(2):
        await place.runtime.start(place.workload("client"))
        await place.node.run("client")
        await place.node.end("client", 0)
        told += await nexts(place.runtime, 2)
    assert [type(event).__name__ for event in told] == ["Started", "Exited", "Started", "Exited"]


async def test_who_comes_back_takes_over_what_runs(place: Place) -> None:
    """A closed runtime leaves its Jobs; the next is told Started, and of one that ended meanwhile both."""
    for name in ("goes-on", "ends"):
        await place.runtime.start(place.workload(name))
        await place.node.run(name)
    await nexts(place.runtime, 2)
    await place.runtime.close(0)
    await place.node.end("ends", 4)
    again = jobs.Jobs(place.api, [place.namespace], owner="test")
    told = await nexts(again, 3)
    assert {event.name for event in told if isinstance(event, port.Started)} == {"goes-on", "ends"}
    assert port.Exited("ends", 4, None) in told
    assert [found.name for found in await again.list()] == ["goes-on"]
    await again.stop("goes-on", 1)
    await again.close(0)
    assert await place.left() == []


async def test_another_owners_workloads_are_left_alone(place: Place) -> None:
    """A hub and an edge in one cluster do not see each other's."""
    await place.runtime.start(place.workload("client"))
    other = jobs.Jobs(place.api, [place.namespace], owner="coordinator")
    assert await other.list() == ()
    with pytest.raises(port.WorkloadNotStarted, match="already exists"):
        await other.start(place.workload("client"))
    await other.close(0)
    assert [found.name for found in await place.runtime.list()] == ["client"]


async def test_a_start_whose_answer_was_lost_is_made_again(
    place: Place, control_plane: controlplane.ControlPlane
) -> None:
    """Whether the API server has heard of it or not, one pod comes of it: half a start is neither taken for a
    whole one nor in its way.
    """
    reached = True
    async with await client.Client.connect(control_plane.kubeconfig, allowed=lambda: reached) as api:
        runtime = jobs.Jobs(api, [place.namespace], owner="test")
        await runtime.list()
        reached = False
        with pytest.raises(port.RuntimeAway, match="not started yet"):
            await runtime.start(place.workload("unheard"))
        reached = True
        await place.api.create(pods.job(pods.owned(place.workload("heard"), "test")))
        for name in ("unheard", "heard"):
            await start(runtime, place.workload(name))
            await place.node.run(name)
        assert [one.name for one in await runtime.list()] == ["heard", "unheard"]
        await runtime.close(0)


async def start(runtime: port.Runtime, workload: port.Workload) -> None:
    """Start it, again for as long as it is said that this may help."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await runtime.start(workload)
            except port.RuntimeAway:
                await asyncio.sleep(0.1)


async def test_half_a_start_is_removed_by_who_comes_next(place: Place) -> None:
    """Its maker died after the Job and one Secret: neither a pod nor anything else comes of it."""
    workload = pods.owned(place.workload("client"), "test")
    job = await place.api.create(pods.job(workload))
    await place.api.create(pods.belongings(workload, job["metadata"]["uid"])[1])
    assert await place.runtime.list() == ()
    await place.runtime.start(place.workload("client"))
    await place.node.run("client")
    assert [type(event).__name__ for event in await nexts(place.runtime, 1)] == ["Started"]


async def test_what_the_server_refuses_is_said_and_leaves_nothing(place: Place) -> None:
    """A name that is no namespace, a Secret with a bad key: the server's words come through."""
    broken = place.workload("client", secret_directories={pathlib.PurePosixPath("/s"): {"no/slash": b""}})
    with pytest.raises(port.WorkloadNotStarted, match="no/slash"):
        await place.runtime.start(broken)
    with pytest.raises(port.WorkloadNotStarted, match="namespace elsewhere is not watched here"):
        await place.runtime.start(place.workload("client", namespace="elsewhere"))
    await place.runtime.start(place.workload("client"))  # waits until the first is gone
    await place.runtime.stop("client", 0)
    assert await place.left() == []


async def test_a_pod_that_comes_as_its_job_goes_is_removed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its controller may make one in that very moment; this one belongs to nobody, so nobody else would."""
    workload = pods.owned(place.workload("client"), "test")
    template = pods.job(workload)["spec"]["template"]
    stray = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client-late", "namespace": place.namespace, **template["metadata"]},
        "spec": {**template["spec"], "volumes": [], "nodeSelector": {"no": "node"}},
    }
    for container in stray["spec"]["containers"]:
        container["volumeMounts"] = []
    delete = place.api.delete

    async def late(kind: Any, *arguments: Any, **options: Any) -> Any:
        answer = await delete(kind, *arguments, **options)
        if kind == "Job":
            await place.api.create(stray)
        return answer

    await place.runtime.start(place.workload("client"))
    await place.node.run("client")
    monkeypatch.setattr(place.api, "delete", late)
    await place.runtime.stop("client", 0)
    assert await place.left() == []


async def test_a_pod_that_pod_security_refuses_is_not_admitted(place: Place) -> None:
    """The Job's Events say so, and it is told with the server's words and a next step."""
    mount = port.Mount(pathlib.PurePosixPath("/data"), {"hostPath": {"path": "/data"}})
    await place.runtime.start(place.workload("client", mounts=(mount,)))
    (waiting,) = await nexts(place.runtime, 1)
    assert isinstance(waiting, port.Waiting)
    assert waiting.reason == "NotAdmitted"
    assert 'violates PodSecurity "restricted' in waiting.message
    assert "hostPath" in waiting.message


async def test_the_pod_itself_is_admitted_by_restricted_pod_security(place: Place) -> None:
    """With a claim for its data and everything else that a client has."""
    mount = port.Mount(pathlib.PurePosixPath("/data"), {"persistentVolumeClaim": {"claimName": "data"}})
    await place.runtime.start(place.workload("client", mounts=(mount,), host_names={"hub": "192.0.2.1"}))
    pod = await place.node.pod_of("client")
    assert pod["spec"]["automountServiceAccountToken"] is False


async def test_why_a_pod_waits_is_told_once_and_then_that_it_runs(place: Place) -> None:
    """Reasons change, repeated ones are not told again."""
    await place.runtime.start(place.workload("client"))
    message = "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available."
    await place.node.unschedulable("client", message)
    (waiting,) = await nexts(place.runtime, 1)
    assert isinstance(waiting, port.Waiting)
    assert waiting.reason == "Unschedulable"
    assert "No node has enough memory free" in waiting.message
    await place.node.run("client")
    await place.node.say(
        (await place.node.pod_of("client"))["metadata"]["name"], phase="Running", state={"running": {}}
    )
    assert isinstance((await nexts(place.runtime, 1))[0], port.Started)


async def test_a_workloads_last_words_are_its_reason(place: Place) -> None:
    """What it wrote into its termination log comes with its end."""
    await place.runtime.start(place.workload("client"))
    await place.node.run("client")
    words = (
        '{"reason": "NetworkOpen", "message": "The pod reaches what it must not; check the network plugin."}'
    )
    await place.node.end("client", 7, message=words)
    exited = (await nexts(place.runtime, 2))[1]
    message = "The pod reaches what it must not; check the network plugin."
    assert exited == port.Exited("client", 7, None, (), "NetworkOpen", message, words)


async def test_a_job_that_somebody_deletes_is_told_as_removed(place: Place) -> None:
    """The runtime did not do it, and says so."""
    await place.runtime.start(place.workload("client"))
    await place.node.run("client")
    await nexts(place.runtime, 1)
    await place.api.delete("Job", "client", place.namespace)
    (exited,) = await nexts(place.runtime, 1)
    assert isinstance(exited, port.Exited)
    assert exited.reason in ("", "Removed")
    assert await place.left() == []


async def test_a_secret_directory_is_renewed(place: Place) -> None:
    """The pod stays; the Secret has the new files. A name that does not run is no error."""
    directory = pathlib.PurePosixPath("/identity")
    await place.runtime.start(
        place.workload("client", secret_directories={directory: {"a": b"1", "b": b"2"}})
    )
    await place.runtime.refresh("client", directory, {"a": b"3"})
    secret = await place.api.get("Secret", pods.secret_name("client", directory), place.namespace)
    assert secret["data"] == {"a": base64.b64encode(b"3").decode()}
    await place.runtime.refresh("nobody", directory, {"a": b"3"})


async def test_nothing_is_asked_while_nothing_happens(place: Place) -> None:
    """A running workload costs three lists and three watches, once, and then no request."""
    async with asyncio.timeout(30):
        await place.runtime.start(place.workload("client"))
        await place.node.run("client")
        await nexts(place.runtime, 1)
    before = dict(place.api.requests)
    await asyncio.sleep(3)  # longer than any retry or poll would wait
    assert dict(place.api.requests) == before


async def test_close_ends_the_events_and_leaves_the_jobs(place: Place) -> None:
    """After close nothing starts any more."""
    await place.runtime.start(place.workload("client"))
    await place.runtime.close(0)
    assert [event async for event in place.runtime.events()] == []
    assert "Job client" in await place.left()
    with pytest.raises(port.RuntimeClosed):
        await place.runtime.start(place.workload("late"))


def forged(namespace: str, name: str, workload: str | None) -> dict[str, object]:
    """A Job of somebody else's with the labels of ours."""
    labels = {pods.MANAGED_BY: pods.MANAGER, pods.OWNER_LABEL: "of-all"}
    labels |= {pods.WORKLOAD_LABEL: workload} if workload else {}
    container = {"name": "x", "image": "i"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "suspend": True,
            "template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    }


async def test_labels_on_the_objects_of_others_deceive_nobody(
    place: Place, control_plane: controlplane.ControlPlane
) -> None:
    """Who may make Jobs in one namespace blinds no runtime of all, and takes over nothing elsewhere."""
    stranger = f"{place.namespace}-stranger"
    async with await client.Client.connect(control_plane.kubeconfig) as api:
        await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": stranger}})
        await api.create(forged(stranger, "says-nothing", None))
        await api.create(forged(stranger, "says-another", "client"))
        runtime = jobs.Jobs(api, None, owner="of-all")
        assert await runtime.list() == ()
        await runtime.start(place.workload("client"))
        pod = await place.node.run("client")
        assert await nexts(runtime, 1) == [port.Started("client", pod)]
        await api.create(forged(stranger, "client", "client"))
        await api.patch("Job", "client", stranger, {"spec": {"suspend": False}})
        await place.node.end("client", 3)
        assert await nexts(runtime, 1) == [port.Exited("client", 3, None)]
        assert await api.get("Job", "client", stranger), "it is not ours to remove"
        await runtime.close(0)
        await api.delete("Namespace", stranger)


async def test_a_runtime_that_sees_nothing_any_more_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads its events ends, and is started again, instead of going on blindly."""

    async def fails(_: object) -> None:
        raise KeyError("labels")

    monkeypatch.setattr(mirror.Mirror, "run", fails)
    with pytest.raises(port.RuntimeFailure, match="not seen any more"):
        await nexts(jobs.Jobs(place.api, [place.namespace], owner="test"), 1)


async def test_a_namesake_of_ours_gives_way_unread(place: Place) -> None:
    """A Secret that an earlier workload of that name left is replaced, and no Secret is read for that."""
    workload = place.workload("client")
    labels = {**pods.labels_of(pods.owned(workload, "test"))}
    left = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "client-files", "namespace": place.namespace, "labels": labels},
        "data": {"config.json": base64.b64encode(b"old").decode()},
    }
    await place.api.create(left)
    gets = place.api.requests.get("get", 0)
    await place.runtime.start(workload)
    assert place.api.requests.get("get", 0) == gets
    stored = await place.api.get("Secret", "client-files", place.namespace)
    assert base64.b64decode(stored["data"]["config.json"]) == b"{}"


async def test_a_strangers_secret_stays(place: Place) -> None:
    """What carries no label of ours is neither read nor replaced; the workload does not start."""
    stranger = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "client-files", "namespace": place.namespace},
        "data": {"password": base64.b64encode(b"theirs").decode()},
    }
    await place.api.create(stranger)
    with pytest.raises(port.WorkloadNotStarted, match="already exists"):
        await place.runtime.start(place.workload("client"))
    stored = await place.api.get("Secret", "client-files", place.namespace)
    assert base64.b64decode(stored["data"]["password"]) == b"theirs"
