"""One number for each metric of a round, from the replies that came in.

Why it exists: status and the learning curve show metrics also of apps that keep theirs to themselves, so the
aggregator averages what the replies carry. What a strategy aggregates itself is preferred where it is known.
Pure: it reads records and returns floats.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from flwr.app import Message, MetricRecord

WEIGHT = "num-examples"
"""Flower's own default for `weighted_by_key`."""


def scalars(record: Mapping[str, object]) -> dict[str, float]:
    """The plain numbers of a metric record; lists are left out: they are no points of a curve."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != WEIGHT
    }


def examples(message: Message) -> int | None:
    """The number of examples a reply speaks for, or None if it does not say."""
    if not message.has_content():
        return None
    for record in _records(message):
        value = record.get(WEIGHT)
        if isinstance(value, int | float) and math.isfinite(value) and value > 0:
            return int(value)
    return None


def _records(message: Message) -> list[MetricRecord]:
    """The metric records; Flower's own property for them builds a checked dictionary at each call."""
    return [record for record in message.content.values() if isinstance(record, MetricRecord)]


def average(replies: Iterable[Message]) -> dict[str, float]:
    """Average the metrics of valid replies, weighted by their example counts (1 where none is given).

    Order: the sums run in the order given; give replies in node order for the same last bit every time.
    A metric that only some replies carry is averaged over those.
    """
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    for reply in replies:
        if not reply.has_content():
            continue
        weight = float(examples(reply) or 1)
        for record in _records(reply):
            for name, value in scalars(record).items():
                sums[name] = sums.get(name, 0.0) + weight * value
                weights[name] = weights.get(name, 0.0) + weight
    return {name: sums[name] / weights[name] for name in sums}
