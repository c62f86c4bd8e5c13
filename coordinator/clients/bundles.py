"""The hub's shelf of app bundles: files named by their digest, and how a training's app gets onto it.

An app given by path is packed once for each training; what the shelf holds never changes under its name. A
training that has begun keeps the app that it began with (``planning.apps`` says why). This module refuses to
know which edge may fetch what.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pathlib
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from coordinator.planning import apps as planning
from coordinator.planning import desired, snapshot
from federation.api import reasons
from federation.apps import bundle, config, errors
from federation.store import port as stores

Reason = reasons.TrainingReason


class BundleShelf:
    """Bundles by digest, in one directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory

    def path(self, digest: str) -> pathlib.Path | None:
        """Return the bundle's file, or None if it is not here."""
        name = digest.removeprefix("sha256:")
        if len(name) != 64 or not name.isalnum():
            return None
        found = self._directory / f"{name}.fab"
        return found if found.is_file() else None

    def put(self, packed: bundle.Bundle) -> pathlib.Path:
        """Keep a bundle. Raises: OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._directory / f"{packed.digest.removeprefix('sha256:')}.fab"
        if target.is_file() and target.read_bytes() == packed.data:
            return target  # also on a disk that takes nothing more
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes(packed.data)
        partial.replace(target)
        return target


ReadConfigMap = Callable[[str, str, str], Awaitable[bytes | None]]
"""Returns what a ConfigMap (namespace, name, key) holds, or None if there is none."""

Refusal = Callable[[Mapping[str, Any]], snapshot.Problem | None]
"""Says why a FederatedTraining's spec is not accepted, or None."""

ReadCopy = Callable[[str, str], Awaitable[bytes | None]]
"""Returns the bundle that the aggregator of a training (namespace, uid) was started with, or None."""

REST = 0.8
"""The part of the time until a source is to be looked at again for which nobody looks at it."""

_FOR_GOOD = float("inf")


@dataclasses.dataclass(frozen=True)
class _Known:
    """What a training's app was found to be, for one generation and, if not for good, until a moment."""

    generation: int
    app: snapshot.App
    until: float


