"""What strategies compute, overheard: the newest global arrays for the model, metrics for status.

Why it exists: an app keeps its results to itself. federation/flower/watch.py lets us hear them; this module
keeps what the training needs of them. What the app sees it changes in one case only: replies that do not fit
together, of which the odd ones are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import ArrayRecord, Message

from coordinator.aggregator import consistency, driver, metrics, model
from coordinator.aggregator import progress as progress_module
from federation.api import reasons
from federation.flower import replies as flower_replies


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
        self.judge: Callable[[int, int, Sequence[object]], None] | None = None
        """Called with a round, its number of good replies and its failures, where the round machine did not
        see how many were good; may raise."""
        self.refused: Callable[[int, int, str], None] = lambda node, server_round, how: None
        """Called with a node, a round and why its reply was left out."""

    @property
    def trained(self) -> bool:
        """Whether a strategy has made the newest arrays of what clients have trained."""
        return self._aggregates

    def started(self, strategy: object, num_rounds: int) -> None:
        """A strategy begins."""
        del strategy
        self.strategy_runs = True
        self._progress.total(num_rounds)

    def sent(self, arrays: ArrayRecord) -> None:
        """The app sends arrays; they count as the model only while no strategy has aggregated any."""
        if not self._aggregates:
            self.arrays, self.round = arrays, self._progress.current_round

    def restored(self, server_round: int, arrays: ArrayRecord) -> None:
        """An earlier process's strategy had made these."""
        self.arrays, self.round, self._aggregates = arrays, server_round, True

    def fit_collected(self, server_round: int, results: Sequence[object], failures: Sequence[object]) -> None:
        """A round of the older API has its answers; there, TrainingOver looks like a failed client."""
        for failure in failures:
            if isinstance(failure, driver.TrainingOver):
                raise driver.TrainingOver(failure.reason, failure.message)
        if self.judge is not None:
            self.judge(server_round, len(results), failures)

    def inconsistent(self, server_round: int, replies: Sequence[Message]) -> Sequence[Message] | None:
        """A strategy cannot aggregate these together: leave out those that differ from the majority."""
        odd = consistency.odd_ones(replies)
        if not odd:
            return None
        kept = list(replies)
        for one in odd:
            kept[one.index] = flower_replies.refused(replies[one.index], one.how)
            self.refused(replies[one.index].metadata.src_node_id, server_round, one.how)
        if self.judge is not None:
            failures = [ValueError(reply.error.reason) for reply in kept if reply.has_error()]
            self.judge(server_round, len(kept) - len(failures), failures)
        return kept

    def train_aggregated(
        self, server_round: int, arrays: ArrayRecord | None, values: Mapping[str, Any] | None
    ) -> None:
        """A strategy made new global arrays.

        Raises: TrainingOver if they are not finite: every further round would be lost.
        """
        if arrays is not None and len(arrays):
            if (broken := model.not_finite(arrays)) is not None:
                raise driver.TrainingOver(
                    reasons.TrainingReason.AGGREGATE_NOT_FINITE,
                    f"round {server_round}: array {broken} of the aggregate is not finite, although every "
                    "update was; lower the learning rate, or use spec.updateChecks.maximumNorm",
                )
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
