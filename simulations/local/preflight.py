"""What can be found wrong before anything starts.

Why it exists: a simulation that cannot work should say so in one sentence and start nothing. What only the
running system can know (a ClientApp that raises, a policy that refuses) is left to it.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from pathlib import Path

from federation.apps import config as app_config
from federation.apps import errors as app_errors
from federation.apps import probe
from simulations.local.errors import SimulationError
from simulations.local.scenario import Scenario

IMPORT_LIMIT_SECONDS = 60.0
"""torch on a cold disk takes half a minute to import; an app that takes longer hangs."""

NEEDED_BYTES = 64 * 1024 * 1024
"""Logs, keys, an app's copies for each edge and a small model. Large models say so when they do not fit."""


def check(scenario: Scenario, *, results: Path, port: int, listen_host: str = "127.0.0.1") -> None:
    """Check the app, the data set, the quorum, the port and the disk.

    Raises: SimulationError with the first thing that is wrong.
    """
    _check_dataset_and_quorum(scenario)
    _check_app(scenario)
    _check_port(listen_host, port)
    for directory in (results.parent, Path(tempfile.gettempdir())):
        _check_room(directory)


def _check_dataset_and_quorum(scenario: Scenario) -> None:
    spec = scenario.training.spec
    offering = [
        edge.name for edge in scenario.edges if any(d.spec.name == spec.dataset for d in edge.datasets)
    ]
    if not offering:
        offered = sorted({dataset.spec.name for edge in scenario.edges for dataset in edge.datasets})
        raise SimulationError(
            f"{scenario.title}: spec.dataset: no edge offers {spec.dataset}; "
            + (f"they offer {', '.join(offered)}" if offered else "no edge offers any data set")
        )
    labels = {cluster.name: cluster.spec.labels for cluster in scenario.clusters}
    selected = [name for name in offering if spec.clusters.selector.matches(labels.get(name, {}))]
    if spec.clusters.minimum > len(selected):
        total = len(scenario.edges)
        what = f"there are {total} edges"
        if len(selected) < total:
            what = f"{len(selected)} of {total} edges offer {spec.dataset} and match the selector"
        raise SimulationError(
            f"{scenario.title}: spec.clusters.minimum: {spec.clusters.minimum} clusters are needed "
            f"and {what}; lower the minimum or add edges"
        )


def _check_app(scenario: Scenario) -> None:
    spec = scenario.training.spec
    directory = scenario.app_directory
    try:
        if directory is None:
            image = spec.app.source.image
            if image is None:
                raise SimulationError(
                    f"{scenario.title}: spec.app.source: a simulation takes the app from path or from image; "
                    "configMap and oci need a cluster"
                )
            kinds = {image.client_app: "ClientApp"}
            if image.server_app:
                kinds[image.server_app] = "ServerApp"
            directory = scenario.directory
        else:
            described = app_config.load(directory)
            app_config.merge(described.defaults, spec.app.run_config)
            kinds = {app_config.client_app(described): "ClientApp"}
            if described.server_app:
                kinds[described.server_app] = "ServerApp"
            elif spec.strategy is None:
                raise SimulationError(
                    f"{scenario.title}: the app has no ServerApp and the training names no strategy; "
                    "add serverapp to its pyproject.toml or spec.strategy to the manifest"
                )
    except app_errors.AppError as error:
        raise SimulationError(f"{scenario.title}: {error}") from error
    failure = probe.check(directory, list(kinds), kinds=kinds, limit_seconds=IMPORT_LIMIT_SECONDS)
    if failure is not None:
        hint = f"; install {failure.missing.partition('.')[0]} or mend the import" if failure.missing else ""
        raise SimulationError(f"{scenario.title}: module {failure.module} of the app: {failure}{hint}")


def _check_port(host: str, port: int) -> None:
    if port == 0:
        return
    with socket.socket() as probe_socket:
        probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind((host, port))
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
            raise SimulationError(
                f"--port {port}: the port {why}; give another one, or 0 for any that is free"
            ) from error


def _check_room(directory: Path) -> None:
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise SimulationError(f"{existing}: no permission to write there; give another directory with --keep")
    free = shutil.disk_usage(existing).free
    if free < NEEDED_BYTES:
        raise SimulationError(
            f"{existing}: the disk is full: {free // 2**20} MiB are free and "
            f"{NEEDED_BYTES // 2**20} MiB are needed; make room"
        )
