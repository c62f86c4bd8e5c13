"""Echo everything, and tell what was seen."""

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message, context):
    order = [f"{name}:{type(record).__name__}:{list(record)}" for name, record in message.content.items()]
    content = RecordDict(dict(message.content))
    content["order"] = ConfigRecord({"seen": order})
    return Message(content, reply_to=message)
