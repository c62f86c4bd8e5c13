"""Say who one is."""

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    metrics = MetricRecord({"site": int(context.node_config["site"])})
    return Message(RecordDict({"m": metrics}), reply_to=message)
