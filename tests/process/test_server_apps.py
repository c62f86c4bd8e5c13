"""ServerApps that raise, exit or cannot be made: one clear condition, and the end of the traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process import federations, running

pytestmark = [pytest.mark.process, pytest.mark.slow]

HEAD = """
import os, sys
from flwr.serverapp import ServerApp
app = ServerApp()

@app.main()
def main(grid, context):
    print("before the end", flush=True)
    LINE
"""

# what main does: (reason, words of the message)
ENDINGS = {
    "raise RuntimeError('no more paper')": (
        "ServerAppFailed",
        ["RuntimeError: no more paper", "server_app.py", "raise RuntimeError"],
    ),
    "sys.exit(7)": ("ServerAppExited", ["exit(7)"]),
    "os._exit(7)": ("ServerAppExited", ["7"]),
    "grid.get_node_ids(1, 2, 3)": ("ServerAppFailed", ["TypeError", "get_node_ids"]),
}


@pytest.mark.parametrize("line", ENDINGS)
def test_server_app_that_ends_badly(line: str, tmp_path: Path) -> None:
    """Exit code 1, state Failed, one reason, and what the app did in the message; never a hang."""
    reason, words = ENDINGS[line]
    federations.Federation(federations.honest(2), server_app=HEAD.replace("LINE", line)).write(
        tmp_path / "scenario"
    )

    run = running.simulate(tmp_path, tmp_path / "scenario")

    assert run.process.returncode == 1, run.told()
    assert run.report["state"] == "Failed"
    assert run.report["reason"] == reason, run.report
    assert not [word for word in words if word not in run.report["message"]], run.report["message"]
    assert "before the end" in (Path(run.report["results"]) / "logs" / "aggregator.log").read_text()
    run.assert_nothing_left()


@pytest.mark.parametrize(
    ("name", "reason", "word"),
    [
        ("FedAvg", "StrategyParametersInvalid", "fraction-trane"),
        ("FedBest", "StrategyUnknown", "FedBest is none of the strategies that there are"),
    ],
)
def test_strategy_that_cannot_be_made(name: str, reason: str, word: str, tmp_path: Path) -> None:
    """A parameter that the strategy does not take, or no such strategy: Failed, with its name."""
    client_only = federations.PYPROJECT.replace('serverapp = "tiny.server_app:app"\n', "")
    strategy = {"name": name, "rounds": 1, "parameters": {"fraction-trane": 1.0}}
    federations.Federation(federations.honest(2), {"strategy": strategy}, pyproject=client_only).write(
        tmp_path / "scenario"
    )

    run = running.simulate(tmp_path, tmp_path / "scenario")

    assert run.process.returncode == 1, run.told()
    assert run.report["reason"] == reason
    assert word in run.report["message"]
    run.assert_nothing_left()


def test_text_output_of_a_failure(tmp_path: Path) -> None:
    """The summary says Failed, why, and which command shows the logs."""
    line = "raise RuntimeError('no more paper')"
    federations.Federation(federations.honest(2), server_app=HEAD.replace("LINE", line)).write(
        tmp_path / "scenario"
    )
    run = running.Run(tmp_path, "simulate", tmp_path / "scenario")
    try:
        code = run.wait()
    finally:
        run.end()

    assert code == 1, run.told()
    assert "lab/tiny: Failed" in run.stdout
    assert "RuntimeError: no more paper" in run.stdout
    assert "hanse logs" in run.stdout
