"""A share of `make chaos`: the first seeds, for a minute; and what it has found once."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.chaos import faults, judging
from simulations.chaos import running as chaos
from tests.process import running

pytestmark = [pytest.mark.process, pytest.mark.slow]

RUNS = 14

FOUND = [
    pytest.param(
        faults.Fault("point", "agent.client-started", value=1),
        id="an agent that was started again said that its owner declares nothing, and the training failed",
    ),
    pytest.param(
        faults.Fault("link", "control", "forget", after_call=6),
        id="a hub that did not hear of the end had everything done again, and waited for clients for ever",
    ),
]


def test_injured_federations_end_as_undisturbed_ones(tmp_path: Path) -> None:
    """Each with the same model or a documented reason, and no finished work is done again."""
    command = ["--runs", str(RUNS), "--minutes", "1", "--keep", str(tmp_path / "kept"), "-o", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "simulations.chaos", *command],
        cwd=running.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["runs"]
    assert report["failures"] == []
    assert report["redone_finished"] == 0
    assert report["reference"] + sum(report["reasons"].values()) == report["runs"]


@pytest.mark.parametrize("fault", FOUND)
def test_what_was_found_once(fault: faults.Fault, tmp_path: Path) -> None:
    """The training ends as if nothing had happened."""
    results: list[judging.Result] = []
    plan = faults.Plan(1, faults.SMALL, (fault,))
    runner = chaos.Runner(tmp_path)
    asyncio.run(runner.all([plan], jobs=1, ends_at=math.inf, on_result=results.append))
    (result,) = results
    assert (result.wrong, result.ended, result.finished) == ("", judging.REFERENCE, 0)
    assert result.hit
