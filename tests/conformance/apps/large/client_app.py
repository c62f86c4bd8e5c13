"""Return a large array, changed, and the digest of the one that came."""

import hashlib

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    values = message.content["a"]["big"].numpy()
    digest = hashlib.sha256(values.tobytes()).hexdigest()
    arrays = ArrayRecord({"big": Array(values * -2 + int(context.node_config["site"]))})
    return Message(RecordDict({"a": arrays, "c": ConfigRecord({"digest": digest})}), reply_to=message)
