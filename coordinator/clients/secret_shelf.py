"""Join tokens as Secrets of the hub's own namespace, for any number of replicas of the coordinator.

Apart from `token_shelf`, so that a hub of processes loads nothing of Kubernetes. This module refuses to know
who joins and what a member is.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from coordinator.issuing import token_secrets, tokens
from federation.kube import client, errors
from federation.telemetry import logs
from federation.wire import denials

_log = logs.get_logger(__name__)

KEPT_AFTER_EXPIRY = timedelta(hours=24)
"""So long whoever comes with an expired or a used token is told so, and not that there is no such token."""


class Secrets(Protocol):
    """What is asked of the API server; `federation.kube.client.Client` does it."""

    async def get(self, kind: Any, name: str, namespace: str = "") -> dict[str, Any]:
        """Return the object. Raises: NotFound."""
        ...

    async def list(self, kind: Any, namespace: str | None = None, *, labels: str = "") -> client.Listing:
        """Return the objects."""
        ...

    async def replace(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Write the object, if its version is the stored one. Raises: Conflict."""
        ...

    async def delete(
        self, kind: Any, name: str, namespace: str = "", *, resource_version: str = ""
    ) -> dict[str, Any]:
        """Delete the object, if it has that version. Raises: NotFound, Conflict."""
        ...


class SecretShelf:
    """Join tokens as Secrets: whoever writes the use first has used it, whichever replica that is."""

    def __init__(self, secrets: Secrets, namespace: str) -> None:
        """Look for tokens in the hub's own namespace."""
        self._secrets = secrets
        self._namespace = namespace

    async def redeem(self, text: str, cluster: str, now: datetime) -> tokens.TokenRecord:
        """Use a token up. Raises: Denied, also (BUSY) when the API server does not answer."""
        presented = tokens.parse(text)
        if isinstance(presented, denials.Denial):
            raise denials.Denied(presented)
        while True:
            secret, record = await self._read(presented.token_id)
            used = tokens.redeem(record, presented, cluster=cluster, now=now)
            if isinstance(used, denials.Denial):
                raise denials.Denied(used)
            assert secret is not None  # or there would be a denial
            if await self._write(secret, used):
                return used

    async def give_back(self, record: tokens.TokenRecord) -> None:
        """Make a token good again whose join did not come about."""
        while True:
            secret, stored = await self._read(record.token_id)
            if secret is None or stored is None or stored.used_by != record.used_by:
                return
            if await self._write(secret, dataclasses.replace(stored, used_by="", used_at=None)):
                return

    async def tidy(self, now: datetime) -> int:
        """Remove what is expired or used for long; return how many. Raises: KubernetesError."""
        removed = 0
        listing = await self._secrets.list("Secret", self._namespace, labels=token_secrets.LABEL)
        for secret in listing.items:
            metadata = secret["metadata"]
            try:
                record = token_secrets.record_of(secret)
            except token_secrets.InvalidTokenSecret as error:
                _log.warning("join token unusable", error=str(error))
                continue
            if now < min(record.expires_at, record.used_at or record.expires_at) + KEPT_AFTER_EXPIRY:
                continue
            with contextlib.suppress(errors.NotFound, errors.Conflict):
                await self._secrets.delete(
                    "Secret",
                    metadata["name"],
                    self._namespace,
                    resource_version=metadata["resourceVersion"],
                )
                removed += 1
        return removed

    async def _read(self, token_id: str) -> tuple[dict[str, Any] | None, tokens.TokenRecord | None]:
        try:
            secret = await self._secrets.get("Secret", token_secrets.name_of(token_id), self._namespace)
            return secret, token_secrets.record_of(secret)
        except errors.NotFound:
            return None, None
        except token_secrets.InvalidTokenSecret as error:
            _log.warning("join token unusable", error=str(error))
            return None, None
        except errors.KubernetesError as error:
            _log.warning("join token not read", token_id=token_id, error=str(error))
            raise denials.Denied(denials.Reason.INTERNAL) from error

    async def _write(self, secret: Mapping[str, Any], record: tokens.TokenRecord) -> bool:
        """Write a record over the Secret that was read; return whether nobody else had written meanwhile."""
        try:
            await self._secrets.replace({**secret, "data": token_secrets.data_of(record)})
        except (errors.Conflict, errors.NotFound):
            return False
        except errors.KubernetesError as error:
            _log.warning("join token not written", token_id=record.token_id, error=str(error))
            raise denials.Denied(denials.Reason.INTERNAL) from error
        return True
