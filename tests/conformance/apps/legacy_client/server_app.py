"""The older Strategy, written from its abstract base, with parameters from a client and its properties asked."""

import json

import numpy as np
from flwr.common import (
    EvaluateIns,
    FitIns,
    GetPropertiesIns,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flwr.server import ServerConfig
from flwr.server.strategy import Strategy
from flwr.serverapp import ServerApp

notes = []


class Own(Strategy):
    """Mean of all clients, by site."""

    def initialize_parameters(self, client_manager):
        return None

    def configure_fit(self, server_round, parameters, client_manager):
        clients = list(client_manager.all().values())
        if server_round == 1:
            ask = GetPropertiesIns({"key": "k"})
            answers = [
                client.get_properties(ask, timeout=60, group_id=server_round).properties for client in clients
            ]
            notes.append(sorted([answer["site"], answer["asked"]] for answer in answers))
        return [(client, FitIns(parameters, {"round": server_round})) for client in clients]

    def aggregate_fit(self, server_round, results, failures):
        parts = sorted(results, key=lambda pair: pair[1].metrics["site"])
        total = sum(parameters_to_ndarrays(result.parameters)[0] for _, result in parts)
        mean = total / len(parts)
        np.savez("result.npz", mean=mean)
        return ndarrays_to_parameters([mean]), {}

    def configure_evaluate(self, server_round, parameters, client_manager):
        return [(client, EvaluateIns(parameters, {})) for client in client_manager.all().values()]

    def aggregate_evaluate(self, server_round, results, failures):
        losses = sorted(result.loss for _, result in results)
        notes.append([server_round, losses, len(failures)])
        with open("result.json", "w") as file:
            json.dump(notes, file)
        return losses[0], {}

    def evaluate(self, server_round, parameters):
        return None


app = ServerApp(config=ServerConfig(num_rounds=2, round_timeout=60), strategy=Own())
