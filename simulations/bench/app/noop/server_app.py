"""What runs at the hub: FedAvg, with a stopwatch in it.

After each round a line of JSON goes to `timings-file`: the round, when it began (unix seconds), how long it
took from the first line of configure_train to the last of aggregate_evaluate, and how much of that the app
itself took.
"""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """FedAvg that writes down when its rounds begin and end."""

    def __init__(self, timings: str) -> None:
        super().__init__(fraction_train=1.0, fraction_evaluate=1.0, min_available_nodes=2)
        self.timings = Path(timings)
        self.began = self.began_unix = self.trained = self.averaging = self.app_seconds = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.began, self.began_unix = time.perf_counter(), time.time()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.trained = time.perf_counter()
        arrays, metrics = super().aggregate_train(server_round, replies)
        self.averaging = time.perf_counter() - self.trained
        self.app_seconds = float(metrics["app-seconds"]) if metrics else 0.0  # type: ignore[arg-type]
        return arrays, metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        metrics = super().aggregate_evaluate(server_round, replies)
        ended = time.perf_counter()
        line = {
            "round": server_round,
            "began_unix": self.began_unix,
            "seconds": ended - self.began,
            "train_seconds": self.trained - self.began,
            "average_seconds": self.averaging,
            "evaluate_seconds": ended - self.trained - self.averaging,
            "app_seconds": self.app_seconds,
            "replies": len(list(replies)),
        }
        with self.timings.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return metrics


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average a model of random numbers, so that nothing on the way can compress it."""
    config = context.run_config
    rng = np.random.default_rng(0)
    length = int(config["array-bytes"]) // 4
    arrays = ArrayRecord(
        {f"layer-{i}": Array(rng.random(length, dtype=np.float32)) for i in range(int(config["array-count"]))}
    )
    Timed(str(config["timings-file"])).start(
        grid=grid, initial_arrays=arrays, num_rounds=int(config["num-server-rounds"])
    )
