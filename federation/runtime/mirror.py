"""What an API server holds of one owner's workloads, kept up to date by watches.

Three watches in each namespace: Jobs, their pods, and warnings about either. After a gap everything is listed
again, and what went away meanwhile is noticed. This module refuses to know what the objects mean.
"""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from federation.kube import client, errors
from federation.runtime import pods, tasks

_log = structlog.get_logger(__name__)

REMEMBERED_WARNINGS = 512
"""Objects whose warnings are kept; those of strangers in the same namespace are among them."""

AGAIN_SECONDS = 5.0
"""A list that failed although the client was patient is tried again after so long, and a random bit."""


class Mirror:
    """The Jobs and pods of one owner, by workload name."""

    def __init__(
        self,
        api: client.Client,
        namespaces: Sequence[str] | None,
        owner: str,
        on_change: Callable[[str], None],
        rng: random.Random,
    ) -> None:
        """Look into these namespaces (None: all); `on_change` is called with the workload's name."""
        self._api = api
        self._places: tuple[str | None, ...] = (None,) if namespaces is None else tuple(namespaces)
        self._selector = pods.selector(owner)
        self._on_change = on_change
        self._rng = rng
        self.jobs: dict[str, client.Object] = {}
        self.removed: collections.deque[str] = collections.deque(maxlen=REMEMBERED_WARNINGS)
        """The uids of Jobs that went away, of the last ones."""
        self._pods: dict[str, dict[str, client.Object]] = {}
        self._warnings: collections.OrderedDict[tuple[str, str, str], dict[str, client.Object]] = (
            collections.OrderedDict()
        )
        self._to_list = {(kind, place) for kind in ("Job", "Pod") for place in self._places}
        self.synced = asyncio.Event()

    async def run(self) -> None:
        """Follow everything until cancelled."""
        await tasks.together(
            *(self._follow(kind, place) for place in self._places for kind in ("Job", "Pod", "Event"))
        )

    def pods_of(self, workload: str, namespace: str) -> tuple[client.Object, ...]:
        """Return a workload's pods, oldest first, those of an earlier Job of that name included.

        Pods of other namespaces that bear its label are somebody else's.
        """
        found = [
            pod for pod in self._pods.get(workload, {}).values() if pod["metadata"]["namespace"] == namespace
        ]
        return tuple(sorted(found, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))))

    def pod_of(self, job: client.Object) -> client.Object | None:
        """Return a Job's newest pod."""
        uid = job["metadata"]["uid"]
        mine = [
            pod
            for pod in self.pods_of(pods.workload_name(job), job["metadata"]["namespace"])
            if any(owner["uid"] == uid for owner in pod["metadata"].get("ownerReferences") or ())
        ]
        return mine[-1] if mine else None

    def warnings(self, *regarding: client.Object | None) -> list[client.Object]:
        """Return the warnings about these objects, oldest first."""
        found = [
            event
            for one in regarding
            if one is not None
            for event in self._warnings.get(_key(one), {}).values()
            if event["involvedObject"].get("uid") in (None, one["metadata"]["uid"])
        ]
        return sorted(found, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime")))

    async def _follow(self, kind: str, place: str | None) -> None:
        seen: dict[tuple[str, str, str], client.Object] = {}
        labels, fields = ("", "type=Warning") if kind == "Event" else (self._selector, "")
        while True:
            try:
                listing = await self._api.list(kind, place, labels=labels, fields=fields)
                present = {_key(item): item for item in listing.items}
                for key in seen.keys() - present.keys():
                    self._changed("DELETED", seen[key])
                seen = present
                for item in present.values():
                    self._changed("MODIFIED", item)
                self._listed(kind, place)
                changes = self._api.watch(kind, listing.resource_version, place, labels=labels, fields=fields)
                async for change in changes:
                    if kind != "Event":  # warnings pass; nobody asks which are still kept
                        key = _key(change.object)
                        seen[key] = change.object
                        if change.type == "DELETED":
                            del seen[key]
                    self._changed(change.type, change.object)
            except errors.Gone:
                continue
            except errors.KubernetesError as error:
                _log.warning("workloads not followed", kind=kind, namespace=place or "", error=str(error))
                if kind == "Event":
                    self._listed(kind, place)
                await asyncio.sleep(AGAIN_SECONDS * (1 + self._rng.random()))

    def _listed(self, kind: str, place: str | None) -> None:
        self._to_list.discard((kind, place))
        if not self._to_list and not self.synced.is_set():
            self.synced.set()
            for name in sorted({*self.jobs, *self._pods}):
                self._on_change(name)

    def _changed(self, change: str, obj: client.Object) -> None:
        if obj["kind"] == "Event":
            self._warned(change, obj)
            return
        name = pods.workload_name(obj)
        if not name or (obj["kind"] == "Job" and not self._credible(name, obj)):
            return
        if obj["kind"] == "Job":
            if change != "DELETED":
                self.jobs[name] = obj
            else:
                self.removed.append(obj["metadata"]["uid"])
            if change == "DELETED" and self.jobs.get(name, obj)["metadata"]["uid"] == obj["metadata"]["uid"]:
                self.jobs.pop(name, None)
        else:
            known = self._pods.setdefault(name, {})
            if change != "DELETED":
                known[obj["metadata"]["uid"]] = obj
            else:
                known.pop(obj["metadata"]["uid"], None)
            if not known:
                del self._pods[name]
        if self.synced.is_set():
            self._on_change(name)

    def _credible(self, name: str, job: client.Object) -> bool:
        """Whether a Job may be one of ours: anybody may put our labels on a Job in his own namespace."""
        known = self.jobs.get(name, job)["metadata"]
        metadata = job["metadata"]
        return bool(metadata["name"] == name and metadata["namespace"] == known["namespace"])

    def _warned(self, change: str, event: dict[str, Any]) -> None:
        regarding = event["involvedObject"]
        if change == "DELETED" or regarding.get("kind") not in ("Job", "Pod"):
            return
        key = (regarding["kind"], regarding.get("namespace") or "", regarding.get("name") or "")
        self._warnings.setdefault(key, {})[str(event.get("reason"))] = event
        self._warnings.move_to_end(key)
        while len(self._warnings) > REMEMBERED_WARNINGS:
            self._warnings.popitem(last=False)
        if not self.synced.is_set():
            return
        for name, job in list(self.jobs.items()):
            own = self.pods_of(name, job["metadata"]["namespace"])
            if key in (_key(job), *(_key(pod) for pod in own)):
                self._on_change(name)


def _key(obj: client.Object) -> tuple[str, str, str]:
    return obj["kind"], obj["metadata"].get("namespace") or "", obj["metadata"]["name"]
