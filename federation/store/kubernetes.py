"""Resources in a Kubernetes API server, behind the store port.

What a store of Hanse needs and an API server does otherwise is bridged here: the owner of fields, errors,
Events with the object's uid. This module refuses to know what the kinds mean, and makes no request itself.
"""

from __future__ import annotations

import collections
import datetime as dt
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import structlog

from federation.kube import client, errors, events
from federation.store import port

REMEMBERED_UIDS = 4096
"""So many resources' uids are kept for Events; of one that is not among them the uid is read first."""

_log = structlog.get_logger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class KubernetesStore:
    """A ``federation.store.port.Store`` over an API server.

    ``apply`` is server-side: fields of other managers (a user's own label) stay, and fields that this store
    once applied and no longer names go.
    """

    def __init__(
        self,
        api: client.Client,
        *,
        component: str,
        now: Callable[[], dt.datetime],
        instance: str = "",
        namespace: str | None = None,
    ) -> None:
        """Wrap a client, which stays the caller's to close.

        component, instance: who records Events: a program's name and its pod's. namespace: see only this
        one's resources, as an edge's agent may; None for all.
        """
        self._api = api
        self._namespace = namespace
        self._events = events.Recorder(api, component, now, instance)
        self._uids: collections.OrderedDict[port.Key, str] = collections.OrderedDict()

    async def get(self, key: port.Key) -> port.Resource:
        """Return the resource. Raises: NotFoundError."""
        return self._seen(await _of(key, self._api.get)(key.kind, key.name, key.namespace))

    async def list(self, kind: str, namespace: str | None = None) -> port.ResourceList:
        """Return a kind's resources, ordered by namespace and name."""
        listing = await _of_kind(kind, self._api.list)(kind, namespace or self._namespace)
        items = sorted((self._seen(item) for item in listing.items), key=port.key_of)
        return port.ResourceList(tuple(items), listing.resource_version)

    async def watch(self, kind: str, resource_version: str) -> AsyncIterator[port.Change]:
        """Yield the changes of a kind after a version; an API server that is away is waited for.

        Raises: ResyncRequiredError.
        """
        changes = self._api.watch(kind, resource_version, self._namespace)
        try:
            async for change in changes:
                yield port.Change(port.ChangeType(change.type), self._seen(change.object))
        except errors.Gone as error:
            raise port.ResyncRequiredError(kind, resource_version) from error
        except errors.KubernetesError as error:
            raise _translated(error) from error

    async def create(self, resource: Mapping[str, Any]) -> port.Resource:
        """Store a new resource. Raises: AlreadyExistsError, RefusedError."""
        key = port.key_of(resource)
        return self._seen(await _of(key, self._api.create)(resource))

    async def apply(self, resource: Mapping[str, Any]) -> port.Resource:
        """Create the resource, or replace what this store applied before of spec, labels and annotations.

        Raises: RefusedError with the API server's own message.
        """
        key = port.key_of(resource)
        wanted = {name: value for name, value in resource.items() if name != "status"}
        # A resource that was read carries what only the API server sets.
        wanted["metadata"] = {
            name: value
            for name, value in resource["metadata"].items()
            if name in {"name", "namespace", "labels", "annotations", "ownerReferences", "finalizers"}
        }
        return self._seen(await _of(key, self._api.apply)(wanted))

    async def patch_status(
        self, key: port.Key, status: Mapping[str, Any], resource_version: str | None
    ) -> port.Resource:
        """Replace the status, if the stored version is still the given one.

        Raises: NotFoundError, ConflictError, RefusedError.
        """
        write = _of(key, self._api.replace_status, resource_version or "")
        return self._seen(await write(key.kind, key.name, key.namespace, status, resource_version))

    async def delete(self, key: port.Key) -> None:
        """Remove the resource. Raises: NotFoundError."""
        await _of(key, self._api.delete)(key.kind, key.name, key.namespace)

    async def record_event(self, event: port.Event) -> None:
        """Write an Event; one that cannot be written is logged, because nothing depends on it."""
        key = event.regarding
        try:
            regarding = {
                "apiVersion": (await self._api.kind(key.kind)).api_version,
                "kind": key.kind,
                "namespace": key.namespace,
                "name": key.name,
                "uid": await self._uid(key),
            }
            await self._events.record(regarding, str(event.type), event.reason, event.message)
        except errors.KubernetesError as error:
            _log.warning("event not recorded", regarding=str(key), reason=event.reason, error=str(error))

    def _seen(self, resource: port.Resource) -> port.Resource:
        """Take out what is of no use to anyone here, and remember the uid."""
        metadata = resource.get("metadata", {})
        metadata.pop("managedFields", None)
        if metadata.get("uid") and metadata.get("name"):
            key = port.key_of(resource)
            self._uids[key] = metadata["uid"]
            self._uids.move_to_end(key)
            if len(self._uids) > REMEMBERED_UIDS:
                self._uids.popitem(last=False)
        return resource

    async def _uid(self, key: port.Key) -> str:
        if key not in self._uids:
            try:
                await self.get(key)
            except port.NotFoundError:
                return ""
        return self._uids.get(key, "")


def _of_kind(kind: str, call: Callable[_P, Awaitable[_T]]) -> Callable[_P, Awaitable[_T]]:
    return _of(port.Key(kind, "", ""), call)


def _of(key: port.Key, call: Callable[_P, Awaitable[_T]], version: str = "") -> Callable[_P, Awaitable[_T]]:
    """Return `call` with the store port's errors instead of the client's."""

    async def translated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return await call(*args, **kwargs)
        except errors.NotFound as error:
            raise (port.NotFoundError(key) if key.name else _translated(error)) from error
        except errors.AlreadyExists as error:
            raise port.AlreadyExistsError(key) from error
        except errors.Conflict as error:
            raise port.ConflictError(key, version, "newer") from error
        except errors.KubernetesError as error:
            raise _translated(error) from error

    return translated


def _translated(error: errors.KubernetesError) -> port.StoreError:
    if isinstance(error, errors.Invalid):
        return port.RefusedError(str(error), tuple((c.field, c.message) for c in error.causes))
    if isinstance(error, errors.Unreachable):
        return port.UnavailableError(str(error))
    return port.StoreError(str(error))
