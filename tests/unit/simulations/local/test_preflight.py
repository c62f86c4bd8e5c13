"""What is found wrong before anything starts."""

import socket
from collections import namedtuple
from pathlib import Path

import pytest

from simulations.local import preflight, scenario
from simulations.local.errors import SimulationError
from tests.process import federations

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def plan(tmp_path: Path) -> scenario.Scenario:
    """Two edges."""
    return scenario.read(federations.Federation(federations.honest(2)).write(tmp_path / "scenario"))


def check(plan: scenario.Scenario, port: int = 0) -> None:
    """Check it with results beside the scenario."""
    preflight.check(plan, results=plan.directory.parent / "results", port=port)


def test_nothing_wrong(plan: scenario.Scenario) -> None:
    """A good scenario passes and leaves nothing."""
    before = sorted(path for path in plan.directory.parent.rglob("*") if "__pycache__" not in path.parts)
    check(plan)

    assert (
        sorted(path for path in plan.directory.parent.rglob("*") if "__pycache__" not in path.parts) == before
    )


def test_dataset_that_nobody_offers(plan: scenario.Scenario) -> None:
    """The sentence has what is asked for and what is offered."""
    with pytest.raises(SimulationError, match="no edge offers letters; they offer numbers"):
        check(scenario.with_settings(plan, ["spec.dataset=letters"]))


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        (["spec.clusters.minimum=3"], "3 clusters are needed and there are 2 edges"),
        (
            ["spec.clusters.minimum=1", "spec.clusters.selector.matchLabels.region=moon"],
            "0 of 2 edges offer numbers and match the selector",
        ),
    ],
)
def test_quorum(settings: list[str], want: str, plan: scenario.Scenario) -> None:
    """The sentence has how many there are."""
    with pytest.raises(SimulationError, match=want):
        check(scenario.with_settings(plan, settings))


def test_app_that_does_not_import(plan: scenario.Scenario) -> None:
    """Module, last line, and what to install."""
    (plan.directory / "app" / "tiny" / "client_app.py").write_text("import quantum_sauce\n")

    with pytest.raises(
        SimulationError, match=r"module tiny\.client_app .*No module named 'quantum_sauce'; install"
    ):
        check(plan)


def test_app_without_a_server(tmp_path: Path) -> None:
    """An app that has no ServerApp needs a strategy in the manifest."""
    pyproject = federations.PYPROJECT.replace('serverapp = "tiny.server_app:app"\n', "")
    alone = federations.Federation(federations.honest(2), pyproject=pyproject).write(tmp_path / "alone")
    spec = {"strategy": {"name": "FedAvg", "rounds": 2}}
    helped = federations.Federation(federations.honest(2), spec, pyproject=pyproject).write(
        tmp_path / "helped"
    )

    with pytest.raises(SimulationError, match="no ServerApp and the training names no strategy"):
        check(scenario.read(alone))
    check(scenario.read(helped))


def test_port(plan: scenario.Scenario) -> None:
    """A port in use is named; a free one and 0 are fine."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SimulationError, match=f"--port {port}: the port is in use"):
            check(plan, port=port)
    check(plan, port=port)


def test_full_disk(plan: scenario.Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence has what is free and what is needed."""
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: Usage(2**30, 2**30, 2**20))

    with pytest.raises(SimulationError, match="the disk is full: 1 MiB are free and 64 MiB are needed"):
        check(plan)
