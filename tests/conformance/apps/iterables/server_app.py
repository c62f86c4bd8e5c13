"""Messages from a generator, several to one node at once, replies read twice and counted."""

import json

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    shared = RecordDict({"m": MetricRecord({"number": 7})})
    seen = {}
    replies = grid.send_and_receive(Message(shared, node, "query", group_id="1") for node in nodes)
    seen["generator"] = [
        len(replies),
        [dict(r.content["m"]) for r in replies],
        [dict(r.content["m"]) for r in replies],
    ]
    several = (
        Message(RecordDict({"m": MetricRecord({"number": number})}), node, "query", group_id="2")
        for number in range(3)
        for node in nodes
    )
    replies = grid.send_and_receive(several, timeout=60)
    seen["several"] = [sorted([r.content["m"]["number"], r.content["m"]["n"]] for r in replies), len(replies)]
    seen["none"] = len(list(grid.send_and_receive([], timeout=60)))
    made = [grid.create_message(shared, "query", node, "3", ttl=60.0) for node in nodes]
    replies = list(grid.send_and_receive(made))
    seen["made"] = [[r.metadata.group_id, r.metadata.ttl <= 60.0, r.content["m"]["n"]] for r in replies]
    seen["ids"] = len({r.metadata.message_id for r in replies}) == len(nodes)
    seen["shared"] = dict(shared["m"])
    with open("result.json", "w") as file:
        json.dump(seen, file)
