"""What the planner looks at: one training and everything that matters to it, gathered once and frozen.

The controller fills it from the store, the sessions and the runtime. This module refuses to know how: it
reads resources that were validated and defaulted before, and nothing else.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any

from federation.api import reasons

TAKING_PART = frozenset(
    {
        reasons.ClusterState.SELECTED,
        reasons.ClusterState.WAITING,
        reasons.ClusterState.PREPARING,
        reasons.ClusterState.READY,
        reasons.ClusterState.TRAINING,
        reasons.ClusterState.REPORTED,
        reasons.ClusterState.LOST,
        reasons.ClusterState.COMPLETED,
    }
)
"""States in which a cluster holds one of the training's places."""


@dataclasses.dataclass(frozen=True)
class App:
    """The training's app as the hub could read it: a bundle with a digest, or references into the image.

    server_app: the app's own ServerApp; empty where spec.strategy makes one. trouble: what has become of its
    source since the training began. startable: whether an aggregator can be started of it; if not, `trouble`
    says why, and `server_app` may be unknown.
    """

    digest: str = ""
    client_app: str = ""
    server_app: str = ""
    trouble: Problem | None = None
    startable: bool = True

    @property
    def bundled(self) -> bool:
        """Whether edges fetch the app by its digest."""
        return not self.client_app


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why something cannot be: a reason of the vocabulary and a sentence with the next step."""

    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Training:
    """A FederatedTraining, with what became of its app."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    app: App | Problem
    created_at: float = 0.0

    @property
    def dataset(self) -> str:
        """The data set that an edge must offer."""
        return str(self.spec.get("dataset", ""))

    @property
    def minimum_clusters(self) -> int:
        """How many clusters must take part, at least one."""
        return int(self.spec.get("clusters", {}).get("minimum") or 1)

    @property
    def maximum_clusters(self) -> int | None:
        """How many clusters may take part; None for as many as there are."""
        maximum = self.spec.get("clusters", {}).get("maximum")
        return None if maximum is None else int(maximum)

    @property
    def suspended(self) -> bool:
        """Whether the spec asks to pause."""
        return bool(self.spec.get("suspend", False))

    @property
    def stop(self) -> bool:
        """Whether the spec asks to end for good."""
        return bool(self.spec.get("stop", False))

    def placed_before(self) -> frozenset[str]:
        """The clusters that hold a place by the last status; they keep it when places are scarce."""
        entries = self.status.get("clusters", ())
        return frozenset(entry["name"] for entry in entries if entry.get("state") in TAKING_PART)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A member of the federation: its EdgeCluster and its link.

    ``offered`` maps the data sets' names to the declared number of examples, if any. ``other_trainings``
    counts the trainings besides this one in which it holds a place. ``disconnected_at`` is unix seconds.
    ``left``: its own operator has left the federation.
    """

    name: str
    labels: Mapping[str, str]
    acceptance: str
    connected: bool
    offered: Mapping[str, int | None]
    maximum_trainings: int | None = None
    other_trainings: int = 0
    disconnected_at: float | None = None
    left: bool = False


@dataclasses.dataclass(frozen=True)
class Report:
    """What an edge last said of its assignment: a name of the wire's AssignmentState without its prefix."""

    state: str
    reason: str = ""
    message: str = ""
    log_tail: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class ClusterProgress:
    """How one cluster does, in the aggregator's eyes."""

    state: str
    reason: str = ""
    message: str = ""
    round: int = 0
    examples: int | None = None
    last_update_at: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclasses.dataclass(frozen=True)
