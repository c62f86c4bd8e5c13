"""The training that is injured, as the manifests that a hub and its edges take."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from simulations import written
from simulations.chaos import faults
from simulations.local import scenario

APP = Path(__file__).resolve().parent / "app"
NAMESPACE, NAME = "lab", "chaos"

MAXIMUM_RESTARTS = 10
"""More than any plan needs: what ends a training is never that it was injured too often."""


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a run keeps what."""

    root: Path

    @property
    def failpoints(self) -> Path:
        """The plan of its places, and their visits. Its path marks the run's processes."""
        return self.root / "failpoints"

    @property
    def calls(self) -> Path:
        """A line for each call of a client's app."""
        return self.root / "calls"

    @property
    def logs(self) -> Path:
        """What coordinator and agents say."""
        return self.root / "logs"

    @property
    def models(self) -> Path:
        """The model store."""
        return self.root / "models"

    @property
    def coordinator(self) -> Path:
        """The coordinator's configuration, and its state directory."""
        return self.root / "coordinator"

    @property
    def aggregators(self) -> Path:
        """Where the aggregator works; its journal is there."""
        return self.coordinator / "state" / "aggregators"

    def edge(self, name: str) -> Path:
        """An agent's configuration, and its state directory."""
        return self.root / "edges" / name

    def client_logs(self, name: str) -> list[Path]:
        """What an edge's clients say, all that ran there."""
        return sorted((self.edge(name) / "state" / "logs").glob("*.log"))

    def clients(self, name: str) -> Path:
        """Where the clients of an edge keep their work."""
        return self.edge(name) / "state" / "clients"


def write(places: Places, shape: faults.Shape) -> scenario.Scenario:
    """Write the manifests; return what a simulation reads in them. Raises: SimulationError, ManifestError."""
    directory = places.root / "scenario"
    names = [f"edge-{number}" for number in range(1, shape.edges + 1)]
    spec = {
        "app": {
            "source": {"path": str(APP)},
            "runConfig": {
                "num-server-rounds": shape.rounds,
                "model-bytes": shape.model_bytes,
                "calls": str(places.calls),
            },
        },
        "dataset": "nothing",
        "clusters": {"minimum": shape.edges},
        "round": {"deadlineSeconds": 600},
        "server": {"maximumRestarts": MAXIMUM_RESTARTS},
        "client": {"maximumRestarts": MAXIMUM_RESTARTS},
    }
    clusters = [written.resource("EdgeCluster", name, None, {"acceptance": "Accepted"}) for name in names]
    directory.mkdir(parents=True)
    written.write(
        directory / "hub.yaml", [written.resource("FederatedTraining", NAME, NAMESPACE, spec), *clusters]
    )
    rule = {
        "name": "chaos",
        "effect": "Allow",
        "trainings": [{"namespace": NAMESPACE, "name": "*"}],
        "datasets": ["nothing"],
    }
    notes = written.resource("ConfigMap", "nothing", "hanse") | {
        "apiVersion": "v1",
        "data": {"note": "no data"},
    }
    for name in names:
        edge = directory / scenario.EDGES / name
        edge.mkdir(parents=True)
        dataset = {
            "name": "nothing",
            "volume": {"configMap": {"name": "nothing"}},
            "mountPath": "/data",
            "nodeConfig": {"name": name},
        }
        resources = [
            written.resource("EdgeDataset", "nothing", "hanse", dataset),
            notes,
            written.resource("EdgePolicy", "chaos", "hanse", {"rules": [rule]}),
        ]
        written.write(edge / "edge.yaml", resources)
    return scenario.read(directory)
