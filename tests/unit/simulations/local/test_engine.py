"""The parts of the engine that need no process."""

import pytest

from simulations.local import engine, processes
from simulations.local.errors import SimulationError


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("zurich@3", engine.Drill("zurich", 3)),
        ("edge-02@10", engine.Drill("edge-02", 10)),
        ("odd@name@1", engine.Drill("odd@name", 1)),
    ],
)
def test_drill(text: str, want: engine.Drill) -> None:
    """EDGE@ROUND."""
    assert engine.Drill.parse(text) == want


@pytest.mark.parametrize(
    "text", ["zurich", "zurich@", "@3", "zurich@three", "zurich@-1", "zurich@1.5", "", "zurich@0"]
)
def test_drill_that_cannot_be_read(text: str) -> None:
    """One sentence with an example; rounds begin with 1."""
    with pytest.raises(SimulationError, match="EDGE@ROUND"):
        engine.Drill.parse(text)


def test_environment_is_a_short_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Children see what they need of the user's environment and none of its secrets."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("GITHUB_TOKEN", "x")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    seen = processes.environment("zurich")

    assert "AWS_SECRET_ACCESS_KEY" not in seen
    assert "GITHUB_TOKEN" not in seen
    assert seen["OMP_NUM_THREADS"] == "1"
    assert seen["HANSE_PROCESS"] == "zurich"
    assert seen["FLWR_TELEMETRY_ENABLED"] == "0"
