"""The calls that Hanse makes on an API server, on plain JSON objects.

Get, list, watch, create, apply, patch, delete, logs, commands in containers, access reviews. Everything that
repeats is a watch: nothing here polls. This module refuses to know what the objects mean.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal, Self

import aiohttp

from federation.kube import connection, errors, kinds

Object = dict[str, Any]
"""An object of the API as JSON."""

FIELD_MANAGER = "hanse"

LIST_PAGE = 500
"""Objects a page, as kubectl and client-go take them; the API server need not hold more in memory at once."""

WATCH_SECONDS = (240.0, 480.0)
"""A watch is renewed after a random time of this range, so that many do not renew together."""

WATCH_SILENCE_SECONDS = 150.0
"""Bookmarks come about every minute; a watch that is silent for longer hangs on a dead connection."""

MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

Propagation = Literal["Background", "Foreground", "Orphan"]


@dataclasses.dataclass(frozen=True, slots=True)
class Listing:
    """The objects of one kind at one version; a watch from that version misses nothing."""

    items: tuple[Object, ...]
    resource_version: str


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """One change; `object` is the state after it (for DELETED: the last). type: ADDED, MODIFIED, DELETED."""

    type: str
    object: Object


class Client:
    """One API server, with one set of credentials. Kinds are named (`"Job"`) or given as `kinds.Kind`."""

    def __init__(
        self, http: connection.Connection, *, field_manager: str = FIELD_MANAGER, rng: random.Random
    ) -> None:
        """Use `connect` instead."""
        self.http = http
        self.field_manager = field_manager
        self._rng = rng
        self._discovered: dict[tuple[str, str], kinds.Kind] = {}

    @classmethod
    async def connect(
        cls,
        kubeconfig: pathlib.Path | None = None,
        context: str | None = None,
        *,
        field_manager: str = FIELD_MANAGER,
        user_agent: str = "hanse",
        patience_seconds: float = connection.PATIENCE_SECONDS,
        allowed: Callable[[], bool] = lambda: True,
        rng: random.Random | None = None,
    ) -> Self:
        """Return a client for a kubeconfig, or without one for the cluster that this pod runs in.

        patience_seconds: a server that is away is asked again for so long before Unreachable is raised.
        allowed: asked before each request; one that is not allowed ends as Unreachable, unsent.
        Raises: NotConfigured. Nothing is sent yet.
        """
        rng = rng or random.Random()  # noqa: S311 - jitter
        http = await connection.Connection.open(
            kubeconfig,
            context,
            user_agent=user_agent,
            rng=rng,
            patience_seconds=patience_seconds,
            allowed=allowed,
        )
        return cls(http, field_manager=field_manager, rng=rng)

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.http.close()

    @property
    def requests(self) -> Mapping[str, int]:
        """How many requests were sent so far, by verb; a watch counts once each time it is renewed."""
        return dict(self.http.requests)

    async def version(self) -> str:
        """Return the server's version, such as `v1.36.3`."""
        answer = await self._call("GET", "/version", what="get version", verb="get")
        return str(answer["gitVersion"])

    async def kind(self, kind: str | kinds.Kind, api_version: str = "") -> kinds.Kind:
        """Return what is known of a kind, by asking the server if the table lacks it. Raises: NotFound."""
        if isinstance(kind, kinds.Kind):
            return kind
        found = kinds.known(kind, api_version) or self._discovered.get((api_version, kind))
        if found is None:
            if not api_version:
                raise errors.NotFound(f"kind {kind}: not known; name its apiVersion")
            root = "/apis/" if "/" in api_version else "/api/"
            listing = await self._call(
                "GET", root + api_version, what=f"discover {api_version}", verb="discover"
            )
            for one in kinds.from_discovery(api_version, listing):
                self._discovered[api_version, one.kind] = one
            found = self._discovered.get((api_version, kind))
        if found is None:
            raise errors.NotFound(f"kind {kind}: the server has none in {api_version}")
        return found

    async def get(self, kind: str | kinds.Kind, name: str, namespace: str = "") -> Object:
        """Return one object. Raises: NotFound."""
        known = await self.kind(kind)
        return await self._call(
            "GET", known.path(namespace, name), what=_what("get", known, namespace, name), verb="get"
        )

    async def list(
        self, kind: str | kinds.Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listing:
        """Return the objects of a kind, of all namespaces if it is None, ordered by namespace and name.

        labels, fields: selectors, such as `app=hanse` and `type=Warning`.
        """
        known = await self.kind(kind)
        selected = _selectors(labels, fields)
        what = _what("list", known, namespace or "")
        items: list[Object] = []
        limit, token = LIST_PAGE, ""
        while True:
            query = [*selected, ("limit", str(limit))] if limit else [*selected]
            if token:
                query.append(("continue", token))
            try:
                page = await self._call("GET", known.path(namespace), query, what=what, verb="list")
            except errors.Gone:
                if not token:
                    raise
                items, limit, token = [], 0, ""  # the pages' version is no longer kept: all at once, then
                continue
            for item in page.get("items") or ():
                items.append({"apiVersion": known.api_version, "kind": known.kind, **item})
            token = page["metadata"].get("continue") or ""
            if not token:
                return Listing(tuple(items), str(page["metadata"]["resourceVersion"]))

    async def watch(
        self,
        kind: str | kinds.Kind,
        resource_version: str,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
    ) -> AsyncGenerator[Change, None]:
        """Yield the changes after a version, in order, for ever; a lost connection is made again.

        Raises: Gone when changes since then are no longer kept; Forbidden; NotFound.
        """
        known = await self.kind(kind)
        what = _what("watch", known, namespace or "")
        failures = 0
        while True:
            seconds = self._rng.uniform(*WATCH_SECONDS)
            query = [
                *_selectors(labels, fields),
                ("watch", "1"),
                ("allowWatchBookmarks", "true"),
                ("resourceVersion", resource_version),
                ("timeoutSeconds", str(int(seconds))),
            ]
            timeout = aiohttp.ClientTimeout(
                total=seconds + 60, sock_connect=10, sock_read=WATCH_SILENCE_SECONDS
            )
            answer = self.http.answer(
                "GET", known.path(namespace), query, what=what, verb="watch", timeout=timeout,
                patience_seconds=0,
            )  # fmt: skip
            try:
                async with answer as response:
                    async for line in _lines(response):
                        failures = 0
                        event = json.loads(line)
                        changed = event["object"]
                        if event["type"] == "ERROR":
                            raise errors.from_status(changed, what)
                        resource_version = str(changed["metadata"]["resourceVersion"])
                        if event["type"] != "BOOKMARK":
                            yield Change(
                                event["type"],
                                {"apiVersion": known.api_version, "kind": known.kind, **changed},
                            )
            except errors.Unreachable:
                pass
            except (*connection.BROKEN, json.JSONDecodeError):
                pass  # the connection broke, in the middle of a line maybe; the version says where to go on
            else:
                continue
            failures += 1
            await asyncio.sleep(min(0.25 * 2.0**failures, 15.0) * (0.5 + self._rng.random()))

    async def create(self, obj: Mapping[str, Any], *, dry_run: bool = False) -> Object:
        """Create an object; its own `kind` says where. Also for reviews, whose answer is returned.

        Raises: AlreadyExists, Invalid, Forbidden.
        """
        known, namespace, name = await self._place(obj)
        query = [("fieldManager", self.field_manager), *_STRICT, *_dry(dry_run)]
        return await self._call(
            "POST", known.path(namespace), query, body=dict(obj), verb="create",
            what=_what("create", known, namespace, name),
        )  # fmt: skip

    async def replace(self, obj: Mapping[str, Any]) -> Object:
        """Write a whole object, if its resourceVersion is still the stored one. Raises: Conflict."""
        known, namespace, name = await self._place(obj)
        query = [("fieldManager", self.field_manager), *_STRICT]
        return await self._call(
            "PUT", known.path(namespace, name), query, body=dict(obj), verb="update",
            what=_what("update", known, namespace, name),
        )  # fmt: skip

    async def apply(
        self,
        obj: Mapping[str, Any],
        *,
        force: bool = True,
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
    ) -> Object:
        """Apply an object on the server's side: these fields shall be so, and be ours.

        force: take fields from other managers; without it Conflict names them.
        Raises: Conflict, Invalid, Forbidden.
        """
        known, namespace, name = await self._place(obj)
        query = [
            ("fieldManager", field_manager or self.field_manager),
            ("force", "true" if force else "false"),
            *_STRICT,
            *_dry(dry_run),
        ]
        return await self._call(
            "PATCH", known.path(namespace, name, subresource), query, body=dict(obj), verb="apply",
            content_type=APPLY_PATCH, what=_what("apply", known, namespace, name),
        )  # fmt: skip

    async def patch(
        self,
        kind: str | kinds.Kind,
        name: str,
        namespace: str,
        patch: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        *,
        subresource: str = "",
        content_type: str = "",
    ) -> Object:
        """Patch an object: a mapping is a merge patch, a sequence a JSON patch, unless said otherwise."""
        known = await self.kind(kind)
        body = dict(patch) if isinstance(patch, Mapping) else list(patch)
        query = [("fieldManager", self.field_manager), *_STRICT]
        return await self._call(
            "PATCH", known.path(namespace, name, subresource), query, body=body, verb="patch",
            what=_what("patch", known, namespace, name),
            content_type=content_type or (MERGE_PATCH if isinstance(patch, Mapping) else JSON_PATCH),
        )  # fmt: skip

    async def replace_status(
        self,
        kind: str | kinds.Kind,
        name: str,
        namespace: str,
        status: Mapping[str, Any],
        resource_version: str | None = None,
    ) -> Object:
        """Replace the whole status, if the stored version is still the given one (None: whatever it is).

        A status that is stored already writes nothing. Raises: Conflict, NotFound, Invalid.
        """
        patch: list[Mapping[str, Any]] = [{"op": "add", "path": "/status", "value": dict(status)}]
        if resource_version is not None:
            patch.append({"op": "add", "path": "/metadata/resourceVersion", "value": resource_version})
        return await self.patch(kind, name, namespace, patch, subresource="status")

    async def delete(
        self,
        kind: str | kinds.Kind,
        name: str,
        namespace: str = "",
        *,
        propagation: Propagation = "Background",
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
    ) -> Object:
        """Delete an object, if it still has the given uid and version. Raises: NotFound, Conflict."""
        known = await self.kind(kind)
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        body: dict[str, Any] = {
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation,
        }  # fmt: skip
        if uid or resource_version:
            body["preconditions"] = {name: value for name, value in preconditions.items() if value}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        return await self._call(
            "DELETE", known.path(namespace, name), body=body, verb="delete",
            what=_what("delete", known, namespace, name),
        )  # fmt: skip

    async def delete_all(self, kind: str | kinds.Kind, namespace: str, *, labels: str) -> None:
        """Delete the objects of a kind in a namespace that these labels select."""
        known = await self.kind(kind)
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        await self._call(
            "DELETE", known.path(namespace), _selectors(labels, ""), body=body, verb="deletecollection",
            what=_what("delete", known, namespace),
        )  # fmt: skip

    async def may(
        self,
        verb: str,
        kind: str | kinds.Kind,
        namespace: str = "",
        name: str = "",
        *,
        subresource: str = "",
        user: str = "",
        groups: Sequence[str] = (),
    ) -> bool:
        """Ask the API server whether these credentials, or `user` with `groups`, may do that."""
        known = await self.kind(kind)
        spec: dict[str, Any] = {
            "resourceAttributes": {
                "verb": verb, "group": known.group, "version": known.version, "resource": known.plural,
                "subresource": subresource, "namespace": namespace, "name": name,
            }
        }  # fmt: skip
        review = "SelfSubjectAccessReview"
        if user:
            review = "SubjectAccessReview"
            spec |= {"user": user, "groups": list(groups)}
        answer = await self.create(
            {"apiVersion": "authorization.k8s.io/v1", "kind": review, "metadata": {}, "spec": spec}
        )
        return bool(answer["status"]["allowed"])

    async def _place(self, obj: Mapping[str, Any]) -> tuple[kinds.Kind, str, str]:
        known = await self.kind(str(obj["kind"]), str(obj["apiVersion"]))
        metadata = obj.get("metadata") or {}
        return known, metadata.get("namespace") or "", metadata.get("name") or ""

    async def _call(
        self,
        method: str,
        path: str,
        query: connection.Query = (),
        *,
        what: str,
        verb: str,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        async with self.http.answer(
            method, path, query, what=what, verb=verb, body=body, content_type=content_type
        ) as response:
            try:
                answer: Object = json.loads(await response.read())
            except (*connection.BROKEN, ValueError) as error:
                raise errors.Unreachable(f"{what}: the answer broke off: {error}") from error
        return answer


_STRICT = (("fieldValidation", "Strict"),)


def _dry(dry_run: bool) -> list[tuple[str, str]]:
    return [("dryRun", "All")] if dry_run else []


def _selectors(labels: str, fields: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value]


def _what(verb: str, kind: kinds.Kind, namespace: str, name: str = "") -> str:
    place = "/".join(part for part in (namespace, name) if part)
    return f"{verb} {kind.kind} {place}" if place else f"{verb} {kind.plural}"


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield whole lines, however long; what is left of a broken last line is dropped."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line
