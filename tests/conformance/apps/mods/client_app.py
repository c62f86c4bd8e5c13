"""Mods of the app and of one function, in their order; Flower's own and some of one's own."""

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import arrays_size_mod, message_size_mod


def named(name):
    """Make a mod that notes when it is entered and left."""

    def mod(message, context, call_next):
        context.state.setdefault("trail", ConfigRecord({"names": []}))
        context.state["trail"]["names"] = [*context.state["trail"]["names"], f"{name} in"]
        reply = call_next(message, context)
        context.state["trail"]["names"] = [*context.state["trail"]["names"], f"{name} out"]
        reply.content["trail"] = ConfigRecord({"names": list(context.state["trail"]["names"])})
        return reply

    return mod


def doubling(message, context, call_next):
    """Change the message on its way in and the reply on its way out."""
    message.content["m"] = MetricRecord({"number": message.content["m"]["number"] * 2})
    reply = call_next(message, context)
    reply.content["m"]["number"] += 1
    return reply


def guard(message, context, call_next):
    """Answer without asking the function."""
    if message.content["m"]["number"] > 100:
        return Message(RecordDict({"m": MetricRecord({"number": -1})}), reply_to=message)
    return call_next(message, context)


app = ClientApp(mods=[message_size_mod, named("app"), guard])


@app.train(mods=[arrays_size_mod, named("function"), doubling])
def train(message, context):
    return Message(
        RecordDict({"m": MetricRecord({"number": message.content["m"]["number"]})}), reply_to=message
    )


@app.evaluate()
def evaluate(message, context):
    return Message(
        RecordDict({"m": MetricRecord({"number": message.content["m"]["number"]})}), reply_to=message
    )
