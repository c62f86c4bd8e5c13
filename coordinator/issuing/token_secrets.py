"""A join token's record as a Secret, and back: what `hanse token create` and the hub agree on.

The Secret holds the SHA-256 of the token's secret, never the token. Its name follows from the token's id, so
that the hub finds the one that is presented without keeping a list. This module refuses to know who writes
Secrets, and when a token is good.

    kind: Secret
    type: hanse.dev/join-token
    metadata: {name: hanse-join-token-abcdefgh, labels: {hanse.dev/join-token: abcdefgh}}
    data: {token-id, token-secret-sha256, expires-at, cluster, approves, used-by, used-at}

Law: `record_of(secret_of(record, namespace)) == record`, for times in whole seconds.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from coordinator.issuing import tokens

LABEL: Final = "hanse.dev/join-token"
"""On every join token's Secret, with the token's id as its value; a selector of the label finds them all."""

TYPE: Final = "hanse.dev/join-token"
NAME_PREFIX: Final = "hanse-join-token-"

_ID = re.compile(r"[a-z2-7]{8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FLAGS: Final = {"true": True, "false": False}


class InvalidTokenSecret(ValueError):
    """A Secret that should hold a join token and does not; the text says what is wrong."""


def name_of(token_id: str) -> str:
    """Return the name of a token's Secret."""
    return NAME_PREFIX + token_id


def secret_of(record: tokens.TokenRecord, namespace: str) -> dict[str, Any]:
    """Return the Secret of a record, to be created in the hub's own namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": TYPE,
        "metadata": {
            "name": name_of(record.token_id),
            "namespace": namespace,
            "labels": {LABEL: record.token_id},
        },
        "data": data_of(record),
    }


def data_of(record: tokens.TokenRecord) -> dict[str, str]:
    """Return the data of a record's Secret, in base64; what is empty is left out."""
    values = {
        "token-id": record.token_id,
        "token-secret-sha256": record.secret_sha256,
        "expires-at": _written(record.expires_at),
        "cluster": record.cluster,
        "approves": "true" if record.approves else "false",
        "used-by": record.used_by,
        "used-at": "" if record.used_at is None else _written(record.used_at),
    }
    return {key: base64.b64encode(value.encode()).decode() for key, value in values.items() if value}


def record_of(secret: Mapping[str, Any]) -> tokens.TokenRecord:
    """Read a record out of a Secret as the API server shows it. Raises: InvalidTokenSecret."""
    name = str((secret.get("metadata") or {}).get("name", ""))
    values = {key: _decoded(name, key, text) for key, text in (secret.get("data") or {}).items()}
    token_id = values.get("token-id", "")
    if not _ID.fullmatch(token_id) or name != name_of(token_id):
        raise InvalidTokenSecret(f"Secret {name}: its name is not that of its token-id {token_id[:40]!r}")
    digest = values.get("token-secret-sha256", "")
    if not _SHA256.fullmatch(digest):
        raise InvalidTokenSecret(f"Secret {name}: token-secret-sha256 is not a SHA-256 in hexadecimal")
    approves = _FLAGS.get(values.get("approves", "false"))
    if approves is None:
        raise InvalidTokenSecret(f"Secret {name}: approves is neither true nor false")
    expires_at = _read(name, "expires-at", values.get("expires-at", ""))
    used_at = _read(name, "used-at", values["used-at"]) if values.get("used-at") else None
    return tokens.TokenRecord(
        token_id, digest, expires_at, values.get("cluster", ""), approves, values.get("used-by", ""), used_at
    )


def _decoded(name: str, key: str, text: object) -> str:
    try:
        return base64.b64decode(str(text), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidTokenSecret(f"Secret {name}: {key} is not text in base64") from error


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read(name: str, key: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidTokenSecret(
            f"Secret {name}: {key} is not a time such as 2026-01-31T12:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise InvalidTokenSecret(f"Secret {name}: {key} has no time zone; write it in UTC with a Z")
    return moment.astimezone(UTC)
