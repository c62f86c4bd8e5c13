"""Keep a counter, a moving average and a list between messages, also past an exception."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    state = context.state
    if "count" not in state:
        state["count"] = MetricRecord({"messages": 0})
        state["average"] = ArrayRecord({"w": Array(np.zeros(4, dtype=np.float32))})
        state["seen"] = ConfigRecord({"rounds": [], "blob": b""})
    state["count"]["messages"] += 1
    number = message.content["m"]["number"]
    average = 0.9 * state["average"]["w"].numpy() + 0.1 * np.float32(
        number + int(context.node_config["site"])
    )
    state["average"] = ArrayRecord({"w": Array(average.astype(np.float32))})
    state["seen"]["rounds"] = [*state["seen"]["rounds"], number]
    state["seen"]["blob"] += bytes([number])
    if number == 2:
        raise ValueError("the state from before this line is kept")
    return Message(RecordDict(dict(state)), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    context.state["count"]["messages"] += 10
    return Message(RecordDict({"count": context.state["count"]}), reply_to=message)