class Apps:
    """What became of each training's app; looked for once for a training and generation."""

    def __init__(
        self,
        shelf: BundleShelf,
        read_config_map: ReadConfigMap | None = None,
        refusal: Refusal = lambda spec: None,
        read_copy: ReadCopy | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep bundles on a shelf; with `read_config_map` apps come from there, without it from paths.

        refusal: why no app of a spec is looked at, whatever it is.
        read_copy: where an app is looked for that shelf and source have no more.
        """
        self._shelf = shelf
        self._read_config_map = read_config_map
        self._refusal = refusal
        self._read_copy = read_copy
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def resolve(
        self, resource: Mapping[str, Any], *, started: bool = False
    ) -> snapshot.App | snapshot.Problem:
        """Return a FederatedTraining's app, or why there is none; never raises for a bad app.

        started: whether it has an aggregator. Once it has begun, it has an app for good.
        Raises: StoreError, but only of a training that has not begun.
        """
        metadata, status = resource["metadata"], resource.get("status") or {}
        uid, generation = metadata["uid"], int(metadata.get("generation", 1))
        known = self._known.get(uid)
        doubted = planning.doubted(status)
        found: snapshot.App | snapshot.Problem | None
        good = known is not None and known.generation == generation and self._clock() < known.until
        if known is not None and good and not (doubted and known.until == _FOR_GOOD):
            return known.app
        digest = known.app.digest if known is not None else (status.get("app") or {}).get("digest", "")
        if digest and desired.over(status):
            return snapshot.App(digest)  # nobody needs it any more
        found = self._refusal(resource["spec"])
        if found is None and digest and (started or planning.began(status)):
            found = await self._held(resource, digest, doubted=doubted)
        elif found is None:
            self.forget(uid)
            found = await self._find(_namespace(resource), resource["spec"])
        if isinstance(found, snapshot.Problem):
            return found  # not remembered, so that the next look sees the app put right
        seconds = planning.NEEDED_SECONDS if doubted else planning.look_again_seconds(found)
        until = _FOR_GOOD if seconds is None else self._clock() + REST * seconds
        self._known[uid] = _Known(generation, found, until)
        return found

    def forget(self, uid: str) -> None:
        """Drop what is known of a training's app."""
        self._known.pop(uid, None)

    async def _held(self, resource: Mapping[str, Any], digest: str, *, doubted: bool) -> snapshot.App:
        """Return the app with this digest, wherever it still is, and what its source has come to.

        doubted: the training may have begun with another one than this; what the source has counts.
        """
        spec, place = resource["spec"], _place(resource)
        try:
            found = await self._find(_namespace(resource), spec)
        except (stores.StoreError, OSError) as error:
            found = snapshot.Problem(Reason.APP_NOT_FOUND, f"{place} cannot be read now: {error}.")
        if isinstance(found, snapshot.App) and (doubted or found.digest == digest):
            return found
        try:
            own = await self._own(resource, digest)
        except (stores.StoreError, OSError):
            own = None
        return planning.held(digest, found, own, place)

    async def _own(self, resource: Mapping[str, Any], digest: str) -> snapshot.App | None:
        """Return an app that the hub has by itself: on its shelf, or as what an aggregator was given."""
        path = self._shelf.path(digest)
        data = None if path is None else await asyncio.to_thread(path.read_bytes)
        if (data is None or bundle.digest(data) != digest) and self._read_copy is not None:
            data = await self._read_copy(_namespace(resource), resource["metadata"]["uid"])
        if data is None or bundle.digest(data) != digest:
            return None
        judged = await asyncio.to_thread(self._from_bundle, data, "the hub's copy", resource["spec"])
        if isinstance(judged, snapshot.App):
            return judged
        return snapshot.App(digest) if self._shelf.path(digest) is not None else None

    async def _find(self, namespace: str, spec: Mapping[str, Any]) -> snapshot.App | snapshot.Problem:
        source = spec["app"]["source"]
        if image := source.get("image"):
            if not image.get("serverApp") and not spec.get("strategy"):
                return snapshot.Problem(Reason.SERVER_APP_MISSING, _NO_SERVER_APP)
            return snapshot.App(client_app=image["clientApp"], server_app=image.get("serverApp") or "")
        if (path := source.get("path")) is not None:
            if self._read_config_map is not None:
                return snapshot.Problem(Reason.APP_NOT_FOUND, _NO_PATH)
            return await asyncio.to_thread(self._from_path, pathlib.Path(path), spec)
        if (config_map := source.get("configMap")) is not None and self._read_config_map is not None:
            name, key = config_map["name"], config_map.get("key") or "app.fab"
            data = await self._read_config_map(namespace, name, key)
            if data is None:
                return snapshot.Problem(
                    Reason.APP_NOT_FOUND,
                    f"ConfigMap {name} of namespace {namespace} does not exist or has no key {key}. Make it "
                    "of what `hanse app build` wrote; kustomize's configMapGenerator does.",
                )
            return await asyncio.to_thread(self._from_bundle, data, f"ConfigMap {name}", spec)
        kind = next(iter(source), "none")
        usable = "configMap or image" if self._read_config_map is not None else "path or image"
        return snapshot.Problem(
            Reason.APP_NOT_FOUND,
            f"This hub cannot read an app from the source {kind}; use the source {usable} here.",
        )

    def _from_path(self, directory: pathlib.Path, spec: Mapping[str, Any]) -> snapshot.App | snapshot.Problem:
        def packed() -> tuple[pathlib.Path, bundle.Bundle]:
            return directory, bundle.pack(directory)

        return self._judged(packed, spec, "spec.app.source.path")

    def _from_bundle(
        self, data: bytes, title: str, spec: Mapping[str, Any]
    ) -> snapshot.App | snapshot.Problem:
        with tempfile.TemporaryDirectory(prefix="hanse-app-") as directory:

            def unpacked() -> tuple[pathlib.Path, bundle.Bundle]:
                bundle.unpack(data, pathlib.Path(directory))
                return pathlib.Path(directory), bundle.Bundle(data, bundle.digest(data))

            return self._judged(unpacked, spec, title)

    def _judged(
        self,
        read: Callable[[], tuple[pathlib.Path, bundle.Bundle]],
        spec: Mapping[str, Any],
        title: str,
    ) -> snapshot.App | snapshot.Problem:
        wanted = spec["app"]
        try:
            directory, packed = read()
            app = config.load(directory)
            config.merge(app.defaults, wanted.get("runConfig") or {})
            config.client_app(app)
        except (errors.NoAppDirectory, errors.NoProject) as error:
            return snapshot.Problem(
                Reason.APP_NOT_FOUND, f"The app cannot be read: {error}. Correct {title}."
            )
        except (errors.UnknownKey, errors.MismatchedType) as error:
            return snapshot.Problem(
                Reason.INVALID_SPEC,
                f"spec.app.runConfig does not fit the app: {error}. Correct it, or the app.",
            )
        except errors.AppError as error:
            return snapshot.Problem(
                Reason.APP_NOT_LOADABLE, f"The app cannot be used: {error}. Correct the app."
            )
        except OSError as error:
            return snapshot.Problem(
                Reason.APP_NOT_FOUND, f"The app cannot be read: {error}. Correct its files."
            )
        if app.server_app is None and not spec.get("strategy"):
            return snapshot.Problem(Reason.SERVER_APP_MISSING, _NO_SERVER_APP)
        pinned = wanted.get("digest")
        if pinned and pinned != packed.digest:
            return snapshot.Problem(
                Reason.DIGEST_MISMATCH,
                f"The app's digest is {packed.digest}, and spec.app.digest pins {pinned}; restore the "
                "app that was pinned, or pin the new one after a review.",
            )
        try:
            self._shelf.put(packed)
        except OSError as error:
            return snapshot.Problem(
                Reason.STORAGE_FULL, f"The hub cannot keep the app: {error}. Make room on its disk."
            )
        return snapshot.App(digest=packed.digest, server_app=app.server_app or "")


def _namespace(resource: Mapping[str, Any]) -> str:
    return resource["metadata"].get("namespace") or "default"


def _place(resource: Mapping[str, Any]) -> str:
    """How a training's source of its app is called."""
    source = resource["spec"]["app"]["source"]
    if (config_map := source.get("configMap")) is not None:
        return f"ConfigMap {config_map['name']} of namespace {_namespace(resource)}"
    return f"spec.app.source.{next(iter(source), 'none')}"


_NO_PATH = (
    "spec.app.source.path is for simulations: a hub on Kubernetes sees no files of yours. Pack the app with "
    "`hanse app build`, put the file into a ConfigMap (kustomize's configMapGenerator does), and name that "
    "in spec.app.source.configMap."
)
_NO_SERVER_APP = (
    "The app has no ServerApp and the manifest names no strategy; add a serverapp component to the app, "
    "or spec.strategy."
)
