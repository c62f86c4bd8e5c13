"""Which clusters take part in a training; for those that do not, the one reason.

Ordered checks, the first finding counts, as in cert-manager's policies. This module refuses to know what
follows from it: assignments and the aggregator are ``planning.desired``'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from coordinator.planning import membership, snapshot
from federation.api import meta, reasons

State = reasons.ClusterState
Reason = reasons.ClusterReason

AGREED = frozenset({"PREPARING", "RUNNING"})
"""What an edge reports once its policy said yes."""


_TOOK_PART = AGREED | {"STOPPED"}


@dataclasses.dataclass(frozen=True)
class Finding:
    """The first check that a cluster did not pass."""

    state: State
    reason: str
    message: str


@dataclasses.dataclass(frozen=True)
class Membership:
    """Where one cluster stands.

    assigned: it is asked to take part (a refusing one stays asked, so that it may change its mind).
    placed:   it holds one of the training's places.
    agreed:   its policy said yes.
    expected: the aggregator should wait for it.
    """

    cluster: str
    state: State
    reason: str = ""
    message: str = ""
    assigned: bool = False
    placed: bool = False
    agreed: bool = False
    expected: bool = False


Check = Callable[[snapshot.Training, snapshot.Cluster], Finding | None]


def labels_do_not_match(training: snapshot.Training, cluster: snapshot.Cluster) -> Finding | None:
    """The selector leaves it out."""
    selector = training.spec.get("clusters", {}).get("selector") or {}
    if matches(selector, cluster.labels):
        return None
    return Finding(
        State.EXCLUDED,
        Reason.NOT_SELECTED,
        f"Its labels do not match the selector {describe_selector(selector)}; add the labels to EdgeCluster "
        f"{cluster.name}, or widen spec.clusters.selector.",
    )


def expelled(training: snapshot.Training, cluster: snapshot.Cluster) -> Finding | None:
    """The operator sent it away."""
    if cluster.acceptance != "Expelled":
        return None
    return Finding(
        State.LEFT,
        Reason.EXPELLED,
        "It was expelled from the federation; to let it back in, approve it with "
        f"`hanse clusters approve {cluster.name}` and let its operator join again.",
    )


def left(training: snapshot.Training, cluster: snapshot.Cluster) -> Finding | None:
    """Its own operator took it out."""
    if not cluster.left:
        return None
    return Finding(State.LEFT, Reason.CLUSTER_LEFT, membership.left(cluster.name))


def not_accepted(training: snapshot.Training, cluster: snapshot.Cluster) -> Finding | None:
    """The operator has not decided."""
    if cluster.acceptance == "Accepted":
        return None
    return Finding(
        State.EXCLUDED,
        Reason.NOT_ACCEPTED,
        "It waits for the hub's operator to accept it; approve it with `hanse clusters approve "
        f"{cluster.name}`.",
    )


def not_connected(training: snapshot.Training, cluster: snapshot.Cluster) -> Finding | None:
    """There is no link to it."""
    if cluster.connected:
        return None
    return Finding(
        State.EXCLUDED,
        Reason.NOT_CONNECTED,
        f"Its agent has no link to the hub; start the agent of {cluster.name}, or check that it can "
        "reach the hub.",
    )


def dataset_not_offered(training: snapshot.Training, cluster: snapshot.Cluster) -> Finding | None:
    """It lacks the data set."""
    if training.dataset in cluster.offered:
        return None
    offers = f"it offers {', '.join(sorted(cluster.offered))}" if cluster.offered else "it offers none"
    return Finding(
        State.EXCLUDED,
        Reason.DATASET_NOT_OFFERED,
        f"It does not offer the data set {training.dataset} ({offers}); its owner can declare an "
        "EdgeDataset of this "
        "name, or spec.dataset can name another.",
    )


def too_many_trainings(training: snapshot.Training, cluster: snapshot.Cluster) -> Finding | None:
    """It is busy."""
    if cluster.maximum_trainings is None or cluster.other_trainings < cluster.maximum_trainings:
        return None
    return Finding(
        State.EXCLUDED,
        Reason.TOO_MANY_TRAININGS,
        f"It takes part in {cluster.other_trainings} other trainings, and spec.maximumTrainings of "
        "its EdgeCluster is "
        f"{cluster.maximum_trainings}; wait until one ends, or raise the number.",
    )


CHECKS: tuple[Check, ...] = (
    labels_do_not_match,
    expelled,
    left,
    not_accepted,
    not_connected,
    dataset_not_offered,
    too_many_trainings,
)
"""In this order: what the training's author decided, then the operators, then what is the case now."""

LASTING: tuple[Check, ...] = (labels_do_not_match, expelled, left, not_accepted)
"""The checks that a cluster which holds a place can still fail; a lost link is waited for."""


