"""Aggregators that are killed with SIGKILL at each step: another goes on, nothing finished is redone.

The app is that of tests/process/counting.py. Where to kill is a named place in the code, never a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from coordinator.aggregator import compaction
from federation.runtime import failpoints
from tests.process import counting, federations

pytestmark = [pytest.mark.process, pytest.mark.slow]

PLACES = {
    # place: the visit at which the aggregator dies
    "aggregator.journal-opened": (1,),
    "aggregator.fact-written": (1,),
    "aggregator.hello-heard": (1,),
    "aggregator.client-welcomed": (2,),
    "aggregator.app-starts": (1, 2),
    "aggregator.journal-sync": (3,),
    "aggregator.arrays-synced": (5,),
    "aggregator.entries-sync": (6,),
    "aggregator.entries-written": (2,),
    "aggregator.batch-written": (1, 4),
    "aggregator.batch-sent": (1, 5, 8),
    "aggregator.reply-begins": (3,),
    "aggregator.reply-received": (1, 6),
    "aggregator.reply-written": (7,),
    "aggregator.reply-confirmed": (4, 9),
    "aggregator.batch-closed": (1, 3, 8),
    "aggregator.snapshot-sync": (1,),
    "aggregator.snapshot-written": (1,),
    "aggregator.snapshot-counts": (1,),
    "aggregator.resumed": (1,),
    "aggregator.app-ended": (1,),
    "aggregator.model-written": (1,),
    "aggregator.model-stored": (1,),
}
"""Some need a death before: a place that is passed after a restart only, or a second time."""

AFTER_THE_END = {"aggregator.hub-told", "aggregator.arrays-dropped"}
"""The command may be over before the aggregator comes there; simulations/chaos waits for it."""

WHERE_THE_APP_DIFFERS = {"aggregator.journal-cut"}

OF_LARGE_REPLIES = {"aggregator.part-kept": (3,)}
"""What the replies of a small model do not pass."""

NEEDS_ANOTHER = {("aggregator.app-starts", 2), ("aggregator.resumed", 1)}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a run that nobody disturbed."""
    return counting.undisturbed(tmp_path_factory.mktemp("reference"))


def test_every_place_is_tried() -> None:
    """A place that is added is added here."""
    assert {
        name for name in failpoints.NAMES if name.startswith("aggregator.")
    } == PLACES.keys() | OF_LARGE_REPLIES.keys() | AFTER_THE_END | WHERE_THE_APP_DIFFERS


@pytest.mark.parametrize(("place", "visit"), [(place, visit) for place in PLACES for visit in PLACES[place]])
def test_another_aggregator_goes_on(
    place: str, visit: int, tmp_path: Path, start: Any, reference: dict[str, Any]
) -> None:
    """The model and the metrics are the same to the bit, and no client was asked twice."""
    deaths = {place: visit}
    if (place, visit) in NEEDS_ANOTHER:
        deaths["aggregator.batch-sent"] = 5
    plan, signals = tmp_path / "failpoints", tmp_path / "signals"
    for directory in (plan, signals):
        directory.mkdir()
    for name, number in deaths.items():
        (plan / name).write_text(str(number))
    scenario = counting.scenario(tmp_path, signals)

    environment = {failpoints.VARIABLE: str(plan)}
    if "snapshot" in place:  # a training as short as this one has none otherwise
        environment[compaction.RULE_VARIABLE] = "rounds=1"
    run = start("simulate", scenario, "-o", "json", environment=environment)

    counting.ended_as(run, reference)
    for name, number in deaths.items():
        assert (plan / f"{name}.visits").stat().st_size >= number, "it was killed there"
    for edge in ("edge-1", "edge-2"):
        assert counting.calls(signals, edge) == counting.UNDISTURBED


@pytest.mark.parametrize(
    ("place", "visit"), [(place, visit) for place, visits in OF_LARGE_REPLIES.items() for visit in visits]
)
def test_another_aggregator_goes_on_in_a_large_reply(
    place: str, visit: int, tmp_path: Path, start: Any
) -> None:
    """Killed while it comes: the model is the same, and no client was asked twice."""
    plan, signals = tmp_path / "failpoints", tmp_path / "signals"
    for directory in (plan, signals, tmp_path / "reference"):
        directory.mkdir()
    reference = counting.undisturbed(tmp_path / "reference", counting.LARGE_MODEL)
    (plan / place).write_text(str(visit))
    scenario = counting.scenario(tmp_path, signals, counting.LARGE_MODEL)
    run = start("simulate", scenario, "-o", "json", environment={failpoints.VARIABLE: str(plan)})
    counting.ended_as(run, reference)
    assert (plan / f"{place}.visits").stat().st_size >= visit, "it was killed there"
    for edge in ("edge-1", "edge-2"):
        assert counting.calls(signals, edge) == counting.UNDISTURBED


RESTLESS = '''
"""Sends the time of day along, which nobody wants and which is another one each time."""

import time

from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

import numpy as np

app = ServerApp()


@app.main()
def main(grid, context):
    strategy = FedAvg(min_available_nodes=2, min_train_nodes=2, min_evaluate_nodes=2)
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(4, np.float32)]),
        train_config=ConfigRecord({"time": time.time()}),
        num_rounds=context.run_config["rounds"],
    )
'''


def restless(tmp_path: Path, spec: dict[str, Any]) -> tuple[Path, dict[str, str]]:
    """A scenario whose ServerApp differs when it runs again, and what kills its aggregator in round 2."""
    plan = tmp_path / "failpoints"
    plan.mkdir()
    (plan / "aggregator.batch-sent").write_text("3")
    written = federations.Federation(
        federations.honest(2),
        {"app": {"source": {"path": "app"}, "runConfig": {"rounds": 2}}, "clusters": {"minimum": 2}} | spec,
        server_app=RESTLESS,
    )
    return written.write(tmp_path / "scenario"), {failpoints.VARIABLE: str(plan)}


def test_an_app_that_reads_the_clock_is_found(tmp_path: Path, start: Any) -> None:
    """The training fails, and says which call differs and what to do."""
    scenario, environment = restless(tmp_path, {})
    run = start("simulate", scenario, "-o", "json", environment=environment)
    assert run.wait() == 1, run.told()
    assert run.report["state"] == "Failed"
    for words in (
        "call 3 of the ServerApp, Train of round 1, sends something else to edge-1",
        "onDivergence",
    ):
        assert words in run.report["message"], run.told()
    run.assert_nothing_left()


@pytest.mark.parametrize("place", ["", *WHERE_THE_APP_DIFFERS])
def test_an_app_that_reads_the_clock_may_do_its_round_again(place: str, tmp_path: Path, start: Any) -> None:
    """With RestartRound what it did from that call on is forgotten, and the training completes.

    The first call that differed is told, by a condition of the training's status, also by an aggregator after
    the one that found it.
    """
    scenario, environment = restless(tmp_path, {"server": {"onDivergence": "RestartRound"}})
    if place:
        (tmp_path / "failpoints" / place).write_text("1")
    run = start("simulate", scenario, environment=environment)
    assert run.wait() == 0, run.told()
    told = "call 3 of the ServerApp, Train of round 1, sends something else to edge-1 than before"
    assert run.stdout.count(f"After a restart, {told}.") == 1, run.told()
    assert "forgotten and done anew" in run.stdout
    run.assert_nothing_left()
