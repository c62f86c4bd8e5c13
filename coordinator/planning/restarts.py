"""Whether an aggregator that died is started again, and when.

A training goes on where its journal ends, so a death costs seconds and is no failure. One that dies again and
again in the same round will not be saved by another start: after `spec.server.maximumRestarts` of them the
training fails and says how it ended. One that could not begin for now, and said so by its exit status, has
not died: it is started again until it can. Nor has one that was not started at all, since a quota was full,
say: what is refused today is granted tomorrow. What a node or the cluster did (a drain, an eviction, a node
that is lost) is no death of the aggregator's own either, and one that ran well for a while is forgiven what
was before. This module is pure.
"""

from __future__ import annotations

import dataclasses

from coordinator.planning import snapshot
from federation.api import reasons

FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 60.0

DEFAULT_MAXIMUM_RESTARTS = 3

NOT_NOW_SECONDS = 20.0
"""Between two attempts of an aggregator that could not begin; of one that is not started, more each time."""

STABLE_SECONDS = 600.0
"""An aggregator that ran so long has a fresh count, as clients have: its end is not the same trouble."""

NO_ROOM, HELD, DAMAGED, OTHER_APP = 75, 76, 77, 78
"""Exit statuses of an aggregator that could not open its journal for now, and did nothing else."""

UNREADABLE = 79
"""Exit status of one whose journal its disk did not give, or that is of a version to come."""

REFUSED = 80
"""Exit status of one that the hub would not have; its journal is as it was."""

NOT_NOW = "NotNow"
"""With this reason one that ends so leaves word of what exactly was the matter."""

_NOT_NOW = {
    NO_ROOM: snapshot.Problem(
        reasons.TrainingReason.STORAGE_FULL,
        "The disk of the training's journal has no room, and its aggregator cannot begin. Remove files there "
        "or make the volume larger; it is tried again every 20 seconds.",
    ),
    HELD: snapshot.Problem(
        reasons.TrainingReason.AGGREGATOR_LOST,
        "Another aggregator of this training still writes its journal, perhaps on a node that is cut off. "
        "End it; this one is tried again every 20 seconds.",
    ),
    DAMAGED: snapshot.Problem(
        reasons.TrainingReason.JOURNAL_DAMAGED,
        "Files of the training's journal are gone, and without them it would begin at its first round again. "
        "Somebody removed them, or a version of Hanse did that kept 8 GiB of replies at most. Put them back "
        "and it goes on, or delete the training and create it again; it is tried again every 20 seconds.",
    ),
    OTHER_APP: snapshot.Problem(
        reasons.TrainingReason.JOURNAL_OF_ANOTHER_APP,
        "The training's journal is of another app than its aggregator was given, and without it the training "
        "would begin at its first round again. Put the app that the training began with back into its source "
        "and it goes on, or delete the training and create it again; it is tried again every 20 seconds.",
    ),
    UNREADABLE: snapshot.Problem(
        reasons.TrainingReason.STORAGE_UNAVAILABLE,
        "The training's journal cannot be opened: its disk does not give it, or a later version of Hanse has "
        "written it. Mend the volume, or put that version back, and it goes on; it is tried again every 20 "
        "seconds.",
    ),
    REFUSED: snapshot.Problem(
        reasons.TrainingReason.AGGREGATOR_LOST,
        "The hub refused the training's aggregator, which ended and kept everything. Another one is started, "
        "every 20 seconds if need be, and goes on from there.",
    ),
}


def refused(why: str, before: snapshot.Exit | None = None) -> snapshot.Exit:
    """Return the end of an aggregator that was to go on with a training and was not started.

    before: how the last one ended, which may have been the same.
    """
    sentence = (
        f"The training's aggregator is not started: {why.rstrip('.')}. It is tried again, every minute "
        "at last, and the training goes on where its journal ends."
    )
    problem = snapshot.Problem(reasons.TrainingReason.AGGREGATOR_LOST, sentence)
    times = 1 if before is None else before.refused + 1
    return snapshot.Exit(f"it could not be started, {why}", not_now=problem, refused=times)


def not_now(exit_status: int | None, why: str = "") -> snapshot.Problem | None:
    """Return why an aggregator with this exit status could not begin; None if it is not that.

    why: what it said of it, if it could.
    """
    found = None if exit_status is None else _NOT_NOW.get(exit_status)
    if found is None or not why:
        return found
    return dataclasses.replace(found, message=f"{found.message} It said: {why.rstrip('.')}.")


@dataclasses.dataclass(frozen=True)
class Restarts:
    """How often an aggregator was started again after it had died in a round, the last one in which it had.

    disrupted: how often after its cluster had ended it, in any round; that makes the pauses longer and counts
    for nothing else.
    """

    count: int = 0
    round: int = 0
    disrupted: int = 0

    @property
    def any(self) -> bool:
        """Whether it was started again at all."""
        return self.count > 0 or self.disrupted > 0

    def in_round(self, number: int) -> int:
        """Return how often it was in this round."""
        return self.count if number <= self.round else 0

    def another(self, number: int, died: snapshot.Exit) -> Restarts:
        """Return the count after one more, in this round; died: how it ended before."""
        if died.not_now is not None:
            return self
        if died.disrupted:
            return dataclasses.replace(self, disrupted=self.disrupted + 1)
        return Restarts(self.in_round(number) + 1, number, self.disrupted)

    def after(self, ran_seconds: float) -> Restarts:
        """Return what is still counted of one that has ended after it ran for so long."""
        return Restarts() if ran_seconds >= STABLE_SECONDS else self


def restart_at(
    training: snapshot.Training, died: snapshot.Exit, died_at: float, restarts: Restarts, number: int
) -> float | None:
    """Return from when on it may be started again, unix seconds; None if it may not.

    died: how it ended; one that left word of the training's end has not died. died_at: when, unix seconds.
    restarts: what came before. number: of its round.
    """
    maximum = int((training.spec.get("server") or {}).get("maximumRestarts", DEFAULT_MAXIMUM_RESTARTS))
    if died.finished is not None or training.suspended or training.stop:
        return None
    if died.not_now is not None:
        return died_at + min(NOT_NOW_SECONDS * max(died.refused, 1), LONGEST_DELAY_SECONDS)
    deaths = restarts.in_round(number)
    if deaths >= maximum and not died.disrupted:
        return None
    delay: float = FIRST_DELAY_SECONDS * 2 ** min(deaths + restarts.disrupted, 16)
    return died_at + min(delay, LONGEST_DELAY_SECONDS)


def lost(died: snapshot.Exit, round_number: int) -> snapshot.Problem:
    """Return what status says until it is started again."""
    if died.not_now is not None:
        return died.not_now
    how = died.description.rstrip(".")
    return snapshot.Problem(
        reasons.TrainingReason.AGGREGATOR_LOST,
        f"The aggregator ended in round {round_number} ({how}). It is started again and goes on from there.",
    )


RESUMING = snapshot.Problem(
    reasons.TrainingReason.RESUMING, "The aggregator was started again and reads its journal."
)

UNHEARD = snapshot.Problem(
    reasons.TrainingReason.AGGREGATOR_LOST,
    "The aggregator that an earlier coordinator started runs and has not dialled this one. If it does not "
    "within ten minutes it is ended, and another one goes on where its journal ends.",
)
