"""What an aggregator needs to start: its directory, credentials, configuration, and the command.

Between the controller, which wants one running, and the aggregator, which reads its configuration. This
module refuses to know when one is wanted and how it is run.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal

from coordinator import workloads
from coordinator.aggregator import config
from coordinator.clients import authority, bundles
from coordinator.planning import snapshot
from federation.runtime import port as runtimes
from federation.trust import identity as identities


@dataclasses.dataclass(frozen=True)
class Launcher:
    """Makes the workloads of aggregators."""

    directory: pathlib.Path
    issuer: authority.Authority
    shelf: bundles.BundleShelf
    hub_address: Callable[[], str]
    listen_address: str
    advertised_host: str
    """What edges dial, with the aggregator's port; empty: the listening host."""
    model_store: str
    limits: snapshot.Limits
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]

    async def launch(self, training: snapshot.Training, clusters: int) -> runtimes.Workload:
        """Write the credentials of a training's aggregator and return its workload.

        clusters: how many take part as things stand; more may come later.
        Raises: OSError.
        """
        home = self.directory / training.namespace / training.name
        identity = identities.AggregatorIdentity(self.issuer.trust_domain, training.namespace, training.name)
        credentials = home / "credentials"
        await asyncio.to_thread(self.issuer.equip, credentials, identity)
        written = self._config(training, clusters, home, credentials)
        return runtimes.Workload(
            name=workloads.workload_name(training.uid),
            argv=(sys.executable, "-m", "coordinator.aggregator", "--config", "aggregator.json"),
            directory=home,
            environment={"PYTHONUNBUFFERED": "1", "HANSE_PROCESS": "aggregator"},
            files={"aggregator.json": written.model_dump_json(indent=1).encode()},
            resources=resources_of(training),
        )

    def tidy(self, training: snapshot.Training) -> runtimes.Workload:
        """Return the workload that removes the journal of a training that was deleted while it ran."""
        home = self.directory / training.namespace / training.name
        journal = str(home / "work" / "journal")
        return runtimes.Workload(
            name=workloads.tidy_name(training.uid),
            argv=(sys.executable, "-m", "coordinator.journal.removal", journal, training.uid),
            directory=home,
        )

    def _config(
        self, training: snapshot.Training, clusters: int, home: pathlib.Path, credentials: pathlib.Path
    ) -> config.AggregatorConfig:
        return config.AggregatorConfig(
            **settings_of(training, clusters, self.issuer.trust_domain, self.limits),
            **app_of(training, lambda digest: self.shelf.path(digest)),
            hub_address=self.hub_address(),
            credential_directory=credentials,
            listen_address=self.listen_address,
            advertised_host=self.advertised_host,
            work_directory=home / "work",
            model_store=(training.spec.get("model") or {}).get("store") or self.model_store,
            log_level=self.log_level,
        )


def settings_of(
    training: snapshot.Training, clusters: int, trust_domain: str, limits: snapshot.Limits
) -> dict[str, Any]:
    """Return what every aggregator of this training is told, wherever it runs."""
    return {
        "namespace": training.namespace,
        "name": training.name,
        "uid": training.uid,
        "spec": dict(training.spec),
        "hub_server_name": identities.CoordinatorIdentity(trust_domain).server_name,
        "trust_domain": trust_domain,
        "expected_clusters": max(clusters, 1),
        "link_grace_seconds": limits.link_grace_seconds,
        "start_grace_seconds": limits.start_grace_seconds,
    }


def app_of(training: snapshot.Training, place: Callable[[str], pathlib.Path | None]) -> dict[str, Any]:
    """Return where the aggregator finds its app; `place` says where the bundle with a digest lies."""
    app = training.app
    assert isinstance(app, snapshot.App)
    if app.bundled:
        return {"app_bundle": place(app.digest), "app_digest": app.digest}
    return {
        "installed_app": config.InstalledApp(client_app=app.client_app, server_app=app.server_app or None)
    }


def resources_of(training: snapshot.Training) -> runtimes.Resources:
    """Return what the training's aggregator asks for and may use."""
    server = (training.spec.get("server") or {}).get("resources") or {}
    return runtimes.Resources(
        {key: str(value) for key, value in (server.get("requests") or {}).items()},
        {key: str(value) for key, value in (server.get("limits") or {}).items()},
    )
