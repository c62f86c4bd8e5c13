"""A Strategy whose start is its own: warm up at one rate, go on at another, stop early."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg, Result

app = ServerApp()


class TwoPhases(FedAvg):
    """FedAvg that runs its parent's rounds twice and its own loop at the end."""

    def start(self, grid, initial_arrays, num_rounds=3, timeout=3600, **others):
        warm = super().start(grid, initial_arrays, num_rounds=1, train_config=ConfigRecord({"rate": 0.5}))
        result = super().start(
            grid, warm.arrays, num_rounds=num_rounds, train_config=ConfigRecord({"rate": 0.25})
        )
        final = Result()
        final.arrays, final.evaluate_metrics_clientapp = (
            result.arrays,
            dict(result.evaluate_metrics_clientapp),
        )
        for current in range(10, 14):
            messages = self.configure_train(current, final.arrays, ConfigRecord({"rate": 0.1}), grid)
            arrays, metrics = self.aggregate_train(current, grid.send_and_receive(messages))
            change = float(np.abs(arrays["w"].numpy() - final.arrays["w"].numpy()).sum())
            final.arrays, final.train_metrics_clientapp[current] = arrays, metrics
            if change < 0.05:
                break
        return final


@app.main()
def main(grid, context):
    first = ArrayRecord({"w": Array(np.zeros(5, dtype=np.float32))})
    result = TwoPhases().start(grid=grid, initial_arrays=first, num_rounds=2)
    np.savez("result.npz", **{key: array.numpy() for key, array in result.arrays.items()})
    metrics = [result.train_metrics_clientapp, result.evaluate_metrics_clientapp]
    with open("result.json", "w") as file:
        json.dump([{n: dict(m) for n, m in by_round.items()} for by_round in metrics], file)
