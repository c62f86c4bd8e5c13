"""A loop of one's own on the Grid: weighted Newton steps, no Strategy."""

import json

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


def ask(grid, nodes, message_type, content, group):
    """Send the same content to each node and return the replies in the order that they come."""
    messages = [Message(content, node, message_type, group_id=group) for node in nodes]
    return list(grid.send_and_receive(messages, timeout=60))


@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    empty = RecordDict()
    rows = [reply.content["m"]["rows"] for reply in ask(grid, nodes, "query.count", empty, "count")]
    names = [reply.content["c"]["name"] for reply in ask(grid, nodes, "query", empty, "name")]
    w, history = np.zeros(6), []
    for step in range(3):
        content = RecordDict({"model": ArrayRecord({"w": Array(w)})})
        parts = {}
        for action in ("gradient", "hessian_diagonal"):
            replies = ask(grid, nodes, f"train.{action}", content, str(step))
            total = np.zeros_like(w)
            for reply, weight in zip(replies, rows, strict=True):
                total += reply.content["out"]["w"].numpy() * weight
            parts[action] = total
        w = w - parts["gradient"] / parts["hessian_diagonal"]
        content = RecordDict({"model": ArrayRecord({"w": Array(w)})})
        history.append(
            [reply.content["m"]["worst"] for reply in ask(grid, nodes, "evaluate.worst", content, str(step))]
        )
    np.savez("result.npz", w=w)
    with open("result.json", "w") as file:
        json.dump({"rows": rows, "names": names, "worst": history}, file)
