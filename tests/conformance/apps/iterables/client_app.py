"""Count messages."""

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message, context):
    context.state.setdefault("count", MetricRecord({"n": 0}))
    context.state["count"]["n"] += 1
    metrics = {"n": context.state["count"]["n"], "number": message.content["m"]["number"]}
    return Message(RecordDict({"m": MetricRecord(metrics)}), reply_to=message)
