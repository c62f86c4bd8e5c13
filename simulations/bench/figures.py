"""Medians with their spread, and what a target says of them. Knows no processes and no clock."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Spread:
    """The middle and the ends of some measurements, in the unit of the measurements."""

    median: float
    lowest: float
    highest: float
    number: int


def spread(values: Sequence[float]) -> Spread:
    """Median, lowest, highest and number of values; raises ValueError if there are none."""
    if not values:
        raise ValueError("nothing was measured")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def after_the_first(rounds: Sequence[dict[str, float]], key: str = "seconds") -> Spread:
    """The spread over all rounds but the first, which pays for connections and imports.

    Raises: ValueError for fewer than two rounds.
    """
    return spread([entry[key] for entry in rounds[1:]])


@dataclasses.dataclass(frozen=True)
class Target:
    """What was asked for, and what was measured; `value` is None where it was not measured."""

    text: str
    limit: float
    value: float | None
    unit: str

    @property
    def verdict(self) -> str:
        """Whether the target was met."""
        if self.value is None:
            return "not measured"
        return "met" if self.value <= self.limit else "not met"
