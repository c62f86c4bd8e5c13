"""What runs beside a hospital's file: training and evaluation on that hospital's own rows."""

from functools import cache

from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from heart import data, model

app = ClientApp()


@cache
def hospital(path):
    """Read the file once: training rows, and the quarter that training never sees."""
    features, labels, keys = data.load(path)
    train, held_out = data.split(labels, keys)
    return (features[train], labels[train]), (features[held_out], labels[held_out])


def received(message):
    """Return the model that came with a message."""
    return {name: array.numpy() for name, array in message.content["arrays"].items()}


@app.train()
def train(message: Message, context: Context) -> Message:
    """Improve the federation's model on this hospital's training rows."""
    (features, labels), _ = hospital(str(context.node_config["data"]))
    config = context.run_config
    trained = model.train(
        received(message),
        features,
        labels,
        steps=int(config["local-steps"]),
        learning_rate=float(config["learning-rate"]),
        weight_decay=float(config["weight-decay"]),
    )
    metrics = {"loss": model.evaluate(trained, features, labels)["loss"], "num-examples": len(labels)}
    arrays = ArrayRecord({name: Array(value) for name, value in trained.items()})
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Judge the federation's model on this hospital's held-out rows."""
    _, (features, labels) = hospital(str(context.node_config["data"]))
    metrics = {**model.evaluate(received(message), features, labels), "num-examples": len(labels)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
