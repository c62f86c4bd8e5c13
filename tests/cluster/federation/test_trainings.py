"""Trainings on a hub and three edges: real pods, real networks, real refusals."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.cli import edge_manifests
from simulations.lab.bare import network, provider
from tests.cluster.federation import trainings
from tests.cluster.federation.trainings import Clusters, condition, eventually, of_cluster

pytestmark = pytest.mark.cluster

PAUSE = {"behaviour": "pause", "seconds": 3}
"""Rounds that are long enough to be met in their middle."""
HELD = {"behaviour": "held", "from-round": 2}
"""A second round that ends when the test lets it go, so that what happens in it does whatever the time it
takes; HELD_ROUND must not end it before.
"""
HELD_ROUND = {"deadlineSeconds": 600}


def offer_everywhere(clusters: Clusters, name: str, **node_config: object) -> None:
    for edge in clusters.edges:
        clusters.offer(edge, name, node_config)


def client_pods(clusters: Clusters, edge: str, name: str) -> list[trainings.Manifest]:
    return clusters.get(edge, "pods", "hanse", "-l", f"hanse.dev/training={name}")


def test_deleting_a_training_in_mid_round_leaves_nothing_on_any_edge(clusters: Clusters) -> None:
    """No pod, Secret, ConfigMap or NetworkPolicy of it is left, on edges and on the hub."""
    name = "deleted"
    offer_everywhere(clusters, name, **PAUSE)
    clusters.train(name, rounds=50)
    clusters.in_round(name, 2)
    assert all(client_pods(clusters, edge, name) for edge in clusters.edges)
    clusters.kubectl("hub", "delete", "ft", name, "-n", trainings.NAMESPACE, "--timeout=60s")
    for edge in clusters.edges:
        for kind in ("pods", "jobs", "secrets", "configmaps", "networkpolicies"):
            eventually(
                lambda edge=edge, kind=kind: (
                    not clusters.get(edge, kind, "hanse", "-l", f"hanse.dev/training={name}")
                ),
                f"no {kind} of the training on {edge}",
            )
    for kind in ("pods", "jobs", "secrets", "networkpolicies"):
        eventually(
            lambda kind=kind: (
                not clusters.get("hub", kind, trainings.NAMESPACE, "-l", f"hanse.dev/training={name}")
            ),
            f"no {kind} of the training on the hub",
        )


def test_a_policy_that_denies_speaks_to_the_data_scientist(clusters: Clusters) -> None:
    """The status carries the owner's rule by its name; the others train while the quorum holds."""
    name = "denied"
    denying, *others = clusters.edges
    for edge in others:
        clusters.offer(edge, name)
    rule = {
        "name": "no-trials-this-week",
        "effect": "Deny",
        "trainings": [{"namespace": "trials", "name": "*"}],
    }
    allow = {"name": "trials", "effect": "Allow", "datasets": [name]}
    clusters.offer(denying, name, rules=[rule, allow])
    clusters.train(name, clusters={"minimum": len(others)})
    try:
        status = clusters.ended(name)
    finally:
        clusters.kubectl(denying, "delete", "edgepolicy", name, "-n", "hanse")
    assert status["phase"] == "Completed"
    refused = of_cluster(status, denying)
    assert (refused["state"], refused["reason"]) == ("Refused", "PolicyDenied")
    assert "no-trials-this-week" in refused["message"]


def test_a_policy_that_breaks_the_quorum_is_named(clusters: Clusters) -> None:
    """With all edges needed, the training waits and says which rule of whom is in the way."""
    name = "needed"
    needed, *others = clusters.edges
    for edge in others:
        clusters.offer(edge, name)
    clusters.offer(needed, name, rules=[{"name": "never", "effect": "Deny", "datasets": [name]}])
    clusters.train(name)
    status = clusters.until(name, lambda status: of_cluster(status, needed).get("reason") == "PolicyDenied")
    assert condition(status, "QuorumReached")["status"] == "False"
    clusters.offer(needed, name)
    assert clusters.ended(name)["phase"] == "Completed"


