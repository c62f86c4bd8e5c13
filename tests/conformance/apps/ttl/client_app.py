"""Be late when asked to."""

import time

from flwr.app import Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message, context):
    time.sleep(message.content["m"]["seconds"])
    reply = Message(RecordDict({"m": MetricRecord({"ttl": message.metadata.ttl})}), reply_to=message)
    reply.content["m"]["within"] = int(reply.metadata.ttl <= message.metadata.ttl)
    return reply
