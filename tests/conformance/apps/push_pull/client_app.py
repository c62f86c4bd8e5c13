"""Answer with a square."""

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def square(message, context):
    number = message.content["m"]["number"]
    metrics = MetricRecord({"square": number * number, "site": int(context.node_config["site"])})
    return Message(RecordDict({"m": metrics}), reply_to=message)
