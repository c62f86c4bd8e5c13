"""A training's status: what people and machines read of a Plan and the aggregator's progress.

The coordinator is the only writer of it. This module refuses to decide anything: it says what the plan
decided, in sentences that name the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coordinator.planning import apps, conditions, desired, progress, selection, snapshot
from federation.api import reasons

Condition = reasons.TrainingCondition
Phase = reasons.TrainingPhase
Reason = reasons.TrainingReason
State = reasons.ClusterState

_KEPT = ("round", "startedAt", "metrics", "transfer", "phaseSeconds", "model")
_CLUSTER_MESSAGE_CHARACTERS = 1024
_NAMES = 8
"""A condition's message may be long, but nobody reads a thousand names."""

_KEPT_OF_CLUSTER = ("round", "examples", "lastUpdateAt", "bytesUp", "bytesDown")
_LASTING = frozenset({State.EXCLUDED, State.REFUSED, State.FAILED, State.LEFT, State.LOST})
_AT_WORK = snapshot.TAKING_PART - {State.SELECTED, State.WAITING, State.LOST}

_EXPLAINS = {
    Phase.PENDING: Condition.ACCEPTED,
    Phase.WAITING: Condition.QUORUM_REACHED,
    Phase.PREPARING: Condition.RUNNING,
    Phase.RUNNING: Condition.RUNNING,
    Phase.SUSPENDED: Condition.SUSPENDED,
    Phase.COMPLETED: Condition.COMPLETED,
    Phase.FAILED: Condition.FAILED,
    Phase.STOPPED: Condition.STOPPED,
}
"""Which condition explains a phase best."""


def render(snap: snapshot.Snapshot, plan: desired.Plan) -> dict[str, Any]:
    """Return the status of the training, from nothing but the snapshot and its plan.

    Law: rendering again with the rendered status in the snapshot and a later ``now`` gives the same status.
    """
    training = snap.training
    if desired.ended(training):
        return dict(training.status)
    current = snap.aggregator.progress
    status: dict[str, Any] = {
        "observedGeneration": training.generation,
        "phase": str(phase(snap, plan)),
        "conditions": conditions.merge(
            training.status.get("conditions") or (), _conditions(snap, plan), training.generation, snap.now
        ),
        "clusters": [_cluster(member, snap, plan) for member in plan.members],
    }
    if isinstance(training.app, snapshot.App) and training.app.digest:
        status["app"] = {"digest": training.app.digest}
    elif apps.began(training.status) and "app" in training.status:
        status["app"] = training.status["app"]  # it goes on with that one, if it does
    quiet = not current.round and not current.metrics
    resumes = not snap.aggregator.started and "startedAt" in training.status
    if quiet and (plan.stage not in desired.ACTIVE or resumes):
        # Nothing runs, or its end is known and nothing else: what was written before stays visible.
        status |= {key: training.status[key] for key in _KEPT if key in training.status}
    else:
        status |= _figures(training, current)
    finished = current.finished
    if finished is not None and finished.model_uri:
        status["model"] = {
            "uri": finished.model_uri, "sha256": finished.model_sha256, "round": finished.model_round,
        }  # fmt: skip
        if quiet and "round" in status and status["round"]["current"] < finished.model_round:
            status["round"] = status["round"] | {"current": finished.model_round}
    if plan.stage is desired.Stage.ENDED:
        status["completedAt"] = snapshot.timestamp(snap.now)
    status["summary"] = _summary(status, plan)
    return status


def _figures(training: snapshot.Training, current: snapshot.Progress) -> dict[str, Any]:
    """What is counted and measured, as far as it is known."""
    figures = {key: training.status[key] for key in ("startedAt",) if key in training.status}
    total = current.rounds_total or desired.rounds_total(training)
    if total or current.round:
        figures["round"] = {"current": current.round} | ({"total": total} if total else {})
    if current.round and current.round_started_at:
        began = snapshot.timestamp(current.round_started_at)
        figures["round"]["startedAt"] = began
        figures.setdefault("startedAt", began)
    median = progress.median_round_seconds(current)
    if current.round and median is not None:
        figures["round"]["medianSeconds"] = quantity(round(median, 3))
    if current.metrics:
        figures["metrics"] = [_metrics(entry) for entry in current.metrics]
    if current.bytes_sent or current.bytes_received:
        figures["transfer"] = {"bytesUp": current.bytes_received, "bytesDown": current.bytes_sent}
    if current.phase_seconds:
        figures["phaseSeconds"] = {
            name: quantity(round(seconds, 3)) for name, seconds in sorted(current.phase_seconds.items())
        }
    return figures


