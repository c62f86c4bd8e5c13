"""Join tokens."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.issuing import tokens
from federation.wire.denials import Denial, Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SIZE = tokens.ID_BYTES + tokens.SECRET_BYTES
entropies = st.binary(min_size=SIZE, max_size=SIZE)
ENTROPY = bytes(range(SIZE))


def make(entropy: bytes = ENTROPY, **options: Any) -> tuple[tokens.Token, tokens.TokenRecord]:
    return tokens.create(entropy, **({"expires_at": NOW + timedelta(hours=1)} | options))


def reason(outcome: object) -> Reason | None:
    return outcome.reason if isinstance(outcome, Denial) else None


@given(entropies)
def test_a_token_survives_being_written_down(entropy: bytes) -> None:
    """Law: parse(token.text) == token."""
    token, record = make(entropy)
    assert tokens.parse(token.text) == token
    assert token.text.startswith(f"hanse_{record.token_id}.")


@given(st.text(max_size=80))
def test_other_text_is_malformed(text: str) -> None:
    """Law: what parses is written exactly as it parses; all else is TokenMalformed."""
    parsed = tokens.parse(text)
    if isinstance(parsed, Denial):
        assert parsed.reason is Reason.TOKEN_MALFORMED
    else:
        assert parsed.text == text


def test_the_record_holds_no_secret() -> None:
    """Only a hash is kept, and neither secret nor hash shows in a repr."""
    token, record = make()
    assert token.secret not in str(dataclasses.asdict(record))
    assert token.secret not in repr(token)
    assert record.secret_sha256 not in repr(record)


@given(
    st.lists(
        st.tuples(st.sampled_from(["zurich", "budapest", "cleveland"]), st.integers(0, 4000)), max_size=12
    )
)
def test_a_token_is_good_once(attempts: list[tuple[str, int]]) -> None:
    """Law: of any redemptions in a row at most one succeeds, and exactly the first one in time does."""
    token, record = make()
    successes = 0
    for cluster, seconds in attempts:
        outcome = tokens.redeem(record, token, cluster=cluster, now=NOW + timedelta(seconds=seconds))
        if isinstance(outcome, tokens.TokenRecord):
            successes += 1
            record = outcome
            assert (record.used_by, record.used_at) == (cluster, NOW + timedelta(seconds=seconds))
        elif successes:
            assert outcome.reason is Reason.TOKEN_USED
        else:
            assert outcome.reason is Reason.TOKEN_EXPIRED
    assert successes == any(seconds < 3600 for _, seconds in attempts)


@given(entropies, entropies)
def test_another_secret_redeems_nothing(mine: bytes, theirs: bytes) -> None:
    """Law: a token redeems its own record only; the answer is that of an unknown token."""
    token, _ = make(theirs)
    _, record = make(mine)
    outcome = tokens.redeem(record, token, cluster="zurich", now=NOW)
    assert isinstance(outcome, tokens.TokenRecord) == (mine == theirs)
    assert reason(outcome) in {None, Reason.TOKEN_UNKNOWN}


def test_who_does_not_hold_the_secret_learns_nothing() -> None:
    """Unknown, used, expired and bound tokens all look the same to a guesser."""
    token, record = make(cluster="zurich")
    guess = tokens.Token(token.token_id, "A" * 43)
    used = tokens.redeem(record, token, cluster="zurich", now=NOW)
    assert isinstance(used, tokens.TokenRecord)
    later = NOW + timedelta(days=1)
    answers = {
        tokens.redeem(None, guess, cluster="zurich", now=NOW),
        tokens.redeem(record, guess, cluster="zurich", now=NOW),
        tokens.redeem(record, guess, cluster="budapest", now=NOW),
        tokens.redeem(record, guess, cluster="zurich", now=later),
        tokens.redeem(used, guess, cluster="zurich", now=NOW),
    }
    assert [reason(answer) for answer in answers] == [Reason.TOKEN_UNKNOWN]


def test_a_bound_token_is_for_one_name() -> None:
    """Another name is refused and does not use the token up; the right one keeps the approval."""
    token, record = make(cluster="zurich", approves=True)
    assert reason(tokens.redeem(record, token, cluster="budapest", now=NOW)) is Reason.TOKEN_FOR_OTHER_CLUSTER
    redeemed = tokens.redeem(record, token, cluster="zurich", now=NOW)
    assert isinstance(redeemed, tokens.TokenRecord)
    assert redeemed.approves


def test_a_token_ends_at_its_time() -> None:
    """The moment of expiry is outside."""
    token, record = make()
    end = record.expires_at
    assert isinstance(
        tokens.redeem(record, token, cluster="a", now=end - timedelta(microseconds=1)), tokens.TokenRecord
    )
    assert reason(tokens.redeem(record, token, cluster="a", now=end)) is Reason.TOKEN_EXPIRED


def test_a_token_needs_all_its_randomness() -> None:
    """Too few bytes are an error, not a weak token."""
    with pytest.raises(ValueError, match="random bytes"):
        make(b"short")
