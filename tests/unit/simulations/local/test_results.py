"""The result's forms, and the claim on its directory."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from simulations.local import results
from simulations.local.errors import SimulationError

STATUS = {
    "phase": "Completed",
    "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Valid"},
        {"type": "Failed", "status": "False", "reason": "NotFailed"},
        {"type": "Completed", "status": "True", "reason": "AllRoundsDone", "message": "round 2 was the last"},
    ],
    "round": {"current": 2, "total": 2},
    "clusters": [
        {"name": "a", "state": "Completed", "examples": 10, "bytesUp": 5},
        {"name": "b", "state": "Refused", "reason": "NoPolicy", "message": "b has no EdgePolicy"},
    ],
    "model": {"uri": "file:///models/2", "sha256": "ab" * 32, "round": 2},
    "transfer": {"bytesUp": 5, "bytesDown": 7},
    "phaseSeconds": {"Train": "0.25"},
}
METRICS = [{"round": 1, "phase": "Evaluate", "values": {"loss": "0.5"}}]
SECONDS = {"start": 1.23456, "rounds": 0.5, "total": 1.73456}


def test_outcome_of_a_status() -> None:
    """Every key is read off the status; numbers are numbers."""
    outcome = results.outcome_of("lab/tiny", STATUS, METRICS, SECONDS)

    assert outcome.succeeded
    assert (outcome.reason, outcome.message, outcome.rounds) == ("AllRoundsDone", "round 2 was the last", 2)
    assert outcome.metrics == [{"round": 1, "phase": "Evaluate", "values": {"loss": 0.5}}]
    assert outcome.clusters == [
        {"name": "a", "state": "Completed", "reason": "", "message": "", "examples": 10},
        {
            "name": "b",
            "state": "Refused",
            "reason": "NoPolicy",
            "message": "b has no EdgePolicy",
            "examples": None,
        },
    ]
    assert outcome.model == {"sha256": "ab" * 32, "round": 2, "path": "file:///models/2"}
    assert outcome.bytes == {"up": 5, "down": 7}
    assert outcome.seconds == {"start": 1.235, "rounds": 0.5, "total": 1.735}
    assert outcome.phaseSeconds == {"Train": 0.25}


def test_outcome_without_a_status() -> None:
    """A run that ended before it began has all keys too."""
    outcome = results.outcome_of("lab/tiny", {}, [], {})

    assert (outcome.state, outcome.rounds, outcome.model, outcome.clusters) == ("Pending", 0, None, [])
    assert not outcome.succeeded


def test_outcome_that_waits() -> None:
    """Where nothing has ended the training, the reason is what it waits for."""
    waiting = {"type": "QuorumReached", "status": "False", "reason": "QuorumNotReached", "message": "1 of 2"}

    outcome = results.outcome_of("lab/tiny", {"phase": "Waiting", "conditions": [waiting]}, [], {})

    assert (outcome.state, outcome.reason, outcome.message) == ("Waiting", "QuorumNotReached", "1 of 2")


def test_failure_comes_before_completion() -> None:
    """Of two conditions that are true, Failed is the one to tell."""
    both = [
        {"type": "Completed", "status": "True", "reason": "AllRoundsDone"},
        {"type": "Failed", "status": "True", "reason": "StorageFull"},
    ]

    assert (
        results.outcome_of("lab/tiny", {"phase": "Failed", "conditions": both}, [], {}).reason
        == "StorageFull"
    )


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_json_is_strict(value: str) -> None:
    """JSON has no NaN and no infinity: they become null."""
    metrics = [{"round": 1, "phase": "Train", "values": {"loss": value, "accuracy": "0.5"}}]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = results.outcome_of("lab/tiny", STATUS, metrics, SECONDS).to_json()

    assert json.loads(text, parse_constant=refuse)["metrics"][0]["values"] == {"loss": None, "accuracy": 0.5}


def test_claim_makes_the_directory_and_frees_it(tmp_path: Path) -> None:
    """A claim that leaves nothing leaves no directory; one that leaves results keeps them."""
    with results.claim(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a" / "b").exists()
    with results.claim(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "model").touch()
    assert (tmp_path / "a" / "b" / "model").exists()


def test_claim_of_a_used_directory(tmp_path: Path) -> None:
    """What an earlier run left is not touched, nor is what is nobody's run."""
    for name, want in (("notes", "is not empty"), (results.MODEL_FILE, "holds an earlier run")):
        (tmp_path / name).touch()
        with pytest.raises(SimulationError, match=want), results.claim(tmp_path):
            raise AssertionError("not reached")
        assert (tmp_path / name).exists()


def test_claim_while_another_run_holds_it(tmp_path: Path) -> None:
    """The other run's directory is left as it is, even while nothing but the lock is in it."""
    held = tmp_path / "held"
    held.mkdir()
    lock = os.open(held / ".hanse-run", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(SimulationError, match="another simulation runs in it"), results.claim(held):
            raise AssertionError("not reached")
        assert (held / ".hanse-run").exists()
    finally:
        os.close(lock)


def test_claim_of_a_file(tmp_path: Path) -> None:
    """A file in the way is named."""
    (tmp_path / "file").touch()

    with pytest.raises(SimulationError, match="file: is a file"), results.claim(tmp_path / "file"):
        raise AssertionError("not reached")


def test_claim_below_a_file(tmp_path: Path) -> None:
    """A directory that cannot be made is one sentence."""
    (tmp_path / "file").touch()

    with pytest.raises(SimulationError, match="cannot be made"), results.claim(tmp_path / "file" / "run"):
        raise AssertionError("not reached")


def test_claim_is_given_back_after_an_error(tmp_path: Path) -> None:
    """A run that fails at once does not block the directory."""
    with pytest.raises(RuntimeError), results.claim(tmp_path / "run"):
        raise RuntimeError
    with results.claim(tmp_path / "run"):
        pass