def _summary(status: dict[str, Any], plan: desired.Plan) -> dict[str, Any]:
    """What print columns show."""
    selected = [member for member in plan.members if member.reason != selection.Reason.NOT_SELECTED]
    completed = {entry["name"] for entry in status["clusters"] if entry["state"] == State.COMPLETED}
    taking_part = [
        member for member in selected if (member.placed and member.agreed) or member.cluster in completed
    ]
    summary = {"clusters": f"{len(taking_part)}/{len(selected)}"}
    if "round" in status:
        counters = status["round"]
        summary["round"] = (
            f"{counters['current']}/{counters['total']}" if "total" in counters else f"{counters['current']}"
        )
    if metric := _headline(status.get("metrics", [])):
        summary["metric"] = metric
    summary["reason"] = phase_condition(status)["reason"]
    return summary


def _headline(metrics: list[dict[str, Any]]) -> str:
    """The one metric for a print column: the latest evaluation's accuracy, loss, or what comes first."""
    evaluations = [entry for entry in metrics if entry["phase"] != "Train" and entry["values"]]
    latest = next(reversed(evaluations or [entry for entry in metrics if entry["values"]]), None)
    if latest is None:
        return ""
    names = sorted(latest["values"], key=lambda name: ("acc" not in name, "loss" not in name, name))
    number = float(latest["values"][names[0]])
    return f"{names[0]}={number:.4g}"[:256]


def phase(snap: snapshot.Snapshot, plan: desired.Plan) -> Phase:
    """Return the one word for people."""
    match plan.stage:
        case desired.Stage.ENDED:
            if plan.failure is not None:
                return Phase.FAILED
            return Phase.STOPPED if plan.stopped else Phase.COMPLETED
        case desired.Stage.SUSPENDED:
            return Phase.SUSPENDED
        case desired.Stage.NOT_ACCEPTED:
            return Phase.PENDING
        case desired.Stage.RUNNING | desired.Stage.STOPPING:
            return Phase.RUNNING
    if snap.aggregator.started:
        enough = sum(member.placed for member in plan.members) >= snap.training.minimum_clusters
    else:
        enough = desired.willing(plan.members) >= snap.training.minimum_clusters
    return Phase.PREPARING if enough else Phase.WAITING


def quantity(value: float) -> str:
    """Write a number as status does, which has no floats: the shortest text that reads back as the same
    number.
    """
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def expires_at(training: snapshot.Training) -> float | None:
    """Return when a finished training is to be deleted, unix seconds; None for never, or not yet."""
    seconds, completed = training.spec.get("ttlSecondsAfterFinished"), training.status.get("completedAt")
    if seconds is None or not completed or not desired.ended(training):
        return None
    return snapshot.moment(completed) + float(seconds)


def phase_condition(status: dict[str, Any]) -> dict[str, Any]:
    """Return the condition that explains the phase best; an Event takes its reason and message."""
    by_type = {entry["type"]: entry for entry in status["conditions"]}
    found: dict[str, Any] = by_type[_EXPLAINS[Phase(status["phase"])]]
    return found


def _conditions(snap: snapshot.Snapshot, plan: desired.Plan) -> list[dict[str, Any]]:
    app = snap.training.app
    finished = snap.aggregator.progress.finished
    if isinstance(app, snapshot.Problem):
        accepted = conditions.condition(Condition.ACCEPTED, False, app.reason, app.message)
    elif app.trouble is not None:
        accepted = conditions.condition(Condition.ACCEPTED, True, app.trouble.reason, app.trouble.message)
    else:
        valid = "The manifest is valid and the app is readable."
        accepted = conditions.condition(Condition.ACCEPTED, True, Reason.VALID, valid)
    ended = plan.stage is desired.Stage.ENDED
    completed = ended and plan.failure is None and not plan.stopped
    reason: str
    if ended and not completed:
        reason, message = Reason.ENDED_EARLY, "The training ended before its last round."
    elif completed:
        reason = (finished.reason if finished else "") or Reason.ALL_ROUNDS_DONE
        message = (finished.message if finished else "") or "All rounds are done and the model is stored."
        message += _too_late(snap, plan)
    else:
        reason, message = Reason.ROUNDS_REMAINING, "Rounds are left to play."
    if plan.failure is not None:
        why = plan.failure.reason or Reason.INTERNAL_ERROR
        failed = conditions.condition(Condition.FAILED, True, why, plan.failure.message)
    else:
        failed = conditions.condition(
            Condition.FAILED, False, Reason.NOT_FAILED, "Nothing has ended the training."
        )
    suspended = snap.training.suspended and not ended
    return [
        accepted,
        conditions.condition(Condition.QUORUM_REACHED, *_quorum(snap, plan)),
        _running(snap, plan),
        conditions.condition(Condition.COMPLETED, completed, reason, message),
        failed,
        conditions.condition(
            Condition.SUSPENDED,
            suspended,
            Reason.SUSPEND_REQUESTED if suspended else Reason.NOT_SUSPENDED,
            _SUSPENDED if suspended else _NOT_SUSPENDED,
        ),
        conditions.condition(
            Condition.STOPPED,
            plan.stopped,
            Reason.STOP_REQUESTED if plan.stopped else Reason.NOT_STOPPED,
            _STOPPED if plan.stopped else "Nobody has stopped the training.",
        ),
        *_diverged(snap),
    ]


