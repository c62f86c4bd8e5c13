"""A strategy of Hanse's, which runs wherever Flower's do; one client at a time, so that no chance is in it."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import ServerApp

from federation.strategies import FedBuff

app = ServerApp()


@app.main()
def main(grid, context):
    first = ArrayRecord({"w": Array(np.zeros(5, dtype=np.float32)), "n": Array(np.zeros(2, dtype=np.int64))})
    strategy = FedBuff(buffer_size=3, concurrency=1, server_learning_rate=0.5, evaluate_every=2)
    result = strategy.start(
        grid=grid,
        initial_arrays=first,
        num_rounds=5,
        train_config=ConfigRecord({"rate": 0.25}),
        evaluate_fn=lambda version, arrays: MetricRecord({"w": float(arrays["w"].numpy()[0])}),
    )
    np.savez("result.npz", **{key: array.numpy() for key, array in result.arrays.items()})
    metrics = [
        result.train_metrics_clientapp,
        result.evaluate_metrics_clientapp,
        result.evaluate_metrics_serverapp,
    ]
    with open("result.json", "w") as file:
        json.dump([{n: dict(m) for n, m in by_version.items()} for by_version in metrics], file)