def test_a_permission_that_is_revoked_ends_the_client_within_seconds(clusters: Clusters) -> None:
    """The owner's word counts at once; the training goes on with the others."""
    name = "revoked"
    revoking, *others = clusters.edges
    offer_everywhere(clusters, name, **HELD)
    clusters.train(name, rounds=3, clusters={"minimum": len(others)}, round=HELD_ROUND)
    clusters.in_round(name, 2)
    clusters.kubectl(revoking, "delete", "edgepolicy", name, "-n", "hanse")
    eventually(lambda: not client_pods(clusters, revoking, name), "no client pod", seconds=30)
    clusters.let_go(name, others)
    status = clusters.ended(name)
    assert status["phase"] == "Completed"
    assert of_cluster(status, revoking)["state"] in ("Refused", "Left")


def test_suspend_and_resume(clusters: Clusters) -> None:
    """spec.suspend ends the pods and keeps the training; without it, it goes on to its end."""
    name = "suspended"
    offer_everywhere(clusters, name, **HELD)
    clusters.train(name, rounds=4, round=HELD_ROUND)
    clusters.in_round(name, 2)
    clusters.change(name, {"spec": {"suspend": True}})
    clusters.until(name, lambda status: status.get("phase") == "Suspended")
    for edge in clusters.edges:
        eventually(lambda edge=edge: not client_pods(clusters, edge, name), f"no client on {edge}")
    clusters.change(name, {"spec": {"suspend": False}})
    clusters.until(name, lambda status: status.get("phase") == "Running")
    clusters.let_go(name)
    assert clusters.ended(name)["phase"] == "Completed"


def test_rounds_that_are_added_are_trained(clusters: Clusters) -> None:
    """In the last round of two a third is asked for: the model is that of a training of three."""
    for name, rounds, owner_says in (("of-three", 3, {}), ("of-two", 2, HELD)):
        offer_everywhere(clusters, name, **owner_says)
        clusters.train(
            name,
            server_app=trainings.federations.INITIAL_ARRAYS,
            pyproject=trainings.federations.WITHOUT_SERVER_APP,
            strategy=trainings.federations.strategy(rounds),
            round=HELD_ROUND,
        )
    clusters.in_round("of-two", 2)
    clusters.change("of-two", {"spec": {"strategy": {"rounds": 3}}})
    clusters.until("of-two", lambda status: status["round"]["total"] == 3)
    clusters.let_go("of-two")
    of_two, of_three = clusters.ended("of-two"), clusters.ended("of-three")
    assert of_two["phase"] == "Completed", condition(of_two, "Failed")
    assert of_two["round"]["current"] == 3
    assert of_two["model"]["sha256"] == of_three["model"]["sha256"]


READS = trainings.federations.CLIENT_APP.replace(
    "    examples = 10\n",
    """    place = pathlib.Path(context.node_config["place"])
    assert (place / "numbers.csv").read_text() == "41\\n42\\n", list(place.iterdir())
    try:
        (place / "mine.csv").write_text("43")
    except OSError as error:
        assert "Read-only" in str(error), error
    else:
        raise AssertionError("the owner's data can be written")
    examples = 10
""",
    1,
)
"""A client that holds its owner's data against what the test has put there, and tries to change them."""


@pytest.fixture
def on_a_claim(clusters: Clusters) -> Iterator[trainings.Manifest]:
    """A claim of the first edge's with data in it, put there by a pod of its owner's."""
    edge, name = clusters.edges[0], "numbers"
    image = edge_manifests.client_images("localhost/hanse")["hanse/client"]
    write = "open('/data/numbers.csv', 'w').write('41\\n42\\n')"
    container = {
        "name": "put",
        "image": image,
        "command": ["python3", "-c", write],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    pod = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": name}}],
    }  # fmt: skip
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}
    metadata = {"name": name, "namespace": "hanse"}
    clusters.apply(
        edge,
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim},
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod},
    )
    succeeded = "--for=jsonpath={.status.phase}=Succeeded"
    clusters.kubectl(edge, "wait", f"pod/{name}", succeeded, "-n", "hanse", "--timeout=120s")
    clusters.kubectl(edge, "delete", "pod", name, "-n", "hanse")
    yield {"persistentVolumeClaim": {"claimName": name}}
    clusters.kubectl(edge, "delete", "pvc", name, "-n", "hanse")


