"""The hub's shelf of app bundles: files named by their digest, and how a training's app gets onto it.

An app given by path is packed once for each training; what the shelf holds never changes under its name. This
module refuses to know which edge may fetch what.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from coordinator.planning import snapshot
from federation.api import reasons
from federation.apps import bundle, config, errors

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
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_bytes(packed.data)
        partial.replace(target)
        return target


ReadConfigMap = Callable[[str, str, str], Awaitable[bytes | None]]
"""Returns what a ConfigMap (namespace, name, key) holds, or None if there is none."""

Refusal = Callable[[Mapping[str, Any]], snapshot.Problem | None]
"""Says why a FederatedTraining's spec is not accepted, or None."""


class Apps:
    """What became of each training's app; packed once for a training and generation."""

    def __init__(
        self,
        shelf: BundleShelf,
        read_config_map: ReadConfigMap | None = None,
        refusal: Refusal = lambda spec: None,
    ) -> None:
        """Keep bundles on a shelf; with `read_config_map` apps come from there, without it from paths.

        refusal: why no app of a spec is looked at, whatever it is.
        """
        self._shelf = shelf
        self._read_config_map = read_config_map
        self._refusal = refusal
        self._known: dict[tuple[str, int], snapshot.App] = {}

    async def resolve(self, resource: Mapping[str, Any]) -> snapshot.App | snapshot.Problem:
        """Return a FederatedTraining's app, or why there is none; never raises for a bad app."""
        metadata = resource["metadata"]
        key = (metadata["uid"], int(metadata.get("generation", 1)))
        if key not in self._known:
            self.forget(metadata["uid"])
            found = await self._find(metadata.get("namespace") or "default", resource["spec"])
            if isinstance(found, snapshot.Problem):
                return found  # not remembered, so that the next look sees the app put right
            self._known[key] = found
        return self._known[key]

    def forget(self, uid: str) -> None:
        """Drop what is known of a training's app."""
        for key in [key for key in self._known if key[0] == uid]:
            del self._known[key]

    async def _find(self, namespace: str, spec: Mapping[str, Any]) -> snapshot.App | snapshot.Problem:
        if (refused := self._refusal(spec)) is not None:
            return refused
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


_NO_PATH = (
    "spec.app.source.path is for simulations: a hub on Kubernetes sees no files of yours. Pack the app with "
    "`hanse app build`, put the file into a ConfigMap (kustomize's configMapGenerator does), and name that "
    "in spec.app.source.configMap."
)
_NO_SERVER_APP = (
    "The app has no ServerApp and the manifest names no strategy; add a serverapp component to the app, "
    "or spec.strategy."
)
