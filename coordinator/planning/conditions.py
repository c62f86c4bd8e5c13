"""Conditions as Kubernetes wants them: a transition time that moves only with the status.

This module refuses to know what the types mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from coordinator.planning import snapshot

MAXIMUM_MESSAGE_CHARACTERS = 4096
"""Long enough for a sentence and the end of a traceback; the schema allows eight times as much."""


def condition(type_: str, status: bool | None, reason: str, message: str) -> dict[str, Any]:
    """Return a condition without its times; None is Unknown."""
    text = "Unknown" if status is None else str(status)
    return {
        "type": str(type_),
        "status": text,
        "reason": str(reason),
        "message": bounded(sentence(message), MAXIMUM_MESSAGE_CHARACTERS),
    }


def merge(
    before: Iterable[Mapping[str, Any]],
    now: Sequence[Mapping[str, Any]],
    generation: int | None,
    moment: float,
) -> list[dict[str, Any]]:
    """Return the new conditions with their times: lastTransitionTime stays while the status stays.

    Args:
        before: the conditions in the resource.
        now: the wanted ones, from ``condition``.
        generation: the generation that they were decided on; None to leave observedGeneration out.
        moment: unix seconds.
    """
    old = {entry["type"]: entry for entry in before}
    merged = []
    for wanted in now:
        known = old.get(wanted["type"])
        same = known is not None and known["status"] == wanted["status"]
        entry = dict(wanted)
        entry["lastTransitionTime"] = (
            known["lastTransitionTime"] if same and known else snapshot.timestamp(moment)
        )
        if generation is not None:
            entry["observedGeneration"] = generation
        merged.append(entry)
    return merged


def find(status: Mapping[str, Any], type_: str) -> Mapping[str, Any] | None:
    """Return the condition of a type."""
    return next((entry for entry in status.get("conditions") or () if entry["type"] == type_), None)


def sentence(message: str) -> str:
    """Return the message with a full stop at the end of its first line; what follows is a log's tail."""
    first, line_break, rest = message.partition("\n")
    if first and first[-1] not in ".!?:…":
        first += "."
    return f"{first}{line_break}{rest}"


def bounded(message: str, characters: int) -> str:
    """Return the message, with its middle left out if it is longer: sentences start, and tracebacks end, with
    the point.
    """
    if len(message) <= characters:
        return message
    half = characters // 2 - 3
    return f"{message[:half]} ... {message[-half:]}"
