"""Clients that are killed with SIGKILL: finished work is delivered and not redone, the model is the same.

The app is that of tests/process/counting.py. When to kill is told by files, never by time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.process import counting, running
from tests.process.counting import ROUNDS, UNDISTURBED, VICTIM, calls, ended_as, scenario

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def signals(tmp_path: Path) -> Path:
    path = tmp_path / "signals"
    path.mkdir()
    return path


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a run that nobody disturbed."""
    return counting.undisturbed(tmp_path_factory.mktemp("reference"))


def client(run: running.Run) -> tuple[int, Path]:
    """The victim's process, and the directory of what it keeps."""
    for pid, arguments in run.processes().items():
        if "edge_agent.client" in arguments and f"/{VICTIM}/" in arguments[-2]:
            return pid, Path(arguments[-2]).parent / "state" / "kept"
    raise AssertionError(f"no client of {VICTIM} runs\n{run.told()}")


@contextlib.contextmanager
def stopped_aggregator(run: running.Run) -> Iterator[None]:
    """Within, the aggregator neither hears nor says anything."""
    (pid,) = [pid for pid, arguments in run.processes().items() if "coordinator.aggregator" in arguments]
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def until(happened: Any) -> None:
    deadline = time.monotonic() + running.LIMIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def at_work(run: running.Run, signals: Path) -> tuple[int, Path]:
    """Wait until the victim's app waits; return its process and what it keeps."""
    run.until(lambda: (signals / "at-work").exists(), "the app is at work")
    pid, kept = client(run)
    assert int((signals / "at-work").read_text()) == pid
    (signals / "at-work").unlink()
    return pid, kept


def newest(kept: Path) -> int:
    return max(int(path.name.partition("-")[2]) for path in kept.glob("commit-*"))


@pytest.mark.parametrize("what", ["train-1", "evaluate-2", f"evaluate-{ROUNDS}"])
def test_finished_work_is_delivered_and_not_redone(
    what: str, start: Any, tmp_path: Path, signals: Path, reference: dict[str, Any]
) -> None:
    """Killed after it has answered and before anybody heard: no call more than in an undisturbed run."""
    gate = signals / f"{VICTIM}.{what}"
    gate.touch()
    run = start("simulate", scenario(tmp_path, signals), "-o", "json")
    pid, kept = at_work(run, signals)
    before = newest(kept)
    with stopped_aggregator(run):
        gate.unlink()
        run.until(lambda: newest(kept) > before, "the answer is kept")
        os.kill(pid, signal.SIGKILL)
        run.until(lambda: client_is_another_than(run, pid), "the agent starts the client again")

    ended_as(run, reference)
    assert calls(signals, VICTIM) == calls(signals, "edge-2") == UNDISTURBED


def client_is_another_than(run: running.Run, pid: int) -> bool:
    with contextlib.suppress(AssertionError):
        return client(run)[0] != pid
    return False


@pytest.mark.parametrize("what", ["train-1", "train-3", "evaluate-3"])
def test_unfinished_work_is_redone_from_the_same_state(
    what: str, start: Any, tmp_path: Path, signals: Path, reference: dict[str, Any]
) -> None:
    """Killed twice while the app works: each time it meets the state that it met the first time."""
    gate = signals / f"{VICTIM}.{what}"
    gate.touch()
    run = start("simulate", scenario(tmp_path, signals), "-o", "json")
    for _ in range(2):
        pid, _ = at_work(run, signals)
        os.kill(pid, signal.SIGKILL)
    at_work(run, signals)
    gate.unlink()

    ended_as(run, reference)
    again = UNDISTURBED.index(next(call for call in UNDISTURBED if call[0] == what))
    assert (
        calls(signals, VICTIM)
        == UNDISTURBED[: again + 1] + [UNDISTURBED[again]] * 2 + UNDISTURBED[again + 1 :]
    )
    assert calls(signals, "edge-2") == UNDISTURBED


def test_what_is_kept_is_private(start: Any, tmp_path: Path, signals: Path) -> None:
    """The key is the user's alone, beside what it opens; nothing of either is left after the run."""
    gate = signals / f"{VICTIM}.train-2"
    gate.touch()
    run = start("simulate", scenario(tmp_path, signals), "-o", "json")
    _, kept = at_work(run, signals)
    key = kept.parent.parent / "state.key"
    assert running.mode(key) == 0o600
    assert running.mode(kept) == running.mode(key.parent) == 0o700
    assert all(running.mode(path) == 0o600 for path in kept.iterdir())
    gate.unlink()
    assert run.wait() == 0, run.told()
    run.assert_nothing_left()
