"""A training whose journal's disk is full: it waits, and ends with the same model when there is room."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import disks
from tests.process import counting, federations, running

pytestmark = [pytest.mark.process, pytest.mark.slow]


APPS = {"strategy": federations.SERVER_APP, "own loop": counting.OWN_LOOP}
"""Of the second one no snapshot is taken: all that it needs to go on stays on the disk."""


@pytest.fixture(scope="module", params=APPS.values(), ids=APPS)
def server_app(request: pytest.FixtureRequest) -> str:
    """The ServerApp's code."""
    return str(request.param)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, server_app: str) -> dict[str, Any]:
    """The report of a run that nobody disturbed."""
    return counting.undisturbed(tmp_path_factory.mktemp("reference"), server_app)


def gated(tmp_path: Path, *edges: str) -> tuple[Path, list[Path]]:
    """Where clients say what they do, and the gates before which these wait in the second round."""
    signals = tmp_path / "signals"
    signals.mkdir()
    gates = [signals / f"{edge}.train-2" for edge in edges]
    for gate in gates:
        gate.touch()
    return signals, gates


def process(run: running.Run, module: str) -> int:
    """The run's process of a module."""
    (found,) = (pid for pid, words in run.processes().items() if module in words)
    return found


def log_of_aggregator(run: running.Run) -> list[dict[str, Any]]:
    """What all aggregators of the run wrote."""
    lines: list[dict[str, Any]] = []
    for log in sorted(run.temporary.glob("*/coordinator/state/logs/aggregator-*.log")):
        for line in log.read_text().splitlines():
            if line.startswith("{"):
                lines.append(json.loads(line))
    return lines


def said(run: running.Run, event: str) -> int:
    """How often the aggregator wrote this event."""
    return sum(line.get("event") == event for line in log_of_aggregator(run))


def journal_on(run: running.Run, disk: disks.Disk, *, full: bool = False) -> None:
    """Move the journal to the small disk; its aggregator is killed for that, and another is started there.

    The coordinator stands still meanwhile, so that none is started in between. full: what SQLite needs
    to open it finds no room then.
    """
    coordinator, aggregator = process(run, "coordinator"), process(run, "coordinator.aggregator")
    os.kill(coordinator, signal.SIGSTOP)
    os.kill(aggregator, signal.SIGKILL)
    run.until(lambda: aggregator not in run.processes(), "the aggregator is gone")
    (journal,) = run.temporary.glob("*/coordinator/state/aggregators/*/*/work/journal/journal.sqlite")
    shutil.move(journal.parent, disk.path / "journal")
    journal.parent.symlink_to(disk.path / "journal")
    if full:
        (disk.path / "journal" / "journal.sqlite-shm").unlink()
        disk.fill()
    os.kill(coordinator, signal.SIGCONT)


def test_a_full_disk_is_waited_for(
    tmp_path: Path, start: Any, server_app: str, reference: dict[str, Any]
) -> None:
    """In mid-round: nothing leaves and nothing is confirmed before it is written; nothing is done twice."""
    signals, gates = gated(tmp_path, "edge-1", "edge-2")
    with disks.mounted(tmp_path, 4) as disk:
        run = start("simulate", counting.scenario(tmp_path, signals, server_app), "-o", "json")
        run.until(lambda: (signals / "at-work").exists(), "a client is at work")
        journal_on(run, disk)
        run.until(lambda: said(run, "resumed"), "another aggregator goes on")
        disk.fill()
        for gate in gates:
            gate.unlink()
        run.until(lambda: said(run, "no room for the journal"), "there is no room")
        for edge in ("edge-1", "edge-2"):
            assert counting.calls(signals, edge)[-1][0] == "train-2", "nobody is asked for more"
        disk.make_room()
        counting.ended_as(run, reference)
    for edge in ("edge-1", "edge-2"):
        assert counting.calls(signals, edge) == counting.UNDISTURBED


@pytest.mark.parametrize("server_app", [APPS["strategy"]], ids=["strategy"], indirect=True)
def test_an_aggregator_that_finds_no_room_at_its_start_is_started_later(
    tmp_path: Path, start: Any, server_app: str, reference: dict[str, Any]
) -> None:
    """That is no death; when there is room the training goes on."""
    signals, gates = gated(tmp_path, "edge-1", "edge-2")
    with disks.mounted(tmp_path, 4) as disk:
        run = start("simulate", counting.scenario(tmp_path, signals, server_app), "-o", "json")
        run.until(lambda: (signals / "at-work").exists(), "a client is at work")
        journal_on(run, disk, full=True)
        run.until(lambda: said(run, "journal not opened"), "another one finds no room")
        disk.make_room()
        for gate in gates:
            gate.unlink()
        counting.ended_as(run, reference)
    for edge in ("edge-1", "edge-2"):
        assert counting.calls(signals, edge) == counting.UNDISTURBED


@pytest.mark.parametrize("server_app", [APPS["strategy"]], ids=["strategy"], indirect=True)
def test_a_model_store_that_fails_at_the_end_is_waited_for(
    tmp_path: Path, start: Any, server_app: str, reference: dict[str, Any]
) -> None:
    """Whatever its disk says: all rounds are done, and none of them may be lost."""
    signals, (gate,) = gated(tmp_path, "edge-1")
    kept = tmp_path / "kept"
    run = start("simulate", counting.scenario(tmp_path, signals, server_app), "-o", "json", "--keep", kept)
    run.until(lambda: (signals / "at-work").exists(), "a client is at work")
    in_the_way = kept / "models" / federations.NAMESPACE
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.touch()
    gate.unlink()

    def tries() -> int:
        logs = kept.rglob("aggregator-*.log")
        return "".join(log.read_text() for log in logs).count('"model not stored yet"')

    run.until(lambda: tries() >= 2, "it is tried again")
    in_the_way.unlink()
    counting.ended_as(run, reference)
