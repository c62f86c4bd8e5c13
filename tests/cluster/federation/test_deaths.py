"""Whatever dies on real clusters in the middle of a round, the model is that of an undisturbed training.

What becomes of an app's state is in test_client_deaths.py.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simulations.lab import port as labs
from tests.cluster.federation import killing, trainings
from tests.cluster.federation.trainings import Clusters, condition, eventually, of_cluster

pytestmark = pytest.mark.cluster

ROUNDS = 4
PAUSE = {"behaviour": "pause", "seconds": 3}
"""Rounds that are long enough to be met in their middle."""


def train(clusters: Clusters, name: str) -> None:
    for edge in clusters.edges:
        clusters.offer(edge, name, PAUSE)
    clusters.train(name, rounds=ROUNDS, round={"deadlineSeconds": 300})


Kill = Callable[[Clusters, str], object]

HUB, TRIALS = labs.HUB, trainings.NAMESPACE

VICTIMS: dict[str, Kill] = {
    "coordinator": lambda c, _: killing.delete_pods(c, HUB, "hanse-system", "hanse.dev/leader=true"),
    "aggregator-pod": lambda c, name: killing.delete_pods(c, HUB, TRIALS, f"hanse.dev/training={name}"),
    "aggregator-process": lambda c, name: killing.kill_in_pod(
        c, HUB, TRIALS, f"hanse.dev/training={name}", "coordinator.aggregator"
    ),
    "agent": lambda c, _: killing.delete_pods(c, c.edges[0], "hanse", "app.kubernetes.io/component=agent"),
    "client-pod": lambda c, name: killing.delete_pods(c, c.edges[0], "hanse", f"hanse.dev/training={name}"),
    "hub-apiserver": lambda c, _: killing.kill_program(c, HUB, "kube-apiserver"),
    "edge-apiserver": lambda c, _: killing.kill_program(c, c.edges[0], "kube-apiserver"),
    "edge-kubelet": lambda c, _: killing.kill_program(c, c.edges[0], "kubelet.yaml"),
    "edge-node-drained": lambda c, _: drain(c, c.edges[0]),
    # A hub of one node has no place for a second coordinator, which its PodDisruptionBudget would wait for.
    "hub-node-drained": lambda c, _: drain(c, HUB, "--disable-eviction"),
    "client-without-a-node": lambda c, name: take_the_node_away(c, c.edges[0], name),
}


def drain(clusters: Clusters, cluster: str, *options: str) -> None:
    """Empty a cluster's only node as its operator does before mending it, and open it again."""
    what = ("--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
    try:
        clusters.kubectl(cluster, "drain", cluster, *what, *options)
    finally:
        clusters.kubectl(cluster, "uncordon", cluster)


def take_the_node_away(clusters: Clusters, edge: str, name: str) -> None:
    """Delete the client's pod while no node takes another, until the hub says so."""
    clusters.kubectl(edge, "cordon", edge)
    try:
        killing.delete_pods(clusters, edge, "hanse", f"hanse.dev/training={name}")
        clusters.until(name, lambda status: of_cluster(status, edge).get("reason") == "Unschedulable")
    finally:
        clusters.kubectl(edge, "uncordon", edge)


@pytest.fixture(scope="module")
def wanted(clusters: Clusters) -> str:
    """The SHA-256 of an undisturbed training's model."""
    train(clusters, "undisturbed")
    return str(clusters.ended("undisturbed", seconds=300)["model"]["sha256"])


@pytest.mark.parametrize("victim", VICTIMS)
def test_the_model_is_the_same_whoever_dies(clusters: Clusters, wanted: str, victim: str) -> None:
    """Killed in the second round; the training goes on by itself, with nobody missing."""
    name = f"killed-{victim}"
    train(clusters, name)
    clusters.in_round(name, 2)
    VICTIMS[victim](clusters, name)
    # An API server that was killed answers again after some seconds.
    eventually(
        lambda: clusters.kubectl(labs.HUB, "get", "ft", name, "-n", trainings.NAMESPACE, check=False),
        "the hub",
    )
    status = clusters.ended(name, seconds=300)
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert status["model"]["sha256"] == wanted
