"""Scenario directories for process tests: a tiny numpy Flower app, and edges that behave as a test asks.

Each edge's `nodeConfig.behaviour` says what its ClientApp does when it is asked to train; see `CLIENT_APP`.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

API = "hanse.dev/v1alpha1"
NAMESPACE, NAME = "lab", "tiny"
EXAMPLES = 10
"""What an honest edge says that it trained on."""


PYPROJECT = """
[project]
name = "tiny"
version = "1.0.0"
license = "Apache-2.0"
dependencies = ["flwr>=1.22", "numpy>=1.26"]

[tool.flwr.app]
publisher = "hanse"

[tool.flwr.app.components]
serverapp = "tiny.server_app:app"
clientapp = "tiny.client_app:app"

[tool.flwr.app.config]
rounds = 2
fraction-evaluate = 1.0
wait-for = 0
signals = ""
"""

SERVER_APP = '''
"""Federated averaging of two small arrays, once there are as many nodes as the run config says."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    print("the ServerApp says hello")
    start = {"weights": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)}
    while len(list(grid.get_node_ids())) < int(context.run_config["wait-for"]):
        time.sleep(0.1)
    fraction = context.run_config["fraction-evaluate"]
    FedAvg(fraction_evaluate=fraction, min_train_nodes=1, min_evaluate_nodes=1, min_available_nodes=1).start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(value) for name, value in start.items()}),
        num_rounds=int(context.run_config["rounds"]),
    )
'''

WITHOUT_SERVER_APP = PYPROJECT.replace('serverapp = "tiny.server_app:app"\n', "")
"""For a training whose manifest names the strategy; INITIAL_ARRAYS then stands in the ServerApp's place."""

INITIAL_ARRAYS = '''
"""The first model; the ServerApp is made of the manifest's strategy."""

import numpy as np


def arrays():
    return {"weights": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)}
'''


def strategy(rounds: int) -> dict[str, Any]:
    """What a manifest says in the place of a ServerApp."""
    parameters = {
        "initial-arrays": "tiny.server_app:arrays",
        "min-train-nodes": 1,
        "min-evaluate-nodes": 1,
        "min-available-nodes": 1,
    }
    return {"name": "FedAdam", "rounds": rounds, "parameters": parameters}


CLIENT_APP = '''
"""Adds one to the model, unless its owner asked for something else."""

import os
import pathlib
import signal
import sys
import threading
import time

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def answer(message, values, examples):
    metrics = MetricRecord({"loss": 0.5} | ({} if examples is None else {"num-examples": examples}))
    arrays = ArrayRecord({name: Array(value) for name, value in values.items()})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.train()
def train(message, context):
    behaviour = context.node_config.get("behaviour", "honest")
    number = int(message.content["config"]["server-round"])
    print(f"training round {number}", flush=True)
    if folder := context.run_config["signals"]:
        pathlib.Path(folder, f"{context.node_config['name']}-{number}").touch()
    values = {name: array.numpy() + np.float32(1) for name, array in message.content["arrays"].items()}
    examples = 10
    if number < int(context.node_config.get("from-round", 1)):
        return answer(message, values, examples)
    match behaviour:
        case "pause":
            time.sleep(float(context.node_config["seconds"]))
        case "held":
            while not pathlib.Path("/tmp/let-go").exists():
                time.sleep(0.1)
        case "raises":
            raise ValueError("the scanner is out of paper")
        case "hangs":
            threading.Event().wait()
        case "hangs-deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(1)
        case "exits":
            sys.exit(3)
        case "exits-hard":
            os._exit(4)
        case "segfaults":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "nan":
            values["weights"][1, 2] = np.nan
        case "infinite":
            values["bias"][0] = np.inf
        case "shape":
            values["weights"] = values["weights"].T.copy()
        case "missing":
            del values["bias"]
        case "extra":
            values["stowaway"] = np.zeros(2, np.float32)
        case "dtype":
            values["weights"] = values["weights"].astype(np.float64)
        case "empty":
            values = {}
        case "large":
            values["stowaway"] = np.zeros(1_000_000, np.float32)
        case "norm":
            values["weights"] += 1e6
        case "no-examples":
            examples = 0
        case "negative-examples":
            examples = -5
        case "nan-examples":
            examples = float("nan")
        case "many-examples":
            examples = 10**15
        case "silent-examples":
            examples = None
        case "nan-metric":
            reply = answer(message, values, examples)
            reply.content["metrics"]["loss"] = float("nan")
            return reply
        case "garbage":
            reply = answer(message, values, examples)
            data = b"\\x93NUMPY" + b"x" * 90
            reply.content["arrays"]["weights"] = Array("float32", (4, 3), "numpy.ndarray", data)
            return reply
        case "pickle":
            reply = answer(message, values, examples)
            hidden = Array(np.array([[{"a": 1}] * 3] * 4, dtype=object))
            reply.content["arrays"]["weights"] = Array("float32", (4, 3), "numpy.ndarray", hidden.data)
            return reply
        case "not-a-message":
            return "all is well"
        case "nothing":
            return None
    return answer(message, values, examples)


