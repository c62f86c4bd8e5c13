"""The owner's objects as files: a directory of manifests, read again whenever it changes.

The Kubernetes watch takes this module's place in a cluster. It refuses to know what the objects mean.
"""

from __future__ import annotations

import dataclasses
import pathlib
import threading

from edge_agent import offers
from federation.api import dataset, errors, manifests, policy
from federation.telemetry import logs

_log = logs.get_logger(__name__)

Signature = tuple[tuple[str, int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Resources:
    """What the owner declares at one moment."""

    offers: tuple[offers.Offer, ...] = ()
    policies: tuple[policy.EdgePolicy, ...] = ()


class Directory:
    """A directory of EdgeDataset, EdgePolicy and ConfigMap manifests; other kinds are passed over.

    Manifests that cannot be read leave the last good ones in force, as an API server does that refuses them;
    a directory without manifests declares nothing, and so allows nothing.
    """

    def __init__(self, path: pathlib.Path) -> None:
        """Read nothing yet."""
        self._path = path
        self._signature: Signature | None = None
        self._resources = Resources()
        self._lock = threading.Lock()

    def read(self) -> Resources:
        """Return what is declared now, reading files only if one changed. Blocks while it reads.

        Any thread may call; who comes while another reads waits for what that one finds.
        """
        with self._lock:
            signature = self._look()
            if signature != self._signature:
                self._signature = signature
                self._load(signature)
            return self._resources

    def _look(self) -> Signature:
        found = []
        for path in sorted(self._path.rglob("*")):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.append((str(path), status.st_mtime_ns, status.st_size))
        return tuple(found)

    def _load(self, signature: Signature) -> None:
        if not any(name.endswith((".yaml", ".yml")) for name, _, _ in signature):
            self._resources = Resources()
            _log.warning("no manifests, nothing is offered or allowed", path=str(self._path))
            return
        try:
            objects = manifests.load_directory(self._path)
        except errors.ManifestError as error:
            _log.warning(
                "manifests not usable, the last ones stay in force", path=str(self._path), error=str(error)
            )
            return
        config_maps = [one for one in objects if isinstance(one, manifests.ConfigMap)]
        self._resources = Resources(
            offers.read([one for one in objects if isinstance(one, dataset.EdgeDataset)], config_maps),
            tuple(one for one in objects if isinstance(one, policy.EdgePolicy)),
        )
        _log.info("manifests read", path=str(self._path), count=len(objects))
