"""Step towards one number, the same at each site: which of them is asked is the strategy's to choose."""

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    old = {name: array.numpy() for name, array in message.content["arrays"].items()}
    arrays = {name: Array((a + 0.3 * (7 - a)).astype(a.dtype)) for name, a in old.items()}
    metrics = MetricRecord({"num-examples": 3, "rate": message.content["config"]["rate"]})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    w = message.content["arrays"]["w"].numpy()
    metrics = MetricRecord({"num-examples": 1, "distance": float(abs(w - 7).sum())})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