def _too_late(snap: snapshot.Snapshot, plan: desired.Plan) -> str:
    """Of rounds that were asked for when the last one was over already; nothing where that is not known."""
    played, wanted = snap.aggregator.progress.rounds_total, plan.rules.rounds
    if not played or wanted <= played:
        return ""
    return (
        f" That spec.strategy.rounds was raised to {wanted} came too late; create another FederatedTraining "
        "to train longer."
    )


def _diverged(snap: snapshot.Snapshot) -> list[dict[str, Any]]:
    """What the app did otherwise when it was run again. Once said it stays, whoever says nothing of it."""
    known = conditions.find(snap.training.status, Condition.DIVERGED) or {}
    what = snap.aggregator.progress.diverged or known.get("message", "")
    return [conditions.condition(Condition.DIVERGED, True, Reason.RESUME_DIVERGED, what)] if what else []


def _quorum(snap: snapshot.Snapshot, plan: desired.Plan) -> tuple[bool, str, str]:
    """The finding about the quorum; of an end that was found by a new leader, the one that was written."""
    known = conditions.find(snap.training.status, Condition.QUORUM_REACHED)
    if plan.stage is desired.Stage.ENDED and not snap.aggregator.progress.clusters and known is not None:
        return known["status"] == "True", known["reason"], known["message"]
    return plan.quorum


_SUSPENDED = "The training rests because spec.suspend is true; set it to false to start it again."
_NOT_SUSPENDED = "The training does not rest."
_STOPPED = (
    "The training was stopped because spec.stop is true; what it reached stays here. To train again, create "
    "another FederatedTraining."
)


def _running(snap: snapshot.Snapshot, plan: desired.Plan) -> dict[str, Any]:
    current = snap.aggregator.progress
    match plan.stage:
        case desired.Stage.RUNNING | desired.Stage.STARTING if lost := snap.aggregator.recovering:
            running = plan.stage is desired.Stage.RUNNING
            if (waiting := snap.aggregator.waiting) is not None:  # and reads no journal before it runs
                message = conditions.sentence(_cannot_run(waiting))
                return conditions.condition(Condition.RUNNING, running, Reason.AGGREGATOR_LOST, message)
            return conditions.condition(Condition.RUNNING, running, lost.reason, lost.message)
        case desired.Stage.RUNNING:
            reason = current.reason or Reason.ROUND_IN_PROGRESS
            return conditions.condition(
                Condition.RUNNING, True, reason, current.message or _round_sentence(current)
            )
        case desired.Stage.STARTING:
            waiting = snap.aggregator.waiting
            message = current.message or "The aggregator is being started."
            if waiting is not None:
                message = _cannot_run(waiting)
            message = f"{conditions.sentence(message)}{_still_preparing(plan)}"
            return conditions.condition(Condition.RUNNING, False, Reason.STARTING, message)
        case desired.Stage.WAITING if phase(snap, plan) is Phase.PREPARING:
            message = (
                f"It starts when the other clusters have answered or had time to.{_still_preparing(plan)}"
            )
            return conditions.condition(Condition.RUNNING, False, Reason.STARTING, message)
        case desired.Stage.STOPPING:
            return conditions.condition(
                Condition.RUNNING,
                True,
                Reason.STOPPING,
                "spec.stop is true: the aggregator stores the model of its last round and ends.",
            )
        case desired.Stage.ENDED if plan.failure is None and not plan.stopped:
            return conditions.condition(
                Condition.RUNNING, False, Reason.ALL_ROUNDS_DONE, "The training is over."
            )
        case desired.Stage.ENDED:
            return conditions.condition(
                Condition.RUNNING,
                False,
                Reason.ENDED_EARLY,
                f"The training is over; the condition {'Stopped' if plan.stopped else 'Failed'} says why.",
            )
        case desired.Stage.SUSPENDED:
            return conditions.condition(
                Condition.RUNNING,
                False,
                Reason.SUSPEND_REQUESTED,
                _SUSPENDED,
            )
    return conditions.condition(
        Condition.RUNNING,
        False,
        Reason.NOT_STARTED,
        "It has not begun; see the conditions Accepted and QuorumReached.",
    )


