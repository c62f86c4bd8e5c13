"""Where a client in a cluster keeps what must outlive its pod: a claim for each assignment, and its key.

Why it exists: a pod that is deleted, drained or lost with its node takes its own volumes along, and so does
one that ends because its training is suspended. The claim and the Secret with the key stay until the
assignment is over; the Secret belongs to the claim, so that they go together. What is not asked for any more
is found by its label, so an agent that starts anew leaves nothing behind. This module refuses to know what is
kept, and when.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from edge_agent import sites, workloads
from federation.kube import client, errors
from federation.telemetry import logs

_log = logs.get_logger(__name__)

LABELS: Mapping[str, str] = {
    "app.kubernetes.io/name": "hanse",
    "app.kubernetes.io/component": "client-state",
    "app.kubernetes.io/managed-by": "hanse",
}
"""What all of these claims have, and nothing else."""

_SUFFIX = "-state"
_KEY = workloads.STATE_KEY_NAME


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for all claims of one agent. storage_class: empty for the cluster's default."""

    namespace: str
    size: str
    storage_class: str = ""


class StateClaims:
    """The claims of one namespace's clients, with their keys."""

    def __init__(self, api: client.Client, settings: Settings) -> None:
        """Nothing is asked yet."""
        self._api = api
        self._settings = settings

    async def provide(self, workload: str, labels: Mapping[str, str]) -> tuple[dict[str, Any], bytes]:
        """Return the volume for a client and the key of what lies there, the same at each of its starts.

        workload: the client's name. labels: what else the objects are to have.
        Raises: sites.SiteFailure.
        """
        name = workload + _SUFFIX
        try:
            claim = await self._claim(name, labels)
            if claim["metadata"].get("deletionTimestamp"):
                raise sites.SiteFailure(
                    f"the claim {name} of an earlier client is being removed still; it goes with the last "
                    "pod that has it"
                )
            key = await self._key(name, labels, claim["metadata"]["uid"])
        except errors.Unreachable as error:
            raise sites.SiteAway(str(error)) from error
        except errors.KubernetesError as error:
            raise sites.SiteFailure(f"the client's state has no place: claim {name}: {error}") from error
        return {"persistentVolumeClaim": {"claimName": name}}, key

    async def remove(self, workload: str) -> None:
        """Remove a client's claim and key, if there are any; a failure is logged, and `tidy` tries again."""
        name = workload + _SUFFIX
        try:
            for kind in ("Secret", "PersistentVolumeClaim"):
                with contextlib.suppress(errors.NotFound):
                    await self._api.delete(kind, name, self._settings.namespace)
        except errors.KubernetesError as error:
            _log.warning("claim not removed", name=name, error=str(error))

    async def tidy(self, is_wanted: Callable[[str], bool]) -> None:
        """Remove what belongs to no wanted client, told by its name; asked before each removal."""
        selector = ",".join(f"{key}={value}" for key, value in LABELS.items())
        try:
            found = await self._api.list("PersistentVolumeClaim", self._settings.namespace, labels=selector)
        except errors.KubernetesError as error:
            _log.warning("claims not tidied", error=str(error))
            return
        for claim in found.items:
            workload = claim["metadata"]["name"].removesuffix(_SUFFIX)
            if not is_wanted(workload) and not claim["metadata"].get("deletionTimestamp"):
                _log.info("claim removed", name=claim["metadata"]["name"])
                await self.remove(workload)

    async def _claim(self, name: str, labels: Mapping[str, str]) -> client.Object:
        namespace, settings = self._settings.namespace, self._settings
        with contextlib.suppress(errors.NotFound):
            return await self._api.get("PersistentVolumeClaim", name, namespace)
        of_class = {"storageClassName": settings.storage_class} if settings.storage_class else {}
        made = await self._api.create(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": namespace, "labels": {**labels, **LABELS}},
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": settings.size}},
                    **of_class,
                },
            }
        )
        _log.info("claim made", name=name)
        return made

    async def _key(self, name: str, labels: Mapping[str, str], claim_uid: str) -> bytes:
        namespace = self._settings.namespace
        with contextlib.suppress(errors.NotFound):
            secret = await self._api.get("Secret", name, namespace)
            key = base64.b64decode((secret.get("data") or {}).get(_KEY, ""))
            if len(key) == workloads.STATE_KEY_BYTES:
                return key
            await self._api.delete("Secret", name, namespace)
        key = secrets.token_bytes(workloads.STATE_KEY_BYTES)
        owner = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": name, "uid": claim_uid}
        await self._api.create(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {
                    "name": name,
                    "namespace": namespace,
                    "labels": {**labels, **LABELS},
                    "ownerReferences": [owner],
                },
                "type": "Opaque",
                "data": {_KEY: base64.b64encode(key).decode()},
            }
        )
        return key
