"""A lifespan around every message, also around one that fails."""

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def note(context, event):
    """Remember an event in the state."""
    context.state.setdefault("log", ConfigRecord({"events": []}))
    context.state["log"]["events"] = [*context.state["log"]["events"], event]


@app.lifespan()
def lifespan(context):
    note(context, "enter")
    try:
        yield
    finally:
        note(context, "leave")


@app.query()
def query(message, context):
    note(context, "query")
    return Message(RecordDict({"log": context.state["log"]}), reply_to=message)


@app.train()
def train(message, context):
    note(context, "train")
    raise RuntimeError("after the lifespan began")