def select(snap: snapshot.Snapshot) -> tuple[Membership, ...]:
    """Say of every cluster whether it takes part, ordered by name.

    Law: the result depends on no order of the clusters; one that holds a place keeps it while it passes the
    checks.
    """
    before = snap.training.placed_before()
    found: dict[str, Membership] = {}
    candidates: list[tuple[bool, str, Membership]] = []
    for cluster in snap.clusters:
        held = cluster.name in before
        finding = first_finding(LASTING if held and not cluster.connected else CHECKS, snap.training, cluster)
        if finding is not None:
            found[cluster.name] = Membership(cluster.name, finding.state, finding.reason, finding.message)
            continue
        member = _answer(cluster, snap)
        if member.placed:
            candidates.append((not held, cluster.name, member))
        else:
            found[cluster.name] = member
    maximum = snap.training.maximum_clusters
    for place, (_, name, member) in enumerate(sorted(candidates, key=lambda entry: entry[:2])):
        found[name] = member if maximum is None or place < maximum else _above_maximum(name, maximum)
    return tuple(found[name] for name in sorted(found))


def first_finding(
    checks: Sequence[Check], training: snapshot.Training, cluster: snapshot.Cluster
) -> Finding | None:
    """Return the first finding of the checks, in their order."""
    return next((finding for check in checks if (finding := check(training, cluster))), None)


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy a Kubernetes label selector; an empty one takes everything."""
    return meta.LabelSelector.model_validate(selector).matches(labels)


def describe_selector(selector: Mapping[str, Any]) -> str:
    """Write a selector as kubectl does: ``region=europe,tier in (a,b)``."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or ():
        values = ",".join(expression.get("values") or ())
        match expression["operator"]:
            case "In":
                parts.append(f"{expression['key']} in ({values})")
            case "NotIn":
                parts.append(f"{expression['key']} notin ({values})")
            case "DoesNotExist":
                parts.append(f"!{expression['key']}")
            case _:
                parts.append(str(expression["key"]))
    return ",".join(parts)


def _answer(cluster: snapshot.Cluster, snap: snapshot.Snapshot) -> Membership:
    """What a cluster that passed the checks says itself: its report, then the aggregator's view."""
    name = cluster.name
    report = snap.reports.get(name)
    if report is not None and report.state in ("REFUSED", "FAILED"):
        refused = report.state == "REFUSED"
        return Membership(
            name,
            State.REFUSED if refused else State.FAILED,
            report.reason or (Reason.POLICY_DENIED if refused else Reason.CLIENT_START_FAILED),
            report.message or (_REFUSED_SILENTLY if refused else _FAILED_SILENTLY),
            assigned=True,
        )
    progress = snap.aggregator.progress.clusters.get(name)
    if not cluster.connected and progress is not None and progress.state in _AT_WORK:
        # Agent and client have links of their own: a client that answers takes part.
        return Membership(name, _state(progress.state), Reason.LINK_LOST, _AGENT_AWAY, True, True, True, True)
    if not cluster.connected:
        lost_since = snap.now if cluster.disconnected_at is None else cluster.disconnected_at
        return Membership(
            name,
            State.LOST,
            Reason.LINK_LOST,
            "Its link to the hub broke; its agent reconnects by itself, and if not, its log says why.",
            assigned=True,
            placed=True,
            agreed=report is not None and report.state in AGREED,
            expected=snap.now - lost_since < snap.limits.link_grace_seconds,
        )
    # A client that its aggregator sent home is STOPPED a moment before the hub hears of the end.
    if progress is not None and progress.state and report is not None and report.state in _TOOK_PART:
        # Expected even where the aggregator sees a failed client: the edge may start it again.
        return Membership(
            name, _state(progress.state), progress.reason, progress.message, True, True, True, True
        )
    if report is None or report.state in ("UNSPECIFIED", "STOPPED"):
        return Membership(
            name,
            State.SELECTED,
            "",
            "It was asked to take part; its agent has not answered yet.",
            True,
            True,
            False,
            True,
        )
    if report.state == "WAITING":
        # A claim is not bound in a pod's first second; a drained node's client waits for the next node.
        coming = report.reason in reasons.CLIENT_HELD
        return Membership(
            name, State.WAITING, report.reason, report.message or _WAITING_SILENTLY, True, True, False, coming
        )
    message = (
        report.message or "Its policy allows the training; app and credentials are being prepared there."
    )
    return Membership(name, State.PREPARING, report.reason, message, True, True, True, True)


_AT_WORK = frozenset({State.READY, State.TRAINING, State.REPORTED})
_AGENT_AWAY = "Its client takes part; its agent's link to the hub broke, and the agent reconnects by itself."
_REFUSED_SILENTLY = "Its policy does not allow this training; ask its owner which rule would."
_FAILED_SILENTLY = "Its client could not be started; its owner finds the cause in the agent's log."
_WAITING_SILENTLY = "It would take part, but not now; its owner can say when."


def _state(text: str) -> State:
    try:
        return State(text)
    except ValueError:
        return State.PREPARING


def _above_maximum(name: str, maximum: int) -> Membership:
    return Membership(
        name,
        State.EXCLUDED,
        Reason.ABOVE_MAXIMUM,
        f"{maximum} clusters take part, the most that spec.clusters.maximum allows; raise it to let "
        "this one in.",
    )