@pytest.fixture
def on_the_node(clusters: Clusters, tmp_path: Path) -> Iterator[trainings.Manifest]:
    """A directory of the first edge's node, in a namespace that admits it, as docs/datasets.md says it."""
    edge, label = clusters.edges[0], "pod-security.kubernetes.io/enforce"
    (tmp_path / "numbers.csv").write_text("41\n42\n")
    clusters.lab.place(edge, tmp_path / "numbers.csv", "/srv/numbers/numbers.csv")
    said = f"kubectl label namespace hanse {label}=privileged --overwrite"
    assert said in (Path(__file__).parents[3] / "docs/datasets.md").read_text()
    clusters.kubectl(edge, *said.split()[1:])
    try:
        yield {"hostPath": {"path": "/srv/numbers"}}
    finally:
        clusters.kubectl(edge, "label", "namespace", "hanse", f"{label}=restricted", "--overwrite")


@pytest.mark.parametrize("place", ["on_a_claim", "on_the_node"])
def test_data_are_read_where_they_lie(clusters: Clusters, place: str, request: pytest.FixtureRequest) -> None:
    """A client reads its owner's data there, and cannot write them."""
    volume = request.getfixturevalue(place)
    name, edge = place.replace("_", "-"), clusters.edges[0]
    clusters.offer(edge, name, volume=volume)
    try:
        clusters.train(name, client_app=READS, clusters={"minimum": 1})
        status = clusters.ended(name)
        assert status["phase"] == "Completed", status
        assert of_cluster(status, edge)["state"] == "Completed"
    finally:
        clusters.kubectl("hub", "delete", "ft", name, "-n", trainings.NAMESPACE, "--timeout=60s")
        clusters.kubectl(edge, "delete", "edgedataset", name, "-n", "hanse")
        eventually(lambda: not client_pods(clusters, edge, name), "no client pod")


def test_an_expelled_edge_is_out_at_once_and_the_others_go_on(clusters: Clusters) -> None:
    """In mid-round: its client ends, its streams are cut, the quorum decides, and the status says it."""
    if not isinstance(clusters.lab, provider.Bare):
        pytest.skip("it looks at the streams that pass a router of the bare provider")
    name, hub = "expelling", clusters.lab.kubeconfig("hub")
    edge, *others = clusters.edges
    offer_everywhere(clusters, name, **HELD)
    clusters.train(name, rounds=3, clusters={"minimum": len(others)}, round=HELD_ROUND)
    clusters.in_round(name, 2)
    before = streams(clusters, clusters.lab, edge)
    assert len(before) >= 2, "the agent's and the client's"
    try:
        trainings.hanse("clusters", "expel", edge, kubeconfig=hub)
        eventually(lambda: not client_pods(clusters, edge, name), "no client pod", seconds=30)
        eventually(lambda: not before & streams(clusters, clusters.lab, edge), "end of its streams")
        clusters.let_go(name, others)
        status = clusters.ended(name)
        member = json.loads(clusters.kubectl("hub", "get", "edgecluster", edge, "-o", "json"))
    finally:
        trainings.hanse("clusters", "approve", edge, kubeconfig=hub)
        clusters.kubectl(edge, "rollout", "restart", "deployment/hanse-agent", "-n", "hanse")
        clusters.kubectl(edge, "rollout", "status", "deployment/hanse-agent", "-n", "hanse", "--timeout=180s")
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert [of_cluster(status, other)["state"] for other in others] == ["Completed"] * len(others)
    assert [of_cluster(status, edge)[key] for key in ("state", "reason")] == ["Left", "Expelled"]
    assert f"hanse clusters approve {edge}" in of_cluster(status, edge)["message"]
    assert condition(member["status"], "Connected")["reason"] == "Expelled"


