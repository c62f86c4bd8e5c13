"""The hub's shelf of app bundles: files named by their digest, and how a training's app gets onto it.

An app given by path is packed once for each training; what the shelf holds never changes under its name. This
module refuses to know which edge may fetch what.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
from collections.abc import Mapping
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


class Apps:
    """What became of each training's app; packed once for a training and generation."""

    def __init__(self, shelf: BundleShelf) -> None:
        self._shelf = shelf
        self._known: dict[tuple[str, int], snapshot.App] = {}

    async def resolve(self, resource: Mapping[str, Any]) -> snapshot.App | snapshot.Problem:
        """Return a FederatedTraining's app, or why there is none; never raises for a bad app."""
        metadata = resource["metadata"]
        key = (metadata["uid"], int(metadata.get("generation", 1)))
        if key not in self._known:
            self.forget(metadata["uid"])
            found = await asyncio.to_thread(self._read, resource["spec"])
            if isinstance(found, snapshot.Problem):
                return found  # not remembered, so that the next look sees the app put right
            self._known[key] = found
        return self._known[key]

    def forget(self, uid: str) -> None:
        """Drop what is known of a training's app."""
        for key in [key for key in self._known if key[0] == uid]:
            del self._known[key]

    def _read(self, spec: Mapping[str, Any]) -> snapshot.App | snapshot.Problem:
        wanted = spec["app"]
        source = wanted["source"]
        has_strategy = bool(spec.get("strategy"))
        if image := source.get("image"):
            if not image.get("serverApp") and not has_strategy:
                return snapshot.Problem(Reason.SERVER_APP_MISSING, _NO_SERVER_APP)
            return snapshot.App(client_app=image["clientApp"], server_app=image.get("serverApp") or "")
        path = source.get("path")
        if path is None:
            kind = next(iter(source), "none")
            return snapshot.Problem(
                Reason.APP_NOT_FOUND,
                f"This hub cannot read an app from the source {kind}; use the source path or image here.",
            )
        directory = pathlib.Path(path)
        try:
            app = config.load(directory)
            packed = bundle.pack(directory)
            config.merge(app.defaults, wanted.get("runConfig") or {})
            config.client_app(app)
        except (errors.NoAppDirectory, errors.NoProject) as error:
            return snapshot.Problem(
                Reason.APP_NOT_FOUND, f"The app cannot be read: {error}. Correct spec.app.source.path."
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
        if app.server_app is None and not has_strategy:
            return snapshot.Problem(Reason.SERVER_APP_MISSING, _NO_SERVER_APP)
        pinned = wanted.get("digest")
        if pinned and pinned != packed.digest:
            return snapshot.Problem(
                Reason.DIGEST_MISMATCH,
                f"The app's digest is {packed.digest}, and spec.app.digest pins {pinned}; restore the "
                "app that was pinned, "
                "or pin the new one after a review.",
            )
        try:
            self._shelf.put(packed)
        except OSError as error:
            return snapshot.Problem(
                Reason.STORAGE_FULL, f"The hub cannot keep the app: {error}. Make room on its disk."
            )
        return snapshot.App(digest=packed.digest)


_NO_SERVER_APP = (
    "The app has no ServerApp and the manifest names no strategy; add a serverapp component to the app, "
    "or spec.strategy."
)
