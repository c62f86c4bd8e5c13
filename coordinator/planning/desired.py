"""What should be the case for one training: who is asked, whether its aggregator runs, what the aggregator is
told.

A pure function of a Snapshot; the controller makes it true. This module refuses to know about processes and
streams.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.planning import selection, snapshot
from federation.api import reasons

Reason = reasons.TrainingReason


class Stage(enum.Enum):
    """Where a training is in its life."""

    ENDED = "Ended"
    STOPPING = "Stopping"
    SUSPENDED = "Suspended"
    NOT_ACCEPTED = "NotAccepted"
    WAITING = "Waiting"
    STARTING = "Starting"
    RUNNING = "Running"


ACTIVE = frozenset({Stage.STARTING, Stage.RUNNING})
"""Stages in which the aggregator is wanted."""

_ASKED = ACTIVE | {Stage.WAITING, Stage.STOPPING}
"""Stages in which clusters are asked: one that stops is over for them when its aggregator says so. One that
is suspended in mid-training rests there, and they keep what their clients remember.
"""


DEFAULT_MAXIMUM_RESTARTS = 3
"""The schema's own default, for a spec that was written without it."""


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What one cluster is asked to do; the field names are the wire's."""

    uid: str
    namespace: str
    name: str
    dataset: str
    app: snapshot.App
    aggregator_address: str
    aggregator_server_name: str
    run_config: Mapping[str, Any]
    image: str
    strategy: str
    rounds: int
    resource_limits: Mapping[str, str]
    resource_requests: Mapping[str, str]
    privacy: Mapping[str, Any]
    maximum_restarts: int
    resting: bool = False
    generation: int = 0


@dataclasses.dataclass(frozen=True)
class RosterMember:
    """Whether the aggregator should wait for a cluster; of one whose client does not run, why."""

    cluster: str
    expected: bool
    reason: str = ""
    message: str = ""


@dataclasses.dataclass(frozen=True)
class RoundRules:
    """What every round must hold to, and how many there are; 0 where only the app's ServerApp knows."""

    quorum: int
    minimum_fraction: str
    deadline_seconds: float
    late_replies: str
    over_provision_fraction: str = "0"
    grace_seconds: float | None = None
    rounds: int = 0


