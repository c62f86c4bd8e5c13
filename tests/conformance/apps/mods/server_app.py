"""Ask for what the mods did."""

import json

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    seen = []
    for message_type, number in (("train", 5), ("evaluate", 5), ("train", 1000), ("train", 6)):
        content = RecordDict({"m": MetricRecord({"number": number}), "a": ArrayRecord()})
        replies = grid.send_and_receive(
            [Message(content, node, message_type) for node in grid.get_node_ids()]
        )
        seen.append(
            [[reply.content["m"]["number"], list(reply.content["trail"]["names"])] for reply in replies]
        )
    with open("result.json", "w") as file:
        json.dump(seen, file)
