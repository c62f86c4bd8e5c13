"""What runs at the hub: twenty rounds of federated averaging, and not one row."""

from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from heart import model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average the hospitals' models, weighted by training patients, and let each evaluate the result."""
    FedAvg(fraction_train=1.0, fraction_evaluate=1.0).start(
        grid=grid,
        initial_arrays=ArrayRecord({name: Array(value) for name, value in model.new().items()}),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
