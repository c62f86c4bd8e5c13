"""The quorum of a round that the round machine could not judge.

Why it exists: Flower's older API asks clients one by one, so the machine sees no round; and of replies that
do not fit together some are left out after the machine has accepted them. In both cases a strategy is handed
all answers at once, and there the same rule is applied. Who was asked what is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.aggregation import events, sentences
from federation.api import reasons

End = Callable[[str, str], object]
"""Ends the training with a reason and a message; raises TrainingOver."""


class Judge:
    """Fails the training when a round has too few answers."""

    def __init__(self, training: str, rules: events.RoundRules, end: End) -> None:
        """Take the training's `namespace/name`, the manifest's rules, and how to end it."""
        self._training = training
        self._rules = rules
        self._end = end

    def __call__(self, server_round: int, succeeded: int, failures: Sequence[object]) -> None:
        """Judge a round: as many clients must have succeeded as the rules say.

        failures: exceptions, or pairs of client proxy and result, as Flower's older server collects them.
        Raises: what `end` raises, TrainingOver with QuorumLost.
        """
        asked = succeeded + len(failures)
        needed = self._rules.needed(asked)
        if succeeded >= needed:
            return
        head = sentences.round_of(server_round, self._training)
        missing = [("a cluster", _why(failure)) for failure in failures]
        message = sentences.quorum_lost(head, succeeded, asked, needed, missing, 0)
        self._end(reasons.TrainingReason.QUORUM_LOST, message)


def _why(failure: object) -> str:
    if isinstance(failure, BaseException):
        return sentences.brief(str(failure) or type(failure).__name__)
    status = getattr(failure[1], "status", None) if isinstance(failure, tuple) and len(failure) == 2 else None
    return sentences.brief(str(getattr(status, "message", "")) or "its fit did not succeed")
