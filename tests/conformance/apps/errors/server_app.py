"""Go on when clients fail, and see their errors as Flower shows them."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    result = FedAvg(fraction_evaluate=0.0).start(grid, ArrayRecord({"w": Array(np.zeros(3))}), num_rounds=4)
    errors = []
    for message_type in ("query", "query.unknown", "evaluate"):
        for reply in grid.send_and_receive([Message(RecordDict(), node, message_type) for node in nodes]):
            swapped = reply.metadata.src_node_id in nodes and reply.metadata.dst_node_id == 1
            told = [reply.error.code, reply.error.reason] if reply.has_error() else dict(reply.content["m"])
            errors.append([message_type, swapped, reply.metadata.message_type, reply.has_content(), told])
    np.savez("result.npz", w=result.arrays["w"].numpy())
    with open("result.json", "w") as file:
        json.dump(
            {"train": {n: dict(m) for n, m in result.train_metrics_clientapp.items()}, "errors": errors}, file
        )