def test_an_edge_that_leaves_is_out_at_once_and_joins_again(clusters: Clusters) -> None:
    """In mid-round: the hub is told, the others go on, nothing of it stays; a new token lets it back in."""
    name, again, hub = "leaving", "joined-again", clusters.lab.kubeconfig("hub")
    edge, *others = clusters.edges
    offer_everywhere(clusters, name, **HELD)
    clusters.train(name, rounds=3, clusters={"minimum": len(others)}, round=HELD_ROUND)
    clusters.in_round(name, 2)
    try:
        said = trainings.hanse("leave", kubeconfig=clusters.lab.kubeconfig(edge))
        left = clusters.until(
            name, lambda status: of_cluster(status, edge).get("state") == "Left", seconds=30
        )
        clusters.let_go(name, others)
        status = clusters.ended(name)
        member = json.loads(clusters.kubectl("hub", "get", "edgecluster", edge, "-o", "json"))
        listed = trainings.hanse("clusters", "list", kubeconfig=hub).splitlines()
        here = {
            kind: clusters.get(edge, kind, "hanse", "-l", "app.kubernetes.io/managed-by=hanse")
            for kind in ("pods", "jobs", "secrets", "configmaps", "networkpolicies")
        } | {"deployments": clusters.get(edge, "deployments", "hanse")}
    finally:
        clusters.join(edge)
    assert f"the hub knows that {edge} left" in said, said
    entry = of_cluster(left, edge)
    assert entry["reason"] == "ClusterLeft"
    assert f"hanse token create --cluster {edge}" in entry["message"]
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert [of_cluster(status, other)["state"] for other in others] == ["Completed"] * len(others)
    assert [of_cluster(status, edge)[key] for key in ("state", "reason")] == ["Left", "ClusterLeft"]
    for type_ in ("Joined", "Connected", "CertificateValid"):
        assert [condition(member["status"], type_)[key] for key in ("status", "reason")] == ["False", "Left"]
    assert " Left " in next(line for line in listed if line.startswith(edge))
    assert not any(here.values()), here
    offer_everywhere(clusters, again)
    clusters.train(again)
    status = clusters.ended(again)
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert of_cluster(status, edge)["state"] == "Completed"


def streams(clusters: Clusters, lab: provider.Bare, edge: str) -> set[str]:
    """Open connections from an edge to the hub's door as its router sees them, by their source port."""
    router = lab.node(edge).cluster.router
    argv = network.inside(router, "cat", "/proc/net/nf_conntrack").argv
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    to_the_door = f" dport={clusters.door.split(':')[1]} "
    return {
        line.partition(" sport=")[2].partition(" ")[0]
        for line in lines
        if " ESTABLISHED " in line and to_the_door in line
    }


def test_three_trainings_at_once_on_the_same_edges(clusters: Clusters) -> None:
    """Each has its own aggregator behind the one door, its own clients, and its own model."""
    names = ("first", "second", "third")
    for name in names:
        offer_everywhere(clusters, name, **HELD)
    for name in names:
        clusters.train(name, rounds=4, round=HELD_ROUND)
    for name in names:
        clusters.in_round(name, 2)
    assert [clusters.status(name)["phase"] for name in names] == ["Running"] * len(names)
    for name in names:
        clusters.let_go(name)
    assert [clusters.ended(name)["phase"] for name in names] == ["Completed"] * len(names)


def test_deleting_does_not_wait_for_an_edge_that_is_cut_off(clusters: Clusters) -> None:
    """The training is gone at once; the edge cleans up by itself when its link is back."""
    name = "abandoned"
    offer_everywhere(clusters, name, **PAUSE)
    clusters.train(name, rounds=50)
    clusters.in_round(name, 2)
    edge = clusters.edges[0]
    clusters.lab.cut(edge)
    try:
        clusters.kubectl("hub", "delete", "ft", name, "-n", trainings.NAMESPACE, "--timeout=30s")
        assert client_pods(clusters, edge, name), "the edge that is cut off cannot know yet"
    finally:
        clusters.lab.restore(edge)
    for kind in ("pods", "jobs", "secrets", "configmaps", "networkpolicies"):
        eventually(
            lambda kind=kind: not clusters.get(edge, kind, "hanse", "-l", f"hanse.dev/training={name}"),
            f"no {kind} of the training on {edge}",
        )


