"""Folding the aggregator's reports into one picture.

Reports say the whole picture, but metrics only since the last one; this module keeps what status shows of
them. It refuses to know where reports come from.
"""

import dataclasses
import statistics
from collections.abc import Sequence

from coordinator.planning.snapshot import Progress, RoundMetrics

KEPT_METRICS = 10
"""Status shows the last ten; the model's card holds all of them."""

KEPT_ROUND_SECONDS = 100
"""The median of so many rounds follows a change of pace within a few rounds and needs no room."""


def fold(before: Progress, report: Progress, new_metrics: Sequence[RoundMetrics]) -> Progress:
    """Return the picture after a report; the report's own ``metrics`` and ``round_seconds`` are not looked
    at.

    Law: metrics of the same round and phase replace each other, so that a report sent twice counts once.
    Rounds that are shorter than the time between two reports count with their mean.
    """
    seconds = before.round_seconds
    passed = report.round - before.round
    if before.round and passed > 0 and report.round_started_at > before.round_started_at > 0:
        each = (report.round_started_at - before.round_started_at) / passed
        seconds = (*seconds, *[each] * min(passed, KEPT_ROUND_SECONDS))[-KEPT_ROUND_SECONDS:]
    metrics = {(entry.round, entry.phase): entry for entry in before.metrics}
    for entry in new_metrics:
        metrics.pop((entry.round, entry.phase), None)
        metrics[entry.round, entry.phase] = entry
    return dataclasses.replace(
        report,
        round_seconds=seconds,
        metrics=tuple(metrics.values())[-KEPT_METRICS:],
        finished=before.finished or report.finished,
    )


def median_round_seconds(progress: Progress) -> float | None:
    """Return the median length of the rounds so far; None before the second began."""
    return statistics.median(progress.round_seconds) if progress.round_seconds else None
