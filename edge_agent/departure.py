"""Leaving the federation: whether this pod is ended for it, and the word for the owner that the hub knows.

`hanse leave` marks the agent's pod before it ends it; without the mark an end is a restart or a drained node,
and no news for the hub. Nothing here is waited for longer than a pod has time to end. This module refuses to
know the session with the hub; the link says it there.
"""

from __future__ import annotations

import asyncio
import contextlib

from federation.api import leaving
from federation.kube import client, errors
from federation.telemetry import logs
from federation.wire import denials

_log = logs.get_logger(__name__)

ASKING_SECONDS = 3.0
"""For the API server to say whether there is a mark, and to take the receipt."""

TELLING_SECONDS = 10.0
"""For the hub to be told; together with the clients' end it stays below the pod's 30 s."""

IS_KNOWN = frozenset(
    {denials.Reason.REVOKED.value, denials.Reason.EXPELLED.value, denials.Reason.UNKNOWN_IDENTITY.value}
)
"""With these the hub says that this cluster is no member, whether it was just told or knew it before."""


async def is_asked(api: client.Client, namespace: str, pod: str) -> bool:
    """Whether this agent's pod has the mark; no, where that cannot be found out in time."""
    if not pod:
        return False
    try:
        async with asyncio.timeout(ASKING_SECONDS):
            found = await api.list("Pod", namespace, fields=f"metadata.name={pod}")
    except (errors.KubernetesError, TimeoutError) as error:
        _log.warning("not known whether this edge leaves", error=str(error))
        return False
    return any(leaving.MARK in (one["metadata"].get("annotations") or {}) for one in found.items)


async def leave_receipt(api: client.Client, namespace: str) -> None:
    """Say to `hanse leave` that the hub knows; without it the owner asks the hub's operator in vain."""
    labels = {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/managed-by": "hanse"}
    metadata = {"name": leaving.RECEIPT, "namespace": namespace, "labels": labels}
    with contextlib.suppress(errors.KubernetesError, TimeoutError):
        async with asyncio.timeout(ASKING_SECONDS):
            await api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
