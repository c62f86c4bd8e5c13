"""Answer with a sum."""

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message, context):
    number = message.content["m"]["number"]
    return Message(
        RecordDict({"m": MetricRecord({"sum": number + int(context.node_config["site"])})}), reply_to=message
    )
