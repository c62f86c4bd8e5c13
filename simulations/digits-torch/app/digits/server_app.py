"""What runs at the hub."""

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits import model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Average the sites' networks, weighted by their digits."""
    network = model.new(int(context.run_config["seed"]))
    FedAvg(fraction_train=1.0, fraction_evaluate=1.0).start(
        grid=grid,
        initial_arrays=ArrayRecord(network.state_dict()),
        num_rounds=int(context.run_config["num-server-rounds"]),
    )
