"""ClientApps that raise, hang, exit or send nonsense: a named reason on their edge, and the others go on.

Many of them share a run: two honest edges are the quorum, and every other edge misbehaves in its own way.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests.process import federations, running

pytestmark = [pytest.mark.process, pytest.mark.slow]

MAXIMUM_UPDATE_BYTES = 1_000_000

# behaviour: (violation, what else the message says)
REFUSED_TENSORS = {
    "nan": ("NotFinite", "weights"),
    "infinite": ("NotFinite", "bias"),
    "shape": ("ShapeMismatch", "weights"),
    "missing": ("MissingArray", "bias"),
    "extra": ("UnexpectedArray", "stowaway"),
    "dtype": ("DtypeMismatch", "weights"),
    "empty": ("MissingArray", "no arrays"),
    "large": ("TooLarge", f"{MAXIMUM_UPDATE_BYTES}"),
    "norm": ("NormExceeded", "1000"),
}
REFUSED_NUMBERS = {
    "no-examples": ("ExampleCountInvalid", "num-examples is 0"),
    "negative-examples": ("ExampleCountInvalid", "num-examples is -5"),
    "nan-examples": ("ExampleCountInvalid", "num-examples is nan"),
    "many-examples": ("ExampleCountInvalid", "maximumExamples"),
    "garbage": ("Unreadable", "weights"),
}
FAILED = {
    "raises": "ValueError: the scanner is out of paper",
    "exits": "exit(3)",
    "not-a-message": "returned str",
    "nothing": "returned NoneType",
    "pickle": "Object arrays cannot be saved",
}
ENDED = {"exits-hard": "exit code 4", "segfaults": "SIGSEGV"}


def _run(tmp_path_factory: pytest.TempPathFactory, behaviours: list[str], **spec: object) -> running.Run:
    place = tmp_path_factory.mktemp("hostile")
    edges = federations.honest(2) | {name: {"behaviour": name} for name in behaviours}
    # All are there from the first round, however long they took to start.
    app = {"source": {"path": "app"}, "runConfig": {"wait-for": len(edges)}}
    federations.Federation(edges, {"app": app, **spec}).write(place / "scenario")
    return running.simulate(place, place / "scenario")


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> running.Run:
    """A run with one edge for each way to spoil the arrays."""
    checks = {"maximumUpdateBytes": MAXIMUM_UPDATE_BYTES, "maximumNorm": "1000"}
    return _run(tmp_path_factory, [*REFUSED_TENSORS], updateChecks=checks)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> running.Run:
    """A run with one edge for each way to spoil numbers and bytes."""
    return _run(
        tmp_path_factory, [*REFUSED_NUMBERS, "nan-metric", "pickle"], updateChecks={"maximumExamples": 10**9}
    )


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> running.Run:
    """A run with one edge for each way to raise or to end, and messages of at most 64 KiB."""
    behaviours = [name for name in (*FAILED, *ENDED) if name != "pickle"]
    return _run(
        tmp_path_factory,
        [*behaviours, "large"],
        communication={"maximumMessageBytes": 65536},
        client={"maximumRestarts": 0},
    )


HONEST_MODEL = {"weights": np.full((4, 3), 2, np.float32), "bias": np.full(3, 2, np.float32)}


@pytest.mark.parametrize("which", ["tensors", "numbers", "failures"])
def test_the_others_go_on(which: str, request: pytest.FixtureRequest) -> None:
    """The training completes, and the model is that of the two honest edges alone."""
    run = request.getfixturevalue(which)

    assert run.process.returncode == 0, run.told()
    assert run.report["state"] == "Completed"
    model = safetensors.load_file(run.report["model"]["path"])
    assert all(np.array_equal(model[name], HONEST_MODEL[name]) for name in HONEST_MODEL)
    for honest in ("edge-1", "edge-2"):
        assert run.cluster(honest)["state"] == "Completed"
        assert not run.cluster(honest)["reason"]
        assert run.cluster(honest)["examples"] == federations.EXAMPLES
    run.assert_nothing_left()


@pytest.mark.parametrize("behaviour", REFUSED_TENSORS)
def test_refused_tensors(behaviour: str, tensors: running.Run) -> None:
    """The edge's entry says UpdateRefused, the violation, and the tensor."""
    _assert_refused(tensors, behaviour, *REFUSED_TENSORS[behaviour])


@pytest.mark.parametrize("behaviour", REFUSED_NUMBERS)
def test_refused_numbers(behaviour: str, numbers: running.Run) -> None:
    """The edge's entry says UpdateRefused, the violation, and the number or tensor."""
    _assert_refused(numbers, behaviour, *REFUSED_NUMBERS[behaviour])


def test_metric_that_is_not_finite(numbers: running.Run) -> None:
    """A reply whose metric is NaN is refused, so that one edge does not spoil the federation's metrics."""
    losses = [entry["values"]["loss"] for entry in numbers.report["metrics"] if entry["phase"] == "Train"]

    assert losses == [0.5, 0.5]


def test_refused_examples_are_not_counted(numbers: running.Run) -> None:
    """Neither the report nor the card believes a refused count."""
    card = json.loads((Path(numbers.report["results"]) / "card.json").read_text())

    assert {"edge-1", "edge-2"} <= set(card["examples"])
    assert not [name for name in card["examples"] if "examples" in name]
    assert numbers.cluster("many-examples")["examples"] is None


