"""Join tokens are used once, also over a restart of the hub."""

import datetime as dt
import pathlib

import pytest

from coordinator.gateway import enrollment
from coordinator.issuing import tokens
from federation.wire import denials

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def make(seed: int = 1) -> tuple[tokens.Token, tokens.TokenRecord]:
    """A token good for an hour."""
    random_bytes = bytes([seed]) * (tokens.ID_BYTES + tokens.SECRET_BYTES)
    return tokens.create(random_bytes, expires_at=NOW + dt.timedelta(hours=1))


def reason(shelf: enrollment.TokenShelf, text: str, now: dt.datetime = NOW) -> denials.Reason:
    """Why a token is refused."""
    with pytest.raises(denials.Denied) as caught:
        shelf.redeem(text, "zurich", now)
    return caught.value.reason


def test_the_second_use_is_refused_also_after_a_restart(tmp_path: pathlib.Path) -> None:
    """What was used is on disk before the answer goes out, readable by this user only."""
    token, record = make()
    path = tmp_path / "used.json"
    shelf = enrollment.TokenShelf([record], path)
    assert shelf.redeem(token.text, "zurich", NOW).used_by == "zurich"
    assert reason(shelf, token.text) is denials.Reason.TOKEN_USED
    assert reason(enrollment.TokenShelf([record], path), token.text) is denials.Reason.TOKEN_USED
    assert path.stat().st_mode & 0o777 == 0o600
    assert token.secret not in path.read_text()


def test_a_token_of_a_join_that_failed_is_good_again(tmp_path: pathlib.Path) -> None:
    """An edge that asked for a taken name need not ask for another token."""
    token, record = make()
    path = tmp_path / "used.json"
    shelf = enrollment.TokenShelf([record], path)
    shelf.give_back(shelf.redeem(token.text, "zurich", NOW))
    assert enrollment.TokenShelf([record], path).redeem(token.text, "budapest", NOW).used_by == "budapest"


def test_unknown_malformed_and_expired_tokens_are_refused(tmp_path: pathlib.Path) -> None:
    """Each with its own reason."""
    token, record = make()
    stranger, _ = make(2)
    shelf = enrollment.TokenShelf([record], tmp_path / "used.json")
    assert reason(shelf, "nonsense") is denials.Reason.TOKEN_MALFORMED
    assert reason(shelf, stranger.text) is denials.Reason.TOKEN_UNKNOWN
    assert reason(shelf, token.text, NOW + dt.timedelta(hours=2)) is denials.Reason.TOKEN_EXPIRED
