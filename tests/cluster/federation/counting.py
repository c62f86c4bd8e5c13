"""An app that counts its calls, and its client's pod as one sees it from the machine that the edge's node is.

The app counts in context.state, and the count is in the model; so a call that was made twice gives another
model, and so does a state that was lost.
"""

from __future__ import annotations

from tests.cluster.federation import killing, trainings
from tests.cluster.federation.trainings import Clusters

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
        "metrics": MetricRecord({"num-examples": 10, "calls": state["calls"]}),
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

    def uid(self) -> str:
        """Of the pod that is not about to go; empty while there is none."""
        about = self.pod().get("metadata") or {}
        return "" if about.get("deletionTimestamp") else str(about.get("uid", ""))

    def delete(self) -> None:
        """Delete the pod without letting it say anything."""
        killing.delete_pods(self._clusters, self._edge, "hanse", f"hanse.dev/training={self._training}")

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
