"""A strategy with a memory of its own (FedAdam), which a restart must not lose."""

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAdam

app = ServerApp()

ARRAYS = 3


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Begin with a model of random numbers, so that nothing on the way can compress it."""
    config = context.run_config
    rng = np.random.default_rng(0)
    length = int(config["model-bytes"]) // ARRAYS // 4
    arrays = {f"layer-{i}": Array(rng.random(length, dtype=np.float32)) for i in range(ARRAYS)}
    strategy = FedAdam(fraction_train=1.0, fraction_evaluate=1.0, min_available_nodes=2)
    strategy.start(grid=grid, initial_arrays=ArrayRecord(arrays), num_rounds=int(config["num-server-rounds"]))
