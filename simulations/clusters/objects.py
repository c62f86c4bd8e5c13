"""A scenario's manifests as clusters take them: pure, but for reading the app's directory.

Why it exists: DIR holds what `kubectl apply` takes, but for three things. The app lies in a directory, which
a hub cannot read: it becomes a ConfigMap. What it needs besides Hanse is in an image. And namespaces must
exist before what is in them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

from federation.apps import bundle, config, on_clusters
from federation.apps.errors import AppError
from simulations.lab.images import targets
from simulations.local.errors import SimulationError
from simulations.local.scenario import Edge, Scenario

Manifest = dict[str, Any]


_TORCH = re.compile(r"torch(?![\w.-])", re.IGNORECASE)


def needs_torch(scenario: Scenario) -> bool:
    """Return whether the app's pyproject.toml depends on torch. Raises: OSError, tomllib.TOMLDecodeError."""
    if scenario.app_directory is None:
        return False
    project = tomllib.loads((scenario.app_directory / config.PROJECT_FILE).read_text(encoding="utf-8"))
    wanted = project.get("project", {}).get("dependencies", [])
    return any(_TORCH.match(str(requirement).strip()) for requirement in wanted)


def hub(scenario: Scenario, images: Mapping[str, str] | None = None) -> tuple[list[Manifest], Manifest]:
    """Return what is applied on the hub before the training (its namespace, the members, the app), and it.

    images: those that were built, by target. Those with torch are named in a training that names none.
    Raises: SimulationError for an app that cannot be packed, or is too large for a ConfigMap; OSError.
    """
    training = scenario.training.manifest()
    for part, target in zip(("client", "server"), targets.WITH_TORCH, strict=True):
        if images is not None and target in images:
            training["spec"].setdefault(part, {}).setdefault("image", images[target])
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
