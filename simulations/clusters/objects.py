"""A scenario's manifests as clusters take them: pure, but for reading the app's directory.

Why it exists: DIR holds what `kubectl apply` takes, but for two things. The app lies in a directory, which a
hub cannot read: it becomes a ConfigMap. And namespaces must exist before what is in them.
"""

from __future__ import annotations

from typing import Any

from federation.apps import bundle, on_clusters
from federation.apps.errors import AppError
from simulations.local.errors import SimulationError
from simulations.local.scenario import Edge, Scenario

Manifest = dict[str, Any]


def hub(scenario: Scenario) -> tuple[list[Manifest], Manifest]:
    """Return what is applied on the hub before the training (its namespace, the members, the app), and it.

    Raises: SimulationError for an app that cannot be packed, or is too large for a ConfigMap; OSError.
    """
    training = scenario.training.manifest()
    namespace = training["metadata"].setdefault("namespace", "default")
    made = on_clusters.namespace(namespace) + [cluster.manifest() for cluster in scenario.clusters]
    if scenario.app_directory is None:
        return made, training
    try:
        app, training = on_clusters.training(training, bundle.pack(scenario.app_directory))
    except AppError as error:
        raise SimulationError(f"{scenario.title}: {error}") from error
    return [*made, app], training


def edge(one: Edge) -> list[Manifest]:
    """Return what the owner of an edge applies there."""
    names = sorted({resource.namespace or "default" for resource in one.resources})
    namespaces = [each for name in names for each in on_clusters.namespace(name)]
    return [*namespaces, *(resource.manifest() for resource in one.resources)]
