"""Processes of this version and of the one before, or after, in one federation: it trains as ever.

So it is while Hanse is upgraded in the middle of a training: the hub before the edges or after them, and an
aggregator that goes on where one of another version was.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from federation.runtime import failpoints
from federation.wire import protocol
from tests.process import counting, running

pytestmark = [pytest.mark.process, pytest.mark.slow]

THIS = {"hanse": "0.1.0", "oldest": protocol.OLDEST, "newest": protocol.NEWEST}
NEXT = {"hanse": "0.2.0", "oldest": protocol.NEWEST, "newest": protocol.NEWEST + 1}
"""What follows speaks its own protocol and this one."""

COORDINATOR, AGGREGATOR = "coordinator", "coordinator.aggregator"
AGENT, CLIENT = "edge_agent", "edge_agent.client"
VERSIONS = Path(__file__).parent / "versions"

Plan = dict[str, list[dict[str, Any]]]

CASES: dict[str, Plan] = {
    "hub-first": {COORDINATOR: [NEXT], AGGREGATOR: [NEXT], AGENT: [THIS], CLIENT: [THIS]},
    "edges-first": {COORDINATOR: [THIS], AGGREGATOR: [THIS], AGENT: [NEXT], CLIENT: [NEXT]},
    "one-edge-first": {COORDINATOR: [THIS], AGGREGATOR: [THIS], AGENT: [NEXT, THIS], CLIENT: [NEXT, THIS]},
    "coordinator-first": {COORDINATOR: [NEXT], AGGREGATOR: [THIS], AGENT: [THIS], CLIENT: [NEXT]},
    "aggregator-in-mid-training": {
        COORDINATOR: [NEXT],
        AGGREGATOR: [THIS, NEXT],
        AGENT: [THIS],
        CLIENT: [THIS],
    },
    "back-in-mid-training": {COORDINATOR: [THIS], AGGREGATOR: [NEXT, THIS], AGENT: [THIS], CLIENT: [THIS]},
}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a run in which all are of this version."""
    return counting.undisturbed(tmp_path_factory.mktemp("reference"))


def environment(plan: Path) -> dict[str, str]:
    """What lets processes be of the versions that stand in this directory."""
    path = os.pathsep.join(map(str, (running.ROOT, VERSIONS)))
    return {failpoints.VARIABLE: str(plan), "PYTHONPATH": path}


@pytest.mark.parametrize("case", CASES)
def test_versions_next_to_each_other_train_together(
    case: str, tmp_path: Path, start: Any, reference: dict[str, Any]
) -> None:
    """The same model and metrics, and nobody was asked twice, whoever was upgraded first."""
    plan, signals = tmp_path / "plan", tmp_path / "signals"
    for directory in (plan, signals):
        directory.mkdir()
    versions = CASES[case]
    (plan / "versions.json").write_text(json.dumps(versions))
    if replaced := len(versions[AGGREGATOR]) > 1:
        (plan / "aggregator.reply-written").write_text("5")
    run = start("simulate", counting.scenario(tmp_path, signals), "-o", "json", environment=environment(plan))
    counting.ended_as(run, reference)
    for edge in ("edge-1", "edge-2"):
        assert counting.calls(signals, edge) == counting.UNDISTURBED
    starts = {module: (plan / f"{module}.starts").stat().st_size for module in versions}
    assert starts == {COORDINATOR: 1, AGGREGATOR: 1 + replaced, AGENT: 2, CLIENT: 2}


FAR = {"hanse": "0.3.0", "oldest": protocol.NEWEST + 1, "newest": protocol.NEWEST + 2}


def test_versions_too_far_apart_say_so(tmp_path: Path, start: Any) -> None:
    """Neither side guesses: each agent says what both speak, and what to do."""
    plan, signals = tmp_path / "plan", tmp_path / "signals"
    for directory in (plan, signals):
        directory.mkdir()
    (plan / "versions.json").write_text(json.dumps({COORDINATOR: [FAR]}))
    run = start("simulate", counting.scenario(tmp_path, signals), "-o", "json", environment=environment(plan))
    said = "the caller speaks protocol 1 to 1 and this side 2 to 3; update the older of the two"
    run.until(lambda: run.told().count(said) == 2, "both agents said so")
    run.end()