@dataclasses.dataclass(frozen=True)
class Stop:
    """Why the aggregator should end before its work is done."""

    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What should be the case.

    ``quorum`` is the finding about spec.clusters.minimum; ``failure`` how the training failed, if it did;
    ``stopped`` whether it ended because spec.stop is true; ``recheck_at`` the unix time at which the plan may
    change by itself.
    """

    stage: Stage
    members: tuple[selection.Membership, ...]
    assignments: Mapping[str, Assignment]
    roster: tuple[RosterMember, ...]
    rules: RoundRules
    quorum: tuple[bool, str, str]
    failure: snapshot.Problem | None = None
    stopped: bool = False
    stop: Stop | None = None
    recheck_at: float | None = None

    @property
    def aggregator_wanted(self) -> bool:
        """Whether the aggregator should run."""
        return self.stage in ACTIVE


def plan(snap: snapshot.Snapshot) -> Plan:
    """Decide what should be the case for the training.

    Law: planning again on the outcome of a plan, with nothing else changed, gives the same plan.
    """
    members = selection.select(snap)
    failure = failure_of(snap)
    grace_ends = start_grace_ends(snap, members)
    stage = _stage(snap, members, failure, grace_ends)
    asked = stage in _ASKED or _rests(snap, stage)
    finished = snap.aggregator.progress.finished
    succeeded = finished is not None and finished.succeeded
    return Plan(
        stage=stage,
        members=members,
        assignments={
            member.cluster: _assignment(snap, stage) for member in members if asked and member.assigned
        },
        roster=tuple(
            _roster_member(member, snap.reports.get(member.cluster))
            for member in members
            if member.assigned or member.state in _OUT
        ),
        rules=_rules(snap.training),
        quorum=quorum(snap, members),
        failure=failure,
        stopped=stage is Stage.ENDED and failure is None and not succeeded and snap.training.stop,
        stop=_stop(snap, stage),
        recheck_at=_recheck_at(snap, members, grace_ends if stage is Stage.WAITING else None),
    )


_TOLD_TO_END = frozenset({Reason.STOP_REQUESTED, Reason.SUSPEND_REQUESTED})


def failure_of(snap: snapshot.Snapshot) -> snapshot.Problem | None:
    """Return how the training failed, if the aggregator said so or ended without saying anything.

    That it ended because it was told to is no failure.
    """
    aggregator = snap.aggregator
    finished = aggregator.progress.finished
    if finished is not None:
        if finished.succeeded or finished.reason in _TOLD_TO_END:
            return None
        return _with_tail(finished.reason, finished.message, finished.log_tail)
    if aggregator.exit is not None and not snap.training.suspended and not snap.training.stop:
        how = aggregator.exit.description.rstrip(".")
        message = f"The aggregator ended without a result: {how}. Its last lines say why."
        return _with_tail(Reason.SERVER_APP_EXITED, message, aggregator.exit.log_tail)
    return None


FINAL = frozenset(
    {
        reasons.TrainingCondition.COMPLETED,
        reasons.TrainingCondition.FAILED,
        reasons.TrainingCondition.STOPPED,
    }
)
"""A training that has one of these conditions is over."""


def ended(training: snapshot.Training) -> bool:
    """Whether the status says that the training is over; it does not begin again."""
    return over(training.status)


def over(status: Mapping[str, Any]) -> bool:
    """Whether this is the last status of a training."""
    return any(
        condition["type"] in FINAL and condition["status"] == "True"
        for condition in status.get("conditions") or ()
    )


def may_run(training: snapshot.Training) -> bool:
    """Whether an aggregator that is found running may go on; not if its image is allowed no more."""
    app = training.app
    return not isinstance(app, snapshot.Problem) or app.reason != Reason.IMAGE_NOT_ALLOWED


def start_grace_ends(snap: snapshot.Snapshot, members: tuple[selection.Membership, ...]) -> float | None:
    """Return until when accepted members that have not connected yet, or not answered yet, are waited for."""
    if snap.limits.start_grace_seconds <= 0:
        return None
    coming = any(
        member.reason == selection.Reason.NOT_CONNECTED or member.state is selection.State.SELECTED
        for member in members
    )
    placed = sum(member.placed for member in members)
    maximum = snap.training.maximum_clusters
    if not coming or (
        maximum is not None and placed >= maximum and all(m.agreed for m in members if m.placed)
    ):
        return None
    enough_since = next(
        (
            snapshot.moment(condition["lastTransitionTime"])
            for condition in snap.training.status.get("conditions") or ()
            if condition["type"] == reasons.TrainingCondition.QUORUM_REACHED and condition["status"] == "True"
        ),
        snap.now,
    )
    return enough_since + snap.limits.start_grace_seconds


def _goes_on(snap: snapshot.Snapshot) -> str:
    """What missing clusters may still change; nothing once the aggregator has ended."""
    return "" if snap.aggregator.progress.finished else "The round goes on when they are back. "


def quorum(snap: snapshot.Snapshot, members: tuple[selection.Membership, ...]) -> tuple[bool, str, str]:
    """Return whether enough clusters take part, with reason and sentence."""
    minimum = snap.training.minimum_clusters
    placed = [member for member in members if member.placed]
    agreed = [member for member in placed if member.agreed and member.state is not selection.State.LOST]
    if len(agreed) >= minimum:
        return True, Reason.ENOUGH_CLUSTERS, (
            f"{len(agreed)} of {len(placed)} selected clusters take part, {minimum} needed."
        )  # fmt: skip
    if snap.aggregator.started:
        gone = [member.cluster for member in members if member.assigned and member not in agreed]
        message = (
            f"{len(agreed)} of {minimum} needed clusters take part; missing: {_names(gone)}. {_goes_on(snap)}"
            "Their entries below say what is wrong."
        )
        return False, Reason.QUORUM_LOST, message
    selected = [member for member in members if member.reason != selection.Reason.NOT_SELECTED]
    if not selected:
        return False, Reason.NO_CLUSTER_SELECTED, (
            f"No cluster of the federation matches the selector, {minimum} needed. Let clusters join with "
            "`hanse join`, or widen spec.clusters.selector."
        )  # fmt: skip
    would_come = willing(placed)
    if would_come >= minimum:
        waiting = [member.cluster for member in placed if not member.agreed]
        return False, Reason.WAITING_FOR_CLUSTERS, (
            f"{len(agreed)} of {minimum} needed clusters have agreed; waiting for the answer of "
            f"{_names(waiting)}."
        )  # fmt: skip
    if all(member.reason == selection.Reason.DATASET_NOT_OFFERED for member in selected):
        return False, Reason.NO_SUCH_DATASET, (
            f"No cluster offers the data set {snap.training.dataset}; correct spec.dataset, or ask an "
            "owner to declare an "
            "EdgeDataset of this name."
        )  # fmt: skip
    absent = [
        member
        for member in selected
        if member.reason in _MAY_COME or (member.placed and member.state is selection.State.WAITING)
    ]
    out = ", ".join(f"{member.cluster} {member.reason}" for member in selected if not member.placed)
    if would_come + len(absent) >= minimum:
        return False, Reason.WAITING_FOR_CLUSTERS, (
            f"{would_come} of {minimum} needed clusters can take part now; waiting for "
            f"{_names([member.cluster for member in absent])}. Their entries below say what each one needs."
        )  # fmt: skip
    return False, Reason.QUORUM_NOT_REACHED, (
        f"{len(placed)} of {minimum} needed clusters can take part{f' ({out})' if out else ''}. Let more "
        "clusters join, resolve what "
        "their entries below name, or lower spec.clusters.minimum."
    )  # fmt: skip


def willing(members: Iterable[selection.Membership]) -> int:
    """Return how many would be there if the aggregator started; who waits for something else would not."""
    return sum(member.placed and member.state is not selection.State.WAITING for member in members)


_MAY_COME = frozenset(
    {selection.Reason.NOT_CONNECTED, selection.Reason.NOT_ACCEPTED, selection.Reason.TOO_MANY_TRAININGS}
)
_OUT = frozenset({selection.State.LEFT})


def _stage(
    snap: snapshot.Snapshot,
    members: tuple[selection.Membership, ...],
    failure: snapshot.Problem | None,
    grace_ends: float | None,
) -> Stage:
    training, aggregator = snap.training, snap.aggregator
    finished = aggregator.progress.finished
    if ended(training) or failure is not None or (finished is not None and finished.succeeded):
        return Stage.ENDED
    if training.stop:
        going = aggregator.started and aggregator.exit is None and finished is None
        return Stage.STOPPING if going else Stage.ENDED
    if training.suspended:
        return Stage.SUSPENDED
    if isinstance(training.app, snapshot.Problem):
        return Stage.NOT_ACCEPTED
    if aggregator.started:
        return Stage.RUNNING if aggregator.progress.round > 0 else Stage.STARTING
    if willing(members) < training.minimum_clusters:
        return Stage.WAITING
    if grace_ends is not None and snap.now < grace_ends:
        return Stage.WAITING
    return Stage.STARTING


def _rests(snap: snapshot.Snapshot, stage: Stage) -> bool:
    training = snap.training
    begun = bool(training.status.get("startedAt"))
    return stage is Stage.SUSPENDED and begun and isinstance(training.app, snapshot.App)


def _assignment(snap: snapshot.Snapshot, stage: Stage) -> Assignment:
    training, spec = snap.training, snap.training.spec
    assert isinstance(training.app, snapshot.App)
    client = spec.get("client") or {}
    resources = client.get("resources") or {}
    ready = stage in ACTIVE or stage is Stage.STOPPING
    return Assignment(
        uid=training.uid,
        namespace=training.namespace,
        name=training.name,
        dataset=training.dataset,
        # What has become of its source is nothing for the edges.
        app=dataclasses.replace(training.app, trouble=None, startable=True),
        aggregator_address=snap.aggregator.address if ready else "",
        aggregator_server_name=snap.aggregator.server_name if ready else "",
        run_config=(spec.get("app") or {}).get("runConfig") or {},
        image=str(client.get("image") or ""),
        strategy=str((spec.get("strategy") or {}).get("name") or ""),
        rounds=rounds_total(training),
        resource_limits={key: str(value) for key, value in (resources.get("limits") or {}).items()},
        resource_requests={key: str(value) for key, value in (resources.get("requests") or {}).items()},
        privacy=spec.get("privacy") or {},
        maximum_restarts=int(client.get("maximumRestarts", DEFAULT_MAXIMUM_RESTARTS)),
        resting=stage is Stage.SUSPENDED,
        generation=training.generation,
    )


def rounds_total(training: snapshot.Training) -> int:
    """Return how many rounds the manifest asks for; 0 when only the app knows."""
    strategy = (training.spec.get("strategy") or {}).get("rounds")
    run_config = (training.spec.get("app") or {}).get("runConfig") or {}
    rounds = strategy if strategy is not None else run_config.get("num-server-rounds", 0)
    return rounds if isinstance(rounds, int) and rounds > 0 else 0


def _roster_member(member: selection.Membership, report: snapshot.Report | None) -> RosterMember:
    if not member.expected or member.state is selection.State.WAITING:
        return RosterMember(member.cluster, member.expected, member.reason, member.message)
    # The edge's own word, also where the aggregator has seen that a client before it is lost.
    if report is not None and report.state == "PREPARING":
        return RosterMember(member.cluster, True, report.reason, report.message or _COMES)
    return RosterMember(member.cluster, True)


_COMES = "Its client is being started."


def _rules(training: snapshot.Training) -> RoundRules:
    rules = training.spec.get("round") or {}
    return RoundRules(
        quorum=training.minimum_clusters,
        minimum_fraction=str(rules.get("minimumFraction", "0")),
        deadline_seconds=float(rules.get("deadlineSeconds", 600)),
        late_replies=str(rules.get("lateReplies", "Discard")),
        over_provision_fraction=str(rules.get("overProvisionFraction", "0")),
        grace_seconds=None if (grace := rules.get("graceSeconds")) is None else float(grace),
        rounds=0 if _brings_server_app(training) else rounds_total(training),
    )


def _brings_server_app(training: snapshot.Training) -> bool:
    app = training.app
    return not training.spec.get("strategy") or (isinstance(app, snapshot.App) and bool(app.server_app))


def _stop(snap: snapshot.Snapshot, stage: Stage) -> Stop | None:
    if stage is Stage.STOPPING:
        return Stop(Reason.STOP_REQUESTED, "spec.stop is true; the training is over.")
    if stage is Stage.SUSPENDED:
        return Stop(Reason.SUSPEND_REQUESTED, "spec.suspend is true; set it to false to go on.")
    return None


def _recheck_at(
    snap: snapshot.Snapshot, members: tuple[selection.Membership, ...], grace_ends: float | None
) -> float | None:
    moments = [moment for moment in (grace_ends, snap.aggregator.restart_at) if moment is not None]
    lost_since = {cluster.name: cluster.disconnected_at for cluster in snap.clusters}
    for member in members:
        since = lost_since[member.cluster]
        if member.state is selection.State.LOST and member.expected and since is not None:
            moments.append(since + snap.limits.link_grace_seconds)
    return min((moment for moment in moments if moment > snap.now), default=None)


def _with_tail(reason: str, message: str, tail: tuple[str, ...]) -> snapshot.Problem:
    return snapshot.Problem(reason, "\n".join((message, *tail)) if tail else message)


def _names(names: list[str]) -> str:
    return ", ".join(sorted(names)) or "none"
