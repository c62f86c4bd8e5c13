"""When to renew."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.trust import rotation

START = datetime(2026, 1, 1, tzinfo=UTC)
lives = st.timedeltas(timedelta(minutes=1), timedelta(days=3650))
jitters = st.floats(0, 1)


def test_renewal_is_due_at_two_thirds() -> None:
    """Without jitter at two thirds of the life, with all of it a tenth of the life earlier."""
    end = START + timedelta(hours=30)
    assert rotation.renew_at(START, end, jitter=0) == START + timedelta(hours=20)
    assert rotation.renew_at(START, end, jitter=1) == START + timedelta(hours=17)


@given(lives, jitters)
def test_renewal_lies_within_the_life(life: timedelta, jitter: float) -> None:
    """Law: after half of the life and not after two thirds of it."""
    at = rotation.renew_at(START, START + life, jitter=jitter)
    assert START + life / 2 < at <= START + life * (2 / 3)


@given(lives, jitters)
def test_retries_come_before_the_end(life: timedelta, jitter: float) -> None:
    """Law: each retry is later than now, and at least four come before the certificate ends."""
    end = START + life
    now, failures = rotation.renew_at(START, end, jitter=jitter), 0
    while True:
        failures += 1
        then = rotation.retry_at(now, end, failures=failures, jitter=jitter)
        if then is None or failures > 50:
            break
        assert then > now
        assert then - now <= rotation.LONGEST_RETRY
        now = then
    assert failures >= 5


def test_the_wait_doubles_and_is_bounded() -> None:
    """One second, two, four ... ten minutes."""
    end = START + timedelta(days=90)
    waits = [
        (rotation.retry_at(START, end, failures=failures, jitter=0) or START) - START
        for failures in (1, 2, 3, 10, 11, 1000)
    ]
    assert [wait.total_seconds() for wait in waits] == [1, 2, 4, 512, 600, 600]


def test_after_the_end_there_is_no_retry() -> None:
    """TLS refuses an expired certificate: only joining again helps."""
    assert rotation.retry_at(START, START, failures=1, jitter=0) is None


def test_bad_arguments_are_refused() -> None:
    """Jitter outside 0 to 1, no failure, an empty life."""
    with pytest.raises(ValueError, match="jitter"):
        rotation.renew_at(START, START + timedelta(hours=1), jitter=1.5)
    with pytest.raises(ValueError, match="failure"):
        rotation.retry_at(START, START + timedelta(hours=1), failures=0, jitter=0)
    with pytest.raises(ValueError, match="ends before"):
        rotation.renew_at(START, START, jitter=0)
