"""Fail in several ways at one site."""

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


class OwnError(Exception):
    """An exception of the app's own."""


@app.train()
def train(message, context):
    site, server_round = int(context.node_config["site"]), int(message.content["config"]["server-round"])
    if site == 1 and server_round == 2:
        raise OwnError("no power today")
    if site == 2 and server_round == 3:
        return message.content["nothing"]
    arrays = {
        name: Array(array.numpy() + (1 + site) / 8) for name, array in message.content["arrays"].items()
    }
    content = {
        "arrays": ArrayRecord(arrays),
        "metrics": MetricRecord({"num-examples": 1 + site, "loss": 1.0 / (1 + site)}),
    }
    return Message(RecordDict(content), reply_to=message)


@app.query()
def query(message, context):
    return Message(
        RecordDict({"m": MetricRecord({"ratio": 1 / int(context.node_config["site"])})}), reply_to=message
    )
