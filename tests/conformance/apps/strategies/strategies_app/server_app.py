"""Run the strategy that the run config names, and write its result down."""

import json
import random

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import ServerApp, strategy

app = ServerApp()
NODES = 7

ARGUMENTS = {
    "FedProx": {"proximal_mu": 0.5},
    "FedAvgM": {"server_learning_rate": 0.9, "server_momentum": 0.7},
    "FedTrimmedAvg": {"beta": 0.2},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 1},
    "QFedAvg": {"client_learning_rate": 0.1},
}


def build(name):
    """Construct a strategy by name; the privacy wrappers go around FedAvg."""
    if not name.startswith("DifferentialPrivacy"):
        return getattr(strategy, name)(**ARGUMENTS.get(name, {}))
    wrapped, wrapper = strategy.FedAvg(), getattr(strategy, name)
    if "Fixed" in name:
        return wrapper(wrapped, noise_multiplier=0.3, clipping_norm=0.5, num_sampled_clients=NODES)
    return wrapper(wrapped, noise_multiplier=0.3, num_sampled_clients=NODES)


def initial(name):
    """Return the first arrays: two of different types, or an empty boosted model."""
    if name.startswith("FedXgb"):
        return ArrayRecord([np.frombuffer(b"", dtype=np.uint8)])
    weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    return ArrayRecord({"w": Array(weights), "b": Array(np.zeros(3, dtype=np.float64))})


@app.main()
def main(grid, context):
    name = str(context.run_config["strategy"])
    random.seed(1)
    np.random.seed(1)
    result = build(name).start(
        grid,
        initial(name),
        num_rounds=int(context.run_config["rounds"]),
        train_config=ConfigRecord({"note": "train"}),
        evaluate_fn=lambda number, arrays: MetricRecord(
            {"bytes": sum(len(a.data) for a in arrays.values()), "n": number}
        ),
    )
    np.savez("result.npz", **{key: array.numpy() for key, array in result.arrays.items()})
    metrics = {
        "train": result.train_metrics_clientapp,
        "evaluate": result.evaluate_metrics_clientapp,
        "server": result.evaluate_metrics_serverapp,
    }
    with open("result.json", "w") as file:
        json.dump(
            {kind: {n: dict(m) for n, m in by_round.items()} for kind, by_round in metrics.items()}, file
        )
