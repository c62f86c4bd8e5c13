"""A simulation's directory as data: one training, the clusters, and what each edge's owner declares.

    DIR/*.yaml               what `kubectl apply` would take on the hub
    DIR/edges/NAME/*.yaml    what it would take on the edge cluster NAME (a kustomization is read as one)

Why it exists: `hanse simulate` takes the manifests that real clusters take, and may change them by options
only. This module reads, changes and writes manifests; it starts nothing.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from federation.api import manifests, validation
from federation.api.cluster import EdgeCluster
from federation.api.dataset import EdgeDataset
from federation.api.errors import ManifestError
from federation.api.policy import EdgePolicy
from federation.api.training import FederatedTraining
from simulations.local.errors import SimulationError

EDGES = "edges"
PARTITION_ID = "partition-id"
NUM_PARTITIONS = "num-partitions"
"""Flower's own names for a simulated node's share of the data."""

EdgeResource = EdgeDataset | EdgePolicy | manifests.ConfigMap


@dataclasses.dataclass(frozen=True)
class Edge:
    """One edge cluster of the scenario and its owner's objects."""

    name: str
    resources: tuple[EdgeResource, ...]

    @property
    def datasets(self) -> tuple[EdgeDataset, ...]:
        """The data sets that the owner declares."""
        return tuple(resource for resource in self.resources if isinstance(resource, EdgeDataset))


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Everything that a simulation runs. `directory` is where relative paths in the manifests begin."""

    directory: Path
    training: FederatedTraining
    clusters: tuple[EdgeCluster, ...]
    edges: tuple[Edge, ...]

    @property
    def title(self) -> str:
        """namespace/name of the training."""
        return f"{self.training.metadata.namespace}/{self.training.metadata.name}"

    @property
    def app_directory(self) -> Path | None:
        """The app's directory, if the training names one."""
        path = self.training.spec.app.source.path
        return None if path is None else (self.directory / path).resolve()


def read(directory: Path) -> Scenario:
    """Read a simulation's directory.

    Raises: SimulationError with one sentence; federation.api's ManifestError for a manifest that is not
    valid.
    """
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "no such directory"
        raise SimulationError(f"{directory}: {what}; give one with the manifests of a simulation")
    hub = manifests.load_directory(directory)
    trainings = [resource for resource in hub if isinstance(resource, FederatedTraining)]
    for resource in hub:
        if isinstance(resource, EdgeDataset | EdgePolicy):
            raise SimulationError(
                f"{directory}: {resource.kind} {resource.name} belongs to an edge; move it to {EDGES}/NAME/"
            )
    if len(trainings) != 1:
        found = "none" if not trainings else " and ".join(training.name for training in trainings)
        raise SimulationError(f"{directory}: a simulation runs exactly one FederatedTraining, found {found}")
    edges = tuple(_edge(path) for path in _edge_directories(directory))
    clusters = tuple(resource for resource in hub if isinstance(resource, EdgeCluster))
    known = {edge.name for edge in edges}
    for cluster in clusters:
        if cluster.name not in known:
            raise SimulationError(
                f"{directory}: EdgeCluster {cluster.name} has no directory {EDGES}/{cluster.name}; "
                f"the edges are {', '.join(sorted(known))}"
            )
    return Scenario(directory, trainings[0], clusters, edges)


def _edge_directories(directory: Path) -> list[Path]:
    parent = directory / EDGES
    found = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    if not found:
        raise SimulationError(
            f"{directory}: no edges; each needs a directory {EDGES}/NAME "
            "with its EdgeDatasets and EdgePolicies"
        )
    return found


def _edge(path: Path) -> Edge:
    resources: list[EdgeResource] = []
    try:
        loaded = manifests.load_directory(path)
    except ManifestError as error:
        # The sentence begins with the file's name, which every edge has.
        text = str(error)
        raise SimulationError(text if str(path) in text else f"{EDGES}/{path.name}/{text}") from error
    for resource in loaded:
        if not isinstance(resource, EdgeDataset | EdgePolicy | manifests.ConfigMap):
            raise SimulationError(
                f"{path}: {resource.kind} {resource.name} belongs to the hub; move it up to {path.parents[1]}"
            )
        resources.append(resource)
    return Edge(path.name, tuple(resources))


# -- options -------------------------------------------------------------------------------------------------


