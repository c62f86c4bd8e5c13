"""Write down the configuration of the server and of every node."""

import json

from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    replies = grid.send_and_receive([Message(RecordDict(), node, "query") for node in grid.get_node_ids()])
    result = {
        "server": {key: [type(value).__name__, value] for key, value in sorted(context.run_config.items())},
        "server-node": dict(context.node_config),
        "run": grid.run.run_id == context.run_id,
        "nodes": sorted(reply.content["c"]["told"] for reply in replies),
    }
    with open("result.json", "w") as file:
        json.dump(result, file)
