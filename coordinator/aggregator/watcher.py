"""What strategies compute, overheard: the newest global arrays for the model, metrics for status.

Why it exists: an app keeps its results to itself. federation/flower/watch.py lets us hear them; this module
keeps what the training needs of them. It changes nothing that the app sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord

from coordinator.aggregator import driver, metrics
from coordinator.aggregator import progress as progress_module


class Watcher:
    """An observer of federation.flower.watch for one training."""

    def __init__(self, progress: progress_module.Progress, on_change: Callable[[], None]) -> None:
        """Tell metrics to `progress`, and say on_change() when there are new ones."""
        self._progress = progress
        self._on_change = on_change
        self.arrays: ArrayRecord | None = None
        """The newest global arrays: a strategy's, else what an app without one sent last."""
        self.round = 0
        """The round that they come from."""
        self.strategy_runs = False
        """Whether a strategy's `start` has been called."""
        self._aggregates = False
        self.judge_fit: Callable[[int, int, Sequence[object]], None] | None = None
        """Called with round, number of results and failures of a fit of Flower's older API; may raise."""

    def started(self, strategy: object, num_rounds: int) -> None:
        """A strategy begins."""
        del strategy
        self.strategy_runs = True
        self._progress.total(num_rounds)

    def sent(self, arrays: ArrayRecord) -> None:
        """The app sends arrays; they count as the model only while no strategy has aggregated any."""
        if not self._aggregates:
            self.arrays, self.round = arrays, self._progress.current_round

    def fit_collected(self, server_round: int, results: Sequence[object], failures: Sequence[object]) -> None:
        """A round of the older API has its answers; there, TrainingOver looks like a failed client."""
        for failure in failures:
            if isinstance(failure, driver.TrainingOver):
                raise driver.TrainingOver(failure.reason, failure.message)
        if self.judge_fit is not None:
            self.judge_fit(server_round, len(results), failures)

    def train_aggregated(
        self, server_round: int, arrays: ArrayRecord | None, values: Mapping[str, Any] | None
    ) -> None:
        """A strategy made new global arrays."""
        if arrays is not None and len(arrays):
            self.arrays, self.round, self._aggregates = arrays, server_round, True
        self._measured(server_round, "Train", values)

    def evaluate_aggregated(self, server_round: int, values: Mapping[str, Any] | None) -> None:
        """A strategy put the clients' evaluation together."""
        self._measured(server_round, "Evaluate", values)

    def server_evaluated(self, server_round: int, values: Mapping[str, Any] | None) -> None:
        """The app evaluated on the server."""
        self._measured(server_round, "ServerEvaluate", values)

    def _measured(self, server_round: int, phase: str, values: Mapping[str, Any] | None) -> None:
        if values:
            self._progress.measured(server_round, phase, metrics.scalars(values))
            self._on_change()
