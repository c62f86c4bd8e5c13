"""Flower's default workflow with SecAgg+: the server learns the sum and no summand."""

import json

import numpy as np
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import LegacyContext, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from flwr.serverapp import ServerApp

app = ServerApp()
seen = []


class Writing(FedAvg):
    """FedAvg that writes down what it aggregates."""

    def aggregate_fit(self, server_round, results, failures):
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        np.savez("result.npz", *parameters_to_ndarrays(parameters))
        seen.append([server_round, len(results), len(failures)])
        return parameters, metrics


@app.main()
def main(grid, context):
    strategy = Writing(
        min_available_clients=4,
        min_fit_clients=4,
        fraction_evaluate=0.0,
        initial_parameters=ndarrays_to_parameters([np.zeros((2, 3)), np.ones(4)]),
    )
    legacy = LegacyContext(
        context=context, config=ServerConfig(num_rounds=int(context.run_config["rounds"])), strategy=strategy
    )
    secure = SecAggPlusWorkflow(num_shares=3, reconstruction_threshold=2, max_weight=1.0, timeout=60.0)
    DefaultWorkflow(fit_workflow=secure)(grid, legacy)
    with open("result.json", "w") as file:
        json.dump(seen, file)
