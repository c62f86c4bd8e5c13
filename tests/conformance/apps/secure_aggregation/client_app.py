"""A NumPyClient behind Flower's SecAgg+ mod, whose state lives between the four messages of a round."""

import numpy as np
from flwr.client import NumPyClient
from flwr.client.mod import secaggplus_mod
from flwr.clientapp import ClientApp


class Client(NumPyClient):
    """Pull the parameters towards this site's number."""

    def __init__(self, site):
        self.site = site

    def fit(self, parameters, config):
        np.random.seed(self.site)
        return [0.5 * array + 0.25 * self.site for array in parameters], 1, {}

    def evaluate(self, parameters, config):
        return float(abs(parameters[0] - self.site).sum()), 1, {}


def client_fn(context):
    return Client(int(context.node_config["site"])).to_client()


app = ClientApp(client_fn=client_fn, mods=[secaggplus_mod])