def test_reports_are_strict_json(numbers: running.Run) -> None:
    """Whatever a client measured, the report and the card are JSON that any reader takes."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(numbers.stdout, parse_constant=refuse)
    json.loads((Path(numbers.report["results"]) / "card.json").read_text(), parse_constant=refuse)


def test_message_above_the_limit(failures: running.Run) -> None:
    """A reply above communication.maximumMessageBytes is refused like one above the update's limit."""
    _assert_refused(failures, "large", "TooLarge", "65536")


@pytest.mark.parametrize("behaviour", FAILED)
def test_failed_apps(behaviour: str, request: pytest.FixtureRequest) -> None:
    """The edge's entry says ClientAppFailed, with what the app did."""
    run = request.getfixturevalue("numbers" if behaviour == "pickle" else "failures")
    entry = run.cluster(behaviour)

    assert entry["reason"] == "ClientAppFailed", entry
    assert FAILED[behaviour] in entry["message"], entry


def test_traceback_is_kept(failures: running.Run) -> None:
    """The message ends with the last lines of the traceback: file, line of code, exception."""
    lines = failures.cluster("raises")["message"].splitlines()

    assert lines[-1] == "ValueError: the scanner is out of paper"
    assert 'raise ValueError("the scanner is out of paper")' in lines[-2]
    assert "client_app.py" in lines[-3]


@pytest.mark.parametrize("behaviour", ENDED)
def test_ended_processes(behaviour: str, failures: running.Run) -> None:
    """The edge's entry says how its client's process ended."""
    entry = failures.cluster(behaviour)

    assert entry["reason"] == "ClientExited", entry
    assert ENDED[behaviour] in entry["message"], entry


def test_client_logs_have_what_the_app_printed(failures: running.Run) -> None:
    """What a ClientApp prints and its traceback are in its log; a ServerApp's in the aggregator's."""
    logs = Path(failures.report["results"]) / "logs"

    assert "training round 1" in (logs / "raises.client.log").read_text()
    assert "ValueError: the scanner is out of paper" in (logs / "raises.client.log").read_text()
    assert "the ServerApp says hello" in (logs / "aggregator.log").read_text()


@pytest.fixture(scope="module", params=["hangs", "hangs-deaf"])
def stuck(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> running.Run:
    """A run in which one of three edges never answers its second message."""
    place = tmp_path_factory.mktemp("stuck")
    edges = federations.honest(2) | {"stuck": {"behaviour": request.param, "from-round": 2}}
    app = {"source": {"path": "app"}, "runConfig": {"fraction-evaluate": 0.0, "wait-for": 3}}
    spec = {"app": app, "round": {"deadlineSeconds": 15}}
    federations.Federation(edges, spec).write(place / "scenario")
    return running.simulate(place, place / "scenario")


def test_reply_unlike_the_others(tmp_path: Path) -> None:
    """A reply without the example count, which FedAvg would end the run for, is left out and named."""
    edges = federations.honest(2) | {"odd": {"behaviour": "silent-examples"}}
    federations.Federation(edges, {"clusters": {"minimum": 2}}).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario")

    assert run.report["state"] == "Completed", run.told()
    model = safetensors.load_file(run.report["model"]["path"])
    assert all(np.array_equal(model[name], HONEST_MODEL[name]) for name in HONEST_MODEL)
    _assert_refused(run, "odd", "Inconsistent", "num-examples")


def test_others_of_a_hanging_client(stuck: running.Run) -> None:
    """After the round's deadline they go on; a client that ignores SIGTERM does not outlive the run."""
    assert stuck.process.returncode == 0, stuck.told()
    assert stuck.report["rounds"] == 2
    stuck.assert_nothing_left()


def test_hanging_client(stuck: running.Run) -> None:
    """The edge's entry says that its reply did not come in time."""
    entry = stuck.cluster("stuck")

    assert entry["reason"] == "DeadlineExceeded", entry
    assert "stuck" in entry["message"]


# behaviour: reason and words of the training's failure
BROKEN_QUORUM = {
    "nan": ("QuorumLost", ["bad", "NotFinite", "weights", "quorum is 3"]),
    "raises": ("QuorumLost", ["bad", "the scanner is out of paper", "quorum is 3"]),
    "hangs": ("QuorumLost", ["bad", "no reply within 10 s", "quorum is 3"]),
    "exits-hard": ("QuorumLost", ["bad", "quorum is 3"]),
}


@pytest.mark.parametrize("behaviour", BROKEN_QUORUM)
def test_all_are_needed(behaviour: str, tmp_path: Path) -> None:
    """With a minimum of 3 the same behaviour ends the training: Failed, with whom and why."""
    reason, words = BROKEN_QUORUM[behaviour]
    edges = federations.honest(2) | {"bad": {"behaviour": behaviour}}
    spec = {"clusters": {"minimum": 3}, "round": {"deadlineSeconds": 10}, "client": {"maximumRestarts": 0}}
    federations.Federation(edges, spec).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario")

    assert run.process.returncode == 1, run.told()
    assert run.report["state"] == "Failed"
    assert run.report["reason"] == reason, run.report
    assert not [word for word in words if word not in run.report["message"]], run.report["message"]
    assert run.report["model"] is None
    run.assert_nothing_left()


def _assert_refused(run: running.Run, behaviour: str, violation: str, words: str) -> None:
    entry = run.cluster(behaviour)
    assert entry["reason"] == "UpdateRefused", entry
    assert entry["message"].startswith(f"{violation}: "), entry
    assert words in entry["message"], entry
