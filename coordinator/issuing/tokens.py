"""Join tokens: what a hub operator hands to an edge operator, good for one join.

A token reads `hanse_<id>.<secret>`. The id names it in lists and logs; the secret is 32 random bytes, of
which the hub keeps a SHA-256 only (an unguessable secret needs no slow hash). Pure: time and random bytes are
arguments; whoever stores the records compares and swaps them, so that two joins cannot both see a fresh one.
This module refuses to know clusters' membership, storage and certificates.

Law: of any sequence of redemptions of one record, each given the record that the one before returned, at most
one succeeds.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from federation.wire import denials

PREFIX: Final = "hanse_"
ID_BYTES: Final = 5  # 8 characters; collisions are for the store to refuse
SECRET_BYTES: Final = 32

_TOKEN = re.compile(r"hanse_(?P<id>[a-z2-7]{8})\.(?P<secret>[A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is handed out. Its secret is kept out of `repr`; `text` is the whole token."""

    token_id: str
    secret: str = field(repr=False)

    @property
    def text(self) -> str:
        """hanse_<id>.<secret>"""
        return f"{PREFIX}{self.token_id}.{self.secret}"


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """What the hub keeps of a token.

    cluster: the only name that may join with it; empty for any. approves: the cluster is accepted without
    asking the operator again. used_by: the cluster that joined with it; empty while it is fresh.
    """

    token_id: str
    secret_sha256: str = field(repr=False)
    expires_at: datetime
    cluster: str = ""
    approves: bool = False
    used_by: str = ""
    used_at: datetime | None = None


def create(
    random_bytes: bytes, *, expires_at: datetime, cluster: str = "", approves: bool = False
) -> tuple[Token, TokenRecord]:
    """Make a token and its record out of ID_BYTES + SECRET_BYTES bytes from a cryptographic source.

    Raises: ValueError if there are more or fewer bytes.
    """
    if len(random_bytes) != ID_BYTES + SECRET_BYTES:
        raise ValueError(f"want {ID_BYTES + SECRET_BYTES} random bytes, got {len(random_bytes)}")
    token_id = base64.b32encode(random_bytes[:ID_BYTES]).decode().lower()
    secret = base64.urlsafe_b64encode(random_bytes[ID_BYTES:]).decode().rstrip("=")
    record = TokenRecord(token_id, _digest(secret), expires_at, cluster, approves)
    return Token(token_id, secret), record


def parse(text: str) -> Token | denials.Denial:
    """Read a presented token; Denial(TOKEN_MALFORMED) if it is none. Its id tells which record to fetch."""
    found = _TOKEN.fullmatch(text)
    if found is None:
        return denials.denial(denials.Reason.TOKEN_MALFORMED)
    return Token(found["id"], found["secret"])


def redeem(
    record: TokenRecord | None, presented: Token, *, cluster: str, now: datetime
) -> TokenRecord | denials.Denial:
    """Use a token: the record with the use written in, or why not.

    record: the one with the presented id, None if there is none. cluster: the name that asks to join.
    Whoever does not hold the secret learns nothing: an unknown id and a wrong secret get the same denial, in
    the same time. Used, expired and bound to another name are told only to those who hold it.
    """
    kept = record.secret_sha256 if record is not None else _digest("")
    holds_secret = hmac.compare_digest(kept, _digest(presented.secret))
    if record is None or not holds_secret or record.token_id != presented.token_id:
        return denials.denial(denials.Reason.TOKEN_UNKNOWN)
    if record.used_at is not None:
        return denials.denial(denials.Reason.TOKEN_USED, token_id=record.token_id)
    if now >= record.expires_at:
        return denials.denial(
            denials.Reason.TOKEN_EXPIRED, token_id=record.token_id, expired_at=record.expires_at.isoformat()
        )
    if record.cluster and record.cluster != cluster:
        return denials.denial(
            denials.Reason.TOKEN_FOR_OTHER_CLUSTER, token_id=record.token_id, cluster=cluster
        )
    return replace(record, used_by=cluster, used_at=now)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
