"""A lifespan around the run; its end writes the result."""

import json

from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()
events = []


@app.lifespan()
def lifespan(context):
    events.append("enter")
    yield
    events.append("leave")
    with open("result.json", "w") as file:
        json.dump(events, file)


@app.main()
def main(grid, context):
    for message_type in ("query", "train", "query"):
        replies = list(
            grid.send_and_receive([Message(RecordDict(), node, message_type) for node in grid.get_node_ids()])
        )
        events.append(
            [
                reply.error.code if reply.has_error() else list(reply.content["log"]["events"])
                for reply in replies
            ]
        )
