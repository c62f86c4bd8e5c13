"""A hub of processes: resources in memory, aggregators as local processes, everything else in one directory.

What `hanse simulate` starts. This module refuses to know Kubernetes.
"""

from __future__ import annotations

import pathlib
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from cryptography import x509

from coordinator import config, hub, launcher, parts, workloads
from coordinator.clients import authority, bundles, token_shelf
from coordinator.planning import snapshot
from federation.api import manifests, meta, training
from federation.runtime import port as runtimes
from federation.runtime import processes
from federation.store import memory


def coordinator(
    settings: config.CoordinatorConfig,
    *,
    publish: Callable[[Mapping[str, Any]], None] | None = None,
    clock: Callable[[], float] = time.time,
    runtime: runtimes.Runtime | None = None,
) -> hub.Coordinator:
    """Make a hub of processes, as `gather` says; opens no port."""
    given = gather(settings, publish=publish, clock=clock, runtime=runtime)
    return hub.Coordinator(settings, parts=given, publish=publish, clock=clock)


def gather(
    settings: config.CoordinatorConfig,
    *,
    publish: Callable[[Mapping[str, Any]], None] | None = None,
    clock: Callable[[], float] = time.time,
    runtime: runtimes.Runtime | None = None,
) -> parts.Parts:
    """Make the parts of a hub of processes.

    Args:
        settings: what to be.
        publish: takes every change of a resource, Event and log line of a training.
        clock: unix seconds.
        runtime: where aggregators run; local processes if None.

    Raises: federation.api.errors.ManifestError, AuthorityUnusable, OSError.
    """
    state = settings.state_directory.absolute()
    processes.make_private_directory(state)

    now: Callable[[], datetime] = parts.utc(clock)
    ca = authority.load_or_create(
        state / "ca", settings.trust_domain, now=now(), new_serial=x509.random_serial_number
    )
    issuer = authority.Authority(
        ca, now=now, new_serial=x509.random_serial_number, lifetimes=parts.lifetimes(settings)
    )
    shelf = bundles.BundleShelf(state / "bundles")

    def launch(hub_address: parts.HubAddress) -> workloads.Launcher:
        return launcher.Launcher(
            directory=state / "aggregators",
            issuer=issuer,
            shelf=shelf,
            hub_address=hub_address,
            listen_address=settings.aggregator_listen,
            advertised_host=settings.advertised_host,
            model_store=settings.model_store or f"file://{state / 'models'}",
            limits=snapshot.Limits(settings.link_grace_seconds, settings.start_grace_seconds),
            log_level=settings.log_level,
        )

    return parts.Parts(
        authority=issuer,
        store=memory.MemoryStore(now, lambda: str(uuid.uuid4()), on_change=publish),
        runtime=runtime or processes.Processes(state / "logs"),
        shelf=shelf,
        apps=bundles.Apps(shelf),
        tokens=token_shelf.FileShelf(
            (token.record() for token in settings.join_tokens), state / "used-tokens.json"
        ),
        launch=launch,
        resources=tuple(entry for path in settings.resources for entry in _read(path)),
    )


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the hub's resources; an app's path becomes absolute. Raises: ManifestError."""
    found = manifests.read_directory(path) if path.is_dir() else manifests.read_file(path)
    resources = []
    for loaded in found:
        if not isinstance(loaded.resource, meta.Resource) or loaded.resource.kind not in _HUB_KINDS:
            continue
        manifest = loaded.resource.manifest()
        manifest.pop("status", None)
        if isinstance(loaded.resource, training.FederatedTraining):
            source = manifest["spec"]["app"]["source"]
            if "path" in source:
                source["path"] = str((loaded.file.parent / source["path"]).resolve())
        resources.append(manifest)
    return resources


_HUB_KINDS = frozenset({"FederatedTraining", "EdgeCluster"})
