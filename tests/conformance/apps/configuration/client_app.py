"""Tell what the context says."""

import json

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message, context):
    own = message.metadata.dst_node_id == context.node_id and message.metadata.run_id == context.run_id
    told = {
        "run": {key: [type(value).__name__, value] for key, value in sorted(context.run_config.items())},
        "node": {key: [type(value).__name__, value] for key, value in sorted(context.node_config.items())},
        "own": own,
    }
    return Message(RecordDict({"c": ConfigRecord({"told": json.dumps(told)})}), reply_to=message)
