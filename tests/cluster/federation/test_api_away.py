"""Minutes without an API server, or without its etcd, on real clusters: training goes on, status catches up.

What stands still answers nobody and refuses nobody, which is harder to bear than what has ended. The client
that is watched must dial in anew meanwhile, or its agent must begin anew.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator

import pytest

from coordinator.planning import progress
from tests.cluster.federation import counting, killing
from tests.cluster.federation.trainings import HUB, Clusters, Manifest, condition, eventually

pytestmark = pytest.mark.cluster

ROUNDS = 14
PAUSE_SECONDS = 4
AWAY_SECONDS = 62.0
"""Longer than a Lease, a node's heartbeat, and a minute, after which a request is given up by either side."""

SETTINGS = "/etc/hanse/config/config.json"
"""A word in the command of coordinator and agent."""
AGENT = ("pods", "hanse", "-l", "app.kubernetes.io/component=agent")
PROGRAMS = {"kube-apiserver": "kube-apiserver", "etcd": "--data-dir=/var/lib/etcd"}
"""A word that no other program of the node has in its command."""


@contextlib.contextmanager
def away(clusters: Clusters, cluster: str, program: str) -> Iterator[None]:
    """Let a program of a cluster's control plane stand still."""
    began = time.monotonic()
    killing.kill_program(clusters, cluster, PROGRAMS[program], signal.SIGSTOP)
    try:
        yield
        time.sleep(max(0.0, began + AWAY_SECONDS - time.monotonic()))
    finally:
        killing.kill_program(clusters, cluster, PROGRAMS[program], signal.SIGCONT)


def train(clusters: Clusters, name: str, pause_seconds: float = PAUSE_SECONDS) -> None:
    """Start a training whose first edge takes its time in each round."""
    pauses = {f"seconds-{number}": pause_seconds for number in range(1, ROUNDS + 1)}
    for edge in clusters.edges:
        clusters.offer(edge, name, pauses if edge == clusters.edges[0] else {})
    clusters.train(name, rounds=ROUNDS, client_app=counting.CLIENT_APP, round={"deadlineSeconds": 300})


@pytest.fixture(scope="module")
def wanted(clusters: Clusters) -> str:
    """The SHA-256 of an undisturbed training's model."""
    train(clusters, "all-there", pause_seconds=0)
    return str(clusters.ended("all-there", seconds=300)["model"]["sha256"])


def has_caught_up(clusters: Clusters, name: str, wanted: str) -> None:
    """The training ends as one that nothing happened to, and its status has every round."""
    status = clusters.ended(name, seconds=300)
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert status["model"]["sha256"] == wanted
    assert status["round"]["current"] == ROUNDS
    trained = [entry for entry in status["metrics"] if entry["phase"] == "Train"]
    last = range(ROUNDS + 1 - min(ROUNDS, progress.KEPT_METRICS), ROUNDS + 1)
    calls = {entry["round"]: round(float(entry["values"]["calls"]), 6) for entry in trained}
    assert calls == {number: number for number in last}


def rounds_of(client: counting.Victim) -> int:
    """The round that a client works on, or worked on last."""
    return len(re.findall("works on round", client.log()))


def links_lost(client: counting.Victim) -> int:
    """How often a client has seen its link end."""
    return len(re.findall("link lost|link broken off", client.log()))


@pytest.mark.parametrize(("program", "also_killed"), [("kube-apiserver", False), ("etcd", True)])
def test_rounds_go_on_without_the_hub_s_api_server(
    clusters: Clusters, wanted: str, program: str, also_killed: bool
) -> None:
    """Also those of a client that dials in again meanwhile, which needs the door and nobody behind it but the
    aggregator: the coordinator may be killed on top of it.
    """
    name, edge = f"without-hub-{program}", clusters.edges[0]
    train(clusters, name)
    client = counting.Victim(clusters, edge, name)
    eventually(lambda: rounds_of(client) >= 2, "the second round")
    (leader,) = clusters.get(HUB, "pods", "hanse-system", "-l", "hanse.dev/leader=true")
    with away(clusters, HUB, program):
        eventually(lambda: rounds_of(client) >= 6, "rounds for longer than the Lease")
        if also_killed:
            assert killing.kill(SETTINGS, pod=leader["metadata"]["uid"]) == 1
        before = links_lost(client)
        clusters.lab.cut(edge)
        try:
            eventually(lambda: links_lost(client) > before, "the link's end")
        finally:
            clusters.lab.restore(edge)
        reached = rounds_of(client)
        eventually(lambda: rounds_of(client) >= reached + 2, "rounds over a new link through the door")
    has_caught_up(clusters, name, wanted)


def test_rounds_go_on_without_an_edge_s_api_server(clusters: Clusters, wanted: str) -> None:
    """Its client trains on; an agent that begins meanwhile waits, and takes the client over afterwards."""
    name, edge = "without-edge", clusters.edges[0]
    train(clusters, name)
    clusters.in_round(name, 2)
    client, (agent,) = counting.Victim(clusters, edge, name), clusters.get(edge, *AGENT)
    before = client.uid()
    with away(clusters, edge, "kube-apiserver"):
        clusters.in_round(name, 5)
        assert killing.kill(SETTINGS, pod=agent["metadata"]["uid"]) == 1
        clusters.in_round(name, 10)
    assert client.uid() == before
    eventually(lambda: _container(*clusters.get(edge, *AGENT))["ready"], "the agent's session")
    assert _container(*clusters.get(edge, *AGENT))["restartCount"] == _container(agent)["restartCount"] + 1
    has_caught_up(clusters, name, wanted)


def _container(pod: Manifest) -> Manifest:
    found: Manifest = pod["status"]["containerStatuses"][0]
    return found
