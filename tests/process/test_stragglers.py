"""A cluster that never answers, and an aggregator that is killed: the same replies are taken, nobody waits.

The app is that of tests/process/counting.py. edge-3 stops in its first training; two of three are taken.
So the model is the one that edge-1 and edge-2 make alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from federation.runtime import failpoints
from tests.process import counting, federations

pytestmark = [pytest.mark.process, pytest.mark.slow]

STRAGGLER = "edge-3"

PLACES = [
    None,
    ("aggregator.batch-sent", 3),
    ("aggregator.reply-written", 6),
    ("aggregator.batch-closed", 1),
]
"""Where the aggregator dies, and at which visit; None: it lives."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a run of two edges that nobody disturbed."""
    return counting.undisturbed(tmp_path_factory.mktemp("reference"))


@pytest.mark.parametrize("death", PLACES, ids=str)
def test_a_round_takes_the_first_and_waits_for_nobody_else(
    death: tuple[str, int] | None, tmp_path: Path, start: Any, reference: dict[str, Any]
) -> None:
    """Model and metrics are those of the two that answer, and neither is asked twice."""
    plan, signals = tmp_path / "failpoints", tmp_path / "signals"
    for directory in (plan, signals):
        directory.mkdir()
    if death is not None:
        (plan / death[0]).write_text(str(death[1]))
    (signals / f"{STRAGGLER}.train-1").touch()
    spec = {
        "app": {
            "source": {"path": "app"},
            "runConfig": {"rounds": counting.ROUNDS, "signals": str(signals)},
        },
        "clusters": {"minimum": 2},
        "round": {"overProvisionFraction": "0.5", "deadlineSeconds": 86_400},
    }
    written = federations.Federation(federations.honest(3), spec, client_app=counting.CLIENT_APP)

    run = start(
        "simulate",
        written.write(tmp_path / "scenario"),
        "-o",
        "json",
        environment={failpoints.VARIABLE: str(plan)},
    )

    counting.ended_as(run, reference)
    if death is not None:
        assert (plan / f"{death[0]}.visits").stat().st_size >= death[1], "it was killed there"
    for edge in ("edge-1", "edge-2"):
        assert counting.calls(signals, edge) == counting.UNDISTURBED
    assert counting.calls(signals, STRAGGLER) == [("train-1", 0)]
