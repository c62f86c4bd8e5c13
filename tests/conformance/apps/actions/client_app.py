"""Actions of each category beside the default ones."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("count")
def count(message, context):
    """Tell how many rows there are, without the rows."""
    return Message(
        RecordDict({"m": MetricRecord({"rows": 10 + int(context.node_config["site"])})}), reply_to=message
    )


@app.query()
def name(message, context):
    """Answer the default query."""
    return Message(RecordDict({"c": ConfigRecord({"name": context.node_config["name"]})}), reply_to=message)


@app.train("gradient")
def gradient(message, context):
    """Return a gradient instead of a model."""
    w = message.content["model"]["w"].numpy()
    return _arrays(message, 2 * (w - np.cos(np.arange(w.size) * (1 + int(context.node_config["site"])))))


@app.train("hessian_diagonal")
def hessian_diagonal(message, context):
    """Return a curvature."""
    return _arrays(
        message,
        np.full(message.content["model"]["w"].numpy().shape, 2.0 + 0.1 * int(context.node_config["site"])),
    )


@app.evaluate("worst")
def worst(message, context):
    """Return the worst coordinate."""
    w = message.content["model"]["w"].numpy()
    error = float(np.abs(w - np.cos(np.arange(w.size) * (1 + int(context.node_config["site"])))).max())
    return Message(RecordDict({"m": MetricRecord({"worst": error})}), reply_to=message)


def _arrays(message, values):
    return Message(RecordDict({"out": ArrayRecord({"w": Array(values)})}), reply_to=message)
