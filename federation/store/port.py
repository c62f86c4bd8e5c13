"""Where resources live: the port that the coordinator reads and writes its resources through.

Resources are plain JSON objects shaped as Kubernetes shapes them (apiVersion, kind, metadata, spec, status),
so that a store in memory and the Kubernetes API can stand behind the same calls. This module refuses to know
what the kinds mean: validation and defaulting belong to ``federation.api`` and happen before a resource is
written.
"""

import dataclasses
import enum
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

Resource = dict[str, Any]
"""A resource as JSON; it is not shared: whoever receives one may change it."""


class StoreError(Exception):
    """A store could not do what was asked."""


@dataclasses.dataclass(frozen=True, order=True)
class Key:
    """What names one resource: its kind, its namespace (empty for cluster-scoped kinds) and its name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Return the key as people write it: ``FederatedTraining cardiology/hospitals``."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


class NotFoundError(StoreError):
    """The resource does not exist."""

    def __init__(self, key: Key) -> None:
        """Name the missing resource."""
        super().__init__(f"{key} does not exist")
        self.key = key


class AlreadyExistsError(StoreError):
    """A resource of this name exists already."""

    def __init__(self, key: Key) -> None:
        """Name the resource."""
        super().__init__(f"{key} exists already")
        self.key = key


class ConflictError(StoreError):
    """The resource was changed since the caller read it; read it again and decide again."""

    def __init__(self, key: Key, want: str, got: str) -> None:
        """Name the resource, the version that the caller saw and the version that is stored."""
        super().__init__(f"{key} changed since it was read: caller saw version {want}, stored is {got}")
        self.key = key
        self.want = want
        self.got = got


class ResyncRequiredError(StoreError):
    """The watch cannot go on from this version, because changes since then are no longer kept; list again."""

    def __init__(self, kind: str, resource_version: str) -> None:
        """Name the kind and the version that is too old."""
        super().__init__(f"changes of {kind} since version {resource_version} are no longer kept")
        self.kind = kind
        self.resource_version = resource_version


class RefusedError(StoreError):
    """The store refuses the resource: a field is unknown or breaks a rule; nothing was written."""

    def __init__(self, message: str, causes: tuple[tuple[str, str], ...] = ()) -> None:
        """Keep the store's own words, and field by field what is wrong where it says so."""
        super().__init__(message)
        self.causes = causes


class UnavailableError(StoreError):
    """The store does not answer; nothing is known of what was asked. Ask again."""


class ChangeType(enum.StrEnum):
    """What happened to a resource, in the Kubernetes watch's words."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclasses.dataclass(frozen=True)
class Change:
    """One change of one resource; ``resource`` is its state after the change (for DELETED: its last)."""

    type: ChangeType
    resource: Resource


@dataclasses.dataclass(frozen=True)
class ResourceList:
    """The resources of one kind at one version; a watch from that version misses nothing."""

    items: tuple[Resource, ...]
    resource_version: str


class EventType(enum.StrEnum):
    """How much an Event matters, in Kubernetes' words."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a resource, for people; nothing acts on it.

    ``reason`` is CamelCase from the catalogue of reasons; ``message`` a whole sentence.
    """

    regarding: Key
    type: EventType
    reason: str
    message: str


class Store(Protocol):
    """Reads and writes resources. Every returned resource is the caller's own copy."""

    async def get(self, key: Key) -> Resource:
        """Return the resource. Raises: NotFoundError."""
        ...

    async def list(self, kind: str, namespace: str | None = None) -> ResourceList:
        """Return a kind's resources, ordered by namespace and name; of all namespaces if it is None."""
        ...

    def watch(self, kind: str, resource_version: str) -> AsyncIterator[Change]:
        """Yield the changes of a kind after a version, in order, for ever. Raises: ResyncRequiredError."""
        ...

    async def create(self, resource: Mapping[str, Any]) -> Resource:
        """Store a new resource. Raises: AlreadyExistsError."""
        ...

    async def apply(self, resource: Mapping[str, Any]) -> Resource:
        """Create the resource, or replace the spec, labels and annotations of the stored one; status stays.

        ``metadata.generation`` grows only when the spec changes. Applying what is stored writes nothing.
        """
        ...

    async def patch_status(
        self, key: Key, status: Mapping[str, Any], resource_version: str | None
    ) -> Resource:
        """Replace the status, if the stored version is still ``resource_version`` (None: whatever it is).

        Writing the status that is stored writes nothing. Raises: NotFoundError, ConflictError.
        """
        ...

    async def delete(self, key: Key) -> None:
        """Remove the resource. Raises: NotFoundError."""
        ...

    async def record_event(self, event: Event) -> None:
        """Note that something happened. The resource need not exist any more."""
        ...


def key_of(resource: Mapping[str, Any]) -> Key:
    """Return what names this resource."""
    metadata = resource["metadata"]
    return Key(resource["kind"], metadata.get("namespace") or "", metadata["name"])


def version_of(resource: Mapping[str, Any]) -> str:
    """Return the version at which this resource was read."""
    return str(resource["metadata"]["resourceVersion"])


async def follow(store: Store, kind: str) -> AsyncIterator[Change]:
    """Yield every resource of a kind as ADDED, then its changes for ever; list again after a gap.

    Law: whatever gaps there are, the changes seen by the caller add up to what the store holds: a resource
    that went away during a gap is yielded as DELETED with the last state that the caller saw.
    """
    seen: dict[Key, Resource] = {}
    while True:
        listing = await store.list(kind)
        present = {key_of(item): item for item in listing.items}
        for key in sorted(seen.keys() - present.keys()):
            yield Change(ChangeType.DELETED, seen.pop(key))
        for key, item in present.items():
            known = seen.get(key)
            if known is None or version_of(known) != version_of(item):
                seen[key] = item
                yield Change(ChangeType.ADDED if known is None else ChangeType.MODIFIED, item)
        try:
            async for change in store.watch(kind, listing.resource_version):
                key = key_of(change.resource)
                if change.type is ChangeType.DELETED:
                    seen.pop(key, None)
                else:
                    seen[key] = change.resource
                yield change
        except ResyncRequiredError:
            continue
