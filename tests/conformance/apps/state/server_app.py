"""Ask several times and compare what the nodes remember."""

import json

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    seen, arrays = [], {}
    for step, message_type in enumerate(["train", "evaluate", "train", "train", "evaluate", "train"]):
        content = RecordDict({"m": MetricRecord({"number": step})})
        replies = grid.send_and_receive(
            [Message(content, node, message_type) for node in grid.get_node_ids()]
        )
        for place, reply in enumerate(replies):
            if reply.has_error():
                seen.append([step, place, reply.error.code])
                continue
            note = [step, place, reply.content["count"]["messages"]]
            if "seen" in reply.content:
                note += [list(reply.content["seen"]["rounds"]), reply.content["seen"]["blob"].hex()]
                arrays[f"{step}-{place}"] = reply.content["average"]["w"].numpy()
            seen.append(note)
    context.state["kept"] = MetricRecord({"steps": 6})
    np.savez("result.npz", **arrays)
    with open("result.json", "w") as file:
        json.dump(seen, file)
