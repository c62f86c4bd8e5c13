"""The older Client, with its messages of its own types."""

import numpy as np
from flwr.client import Client
from flwr.clientapp import ClientApp
from flwr.common import (
    Code,
    EvaluateRes,
    FitRes,
    GetParametersRes,
    GetPropertiesRes,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)

OK = Status(Code.OK, "")


class Own(Client):
    """Answer all four kinds of message."""

    def __init__(self, site):
        self.site = site

    def get_properties(self, ins):
        return GetPropertiesRes(OK, {"site": self.site, "asked": ins.config["key"]})

    def get_parameters(self, ins):
        return GetParametersRes(OK, ndarrays_to_parameters([np.full(3, 1.5)]))

    def fit(self, ins):
        new = [array + 0.1 * (self.site + 1) for array in parameters_to_ndarrays(ins.parameters)]
        return FitRes(OK, ndarrays_to_parameters(new), 1 + self.site, {"site": self.site})

    def evaluate(self, ins):
        total = float(sum(array.sum() for array in parameters_to_ndarrays(ins.parameters)))
        return EvaluateRes(OK, total, 1 + self.site, {"total": total})


def client_fn(context):
    return Own(int(context.node_config["site"]))


app = ClientApp(client_fn)
