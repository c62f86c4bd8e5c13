"""Send a large array both ways."""

import hashlib
import json

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    count = int(context.run_config["megabytes"]) * 1_000_000 // 4
    values = (np.arange(count, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(8)).astype(np.float32)
    content = RecordDict({"a": ArrayRecord({"big": Array(values)})})
    replies = grid.send_and_receive([Message(content, node, "train") for node in grid.get_node_ids()])
    seen = [
        [
            reply.content["c"]["digest"],
            hashlib.sha256(reply.content["a"]["big"].numpy().tobytes()).hexdigest(),
        ]
        for reply in replies
    ]
    with open("result.json", "w") as file:
        json.dump([hashlib.sha256(values.tobytes()).hexdigest(), sorted(seen)], file)
