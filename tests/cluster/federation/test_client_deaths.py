"""kill -9 of a client's process on a real cluster: its container starts again in its pod and goes on.

The app counts its calls in context.state, and the count is in the model; so a state that was lost gives
another model.
"""

from __future__ import annotations

import pytest

from tests.cluster.federation import killing, trainings
from tests.cluster.federation.trainings import Clusters, eventually

pytestmark = pytest.mark.cluster

ROUNDS = 4

CLIENT_APP = '''
"""Counts its calls; says when it works, and takes its time where it is asked to."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    number = int(message.content["config"]["server-round"])
    state = context.state.setdefault("count", ConfigRecord({"calls": 0}))
    print(f"works on round {number} after {state['calls']} calls", flush=True)
    state["calls"] += 1
    time.sleep(float(context.node_config.get(f"seconds-{number}", 0)))
    values = {
        name: array.numpy() * np.float32(1.1) + np.float32(state["calls"] / 7)
        for name, array in message.content["arrays"].items()
    }
    content = {
        "arrays": ArrayRecord({name: Array(value) for name, value in values.items()}),
        "metrics": MetricRecord({"num-examples": 10}),
    }
    return Message(RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 4})}), reply_to=message)
'''


class Victim:
    """The pod of a training's client on one edge, from the machine that its node is."""

    def __init__(self, clusters: Clusters, edge: str, training: str) -> None:
        self._clusters, self._edge, self._training = clusters, edge, training

    def pod(self) -> trainings.Manifest:
        pods = self._clusters.get(self._edge, "pods", "hanse", "-l", f"hanse.dev/training={self._training}")
        return pods[0] if pods else {}

    def restarts(self) -> int:
        """How often the container that runs now was started again; -1 while none runs."""
        found = (self.pod().get("status") or {}).get("containerStatuses") or [{"state": {}}]
        return int(found[0]["restartCount"]) if "running" in found[0]["state"] else -1

    def log(self) -> str:
        """Of the container that runs now."""
        return self._in_pod("logs", "{pod}")

    def kept(self) -> str:
        """The names of the files that it keeps."""
        listing = "import os; print(os.listdir('/hanse/state/kept'))"
        return self._in_pod("exec", "{pod}", "--", "python3", "-c", listing)

    def _in_pod(self, verb: str, *arguments: str) -> str:
        if not (pod := self.pod()):
            return ""
        argv = [one.replace("{pod}", pod["metadata"]["name"]) for one in arguments]
        return self._clusters.kubectl(self._edge, verb, "-n", "hanse", *argv, check=False)

    def kill(self) -> None:
        """Kill -9, from outside the container."""
        assert killing.kill("edge_agent.client", pod=self.pod()["metadata"]["uid"]) == 1


def test_a_killed_client_goes_on_in_its_pod(clusters: Clusters) -> None:
    """In the middle of its work, and with an answer that nobody has heard: the model is the same."""
    edge, others = clusters.edges[0], clusters.edges[1:]
    for name in ("counted", "counted-killed"):
        for other in others:
            clusters.offer(other, name)
        clusters.offer(edge, name, {"seconds-2": 8, "seconds-3": 8} if name == "counted-killed" else {})
        clusters.train(name, rounds=ROUNDS, client_app=CLIENT_APP, round={"deadlineSeconds": 300})
    victim = Victim(clusters, edge, "counted-killed")
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
