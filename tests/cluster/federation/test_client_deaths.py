"""Deaths of clients on a real cluster: of the process, whose container starts again, and of the whole pod.

A state that was lost gives another model: see counting.py.
"""

from __future__ import annotations

import pytest

from tests.cluster.federation import counting
from tests.cluster.federation.trainings import Clusters, eventually

pytestmark = pytest.mark.cluster

ROUNDS = 4


def test_a_killed_client_goes_on_in_its_pod(clusters: Clusters) -> None:
    """In the middle of its work, and with an answer that nobody has heard: the model is the same."""
    edge, others = clusters.edges[0], clusters.edges[1:]
    for name in ("counted", "counted-killed"):
        for other in others:
            clusters.offer(other, name)
        clusters.offer(edge, name, {"seconds-2": 8, "seconds-3": 8} if name == "counted-killed" else {})
        clusters.train(name, rounds=ROUNDS, client_app=counting.CLIENT_APP, round={"deadlineSeconds": 300})
    victim = counting.Victim(clusters, edge, "counted-killed")
    eventually(lambda: "works on round 2 after 1 calls" in victim.log(), "the second round")
    victim.kill()
    eventually(lambda: victim.restarts() == 1, "a start of the container")
    eventually(lambda: "works on round 2 after 1 calls" in victim.log(), "the same work, with the same state")

    eventually(lambda: "works on round 3 after 2 calls" in victim.log(), "the third round")
    clusters.lab.cut(edge)
    try:
        eventually(lambda: "reply-" in victim.kept(), "an answer that nobody has heard")
        victim.kill()
        eventually(lambda: victim.restarts() == 2, "another start of the container")
        eventually(lambda: "kept reply is offered" in victim.log(), "the kept reply")
    finally:
        clusters.lab.restore(edge)
    status = clusters.ended("counted-killed", seconds=300)
    assert status["phase"] == "Completed", status
    want = clusters.ended("counted")
    assert status["model"]["sha256"] == want["model"]["sha256"]


def test_what_a_client_keeps_outlives_its_pod(clusters: Clusters) -> None:
    """The pod is deleted at work, and with an answer that nobody has heard; the training is suspended in
    mid-work. The model is the same, and nothing stays on the edge when the training is over.
    """
    edge, others = clusters.edges[0], clusters.edges[1:]
    # In the last round longer than a pod that is asked to end may take: else it could finish its work.
    name, slowly = "pods-lost", {"seconds-2": 8, "seconds-3": 8, "seconds-4": 30}
    for training in ("pods-kept", name):
        for other in others:
            clusters.offer(other, training)
        clusters.offer(edge, training, slowly if training == name else {})
        clusters.train(
            training, rounds=ROUNDS, client_app=counting.CLIENT_APP, round={"deadlineSeconds": 300}
        )
    victim = counting.Victim(clusters, edge, name)
    eventually(lambda: "works on round 2 after 1 calls" in victim.log(), "the second round")
    first = victim.pod()["metadata"]["uid"]
    victim.delete()
    eventually(lambda: victim.uid() not in ("", first), "another pod")
    eventually(lambda: "works on round 2 after 1 calls" in victim.log(), "the same work, with the same state")

    eventually(lambda: "works on round 3 after 2 calls" in victim.log(), "the third round")
    clusters.lab.cut(edge)
    try:
        eventually(lambda: "reply-" in victim.kept(), "an answer that nobody has heard")
        second = victim.uid()
        victim.delete()
        eventually(lambda: victim.uid() not in ("", second), "another pod")
        eventually(lambda: "kept reply is offered" in victim.log(), "the kept reply")
    finally:
        clusters.lab.restore(edge)

    eventually(lambda: "works on round 4 after 3 calls" in victim.log(), "the fourth round")
    clusters.change(name, {"spec": {"suspend": True}})
    clusters.until(name, lambda status: status.get("phase") == "Suspended")
    eventually(lambda: not victim.pod(), "end of the pod")
    clusters.change(name, {"spec": {"suspend": False}})
    eventually(lambda: "works on round 4 after 3 calls" in victim.log(), "the same work, with the same state")
    status = clusters.ended(name, seconds=300)
    assert status["phase"] == "Completed", status
    want = clusters.ended("pods-kept")
    assert status["model"]["sha256"] == want["model"]["sha256"]
    for kind in ("persistentvolumeclaims", "secrets"):
        eventually(
            lambda kind=kind: not clusters.get(edge, kind, "hanse", "-l", f"hanse.dev/training={name}"),
            f"end of the {kind}",
        )
