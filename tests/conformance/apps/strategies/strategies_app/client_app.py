"""Train and evaluate without chance: arrays move towards a target that differs by site."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import adaptiveclipping_mod, fixedclipping_mod

CLIPPING = {
    "DifferentialPrivacyClientSideFixedClipping": fixedclipping_mod,
    "DifferentialPrivacyClientSideAdaptiveClipping": adaptiveclipping_mod,
}


def clip(message, context, call_next):
    """Clip where the strategy leaves clipping to the client."""
    mod = CLIPPING.get(context.run_config["strategy"])
    if mod is None or message.metadata.message_type != "train":
        return call_next(message, context)
    return mod(message, context, call_next)


app = ClientApp(mods=[clip])


def target(shape, site):
    """Where this site pulls the model."""
    return np.sin(np.arange(int(np.prod(shape)), dtype=np.float64) + site).reshape(shape)


def trees(model_bytes, site, bagging):
    """Add a tree to a boosted model; a bagging client returns its new tree alone."""
    number = 0
    model = json.loads(model_bytes) if model_bytes else None
    if model is not None:
        number = len(model["learner"]["gradient_booster"]["model"]["trees"])
    tree = {"id": 0 if bagging else number, "base_weights": [round(0.1 * site + 0.01 * number, 6)]}
    old = [] if model is None or bagging else model["learner"]["gradient_booster"]["model"]["trees"]
    grown = [*old, tree]
    booster = {
        "gbtree_model_param": {"num_trees": str(len(grown)), "num_parallel_tree": "1"},
        "iteration_indptr": list(range(len(grown) + 1)),
        "trees": grown,
        "tree_info": [0] * len(grown),
    }
    return json.dumps({"learner": {"gradient_booster": {"model": booster, "name": "gbtree"}}}).encode()


@app.train()
def train(message, context):
    """Take one step, or grow one tree."""
    site, strategy = int(context.node_config["site"]), str(context.run_config["strategy"])
    server_round = int(message.content["config"]["server-round"])
    mu = float(message.content["config"].get("proximal-mu", 0.0))
    received = message.content["arrays"]
    if strategy.startswith("FedXgb"):
        grown = trees(received["0"].numpy().tobytes(), site, strategy == "FedXgbBagging")
        arrays = ArrayRecord([np.frombuffer(grown, dtype=np.uint8)])
        loss = 1.0 / (1 + len(grown))
    else:
        new, loss = {}, 0.0
        for name, array in received.items():
            old = array.numpy()
            pull = (target(old.shape, site) - old) * (0.3 / (1.0 + mu))
            new[name] = Array((old + pull).astype(old.dtype))
            loss += float(np.abs(pull).sum())
        arrays = ArrayRecord(new)
    metrics = {"loss": loss / server_round, "train_loss": loss, "num-examples": 10 + 3 * site}
    return Message(RecordDict({"arrays": arrays, "metrics": MetricRecord(metrics)}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    """Measure the distance to this site's target."""
    site = int(context.node_config["site"])
    distance = sum(
        float(np.abs(array.numpy() - target(array.numpy().shape, site)).sum())
        for array in message.content["arrays"].values()
    )
    metrics = MetricRecord({"distance": distance, "num-examples": 5 + site})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
