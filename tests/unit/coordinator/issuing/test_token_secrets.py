"""A join token's record survives its Secret, and what is no record is refused with the reason."""

import base64
import dataclasses
import datetime as dt
from typing import Any

import pytest

from coordinator.issuing import token_secrets, tokens

EXPIRES = dt.datetime(2026, 5, 4, 3, 2, 1, tzinfo=dt.UTC)
FRESH = tokens.TokenRecord("abcdefg2", "9f" * 32, EXPIRES)
RECORDS = {
    "fresh": FRESH,
    "for one cluster, approving": dataclasses.replace(FRESH, cluster="zurich", approves=True),
    "used": dataclasses.replace(FRESH, used_by="zurich", used_at=EXPIRES - dt.timedelta(hours=1)),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_survives_its_secret(record: tokens.TokenRecord) -> None:
    """What is written is read back, and the Secret can be found by name and by label."""
    secret = token_secrets.secret_of(record, "hanse-system")
    assert token_secrets.record_of(secret) == record
    assert secret["metadata"] == {
        "name": "hanse-join-token-abcdefg2",
        "namespace": "hanse-system",
        "labels": {"hanse.dev/join-token": "abcdefg2"},
    }


def test_the_token_itself_is_not_in_it() -> None:
    """Whoever reads the Secret cannot join with it."""
    token, record = tokens.create(bytes(range(37)), expires_at=EXPIRES)
    data = token_secrets.data_of(record)
    assert all(token.secret not in base64.b64decode(value).decode() for value in data.values())


REFUSED = {
    "another name": ({"token-id": "bbbbbbbb"}, "its name is not that of its token-id 'bbbbbbbb'"),
    "no digest": ({"token-secret-sha256": "x"}, "token-secret-sha256 is not a SHA-256"),
    "no flag": ({"approves": "yes"}, "approves is neither true nor false"),
    "no time": ({"expires-at": "tomorrow"}, "expires-at is not a time"),
    "no zone": ({"expires-at": "2026-01-31T12:00:00"}, "expires-at has no time zone"),
    "use without a time": ({"used-at": "once"}, "used-at is not a time"),
}


@pytest.mark.parametrize(("change", "want"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_token_is_refused(change: dict[str, str], want: str) -> None:
    """The message names the Secret and the key."""
    secret: dict[str, Any] = token_secrets.secret_of(FRESH, "hanse-system")
    secret["data"] |= {key: base64.b64encode(value.encode()).decode() for key, value in change.items()}
    with pytest.raises(token_secrets.InvalidTokenSecret, match=want):
        token_secrets.record_of(secret)


def test_data_that_is_not_base64_is_refused() -> None:
    """A Secret edited by hand fails with a sentence."""
    secret = token_secrets.secret_of(FRESH, "hanse-system")
    secret["data"]["cluster"] = "&"
    with pytest.raises(token_secrets.InvalidTokenSecret, match="cluster is not text in base64"):
        token_secrets.record_of(secret)
