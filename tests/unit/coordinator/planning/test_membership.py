"""What a member's certificate is said to be worth."""

from typing import Any

import pytest

from coordinator.planning import membership

ENDS = 1_790_000_000.0
STATUS = {"certificate": {"sha256": "ab" * 32, "expiresAt": "2026-09-21T14:13:20Z"}}


def judged(acceptance: str, now: float, status: dict[str, Any]) -> membership.Certificate | None:
    return membership.certificate("zurich", {"acceptance": acceptance}, status, now)


@pytest.mark.parametrize(
    ("acceptance", "now", "want"),
    [
        ("Accepted", ENDS - 1, (True, "Issued", ENDS)),
        ("Pending", ENDS - 1, (True, "Issued", ENDS)),
        ("Accepted", ENDS, (False, "Expired", None)),
        ("Expelled", ENDS - 1, (False, "Expelled", None)),
        ("Expelled", ENDS + 1, (False, "Expelled", None)),
    ],
)
def test_it_is_good_until_it_ends_or_is_revoked(
    acceptance: str, now: float, want: tuple[bool, str, float | None]
) -> None:
    """And the hub looks again when it ends, without news."""
    found = judged(acceptance, now, STATUS)
    assert found is not None
    assert (found.valid, found.reason, found.changes_at) == want
    assert found.message.endswith(".")


LEFT = {"conditions": [{"type": "Joined", "status": "False", "reason": "Left"}]}


def test_of_a_member_that_left_it_counts_no_longer() -> None:
    """Whatever time it had left; who was expelled besides is told that."""
    left, expelled = judged("Accepted", 0.0, STATUS | LEFT), judged("Expelled", 0.0, STATUS | LEFT)
    assert left is not None and expelled is not None
    assert (left.valid, left.reason, left.changes_at) == (False, "Left", None)
    assert "`hanse token create --cluster zurich`" in left.message
    assert expelled.reason == "Expelled"


@pytest.mark.parametrize(
    "status", [{}, {"conditions": [{"type": "Joined", "status": "True", "reason": "Enrolled"}]}]
)
def test_a_member_that_is_there_has_not_left(status: dict[str, Any]) -> None:
    """Nor has one that never joined."""
    assert membership.has_left(LEFT)
    assert not membership.has_left(status)


def test_what_does_not_hold_says_what_to_do() -> None:
    """Whoever reads it has the command at hand."""
    expelled, expired = judged("Expelled", 0.0, STATUS), judged("Accepted", ENDS, STATUS)
    assert expelled is not None and "`hanse clusters approve zurich`" in expelled.message
    assert expired is not None and "`hanse token create --cluster zurich`" in expired.message


def test_a_member_that_never_had_one_has_no_condition() -> None:
    """Somebody made its resource by hand."""
    assert judged("Accepted", 0.0, {}) is None
