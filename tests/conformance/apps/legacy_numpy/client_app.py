"""A NumPyClient, as apps were written before the message API."""

import numpy as np
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


class Client(NumPyClient):
    """Pull the parameters towards this site's number."""

    def __init__(self, site):
        self.site = site

    def get_parameters(self, config):
        return [np.full((3, 2), float(self.site)), np.zeros(1, dtype=np.float32)]

    def get_properties(self, config):
        return {"site": self.site, "name": f"site-{self.site}"}

    def fit(self, parameters, config):
        new = [(0.7 * p + 0.3 * np.cos(self.site + config["round"])).astype(p.dtype) for p in parameters]
        return new, 5 + self.site, {"loss": 1.0 / (1 + self.site)}

    def evaluate(self, parameters, config):
        distance = float(sum(np.abs(p - self.site).sum() for p in parameters))
        return distance, 2 + self.site, {"distance": distance}


def client_fn(context):
    return Client(int(context.node_config["site"])).to_client()


app = ClientApp(client_fn=client_fn)
