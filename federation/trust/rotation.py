"""When to renew a certificate: at two thirds of its life, and ever more often after failures.

Pure: time and chance are arguments. This module refuses to know how one renews.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

RENEW_AT_FRACTION: Final = 2 / 3

# A fleet that joined together must not renew together: up to a tenth of the life earlier.
JITTER_FRACTION: Final = 1 / 10

FIRST_RETRY: Final = timedelta(seconds=1)
LONGEST_RETRY: Final = timedelta(minutes=10)

# Never wait longer than this part of the time that is left, so that there are always tries left before the
# end.
RETRY_FRACTION_OF_REST: Final = 1 / 4


def renew_at(not_before: datetime, not_after: datetime, *, jitter: float) -> datetime:
    """When to renew: `jitter` 0 is at two thirds of the life, 1 is a tenth of the life earlier.

    Law: not_before < renew_at < not_after.
    Raises: ValueError if the life is empty or the jitter outside 0 to 1.
    """
    _check_jitter(jitter)
    life = not_after - not_before
    if life <= timedelta(0):
        raise ValueError("the certificate ends before it begins")
    return not_before + life * (RENEW_AT_FRACTION - JITTER_FRACTION * jitter)


def retry_at(now: datetime, not_after: datetime, *, failures: int, jitter: float) -> datetime | None:
    """When to try again after `failures` (at least 1) tries in a row failed; None once the certificate is
    over.

    The wait doubles from one second to ten minutes, less up to half of it by `jitter` (0 to 1), and is never
    more than a quarter of the time that is left, but at least a second. When the certificate is over, TLS
    refuses it: only joining again helps.
    Law: now < retry_at.
    """
    _check_jitter(jitter)
    if failures < 1:
        raise ValueError(f"want at least one failure, got {failures}")
    rest = not_after - now
    if rest <= timedelta(0):
        return None
    doubled = min(FIRST_RETRY * (1 << min(failures - 1, 20)), LONGEST_RETRY) * (1 - jitter / 2)
    return now + max(min(doubled, rest * RETRY_FRACTION_OF_REST), FIRST_RETRY)


def _check_jitter(jitter: float) -> None:
    if not 0 <= jitter <= 1:
        raise ValueError(f"want a jitter from 0 to 1, got {jitter}")