def with_settings(scenario: Scenario, settings: Iterable[str]) -> Scenario:
    """Change fields of the training: `spec.path=value`, the value written as in YAML.

    Keys of run config and labels may have dots themselves: what follows `runConfig.` is one key.
    Raises: SimulationError for a setting that cannot be read; ManifestError for a training that is then not
    valid.
    """
    document = scenario.training.manifest()
    changed = False
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path.startswith("spec."):
            raise SimulationError(
                f"--set {setting}: write it as spec.path=value, e.g. spec.clusters.minimum=2"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise SimulationError(f"--set {setting}: the value is not YAML") from error
        _assign(document, _keys(path), value, setting)
        changed = True
    if not changed:
        return scenario
    document.pop("status", None)
    training = validation.parse(document, "--set")
    assert isinstance(training, FederatedTraining)
    return dataclasses.replace(scenario, training=training)


def _keys(path: str) -> list[str]:
    """The fields of a path, the last one whole where its parent takes any key."""
    keys = path.split(".")
    for place, key in enumerate(keys[:-1]):
        if key in ("runConfig", "matchLabels"):
            return [*keys[: place + 1], ".".join(keys[place + 1 :])]
    return keys


def _assign(document: dict[str, Any], keys: list[str], value: object, setting: str) -> None:
    node: Any = document
    for key in keys[:-1]:
        node = node.setdefault(key, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            raise SimulationError(f"--set {setting}: {key} has no fields")
    node[keys[-1]] = value


def with_edges(scenario: Scenario, number: int) -> Scenario:
    """Make the scenario have `number` edges.

    Fewer: the first ones by name. More: copies of them in turn, named cleveland-2, cleveland-3 and so on.
    Data sets whose nodeConfig has partition-id and num-partitions are divided anew among all edges.
    Raises: SimulationError if number is below 1 or above 1000.
    """
    if not 1 <= number <= 1000:
        raise SimulationError(f"--edges {number}: between 1 and 1000 edges can be simulated")
    originals = scenario.edges
    names = _names([edge.name for edge in originals], number)
    edges = [
        Edge(
            name,
            tuple(
                _partitioned(resource, index, number)
                for resource in originals[index % len(originals)].resources
            ),
        )
        for index, name in enumerate(names)
    ]
    clusters = [cluster for cluster in scenario.clusters if cluster.name in names]
    by_name = {cluster.name: cluster for cluster in scenario.clusters}
    for edge, original in zip(edges, (originals[i % len(originals)] for i in range(number)), strict=True):
        if edge.name != original.name and original.name in by_name:
            metadata = by_name[original.name].metadata.model_copy(update={"name": edge.name})
            clusters.append(by_name[original.name].model_copy(update={"metadata": metadata}))
    return dataclasses.replace(scenario, edges=tuple(edges), clusters=tuple(clusters))


def _names(originals: list[str], number: int) -> list[str]:
    """The originals' names, then NAME-2, NAME-3, ... in turn; a copy takes no name that an edge has."""
    names = originals[:number]
    taken = set(originals)
    for index in range(len(originals), number):
        original, copy_number = originals[index % len(originals)], index // len(originals) + 1
        while (name := f"{original}-{copy_number}") in taken:
            copy_number += 1
        taken.add(name)
        names.append(name)
    return names


def _partitioned(resource: EdgeResource, index: int, number: int) -> EdgeResource:
    if not isinstance(resource, EdgeDataset):
        return resource
    config = resource.spec.node_config
    if PARTITION_ID not in config or NUM_PARTITIONS not in config:
        return resource
    divided = {**config, PARTITION_ID: index, NUM_PARTITIONS: number}
    return resource.model_copy(update={"spec": resource.spec.model_copy(update={"node_config": divided})})


# -- writing -------------------------------------------------------------------------------------------------


def write_hub(scenario: Scenario, path: Path) -> None:
    """Write the hub's manifests to one file; the app's path becomes absolute, as the file moves."""
    document = copy.deepcopy(scenario.training.manifest())
    if scenario.app_directory is not None:
        document["spec"]["app"]["source"]["path"] = str(scenario.app_directory)
    _write(path, [document, *(cluster.manifest() for cluster in scenario.clusters)])


def write_edge(edge: Edge, directory: Path) -> None:
    """Write an edge's manifests into a directory of its own."""
    directory.mkdir(parents=True, mode=0o700)
    _write(directory / "resources.yaml", [resource.manifest() for resource in edge.resources])


def _write(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True), encoding="utf-8")
