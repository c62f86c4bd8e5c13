"""Noise of the client's own, by Flower's mod; seeded here so that two hosts can be compared."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod

np.random.seed(7)
app = ClientApp()


@app.train(mods=[LocalDpMod(clipping_norm=1.0, sensitivity=1.0, epsilon=5.0, delta=0.01)])
def train(message, context):
    site = int(context.node_config["site"])
    arrays = {key: Array(array.numpy() + 0.5 * site) for key, array in message.content["arrays"].items()}
    metrics = MetricRecord({"num-examples": 10, "site": site})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    total = float(sum(array.numpy().sum() for array in message.content["arrays"].values()))
    metrics = MetricRecord({"num-examples": 10, "total": total})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
