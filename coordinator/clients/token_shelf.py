"""The hub's join tokens: each is used up before a certificate is issued for it, and only once.

This module refuses to know who joins and what a member is.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from coordinator.issuing import tokens
from federation.runtime import processes
from federation.wire import denials


class TokenShelf(Protocol):
    """Where the join tokens' records lie.

    Law: of any number of redemptions of one token, in any number of processes, one at most succeeds, unless
    the token is given back in between.
    """

    async def redeem(self, text: str, cluster: str, now: datetime) -> tokens.TokenRecord:
        """Use a token up; the record that is returned is stored. Raises: Denied."""
        ...

    async def give_back(self, record: tokens.TokenRecord) -> None:
        """Make a token good again whose join did not come about."""
        ...


class FileShelf:
    """The join tokens' records. Which were used is kept on disk, so that a restart frees none."""

    def __init__(self, records: Iterable[tokens.TokenRecord], used_path: pathlib.Path) -> None:
        """Take the records and mark those that `used_path` says were used. Raises: OSError, ValueError."""
        self._path = used_path
        self._used: dict[str, dict[str, str]] = (
            json.loads(used_path.read_text()) if used_path.exists() else {}
        )
        self._records = {record.token_id: self._as_used(record) for record in records}

    async def redeem(self, text: str, cluster: str, now: datetime) -> tokens.TokenRecord:
        """Use a token up; there is no await between looking and marking. Raises: Denied."""
        presented = tokens.parse(text)
        if isinstance(presented, denials.Denial):
            raise denials.Denied(presented)
        used = tokens.redeem(self._records.get(presented.token_id), presented, cluster=cluster, now=now)
        if isinstance(used, denials.Denial):
            raise denials.Denied(used)
        self._records[used.token_id] = used
        self._used[used.token_id] = {"cluster": cluster, "at": now.isoformat()}
        self._save()
        return used

    async def give_back(self, record: tokens.TokenRecord) -> None:
        """Make a token good again whose join did not come about."""
        self._used.pop(record.token_id, None)
        self._records[record.token_id] = tokens.TokenRecord(
            record.token_id, record.secret_sha256, record.expires_at, record.cluster, record.approves
        )
        self._save()

    def _as_used(self, record: tokens.TokenRecord) -> tokens.TokenRecord:
        used = self._used.get(record.token_id)
        if used is None:
            return record
        return tokens.TokenRecord(
            record.token_id, record.secret_sha256, record.expires_at, record.cluster, record.approves,
            used_by=used["cluster"], used_at=datetime.fromisoformat(used["at"]),
        )  # fmt: skip

    def _save(self) -> None:
        processes.write_private_file(self._path, json.dumps(self._used).encode())
