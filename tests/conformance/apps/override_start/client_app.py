"""Step towards the site's number at the rate that came."""

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    site, rate = int(context.node_config["site"]), message.content["config"]["rate"]
    arrays = {
        name: Array(a.numpy() + rate * (site - a.numpy())) for name, a in message.content["arrays"].items()
    }
    metrics = MetricRecord({"num-examples": 2 + site, "rate": rate})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    w = message.content["arrays"]["w"].numpy()
    metrics = MetricRecord(
        {"num-examples": 1, "distance": float(abs(w - int(context.node_config["site"])).sum())}
    )
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
