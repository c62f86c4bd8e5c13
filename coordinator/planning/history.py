"""How many finished trainings stay: beyond a limit in each namespace the oldest are deleted, models excepted.

A training's own ``ttlSecondsAfterFinished`` is ``planning.status``'s. This module refuses to delete anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.planning import desired, snapshot

Place = tuple[str, str]
"""Namespace and name."""


def surplus(trainings: Iterable[Mapping[str, Any]], kept: int | None) -> tuple[Place, ...]:
    """Return the finished trainings beyond `kept` in each namespace, those that ended first; None keeps all.

    Law: what runs or waits is never among them, and deleting them leaves no surplus.
    """
    if kept is None:
        return ()
    finished: dict[str, list[tuple[str, str]]] = {}
    for resource in trainings:
        training = snapshot.training_of(resource, snapshot.App())
        if desired.ended(training):
            ended_at = str(training.status.get("completedAt") or "")
            finished.setdefault(training.namespace, []).append((ended_at, training.name))
    return tuple(
        (namespace, name)
        for namespace, ended in sorted(finished.items())
        for _, name in sorted(ended)[: max(len(ended) - kept, 0)]
    )
