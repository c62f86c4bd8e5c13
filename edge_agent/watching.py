"""Watches the owner's objects in the agent's own namespace, looks at the volumes that they name, and writes
their statuses.

While the API server is away, what was seen last stays in force. This module refuses to know what the objects
mean; `owned` does.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Mapping, Sequence

from edge_agent import bucket_claims, owned, resources
from federation.api import dataset as datasets
from federation.api import policy as policies
from federation.kube import client, errors
from federation.runtime import tasks
from federation.telemetry import logs

_log = logs.get_logger(__name__)

VOLUMES_SECONDS = 10.0
"""So often it is looked whether claims and ConfigMaps are there; one small request for each data set."""

AGAIN_SECONDS = 2.0
"""After a watch that could not be had."""

KINDS = (datasets.EdgeDataset.INFO.kind, policies.EdgePolicy.INFO.kind)


class Owner:
    """What the owner declares in one namespace, kept current by `run`."""

    def __init__(
        self,
        api: client.Client,
        namespace: str,
        *,
        buckets: bucket_claims.BucketClaims,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Nothing is asked yet."""
        self._api = api
        self._buckets = buckets
        self._namespace = namespace
        self._now = now
        self._held: dict[str, dict[str, client.Object]] = {}
        self._owned = owned.Owned()
        self._seen: dict[str, owned.Volume] = {}
        self._declared = resources.Resources()
        self._in_use: dict[str, tuple[str, ...]] = {}
        self._ready = asyncio.Event()
        self._changed = asyncio.Event()
        self._to_show = asyncio.Event()

    async def declared(self) -> resources.Resources:
        """Return what is offered and allowed now; the first call waits until all was seen once."""
        await self._ready.wait()
        return self._declared

    def use(self, in_use: Mapping[str, Sequence[str]]) -> None:
        """Take note of which trainings use which data set (by spec.name)."""
        now = {name: tuple(sorted(trainings)) for name, trainings in in_use.items()}
        if now != self._in_use:
            self._in_use = now
            self._to_show.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        await tasks.together(
            *(self._follow(kind) for kind in KINDS),
            self._look(),
            self._show(),
            self._buckets.run(self._changed.set),
        )

    async def _follow(self, kind: str) -> None:
        while True:
            try:
                listing = await self._api.list(kind, self._namespace)
                self._held[kind] = {item["metadata"]["name"]: item for item in listing.items}
                self._read()
                async for change in self._api.watch(kind, listing.resource_version, self._namespace):
                    name = change.object["metadata"]["name"]
                    if change.type == "DELETED":
                        self._held[kind].pop(name, None)
                    else:
                        self._held[kind][name] = change.object
                    self._read()
            except errors.Gone:
                continue  # changes were missed: all anew
            except errors.KubernetesError as error:
                _log.warning("owner's objects cannot be watched", kind=kind, error=str(error))
                await asyncio.sleep(AGAIN_SECONDS)

    def _read(self) -> None:
        if len(self._held) < len(KINDS):
            return
        before = self._owned
        self._owned = owned.read(*(self._held[kind].values() for kind in KINDS))
        for name, error in self._owned.unreadable.items():
            if name not in before.unreadable:
                _log.warning("object not readable", name=name, error=error)
        self._declare()
        self._changed.set()
        self._to_show.set()

    def _declare(self) -> None:
        fresh = owned.declared(self._owned, self._seen)
        if fresh != self._declared:
            self._declared = fresh

    async def _look(self) -> None:
        await self._changed.wait()
        while True:
            self._changed.clear()
            objects = self._owned
            await self._buckets.tidy(objects)
            seen = {dataset.name: await self._volume(dataset) for dataset in objects.datasets}
            if seen != self._seen:
                self._seen = seen
                self._declare()
                self._to_show.set()
            if not self._ready.is_set():
                _log.info("owner's objects read", datasets=len(seen), policies=len(self._owned.policies))
                self._ready.set()
            try:
                async with asyncio.timeout(VOLUMES_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _volume(self, dataset: datasets.EdgeDataset) -> owned.Volume:
        volume = dataset.spec.volume
        if volume.s3 is not None:
            return await self._bucket(dataset)
        if volume.persistent_volume_claim is not None:
            kind, name = "PersistentVolumeClaim", volume.persistent_volume_claim.claim_name
        elif volume.config_map is not None:
            kind, name = "ConfigMap", volume.config_map.name
        else:
            return owned.Volume()
        title = f"data set {dataset.spec.name} lies in {kind} {name}"
        try:
            found = await self._api.get(kind, name, self._namespace)
        except errors.NotFound:
            return owned.Volume(
                False,
                f"{title}, and namespace {self._namespace} has none of that name; ask its owner to add it",
            )
        except errors.KubernetesError as error:
            _log.warning("volume cannot be looked at", dataset=dataset.name, error=str(error))
            return self._seen.get(dataset.name, owned.Volume())
        if found.get("status", {}).get("phase") == "Lost":
            return owned.Volume(False, f"{title}, which has lost its volume; ask its owner to mend it")
        return owned.Volume(True)

    async def _bucket(self, dataset: datasets.EdgeDataset) -> owned.Volume:
        if dataset.name in self._owned.shadowed:
            return owned.Volume()
        while True:
            try:
                return await self._buckets.volume(dataset)
            except errors.KubernetesError as error:
                _log.warning("claim cannot be looked at", dataset=dataset.name, error=str(error))
            if dataset.name in self._seen:
                return self._seen[dataset.name]
            # Not to know would end the clients that an earlier agent left.
            await asyncio.sleep(AGAIN_SECONDS)

    async def _show(self) -> None:
        await self._ready.wait()
        while True:
            await self._to_show.wait()
            self._to_show.clear()
            now = self._now()
            for dataset in self._owned.datasets:
                seen = self._seen.get(dataset.name, owned.Volume())
                used_by = self._in_use.get(dataset.spec.name, ())
                await self._write(dataset, owned.dataset_status(dataset, self._owned, seen, used_by, now))
            for policy in self._owned.policies:
                if f"EdgePolicy {policy.name}" not in self._owned.unreadable:
                    await self._write(policy, owned.policy_status(policy, now))

    async def _write(
        self,
        resource: datasets.EdgeDataset | policies.EdgePolicy,
        status: datasets.EdgeDatasetStatus | policies.EdgePolicyStatus,
    ) -> None:
        if status == resource.status:
            return
        try:
            await self._api.replace_status(resource.kind, resource.name, self._namespace, status.manifest())
        except errors.NotFound:
            pass  # deleted meanwhile
        except errors.KubernetesError as error:
            _log.warning("status not written", kind=resource.kind, name=resource.name, error=str(error))
