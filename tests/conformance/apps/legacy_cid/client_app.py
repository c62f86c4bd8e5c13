"""The oldest form of client_fn, which is given a client id."""

import numpy as np
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp


class Own(NumPyClient):
    """Add the length of the id; it is the node's id, which differs from host to host."""

    def __init__(self, cid):
        self.cid = cid

    def fit(self, parameters, config):
        return [array + isinstance(self.cid, str) for array in parameters], 5, {}

    def evaluate(self, parameters, config):
        return float(np.sum(parameters[0])), 5, {"number": int(self.cid) > 1}


def client_fn(cid: str):
    return Own(cid).to_client()


app = ClientApp(client_fn)
