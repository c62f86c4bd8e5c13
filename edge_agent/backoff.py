"""How long to wait before trying again: exponential, with full jitter so that a fleet does not move as one.

Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. This module refuses to sleep.
"""

from __future__ import annotations

import random

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 30.0
"""A hub that restarts is found again within a second; one that is away for a day is asked twice a minute."""


def seconds(failures: int, rng: random.Random) -> float:
    """Return the wait after `failures` (1 or more) in a row: a tenth of a doubling ceiling, or more."""
    ceiling = min(FIRST_SECONDS * 2.0 ** min(failures - 1, 16), LONGEST_SECONDS)
    return ceiling * (0.1 + 0.9 * rng.random())
