"""Snapshots for the planner's tests, with defaults that a test need not say."""

import dataclasses
from typing import Any

from coordinator.planning import desired, snapshot, status

NOW = 1_780_000_000.0
APP = snapshot.App(digest="sha256:" + "9f" * 32)


def cluster(name: str, **changes: Any) -> snapshot.Cluster:
    """A connected, accepted cluster of Europe that offers heart-disease."""
    base = snapshot.Cluster(name, {"region": "europe"}, "Accepted", True, {"heart-disease": 300})
    return dataclasses.replace(base, **changes)


def training(minimum: int = 2, maximum: int | None = None, **changes: Any) -> snapshot.Training:
    """A training of heart-disease over Europe."""
    spec: dict[str, Any] = {
        "app": {"runConfig": {"num-server-rounds": 20}},
        "dataset": "heart-disease",
        "clusters": {"selector": {"matchLabels": {"region": "europe"}}, "minimum": minimum},
        "round": {"minimumFraction": "0.75", "deadlineSeconds": 60},
    } | changes.pop("spec", {})
    if maximum is not None:
        spec["clusters"]["maximum"] = maximum
    base = snapshot.Training("cardiology", "hospitals", "uid-1", 3, spec, {}, APP)
    return dataclasses.replace(base, **changes)


def snap(*clusters: snapshot.Cluster, **changes: Any) -> snapshot.Snapshot:
    """A snapshot in which nothing has happened yet."""
    base = snapshot.Snapshot(training(), clusters, {}, snapshot.Aggregator(), NOW)
    return dataclasses.replace(base, **changes)


def running(*names: str) -> dict[str, snapshot.Report]:
    """Reports of edges whose clients are up."""
    return {name: snapshot.Report("RUNNING") for name in names}


def held(*names: str, state: str = "Training") -> dict[str, Any]:
    """A status in which these clusters hold places."""
    return {"clusters": [{"name": name, "state": state} for name in names]}


def rendered(before: snapshot.Snapshot) -> dict[str, Any]:
    """Plan and render."""
    return status.render(before, desired.plan(before))
