"""What a start is told where nothing of it can be kept; tests/process/test_compaction.py has the rest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp.strategy import FedAvg

from coordinator.aggregator import compaction, history
from federation.flower import kept_rounds


@pytest.mark.parametrize(("more", "want"), [(None, None), (lambda played: played + 2, kept_rounds.Past())])
def test_a_strategy_that_cannot_be_kept(
    more: Callable[[int], int] | None, want: kept_rounds.Past | None, tmp_path: Path
) -> None:
    """No snapshot is taken of it; where rounds may be raised it goes on with more all the same."""
    strategy = FedAvg()
    strategy.lock = threading.Lock()  # type: ignore[attr-defined]
    keeper = compaction.Compaction(
        cast(
            "history.History", SimpleNamespace(begins=lambda *_, **__: (history.Place(1, 3, 0), None, None))
        ),
        cast("Any", None),
        cast("Any", None),
        cast("Any", None),
        directory=tmp_path,
        is_of_app=lambda name: False,
        more=more,
    )
    roots = {
        "strategy": strategy,
        "train_config": ConfigRecord(),
        "evaluate_config": ConfigRecord(),
        "evaluate_fn": None,
        "initial_arrays": ArrayRecord(),
    }
    assert keeper.begins(roots, 3) == want
    keeper.ended(1, {})
    assert keeper.after(3) == (3 if more is None else 5)