def test_a_client_that_no_node_takes_says_so_on_the_hub(clusters: Clusters) -> None:
    """What the scheduler says reaches the training's status, with the resource that lacks."""
    name = "unschedulable"
    offer_everywhere(clusters, name)
    clusters.train(name, client={"resources": {"requests": {"cpu": "512"}}})
    edge = clusters.edges[0]
    status = clusters.until(
        name, lambda status: of_cluster(status, edge).get("reason") == "Unschedulable", seconds=60
    )
    assert re.search("cpu", of_cluster(status, edge)["message"], re.IGNORECASE)
    clusters.kubectl("hub", "delete", "ft", name, "-n", trainings.NAMESPACE, "--timeout=60s")


def test_why_no_node_takes_a_client_is_on_the_hub_within_ten_seconds(clusters: Clusters) -> None:
    """Counted from the scheduler's word in the pod to the hub's Event; when a node is free, it takes part."""
    name = "no-room"
    edge, *others = clusters.edges
    offer_everywhere(clusters, name, **PAUSE)
    clusters.kubectl(edge, "cordon", edge)
    try:
        clusters.train(name, rounds=50, clusters={"minimum": len(others)})
        event = eventually(lambda: unschedulable(clusters, name, edge), f"an Event that {edge} waits")
        (pod,) = client_pods(clusters, edge, name)
    finally:
        clusters.kubectl(edge, "uncordon", edge)
    scheduled = condition(pod["status"], "PodScheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
    took = dt.datetime.fromisoformat(event["firstTimestamp"]) - dt.datetime.fromisoformat(
        scheduled["lastTransitionTime"]
    )
    print(f"the reason was on the hub {took.total_seconds():g} s after the scheduler gave it")
    assert took <= dt.timedelta(seconds=10)
    clusters.until(name, lambda status: of_cluster(status, edge).get("state") in ("Training", "Reported"))
    clusters.kubectl("hub", "delete", "ft", name, "-n", trainings.NAMESPACE, "--timeout=60s")


def unschedulable(clusters: Clusters, name: str, edge: str) -> trainings.Manifest | None:
    """The hub's Event about a training that says that no node of this edge takes its client."""
    events = clusters.get(
        "hub", "events", trainings.NAMESPACE, "--field-selector", f"involvedObject.name={name}"
    )
    told = [event for event in events if event["message"].startswith(f"{edge} waits (Unschedulable)")]
    return told[0] if told else None


def test_a_client_that_takes_too_much_memory_is_named(clusters: Clusters) -> None:
    """The kernel's verdict comes back as a reason that a data scientist understands."""
    name = "greedy"
    offer_everywhere(clusters, name)
    greedy = (
        trainings.federations.CLIENT_APP + "\nhoard = [bytes(bytearray(b'x' * 2**20)) for _ in range(4096)]\n"
    )
    clusters.train(name, client_app=greedy, client={"resources": {"limits": {"memory": "256Mi"}}})
    edge = clusters.edges[0]
    status = clusters.until(name, lambda status: of_cluster(status, edge).get("reason") == "OutOfMemory")
    assert "memory" in of_cluster(status, edge)["message"]


def test_a_cut_of_a_minute_in_mid_round_loses_no_edge(clusters: Clusters) -> None:
    """The link comes back and so does the edge: all of them are in the last round."""
    name = "cut"
    offer_everywhere(clusters, name, behaviour="pause", seconds=1, **{"from-round": 1})
    clusters.train(name, rounds=6, round={"deadlineSeconds": 300})
    clusters.in_round(name, 2)
    edge = clusters.edges[0]
    clusters.lab.cut(edge)
    try:
        time.sleep(60)  # the minute that is promised; what follows waits for the training itself
    finally:
        clusters.lab.restore(edge)
    status = clusters.ended(name, seconds=300)
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert {entry["name"]: entry["state"] for entry in status["clusters"]} == dict.fromkeys(
        clusters.edges, "Completed"
    )
