"""What runs beside the data, if there were any.

Training changes one value of each array: what comes back is another model, as after any training, so that
no side can do without sending, hashing or reading it. Evaluating looks at nothing.
"""

import time

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Return the model with one value of each array changed, and the seconds that this took."""
    started = time.perf_counter()
    arrays = ArrayRecord()
    for name, array in message.content.array_records["arrays"].items():
        values = array.numpy()
        values[0] += 1.0
        arrays[name] = Array(values)
    metrics = MetricRecord({"num-examples": 1, "app-seconds": time.perf_counter() - started})
    return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Return a number."""
    metrics = MetricRecord({"num-examples": 1, "loss": 0.0})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=message)
