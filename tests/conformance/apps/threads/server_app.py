"""Twenty threads on one Grid, each with rounds of its own."""

import json
import threading

from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    results, failures = {}, []

    def work(thread):
        try:
            sums = []
            for step in range(3):
                content = RecordDict({"m": MetricRecord({"number": 100 * thread + 10 * step})})
                messages = [Message(content, node, "query") for node in grid.get_node_ids()]
                replies = grid.send_and_receive(messages, timeout=60)
                sums.append(sorted(reply.content["m"]["sum"] for reply in replies))
            results[thread] = sums
        except Exception as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open("result.json", "w") as file:
        json.dump({"results": dict(sorted(results.items())), "failures": failures}, file)