def _cannot_run(waiting: snapshot.Problem) -> str:
    return f"The aggregator cannot run yet ({waiting.reason}): {waiting.message}"


def _round_sentence(current: snapshot.Progress) -> str:
    total = f" of {current.rounds_total}" if current.rounds_total else ""
    return f"Round {current.round}{total} is in progress."


def _cluster(member: selection.Membership, snap: snapshot.Snapshot, plan: desired.Plan) -> dict[str, Any]:
    state, reason, message = member.state, member.reason, member.message
    report = snap.reports.get(member.cluster)
    known = snap.aggregator.progress.clusters.get(member.cluster)
    before = _before(snap, member.cluster)
    if plan.stage is desired.Stage.ENDED and _took_part(member, before):
        # What was wrong with its last update stays to be read after the end.
        state, reason = State.COMPLETED, known.reason if known else ""
        message = known.message if known and reason else "It took part until the training ended."
    elif member.placed and plan.stage in _RESTS:
        state, reason, message = State.SELECTED, "", _RESTS[plan.stage]
    entry: dict[str, Any] = {"name": member.cluster, "state": str(state)}
    if reason:
        entry["reason"] = str(reason)
    message = conditions.sentence(message)
    if state is State.FAILED and report is not None and report.log_tail:
        message = "\n".join((message, *report.log_tail))
    if message:
        entry["message"] = conditions.bounded(message, _CLUSTER_MESSAGE_CHARACTERS)
    if known is not None:
        if known.round:
            entry["round"] = known.round
        if known.examples is not None:
            entry["examples"] = known.examples
        if known.last_update_at:
            entry["lastUpdateAt"] = snapshot.timestamp(known.last_update_at)
        if known.bytes_sent or known.bytes_received:
            entry["bytesUp"], entry["bytesDown"] = known.bytes_received, known.bytes_sent
    elif plan.stage is desired.Stage.ENDED:
        entry |= {key: before[key] for key in _KEPT_OF_CLUSTER if key in before}
    return entry


_RESTS = {
    desired.Stage.SUSPENDED: "It is asked again when spec.suspend is false.",
    desired.Stage.NOT_ACCEPTED: "It is asked when the training is accepted.",
}
"""What is said of a cluster that would take part while nobody is asked."""


def _took_part(member: selection.Membership, before: Mapping[str, Any]) -> bool:
    """Whether a cluster was there to the end. Of one that a new leader has not heard of yet, the last status
    says it.
    """
    if member.agreed and member.state not in _LASTING:
        return True
    unheard = member.state is State.SELECTED or (member.state is State.LOST and member.expected)
    return unheard and before.get("state") in _AT_WORK


def _before(snap: snapshot.Snapshot, cluster: str) -> Mapping[str, Any]:
    entries = snap.training.status.get("clusters") or ()
    return next((entry for entry in entries if entry["name"] == cluster), {})


def _still_preparing(plan: desired.Plan) -> str:
    """Say which clusters the start waits for."""
    names = [
        member.cluster
        for member in plan.members
        if member.placed and member.state in (State.SELECTED, State.WAITING, State.PREPARING)
    ]
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f" Not ready yet: {', '.join(names[:_NAMES])}{more}." if names else ""


def _metrics(entry: snapshot.RoundMetrics) -> dict[str, Any]:
    values = {name: _metric(value) for name, value in sorted(entry.values.items())}
    return {"round": entry.round, "phase": entry.phase, "values": values}


def _metric(value: float) -> str:
    return quantity(value) if value - value == 0 else str(value)
