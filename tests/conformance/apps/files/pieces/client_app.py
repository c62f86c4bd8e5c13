"""Read beside the module, write to the working directory, find it again, print and log."""

import json
import logging
from pathlib import Path

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message, context):
    table = json.loads((Path(__file__).parent / "table.json").read_text())
    diary = Path("diary.txt")
    with diary.open("a") as file:
        file.write(context.node_config["name"] + "\n")
    print("a client prints")
    logging.getLogger("files").warning("a client logs")
    content = RecordDict(
        {"m": MetricRecord({"offset": table["offset"]}), "c": ConfigRecord({"diary": diary.read_text()})}
    )
    return Message(content, reply_to=message)
