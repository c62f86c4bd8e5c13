"""A torch app in pods with a limit of processors: it learns, with as many threads as the limit feeds.

Both of its parts import torch, which the release's own images lack: client and aggregator run others. Those
are large: the hub gets them, and one edge.
"""

from __future__ import annotations

import pytest

from simulations.lab import images
from tests.cluster import conftest as cluster
from tests.cluster.federation import trainings
from tests.cluster.federation.trainings import Clusters, condition, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.torch]

SERVER_APP = '''
"""Federated averaging of a model that torch makes."""

import torch
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    model = torch.nn.Linear(4, 3)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    FedAvg(fraction_evaluate=0.0, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1).start(
        grid=grid,
        initial_arrays=ArrayRecord(torch_state_dict=model.state_dict()),
        num_rounds=int(context.run_config["rounds"]),
    )
'''
CLIENT_APP = '''
"""Fits a line to the owner's numbers, and says with how many processors."""

import os
import pathlib

import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def processors():
    """What the kernel lets this container use."""
    groups = pathlib.Path("/sys/fs/cgroup")
    if (groups / "cpu.max").exists():
        quota, period = (groups / "cpu.max").read_text().split()
    else:
        quota, period = ((groups / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    return os.cpu_count() if quota.strip() in ("max", "-1") else float(quota) / float(period)


@app.train()
def train(message, context):
    model = torch.nn.Linear(4, 3)
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    numbers = pathlib.Path(context.node_config["place"], "numbers.csv").read_text().split()
    inputs = torch.tensor([[float(number)] * 4 for number in numbers])
    wanted = 2 * inputs[:, :3]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005)
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(inputs), wanted)
        loss.backward()
        optimizer.step()
    metrics = {
        "loss": float(loss.detach()),
        "threads": torch.get_num_threads(),
        "processors": processors(),
        "processors-of-the-node": os.cpu_count(),
        "num-examples": len(numbers),
    }
    arrays = ArrayRecord(torch_state_dict=model.state_dict())
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)
'''


@pytest.fixture(scope="module")
def torch_images(clusters: Clusters) -> tuple[str, str]:
    """The images with torch, the client's and the aggregator's, on the hub and on one edge."""
    built = images.build(images.WITH_TORCH, lambda text: cluster.say("images", text))
    clusters.lab.load([images.together(built)], (trainings.HUB, *clusters.edges[:1]))
    of_client, of_aggregator = built
    return of_client.name, of_aggregator.name


def last_metrics(
    clusters: Clusters, torch_images: tuple[str, str], name: str, limits: dict[str, str]
) -> dict[str, float]:
    """Train on one edge under these limits; return what its app said in the last round."""
    edge, (image, server_image) = clusters.edges[0], torch_images
    clusters.offer(edge, name)
    clusters.train(
        name,
        client_app=CLIENT_APP,
        server_app=SERVER_APP,
        clusters={"minimum": 1},
        client={"image": image, "resources": {"limits": limits}},
        server={"image": server_image},
    )
    selected = ("-l", f"hanse.dev/training={name}")
    (pod,) = eventually(lambda: clusters.get(edge, "pods", "hanse", *selected), "the client's pod")
    (container,) = pod["spec"]["containers"]
    assert (container["image"], container["resources"].get("limits", {})) == (image, limits)
    status = clusters.ended(name)
    assert status["phase"] == "Completed", condition(status, "Failed")
    assert status["model"]["sha256"]
    first, last = (
        {key: float(value) for key, value in entry["values"].items()}
        for entry in status["metrics"]
        if entry["phase"] == "Train"
    )
    assert last["loss"] < first["loss"], "it learns"
    return last


def test_threads_of_torch_follow_the_limit_of_processors(
    clusters: Clusters, torch_images: tuple[str, str]
) -> None:
    """The pod has the limit, the kernel holds it, torch knows it; and the model that comes out has learnt."""
    said = last_metrics(clusters, torch_images, "torch-half", {"cpu": "500m"})
    assert (said["processors"], said["threads"]) == (0.5, 1)


def test_without_a_limit_torch_takes_what_the_node_has(
    clusters: Clusters, torch_images: tuple[str, str]
) -> None:
    """So the threads above were few for the limit, not for the machine."""
    said = last_metrics(clusters, torch_images, "torch-free", {})
    assert said["processors"] == said["processors-of-the-node"]
    assert said["threads"] >= min(2, said["processors-of-the-node"])
