"""Clients that fail, each in its own way, and what the data scientist reads of it on the hub."""

from __future__ import annotations

import pytest

from tests.cluster.federation import trainings
from tests.cluster.federation.trainings import Clusters, of_cluster

pytestmark = pytest.mark.cluster

CLIENT_APP = trainings.federations.CLIENT_APP.replace(
    '        case "exits-hard":\n',
    """        case "fills":
            print("writes all rows", flush=True)
            pathlib.Path("/tmp/rows").write_bytes(bytes(64 * 2**20))
            threading.Event().wait()
        case "exits-hard":
""",
    1,
)
"""A client that also writes more than its pod may, and then waits to be ended for it."""


def test_who_is_put_out_and_who_crashes_is_named_with_its_last_lines(clusters: Clusters) -> None:
    """Each is started again as often as is asked; then the status has the reason, a sentence and the end of
    its log, and the others train on.
    """
    name = "faults"
    fills, crashes, *others = clusters.edges
    clusters.offer(fills, name, {"behaviour": "fills"})
    clusters.offer(crashes, name, {"behaviour": "exits-hard"})
    for edge in others:
        clusters.offer(edge, name)
    clusters.train(
        name,
        client_app=CLIENT_APP,
        clusters={"minimum": 1},
        client={"resources": {"limits": {"ephemeral-storage": "32Mi"}}, "maximumRestarts": 1},
        round={"deadlineSeconds": 300},
    )
    status = clusters.ended(name, seconds=300)
    assert status["phase"] == "Completed", status
    put_out, crashed = of_cluster(status, fills), of_cluster(status, crashes)
    assert (put_out["state"], put_out["reason"]) == ("Failed", "Evicted")
    assert (
        "more than its limit of 32Mi to its node's disk, and the node ended it. Write" in put_out["message"]
    )
    assert "raise the limit of ephemeral-storage. It failed after 1 restart.\n" in put_out["message"]
    assert "writes all rows" in put_out["message"].splitlines()
    assert (crashed["state"], crashed["reason"]) == ("Failed", "ClientExited")
    assert crashed["message"].startswith(
        "the client ended with exit code 4 after 1 restart; see the end of its"
    )
    assert "training round 1" in crashed["message"].splitlines()
    assert [of_cluster(status, edge)["state"] for edge in others] == ["Completed"] * len(others)


def test_a_client_image_that_is_nowhere_is_named(clusters: Clusters) -> None:
    """The edge waits for it, and the status says for which, and what to look at."""
    name, image = "no-image", "127.0.0.1:1/apps/none:1"
    edge = clusters.edges[0]
    clusters.offer(edge, name)
    clusters.train(name, clusters={"minimum": 1}, client={"image": image})
    status = clusters.until(name, lambda status: of_cluster(status, edge).get("reason") == "ImageNotPulled")
    waits = of_cluster(status, edge)
    assert waits["state"] == "Waiting"
    assert waits["message"].startswith("The image cannot be pulled: ")
    assert image in waits["message"]
    clusters.kubectl("hub", "delete", "ft", name, "-n", trainings.NAMESPACE, "--timeout=60s")
