"""FedBuff, whose aggregator is killed at steps of its life: the next one makes the same model.

The order in which clients answer decides what an asynchronous model is, so this app fixes it: edge-2 answers
its m-th message when edge-1 has begun with its message 3 m + 1, and edge-1 goes on from there when edge-2 has
begun with its next. Who has been asked again has had its reply taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.runtime import failpoints
from tests.process import counting, federations, running

pytestmark = [pytest.mark.process, pytest.mark.slow]

VERSIONS = 4

SERVER_APP = '''
"""FedBuff on two edges."""

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp

from federation.strategies import FedBuff

app = ServerApp()


@app.main()
def main(grid, context):
    FedBuff(buffer_size=2, server_learning_rate=0.7, min_available_nodes=2).start(
        grid=grid,
        initial_arrays=ArrayRecord({"w": Array(np.zeros(9, np.float32))}),
        num_rounds=int(context.run_config["rounds"]),
    )
'''

CLIENT_APP = '''
"""Moves the model by what its state has counted; waits for the other edge where it has to."""

import pathlib
import time

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def begun(folder, name, call):
    return folder / f"{name}.begun-{call}"


@app.train()
def train(message, context):
    folder, name = pathlib.Path(context.run_config["signals"]), context.node_config["name"]
    state = context.state.setdefault("count", ConfigRecord({"calls": 0}))
    state["calls"] += 1
    call = state["calls"]
    with (folder / f"{name}.calls").open("a") as file:
        file.write(f"{message.content['config']['server-round']} {call}\\n")
    begun(folder, name, call).touch()
    if name == "edge-2":
        waits_for = begun(folder, "edge-1", 3 * call + 1)
    elif call > 1 and call % 3 == 1:
        waits_for = begun(folder, "edge-2", call // 3 + 1)
    else:
        waits_for = folder
    while not waits_for.exists():
        time.sleep(0.01)
    step = np.float32(call / 7 if name == "edge-1" else -call / 3)
    old = {key: array.numpy() for key, array in message.content["arrays"].items()}
    arrays = {key: Array(array * np.float32(0.9) + step) for key, array in old.items()}
    metrics = MetricRecord({"num-examples": 10, "call": call})
    return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message, context):
    total = float(message.content["arrays"]["w"].numpy().sum())
    return Message(RecordDict({"m": MetricRecord({"num-examples": 1, "total": total})}), reply_to=message)
'''

TAKEN = {
    # The version of the model (and one) that each message carried, and which call of the app it was.
    "edge-1": ["1 1", "1 2", "2 3", "2 4", "3 5", "4 6", "4 7"],
    "edge-2": ["1 1", "3 2"],
}
"""A1 and A2 make version 1, A3 and B1 make 2, A4 and A5 make 3, A6 and B2 make 4; nobody waits for A7."""

PLACES = [
    ("aggregator.batch-written", 3),
    ("aggregator.batch-sent", 6),
    ("aggregator.reply-received", 4),
    ("aggregator.reply-written", 2),
    ("aggregator.batch-closed", 1),
    ("aggregator.app-ended", 1),
]


def scenario(tmp_path: Path, signals: Path) -> Path:
    config = {"rounds": VERSIONS, "signals": str(signals)}
    spec = {"app": {"source": {"path": "app"}, "runConfig": config}, "clusters": {"minimum": 2}}
    written = federations.Federation(
        federations.honest(2), spec, client_app=CLIENT_APP, server_app=SERVER_APP
    )
    return written.write(tmp_path / "scenario")


def calls(signals: Path) -> dict[str, list[str]]:
    return {edge: (signals / f"{edge}.calls").read_text().splitlines() for edge in TAKEN}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a run that nobody disturbed."""
    place = tmp_path_factory.mktemp("reference")
    (place / "signals").mkdir()
    run = running.simulate(place, scenario(place, place / "signals"))
    assert run.process.returncode == 0, run.told()
    assert calls(place / "signals") == TAKEN
    return run.report


@pytest.mark.parametrize(("place", "visit"), PLACES)
def test_a_killed_aggregator_goes_on(
    place: str, visit: int, tmp_path: Path, start: Any, reference: dict[str, Any]
) -> None:
    """The model and the metrics are the same to the bit, and no client was asked twice."""
    plan, signals = tmp_path / "failpoints", tmp_path / "signals"
    for directory in (plan, signals):
        directory.mkdir()
    (plan / place).write_text(str(visit))

    run = start(
        "simulate", scenario(tmp_path, signals), "-o", "json", environment={failpoints.VARIABLE: str(plan)}
    )

    counting.ended_as(run, reference)
    assert (plan / f"{place}.visits").stat().st_size >= visit, "it was killed there"
    assert calls(signals) == TAKEN