@app.evaluate()
def evaluate(message, context):
    total = sum(float(np.abs(array.numpy()).sum()) for array in message.content["arrays"].values())
    metrics = MetricRecord({"total": total, "num-examples": 4})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
'''


@dataclasses.dataclass
class Federation:
    """What to write: the training's spec beyond the defaults, and the edges with their nodeConfig."""

    edges: Mapping[str, Mapping[str, Any]]
    spec: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    server_app: str = SERVER_APP
    client_app: str = CLIENT_APP
    pyproject: str = PYPROJECT
    policies: Mapping[str, list[Mapping[str, Any]] | None] = dataclasses.field(default_factory=dict)
    """By edge: the rules of its policy; None for no policy at all. Other edges allow all of NAMESPACE."""

    def write(self, directory: Path) -> Path:
        """Write it below `directory`, which is returned."""
        app = directory / "app" / "tiny"
        app.mkdir(parents=True)
        (app.parent / "pyproject.toml").write_text(textwrap.dedent(self.pyproject))
        (app / "__init__.py").touch()
        (app / "server_app.py").write_text(self.server_app)
        (app / "client_app.py").write_text(self.client_app)
        write_yaml(directory / "training.yaml", training(self.spec))
        for name, config in self.edges.items():
            edge = directory / "edges" / name
            (edge / "data").mkdir(parents=True)
            write_yaml(edge / "dataset.yaml", dataset(edge / "data", {"name": name} | dict(config)))
            rules = self.policies.get(name, [allow_all()])
            if rules is not None:
                write_yaml(edge / "policy.yaml", policy(rules))
        return directory


def honest(number: int) -> dict[str, dict[str, Any]]:
    """That many well-behaved edges: edge-1, edge-2, ..."""
    return {f"edge-{index}": {} for index in range(1, number + 1)}


def training(spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A FederatedTraining; `spec` is laid over the defaults, field by field at the top."""
    defaults = {
        "app": {"source": {"path": "app"}},
        "dataset": "numbers",
        "clusters": {"minimum": 2},
        "round": {"deadlineSeconds": 60},
    }
    metadata = {"name": NAME, "namespace": NAMESPACE}
    return {
        "apiVersion": API,
        "kind": "FederatedTraining",
        "metadata": metadata,
        "spec": defaults | dict(spec or {}),
    }


def dataset(path: Path, node_config: Mapping[str, Any]) -> dict[str, Any]:
    """An EdgeDataset on a directory of this machine."""
    return {
        "apiVersion": API,
        "kind": "EdgeDataset",
        "metadata": {"name": "numbers", "namespace": "hanse"},
        "spec": {
            "name": "numbers",
            "volume": {"hostPath": {"path": str(path.resolve())}},
            "nodeConfig": dict(node_config),
            "declare": {"examples": EXAMPLES},
        },
    }


def policy(rules: list[Mapping[str, Any]]) -> dict[str, Any]:
    """An EdgePolicy with these rules."""
    metadata = {"name": "house-rules", "namespace": "hanse"}
    return {"apiVersion": API, "kind": "EdgePolicy", "metadata": metadata, "spec": {"rules": rules}}


def allow_all() -> dict[str, Any]:
    """A rule that allows every training of NAMESPACE."""
    return {"name": "lab-only", "effect": "Allow", "trainings": [{"namespace": NAMESPACE, "name": "*"}]}


def write_yaml(path: Path, document: object) -> None:
    """Write one document."""
    path.write_text(yaml.safe_dump(document, sort_keys=False))