class RoundMetrics:
    """What one phase of one round measured."""

    round: int
    phase: str
    values: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Finished:
    """How the training ended, in the aggregator's words."""

    succeeded: bool
    reason: str
    message: str
    model_uri: str = ""
    model_sha256: str = ""
    model_round: int = 0
    log_tail: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Progress:
    """Everything that the aggregator has reported so far, folded together (``planning.progress``).

    ``reason``: why nothing goes on now, as ``message`` says; empty if it does. ``diverged``: what the app did
    otherwise than before when it was run again; empty if nothing.
    """

    round: int = 0
    rounds_total: int = 0
    phase: str = ""
    message: str = ""
    reason: str = ""
    diverged: str = ""
    round_started_at: float = 0.0
    round_seconds: tuple[float, ...] = ()
    clusters: Mapping[str, ClusterProgress] = dataclasses.field(default_factory=dict)
    metrics: tuple[RoundMetrics, ...] = ()
    bytes_sent: int = 0
    bytes_received: int = 0
    phase_seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    finished: Finished | None = None


@dataclasses.dataclass(frozen=True)
class Exit:
    """The aggregator's process ended; `reason` is set if more is known than its exit status, `finished` if it
    left word of the training's end, `not_now` if it could not begin and may be able to later, `refused` how
    often in a row it was not even started, `disrupted` if its cluster ended it for reasons of its own.
    """

    description: str
    log_tail: tuple[str, ...] = ()
    reason: str = ""
    finished: Finished | None = None
    not_now: Problem | None = None
    refused: int = 0
    disrupted: bool = False


@dataclasses.dataclass(frozen=True)
class Aggregator:
    """The training's aggregator: its process, its link and what it said.

    ``address`` is empty until it reported where clients reach it. ``waiting`` says why its process cannot run
    yet, ``recovering`` that it died and what is done about it, ``restart_at`` when.
    """

    started: bool = False
    exit: Exit | None = None
    waiting: Problem | None = None
    recovering: Problem | None = None
    restart_at: float | None = None
    address: str = ""
    server_name: str = ""
    progress: Progress = Progress()


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long the planner waits for what may still come, in seconds.

    link_grace:  a member without a link stays expected so long; agents reconnect within a few seconds.
    start_grace: with quorum, accepted members that have not connected are waited for so long before the
    start.
    """

    link_grace_seconds: float = 30.0
    start_grace_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One training and its surroundings at one moment; ``now`` is unix seconds."""

    training: Training
    clusters: tuple[Cluster, ...]
    reports: Mapping[str, Report]
    aggregator: Aggregator
    now: float
    limits: Limits = Limits()


def training_of(resource: Mapping[str, Any], app: App | Problem) -> Training:
    """Read a FederatedTraining resource."""
    metadata = resource["metadata"]
    created = metadata.get("creationTimestamp")
    return Training(
        namespace=metadata.get("namespace") or "default",
        name=metadata["name"],
        uid=metadata["uid"],
        generation=int(metadata.get("generation", 1)),
        spec=resource.get("spec", {}),
        status=resource.get("status") or {},
        app=app,
        created_at=moment(created) if created else 0.0,
    )


def cluster_of(
    resource: Mapping[str, Any],
    connected: bool,
    other_trainings: int,
    disconnected_at: float | None,
    left: bool = False,
) -> Cluster:
    """Read an EdgeCluster resource; trainings select by what the edge says of itself and, over it, the spec's
    labels.
    """
    metadata, spec, status = resource["metadata"], resource.get("spec", {}), resource.get("status") or {}
    maximum = spec.get("maximumTrainings")
    return Cluster(
        name=metadata["name"],
        labels={**(status.get("agentLabels") or {}), **(spec.get("labels") or {})},
        acceptance=str(spec.get("acceptance", "Pending")),
        connected=connected,
        offered={entry["name"]: entry.get("examples") for entry in status.get("datasets") or ()},
        maximum_trainings=None if maximum is None else int(maximum),
        other_trainings=other_trainings,
        disconnected_at=disconnected_at,
        left=left,
    )


def timestamp(moment: float) -> str:
    """Write unix seconds as Kubernetes writes times: UTC, whole seconds."""
    return dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> float:
    """Read a time as Kubernetes writes it; unix seconds."""
    return dt.datetime.fromisoformat(text).timestamp()
