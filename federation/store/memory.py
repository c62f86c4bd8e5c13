"""Resources in the memory of one process, for simulations and tests.

It keeps Kubernetes' habits (versions, generations, optimistic writes, watches with gaps) and no files; it
refuses to know what the kinds mean. Every write can be followed from outside through ``on_change``, as
JSON-ready objects.
"""

import asyncio
import collections
import copy
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from federation.store import port

HISTORY_CHANGES = 4096
"""How many changes are kept for watches. A watcher that is further behind lists again, which costs one copy
of everything; thousands of status writes fit in between, at a few kilobytes each.
"""

OnChange = Callable[[dict[str, Any]], None]


class MemoryStore:
    """A ``federation.store.port.Store`` in memory. Not for use from several threads."""

    def __init__(
        self,
        now: Callable[[], dt.datetime],
        new_uid: Callable[[], str],
        on_change: OnChange | None = None,
        history_changes: int = HISTORY_CHANGES,
    ) -> None:
        """Start empty.

        Args:
            now: the clock for creation timestamps and Events; aware datetimes. new_uid: returns a fresh uid
            for every created resource. on_change: called after every write with ``{"type":
            ADDED|MODIFIED|DELETED|EVENT, "object": {...}}``; the
                object is a copy.
            history_changes: how many changes are kept for watches that go on from an earlier version.
        """
        self._now = now
        self._new_uid = new_uid
        self._on_change = on_change
        self._resources: dict[port.Key, port.Resource] = {}
        self._version = 0
        self._history: collections.deque[tuple[int, port.Key, port.Change]] = collections.deque(
            maxlen=history_changes
        )
        self._written = asyncio.Event()
        self._events = 0

    async def get(self, key: port.Key) -> port.Resource:
        """Return the resource. Raises: NotFoundError."""
        return copy.deepcopy(self._stored(key))

    async def list(self, kind: str, namespace: str | None = None) -> port.ResourceList:
        """Return the resources of a kind, ordered by namespace and name."""
        keys = sorted(k for k in self._resources if k.kind == kind and namespace in (None, k.namespace))
        return port.ResourceList(
            tuple(copy.deepcopy(self._resources[key]) for key in keys), str(self._version)
        )

    async def watch(self, kind: str, resource_version: str) -> AsyncIterator[port.Change]:
        """Yield the changes of a kind after a version. Raises: ResyncRequiredError."""
        position = int(resource_version)
        while True:
            oldest = self._history[0][0] if self._history else self._version + 1
            if position < oldest - 1 or position > self._version:
                raise port.ResyncRequiredError(kind, str(position))
            behind = self._version - position
            if behind == 0:
                await self._written.wait()
                continue
            # Every write is one version, so what is new is the last `behind` entries.
            for version, key, change in reversed(list(itertools.islice(reversed(self._history), behind))):
                position = version
                if key.kind == kind:
                    yield port.Change(change.type, copy.deepcopy(change.resource))

    async def create(self, resource: Mapping[str, Any]) -> port.Resource:
        """Store a new resource. Raises: AlreadyExistsError."""
        key = port.key_of(resource)
        if key in self._resources:
            raise port.AlreadyExistsError(key)
        created = copy.deepcopy(dict(resource))
        created["metadata"] |= {
            "uid": self._new_uid(),
            "generation": 1,
            "creationTimestamp": _timestamp(self._now()),
        }
        self._write(key, port.ChangeType.ADDED, created)
        return copy.deepcopy(created)

    async def apply(self, resource: Mapping[str, Any]) -> port.Resource:
        """Create the resource, or replace the spec, labels and annotations of the stored one."""
        key = port.key_of(resource)
        stored = self._resources.get(key)
        if stored is None:
            return await self.create({name: value for name, value in resource.items() if name != "status"})
        wanted = copy.deepcopy(stored)
        wanted["apiVersion"] = resource["apiVersion"]
        wanted["spec"] = copy.deepcopy(resource.get("spec", {}))
        for name in ("labels", "annotations"):
            value = resource["metadata"].get(name)
            if value is None:
                wanted["metadata"].pop(name, None)
            else:
                wanted["metadata"][name] = dict(value)
        if wanted == stored:
            return copy.deepcopy(stored)
        if wanted["spec"] != stored.get("spec", {}):
            wanted["metadata"]["generation"] += 1
        self._write(key, port.ChangeType.MODIFIED, wanted)
        return copy.deepcopy(wanted)

    async def patch_status(
        self, key: port.Key, status: Mapping[str, Any], resource_version: str | None
    ) -> port.Resource:
        """Replace the status, if the stored version is still the given one. Raises: NotFoundError,
        ConflictError.
        """
        stored = self._stored(key)
        if resource_version is not None and resource_version != port.version_of(stored):
            raise port.ConflictError(key, resource_version, port.version_of(stored))
        if stored.get("status") == status:
            return copy.deepcopy(stored)
        wanted = copy.deepcopy(stored) | {"status": copy.deepcopy(dict(status))}
        self._write(key, port.ChangeType.MODIFIED, wanted)
        return copy.deepcopy(wanted)

    async def delete(self, key: port.Key) -> None:
        """Remove the resource. Raises: NotFoundError."""
        last = copy.deepcopy(self._stored(key))
        self._write(key, port.ChangeType.DELETED, last)

    async def record_event(self, event: port.Event) -> None:
        """Publish a Kubernetes-like Event; nothing is kept of it."""
        self._events += 1
        moment = _timestamp(self._now())
        regarding = event.regarding
        self._publish(
            "EVENT",
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": f"{regarding.name}.{self._events}",
                    "namespace": regarding.namespace or "default",
                },
                "involvedObject": {
                    "kind": regarding.kind, "namespace": regarding.namespace, "name": regarding.name,
                },
                "type": str(event.type),
                "reason": event.reason,
                "message": event.message,
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
            },
        )  # fmt: skip

    def _stored(self, key: port.Key) -> port.Resource:
        try:
            return self._resources[key]
        except KeyError:
            raise port.NotFoundError(key) from None

    def _write(self, key: port.Key, change: port.ChangeType, resource: port.Resource) -> None:
        self._version += 1
        resource["metadata"]["resourceVersion"] = str(self._version)
        if change is port.ChangeType.DELETED:
            del self._resources[key]
        else:
            self._resources[key] = resource
        self._history.append((self._version, key, port.Change(change, copy.deepcopy(resource))))
        # Waiters hold the old event; whoever comes later waits for the next write.
        self._written.set()
        self._written = asyncio.Event()
        self._publish(str(change), resource)

    def _publish(self, change: str, resource: port.Resource) -> None:
        if self._on_change is not None:
            self._on_change({"type": change, "object": copy.deepcopy(resource)})


def _timestamp(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
