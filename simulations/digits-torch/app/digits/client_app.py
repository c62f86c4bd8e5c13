"""What runs at a site."""

from functools import cache

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from digits import data, model

app = ClientApp()


@cache
def rows(site, sites, concentration, seed):
    """Deal the digits out once in a process's life."""
    return data.load(site, sites, concentration, seed)


def setting(context):
    """Return this site's rows."""
    config, node = context.run_config, context.node_config
    return rows(
        int(node["partition-id"]),
        int(node["num-partitions"]),
        float(config["concentration"]),
        int(config["seed"]),
    )


def received(message, context):
    """Return the network that came with a message."""
    network = model.new(int(context.run_config["seed"]))
    network.load_state_dict(message.content["arrays"].to_torch_state_dict())
    return network


@app.train()
def train(message: Message, context: Context) -> Message:
    """Improve the network on this site's digits."""
    (images, labels), _ = setting(context)
    config = context.run_config
    network = received(message, context)
    server_round = int(message.content["config"]["server-round"])
    loss = model.train(
        network,
        images,
        labels,
        epochs=int(config["local-epochs"]),
        batch_size=int(config["batch-size"]),
        learning_rate=float(config["learning-rate"]),
        momentum=float(config["momentum"]),
        # Another order in every round and at every site, the same in every run.
        seed=int(config["seed"]) * 1_000_003
        + server_round * 1_009
        + int(context.node_config["partition-id"]),
    )
    content = {
        "arrays": ArrayRecord(network.state_dict()),
        "metrics": MetricRecord({"loss": loss, "num-examples": len(labels)}),
    }
    return Message(content=RecordDict(content), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Judge the network on the quarter of this site's digits that training never sees."""
    _, (images, labels) = setting(context)
    metrics = {**model.evaluate(received(message, context), images, labels), "num-examples": len(labels)}
    return Message(content=RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)
