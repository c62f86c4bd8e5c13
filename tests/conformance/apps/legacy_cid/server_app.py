"""FedAvg of the older API, without a server_fn."""

import json

import numpy as np
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp


class Writing(FedAvg):
    """FedAvg that writes down what it aggregates."""

    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        np.savez("result.npz", *parameters_to_ndarrays(parameters))
        return parameters, metrics

    def aggregate_evaluate(self, server_round, results, failures):
        loss, metrics = super().aggregate_evaluate(server_round, results, failures)
        with open("result.json", "w") as file:
            json.dump([server_round, loss, len(results), len(failures)], file)
        return loss, metrics


app = ServerApp(
    config=ServerConfig(num_rounds=2),
    strategy=Writing(initial_parameters=ndarrays_to_parameters([np.arange(4.0)])),
)
