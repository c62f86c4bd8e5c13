"""Join tokens are used once, also over a restart of the hub."""

import datetime as dt
import pathlib

import pytest

from coordinator.clients import token_shelf
from coordinator.issuing import tokens
from federation.wire import denials

pytestmark = pytest.mark.asyncio

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def make(seed: int = 1) -> tuple[tokens.Token, tokens.TokenRecord]:
    """A token good for an hour."""
    random_bytes = bytes([seed]) * (tokens.ID_BYTES + tokens.SECRET_BYTES)
    return tokens.create(random_bytes, expires_at=NOW + dt.timedelta(hours=1))


async def reason(shelf: token_shelf.FileShelf, text: str, now: dt.datetime = NOW) -> denials.Reason:
    """Why a token is refused."""
    with pytest.raises(denials.Denied) as caught:
        await shelf.redeem(text, "zurich", now)
    return caught.value.reason


async def test_the_second_use_is_refused_also_after_a_restart(tmp_path: pathlib.Path) -> None:
    """What was used is on disk before the answer goes out, readable by this user only."""
    token, record = make()
    path = tmp_path / "used.json"
    shelf = token_shelf.FileShelf([record], path)
    assert (await shelf.redeem(token.text, "zurich", NOW)).used_by == "zurich"
    assert await reason(shelf, token.text) is denials.Reason.TOKEN_USED
    assert await reason(token_shelf.FileShelf([record], path), token.text) is denials.Reason.TOKEN_USED
    assert path.stat().st_mode & 0o777 == 0o600
    assert token.secret not in path.read_text()


async def test_a_token_of_a_join_that_failed_is_good_again(tmp_path: pathlib.Path) -> None:
    """An edge that asked for a taken name need not ask for another token."""
    token, record = make()
    path = tmp_path / "used.json"
    shelf = token_shelf.FileShelf([record], path)
    await shelf.give_back(await shelf.redeem(token.text, "zurich", NOW))
    again = await token_shelf.FileShelf([record], path).redeem(token.text, "budapest", NOW)
    assert again.used_by == "budapest"


async def test_unknown_malformed_and_expired_tokens_are_refused(tmp_path: pathlib.Path) -> None:
    """Each with its own reason."""
    token, record = make()
    stranger, _ = make(2)
    shelf = token_shelf.FileShelf([record], tmp_path / "used.json")
    assert await reason(shelf, "nonsense") is denials.Reason.TOKEN_MALFORMED
    assert await reason(shelf, stranger.text) is denials.Reason.TOKEN_UNKNOWN
    assert await reason(shelf, token.text, NOW + dt.timedelta(hours=2)) is denials.Reason.TOKEN_EXPIRED
