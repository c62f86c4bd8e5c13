"""Adds what its state has counted to the model, and writes down each call.

A state that was lost, or counted twice, gives another model.
"""

import os
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def count(message: Message, context: Context, what: str) -> int:
    """Write down the call with the count that it met; then count it."""
    number = message.content["config"]["server-round"]
    state = context.state.setdefault("count", ConfigRecord({"calls": 0}))
    line = f"{context.node_config['name']} {what}-{number} {state['calls']}\n"
    file = os.open(context.run_config["calls"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, line.encode())
    os.close(file)
    state["calls"] += 1
    context.state["noise"] = ArrayRecord({"n": Array(np.full(2000, state["calls"], np.float64))})
    time.sleep(0.02)  # an instant that is drawn may fall into the work
    return state["calls"]


@app.train()
def train(message: Message, context: Context) -> Message:
    """Change every value of the model, by what the state has counted."""
    calls = count(message, context, "train")
    values = {
        name: array.numpy() * np.float32(1.01) + np.float32(calls / 7)
        for name, array in message.content["arrays"].items()
    }
    arrays = ArrayRecord({name: Array(value) for name, value in values.items()})
    metrics = MetricRecord({"num-examples": 10})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Return the count, so that the metrics tell as well."""
    calls = count(message, context, "evaluate")
    metrics = MetricRecord({"calls": calls, "num-examples": 4})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
