"""A server_fn with ServerAppComponents and the older FedAvg."""

import json

import numpy as np
from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
from flwr.server import ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.serverapp import ServerApp

history = []


class Writing(FedAvg):
    """FedAvg that writes down what it aggregates."""

    def aggregate_fit(self, server_round, results, failures):
        # The older server gives results as they arrive; its average must not depend on that here.
        results = sorted(results, key=lambda pair: pair[1].num_examples)
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        np.savez("result.npz", *parameters_to_ndarrays(parameters))
        history.append(["fit", server_round, len(results), len(failures), dict(metrics)])
        return parameters, metrics

    def aggregate_evaluate(self, server_round, results, failures):
        results = sorted(results, key=lambda pair: pair[1].num_examples)
        loss, metrics = super().aggregate_evaluate(server_round, results, failures)
        history.append(["evaluate", server_round, loss, dict(metrics)])
        with open("result.json", "w") as file:
            json.dump(history, file)
        return loss, metrics


def weighted(metrics):
    """Average by examples."""
    total = sum(count for count, _ in metrics)
    return {key: sum(count * values[key] for count, values in metrics) / total for key in metrics[0][1]}


def server_fn(context):
    strategy = Writing(
        min_available_clients=4,
        min_fit_clients=4,
        min_evaluate_clients=4,
        initial_parameters=ndarrays_to_parameters([np.zeros((3, 2)), np.ones(1, dtype=np.float32)]),
        on_fit_config_fn=lambda server_round: {"round": server_round},
        fit_metrics_aggregation_fn=weighted,
        evaluate_metrics_aggregation_fn=weighted,
    )
    return ServerAppComponents(
        config=ServerConfig(num_rounds=int(context.run_config["rounds"])), strategy=strategy
    )


app = ServerApp(server_fn=server_fn)
