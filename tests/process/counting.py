"""A federation whose model tells whether anything was lost or done twice.

The app counts its calls in context.state, and the count is in the model: a state that was lost, or counted
twice, gives another model. Each call is written down as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.process import federations, running

ROUNDS = 4
VICTIM = "edge-1"

CLIENT_APP = '''
"""Adds what its state has counted to the model; says when it works, and waits where it is asked to."""

import os
import pathlib
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def worked(context, what):
    """Write down each call with the state that it met, before anything is done."""
    state = context.state.setdefault("count", ConfigRecord({"calls": 0, "of": []}))
    folder = pathlib.Path(context.run_config["signals"])
    with (folder / f"{context.node_config['name']}.calls").open("a") as file:
        file.write(f"{what} {state['calls']}\\n")
    state["calls"] += 1
    state["of"] = [*state["of"], what]
    context.state["noise"] = ArrayRecord({"n": Array(np.full(1000, state["calls"], np.float64))})
    gate = folder / f"{context.node_config['name']}.{what}"
    if gate.exists():
        (folder / "at-work").write_text(str(os.getpid()))
        while gate.exists():
            time.sleep(0.01)
    return state["calls"]


@app.train()
def train(message, context):
    calls = worked(context, f"train-{message.content['config']['server-round']}")
    values = {name: array.numpy() * np.float32(1.1) + np.float32(calls / 7)
              for name, array in message.content["arrays"].items()}
    return Message(
        RecordDict({
            "arrays": ArrayRecord({name: Array(value) for name, value in values.items()}),
            "metrics": MetricRecord({"num-examples": 10}),
        }),
        reply_to=message,
    )


@app.evaluate()
def evaluate(message, context):
    calls = worked(context, f"evaluate-{message.content['config']['server-round']}")
    metrics = MetricRecord({"calls": calls, "num-examples": 4})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
'''


OWN_LOOP = '''
"""A loop of its own over the Grid, of which no snapshot is taken: its journal keeps every reply."""

import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    model = {"weights": np.zeros((4, 3), np.float32), "bias": np.zeros(3, np.float32)}
    while len(list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    for number in range(1, int(context.run_config["rounds"]) + 1):
        replies = ask(grid, "train", number, model)
        model = {name: np.mean([reply.content["arrays"][name].numpy() for reply in replies], axis=0)
                 for name in model}
        ask(grid, "evaluate", number, model)


def ask(grid, what, number, model):
    content = RecordDict({
        "arrays": ArrayRecord({name: Array(value) for name, value in model.items()}),
        "config": ConfigRecord({"server-round": number}),
    })
    nodes = sorted(grid.get_node_ids())
    asked = [Message(content, node, what, group_id=str(number)) for node in nodes]
    replies = list(grid.send_and_receive(asked))
    assert not any(reply.has_error() for reply in replies)
    return sorted(replies, key=lambda reply: reply.metadata.src_node_id)
'''

LARGE_MODEL = federations.SERVER_APP.replace("np.zeros((4, 3)", "np.zeros((1_500_000, 1)")
"""A model of 6 MB."""


def scenario(tmp_path: Path, signals: Path, server_app: str = federations.SERVER_APP) -> Path:
    """Two such edges, in `tmp_path`."""
    config = {"rounds": ROUNDS, "signals": str(signals)}
    spec = {"app": {"source": {"path": "app"}, "runConfig": config}, "clusters": {"minimum": 2}}
    edges = federations.honest(2)
    written = federations.Federation(edges, spec, client_app=CLIENT_APP, server_app=server_app)
    return written.write(tmp_path / "scenario")


def calls(signals: Path, edge: str) -> list[tuple[str, int]]:
    """What the app was asked, in order, and how many calls its state had counted before."""
    lines = (signals / f"{edge}.calls").read_text().splitlines()
    return [(what, int(count)) for what, count in (line.split() for line in lines)]


UNDISTURBED = [
    (f"{what}-{number}", 2 * (number - 1) + (what == "evaluate"))
    for number in range(1, ROUNDS + 1)
    for what in ("train", "evaluate")
]


def undisturbed(place: Path, server_app: str = federations.SERVER_APP) -> dict[str, Any]:
    """The report of a run that nobody disturbs."""
    (place / "signals").mkdir()
    run = running.simulate(place, scenario(place, place / "signals", server_app))
    assert run.process.returncode == 0, run.told()
    assert calls(place / "signals", VICTIM) == UNDISTURBED
    return run.report


def ended_as(run: running.Run, reference: dict[str, Any]) -> None:
    """The run ends with the model, and the metrics, of one that nobody disturbed."""
    assert run.wait() == 0, run.told()
    assert run.report["state"] == "Completed"
    assert run.report["model"]["sha256"] == reference["model"]["sha256"], run.told()
    assert run.report["metrics"] == reference["metrics"]
    run.assert_nothing_left()
