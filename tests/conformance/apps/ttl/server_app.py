"""A message whose time passes is answered by an error, and the run goes on."""

import json

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    seen = []
    for ttl, seconds in ((None, 0.0), (300.0, 0.0), (0.5, 1.5), (300.0, 0.0)):
        content = RecordDict({"m": MetricRecord({"seconds": seconds})})
        messages = [Message(content, node, "query", ttl=ttl, group_id="g") for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(messages, timeout=60))
        seen.append(
            [
                ["error", reply.error.code] if reply.has_error() else dict(reply.content["m"])
                for reply in replies
            ]
        )
    with open("result.json", "w") as file:
        json.dump(seen, file)
