"""What two statuses of a training differ in that people want to hear of: its Events, as sentences.

A status says how things stand; Events say what happened. Not every change is worth one: rounds and replies
alternate many times a minute and are left to the status. This module refuses to know who tells it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from coordinator.planning import conditions, status
from federation.api import reasons

Event = reasons.TrainingEvent
Phase = reasons.TrainingPhase
State = reasons.ClusterState

_OUT = {
    State.REFUSED: (Event.CLUSTER_REFUSED, True, "refuses the training"),
    State.FAILED: (Event.CLUSTER_FAILED, True, "failed"),
    State.LOST: (Event.CLUSTER_LOST, True, "is lost"),
    State.LEFT: (Event.CLUSTER_LEFT, True, "has left"),
    State.WAITING: (Event.CLUSTER_WAITS, False, "waits"),
}
_IN = frozenset({State.PREPARING, State.READY, State.TRAINING, State.REPORTED})
_AWAY = frozenset({State.REFUSED, State.FAILED, State.LOST, State.LEFT})
_UNDER_WAY = frozenset({Phase.PREPARING, Phase.RUNNING})


@dataclasses.dataclass(frozen=True)
class News:
    """One thing that happened; `warning` if somebody should look."""

    reason: str
    message: str
    warning: bool = False


def between(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[News, ...]:
    """Return what happened between two statuses, clusters first, the training's own phase last.

    Law: nothing happened between a status and itself.
    """
    known = {entry["name"]: entry for entry in before.get("clusters") or ()}
    found = [
        news
        for entry in now.get("clusters") or ()
        if (news := _of_cluster(known.get(entry["name"], {}), entry, now["phase"])) is not None
    ]
    gone = known.keys() - {entry["name"] for entry in now.get("clusters") or ()}
    found += [
        News(Event.CLUSTER_LEFT, f"{name} is no member of the federation any more.", True)
        for name in sorted(gone)
        if State(known[name]["state"]) in _IN
    ]
    if told := _of_app(before, now):
        found.append(told)
    diverged = conditions.find(now, reasons.TrainingCondition.DIVERGED)
    if diverged is not None and conditions.find(before, reasons.TrainingCondition.DIVERGED) is None:
        found.append(News(diverged["reason"], diverged["message"], True))
    if now["phase"] != before.get("phase"):
        why = status.phase_condition(dict(now))
        found.append(News(why["reason"], why["message"], now["phase"] == Phase.FAILED))
    elif now["phase"] == Phase.RUNNING and (quorum := _quorum_turned(before, now)):
        found.append(quorum)
    return tuple(found)


def _of_app(before: Mapping[str, Any], now: Mapping[str, Any]) -> News | None:
    """Something happened to the source of an app that is in use."""
    type_ = reasons.TrainingCondition.ACCEPTED
    was, found = conditions.find(before, type_), conditions.find(now, type_)
    if was is None or found is None or was.get("reason") == found["reason"] or found["status"] != "True":
        return None
    if found["reason"] == reasons.TrainingReason.VALID:
        return None
    return News(found["reason"], found["message"], True)


def _of_cluster(before: Mapping[str, Any], now: Mapping[str, Any], phase: str) -> News | None:
    name, state, was = now["name"], State(now["state"]), before.get("state")
    if state == was and (state not in _OUT or now.get("reason") == before.get("reason")):
        return None
    if state in _OUT:
        reason, warning, verb = _OUT[state]
        if state is State.LEFT and was is None:
            return None  # it never had a part in it
        detail = now.get("message") or ""
        why = f" ({now['reason']})" if now.get("reason") else ""
        return News(reason, f"{name} {verb}{why}{f': {detail}' if detail else '.'}", warning)
    if state in _IN and was is not None and State(was) in _AWAY:
        return News(Event.CLUSTER_BACK, f"{name} is back and takes part.")
    late = was is not None and State(was) not in _IN and phase == Phase.RUNNING
    if state in _IN and late:
        return News(Event.CLUSTER_TAKES_PART, f"{name} takes part from now on.")
    return None


def _quorum_turned(before: Mapping[str, Any], now: Mapping[str, Any]) -> News | None:
    """The quorum was lost in the middle of it, or is there again."""
    type_ = reasons.TrainingCondition.QUORUM_REACHED
    was, found = conditions.find(before, type_), conditions.find(now, type_)
    if was is None or found is None or was["status"] == found["status"]:
        return None
    return News(found["reason"], found["message"], found["status"] == "False")
