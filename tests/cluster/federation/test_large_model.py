"""A model of 100 MB on real clusters: all that can die or be cut does so in mid-transfer, one after another.

The app counts its calls in `context.state`, and the count is in the model; so a call that was made twice
gives another model, and so does a state that was lost.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from simulations.lab.bare import provider
from tests.cluster.federation import counting, killing, traffic, trainings
from tests.cluster.federation.trainings import HUB, Clusters, condition, eventually

pytestmark = pytest.mark.cluster

SERVER_APP = '''
"""Federated averaging of ten arrays of 10 MB each."""

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    values = np.arange(2_500_000, dtype=np.float32) % 997
    FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3).start(
        grid=grid,
        initial_arrays=ArrayRecord({f"layer-{n}": Array(values / (n + 7)) for n in range(10)}),
        num_rounds=int(context.run_config["rounds"]),
    )
'''

MIDDLE_BYTES = 30_000_000
"""Of 100: more than anything else sends, and far from the end."""
LINK_MBIT = 200.0
"""A transfer takes four seconds, so that it is met in its middle; the other edges have finished by then."""
CUT_SECONDS = 120.0

COORDINATOR = (HUB, "hanse-system", "hanse.dev/leader=true")
AGENT = ("hanse", "app.kubernetes.io/component=agent")
SETTINGS = "/etc/hanse/config/config.json"
"""A word in the command of coordinator and agent."""


class Scene:
    """One training, the edge that is watched, and what can happen to it."""

    def __init__(self, clusters: Clusters, lab: provider.Bare, training: str) -> None:
        self.clusters, self.lab, self.training = clusters, lab, training
        self.edge = clusters.edges[0]
        self.selector = f"hanse.dev/training={training}"
        self.client = counting.Victim(clusters, self.edge, training)

    def answers(self, cluster: str) -> None:
        """Wait until an API server answers."""
        look = ("get", "--raw", "/readyz")
        eventually(
            lambda: self.clusters.kubectl(cluster, *look, check=False) == "ok", f"{cluster}'s API server"
        )

    # -- what happens ------------------------------------------------------------------------------------

    def aggregator_process(self) -> None:
        of = (HUB, trainings.NAMESPACE, self.selector)
        killing.kill_in_pod(self.clusters, *of, "coordinator.aggregator")

    def aggregator_pod(self) -> None:
        killing.delete_pods(self.clusters, HUB, trainings.NAMESPACE, self.selector)

    def coordinator_process(self) -> None:
        killing.kill_in_pod(self.clusters, *COORDINATOR, SETTINGS)

    def coordinator_pod(self) -> None:
        killing.delete_pods(self.clusters, *COORDINATOR)

    def agent_process(self) -> None:
        killing.kill_in_pod(self.clusters, self.edge, *AGENT, SETTINGS)

    def agent_pod(self) -> None:
        killing.delete_pods(self.clusters, self.edge, *AGENT)

    def client_process(self) -> None:
        self.client.kill()

    def client_pod(self) -> None:
        self.client.delete()

    def hub_api_server(self) -> None:
        killing.kill_program(self.clusters, HUB, "kube-apiserver")
        self.answers(HUB)

    def edge_api_server(self) -> None:
        killing.kill_program(self.clusters, self.edge, "kube-apiserver")
        self.answers(self.edge)

    def kubelet_stopped(self) -> None:
        """Until its cluster takes the node for lost; a client that dies meanwhile is started by nobody."""
        killing.kill_program(self.clusters, self.edge, "kubelet.yaml", signal.SIGSTOP)
        try:
            self.client_process()
            eventually(lambda: not self.node_is_ready(), "end of the node's heartbeats")
        finally:
            killing.kill_program(self.clusters, self.edge, "kubelet.yaml", signal.SIGCONT)
        eventually(self.node_is_ready, "the node")

    def node_is_ready(self) -> bool:
        (node,) = self.clusters.get(self.edge, "nodes", "")
        return bool(condition(node["status"], "Ready")["status"] == "True")

    def link_cut(self) -> None:
        self.lab.cut(self.edge)
        time.sleep(CUT_SECONDS)
        self.lab.restore(self.edge)
        self.lab.limit(self.edge, LINK_MBIT)

    def until_middle(self, direction: traffic.Direction) -> None:
        """Wait until a transfer in this direction is in its middle. Fails if none comes."""
        edge = self.lab.node(self.edge).cluster
        began = traffic.passed(edge, direction)
        eventually(lambda: traffic.passed(edge, direction) - began > MIDDLE_BYTES, f"transfer {direction}")


INJURIES: tuple[tuple[traffic.Direction, Callable[[Scene], None]], ...] = (
    ("down", Scene.aggregator_process),
    ("up", Scene.client_process),
    ("down", Scene.client_pod),
    ("up", Scene.aggregator_pod),
    ("down", Scene.hub_api_server),
    ("up", Scene.edge_api_server),
    ("down", Scene.agent_process),
    ("up", Scene.coordinator_process),
    ("down", Scene.coordinator_pod),
    ("up", Scene.client_pod),
    ("down", Scene.agent_pod),
    ("up", Scene.kubelet_stopped),
    ("down", Scene.client_process),
    ("up", Scene.link_cut),
)
ROUNDS = 4 + sum(direction == "up" for direction, _ in INJURIES)
"""Each round has one transfer either way, and some pass while an API server starts."""


def train(clusters: Clusters, name: str) -> None:
    for edge in clusters.edges:
        clusters.offer(edge, name)
    clusters.train(
        name,
        rounds=ROUNDS,
        client_app=counting.CLIENT_APP,
        server_app=SERVER_APP,
        round={"deadlineSeconds": 900},
        client={"maximumRestarts": 10},
        server={"maximumRestarts": 10},
    )


def test_a_large_model_meets_every_fault_in_mid_transfer(clusters: Clusters) -> None:
    """The same model as where nothing happens; nobody is missing at the end."""
    lab = clusters.lab
    if not isinstance(lab, provider.Bare):
        pytest.skip("it looks at the routers and the processes of the bare provider")
    train(clusters, "large")
    want = clusters.ended("large", seconds=600)
    assert want["phase"] == "Completed", condition(want, "Failed")

    scene = Scene(clusters, lab, "large-injured")
    lab.limit(scene.edge, LINK_MBIT)
    try:
        train(clusters, scene.training)
        for direction, injure in INJURIES:
            scene.until_middle(direction)
            began = time.monotonic()
            injure(scene)
            print(f"{direction}: {injure.__name__}, {time.monotonic() - began:.1f} s", flush=True)
        status = clusters.ended(scene.training, seconds=600)
    finally:
        lab.restore(scene.edge)
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert status["model"]["sha256"] == want["model"]["sha256"]
