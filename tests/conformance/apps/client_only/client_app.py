"""An app that leaves the server's part to whoever runs it."""

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def initial_arrays():
    """Return the first model."""
    return {"w": Array(np.linspace(0, 1, 5)), "b": Array(np.ones((2, 2), dtype=np.float32))}


@app.train()
def train(message, context):
    site = int(context.node_config["site"])
    arrays = {
        name: Array((a.numpy() * 0.5 + np.sqrt(1 + site)).astype(a.numpy().dtype))
        for name, a in message.content["arrays"].items()
    }
    metrics = MetricRecord({"num-examples": 3 + site, "loss": 1.0 / 3 + site})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    total = sum(float(array.numpy().sum()) for array in message.content["arrays"].values())
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 2, "sum": total})}), reply_to=message)
