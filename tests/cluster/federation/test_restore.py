"""A hub that is lost entirely comes back from a backup of etcd and the volumes, and trainings go on.

The backup is older than the journal on the volume: rounds that etcd never heard of are not done again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edge_agent import vault
from tests.cluster.federation import counting
from tests.cluster.federation.hub_loss import Hub
from tests.cluster.federation.trainings import HUB, Clusters, condition, eventually

pytestmark = pytest.mark.cluster

ROUNDS = 5


def identities(clusters: Clusters) -> dict[str, object]:
    """What each edge holds of its membership: key, certificate, and where it joined."""
    one = f"--field-selector=metadata.name={vault.SECRET_NAME}"
    return {edge: clusters.get(edge, "secrets", "hanse", one)[0]["data"] for edge in clusters.edges}


def agents(clusters: Clusters) -> dict[str, list[object]]:
    """Each edge's agent: which pod, and how often it was started."""
    return {
        edge: [
            (pod["metadata"]["uid"], [one["restartCount"] for one in pod["status"]["containerStatuses"]])
            for pod in clusters.get(edge, "pods", "hanse", "-l", "app.kubernetes.io/component=agent")
        ]
        for edge in clusters.edges
    }


def members(clusters: Clusters) -> dict[str, str]:
    """The federation's members as the hub knows them, by the objects' uids."""
    found = clusters.get(HUB, "edgeclusters", "default")
    return {one["metadata"]["name"]: one["metadata"]["uid"] for one in found}


def test_a_restored_hub_goes_on_with_its_trainings(clusters: Clusters, tmp_path: Path) -> None:
    """With the same edges under the identities that they hold, and the model of an undisturbed training."""
    hub = Hub(clusters, tmp_path / "etcd")
    client = begin(clusters, "lost", {"seconds-2": 8, "seconds-4": 15})
    eventually(lambda: "works on round 2 after 1 calls" in client.log(), "the second round")
    hub.save()
    assert clusters.status("lost")["round"]["current"] == 2, "the backup is to be older than what follows"
    before = identities(clusters), members(clusters), agents(clusters)
    eventually(lambda: "works on round 4 after 3 calls" in client.log(), "the fourth round")
    hub.lose()
    hub.put_back()

    status = clusters.ended("lost", seconds=300)
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert (identities(clusters), members(clusters), agents(clusters)) == before
    begin(clusters, "undisturbed-too", {})
    want = clusters.ended("undisturbed-too")
    assert status["model"]["sha256"] == want["model"]["sha256"]


def begin(clusters: Clusters, name: str, seconds: Mapping[str, float]) -> counting.Victim:
    """Begin a training whose app takes so long on the first edge; return the client there."""
    first, *others = clusters.edges
    clusters.offer(first, name, seconds)
    for other in others:
        clusters.offer(other, name)
    clusters.train(name, rounds=ROUNDS, client_app=counting.CLIENT_APP, round={"deadlineSeconds": 600})
    return counting.Victim(clusters, first, name)
