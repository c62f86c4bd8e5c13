"""A scenario's manifests as clusters take them: pure.

Why it exists: DIR holds what `kubectl apply` takes, but for two things. The app lies in a directory, which a
hub cannot read: it becomes a ConfigMap. And namespaces must exist before what is in them.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

from federation.apps import bundle
from simulations.local.errors import SimulationError
from simulations.local.scenario import Edge, Scenario

APP_KEY = "app.fab"
MAXIMUM_CONFIG_MAP_BYTES = 1024 * 1024
"""Kubernetes' own limit for the data of a ConfigMap, before base64."""

Manifest = dict[str, Any]


def hub(scenario: Scenario) -> list[Manifest]:
    """Return what is applied on the hub before the training: its namespace, the members' labels, the app.

    Raises: SimulationError for an app that is too large for a ConfigMap; OSError, AppError as `bundle.pack`.
    """
    namespace = scenario.training.metadata.namespace or "default"
    made: list[Manifest] = [namespace_of(namespace)] if namespace != "default" else []
    made += [cluster.manifest() for cluster in scenario.clusters]
    if scenario.app_directory is not None:
        packed = bundle.pack(scenario.app_directory)
        if len(packed.data) > MAXIMUM_CONFIG_MAP_BYTES:
            raise SimulationError(
                f"{scenario.title}: the app has {len(packed.data)} bytes and a ConfigMap holds "
                f"{MAXIMUM_CONFIG_MAP_BYTES}; build it into an image and name it with spec.app.source.image"
            )
        made.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": app_name(scenario), "namespace": namespace},
                "binaryData": {APP_KEY: base64.b64encode(packed.data).decode("ascii")},
            }
        )
    return made


def training(scenario: Scenario) -> Manifest:
    """Return the FederatedTraining, with the app from the ConfigMap in place of its directory."""
    document: Manifest = copy.deepcopy(scenario.training.manifest())
    document.pop("status", None)
    document["metadata"].setdefault("namespace", "default")
    if scenario.app_directory is not None:
        source = {"configMap": {"name": app_name(scenario), "key": APP_KEY}}
        document["spec"]["app"]["source"] = source
    return document


def edge(one: Edge) -> list[Manifest]:
    """Return what the owner of an edge applies there."""
    namespaces = sorted({resource.namespace or "default" for resource in one.resources} - {"default"})
    return [*map(namespace_of, namespaces), *(resource.manifest() for resource in one.resources)]


def app_name(scenario: Scenario) -> str:
    """Return the name of the app's ConfigMap."""
    return f"{scenario.training.metadata.name}-app"


def namespace_of(name: str) -> Manifest:
    """Return a namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
