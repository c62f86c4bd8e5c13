"""Push messages, poll for their replies, and find each reply's message by its id."""

import json
import time

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    nodes = list(grid.get_node_ids())
    numbers = {}
    for wave in range(3):
        messages = [
            Message(RecordDict({"m": MetricRecord({"number": 10 * wave + place})}), node, "query")
            for place, node in enumerate(nodes)
        ]
        for message_id, place in zip(grid.push_messages(messages), range(len(nodes)), strict=True):
            numbers[message_id] = (wave, place)
    assert len(numbers) == 3 * len(nodes), "every message has an id of its own"
    waiting, squares, doubled = set(numbers), {}, 0
    while waiting:
        replies = list(grid.pull_messages(waiting))
        for reply in replies:
            message_id = reply.metadata.reply_to_message_id
            doubled += message_id in squares
            squares[message_id] = (reply.content["m"]["square"], reply.content["m"]["site"])
            waiting.discard(message_id)
        if not replies:
            time.sleep(0.01)
    with open("result.json", "w") as file:
        json.dump(
            {
                "doubled": doubled,
                "squares": sorted([*numbers[key], *value] for key, value in squares.items()),
            },
            file,
        )
