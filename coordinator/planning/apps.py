"""Which app a training has: once it has begun, the one that it began with, whatever becomes of the source.

Clients and journal are of one app; with another one, or none, what was trained would be lost. So a source
that changes, goes or cannot be read is told and ends nothing; only who has to be started waits, where nobody
has the app any more. This module is pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from coordinator.planning import conditions, snapshot
from federation.api import reasons

Reason = reasons.TrainingReason

_NOT_BEGUN = frozenset({Reason.NOT_STARTED, Reason.SUSPEND_REQUESTED})

NEEDED_SECONDS = 15.0
"""An app that somebody waits for is looked for again after so long: nobody tells when it is put right."""

TOLD_SECONDS = 60.0
"""A source that only the status complains of is looked at again after so long."""


def began(status: Mapping[str, Any]) -> bool:
    """Whether a status tells of a training that has begun, or whose clients and aggregator begin just now."""
    running = conditions.find(status, reasons.TrainingCondition.RUNNING)
    return "startedAt" in status or (running is not None and running.get("reason") not in _NOT_BEGUN)


def doubted(status: Mapping[str, Any]) -> bool:
    """Whether the journal was found to be of another app than the one that the status names."""
    running = conditions.find(status, reasons.TrainingCondition.RUNNING)
    return running is not None and running.get("reason") == Reason.JOURNAL_OF_ANOTHER_APP


def held(
    digest: str, found: snapshot.App | snapshot.Problem, own: snapshot.App | None, place: str
) -> snapshot.App:
    """Return the app that a training goes on with, and what is to be told of its source.

    digest: of the app that it began with. found: what its source has now. own: that app, if the hub has it by
    itself. place: how the source is called.
    """
    if isinstance(found, snapshot.App) and found.digest == digest:
        return found
    if isinstance(found, snapshot.App):
        reason: str = Reason.APP_CHANGED
        wrong = f"The app in {place} has changed since the training began; it is {found.digest} now."
    else:
        reason, wrong = found.reason, conditions.sentence(found.message)
        wrong = wrong if place in wrong else f"{place}: {wrong}"
    if own is None:
        trouble = (
            f"{wrong} The hub does not have the app that the training began with ({digest}) any more: put it "
            f"back into {place}, and what waits for it is started. What runs goes on."
        )
        return snapshot.App(digest, trouble=snapshot.Problem(reason, trouble), startable=False)
    goes_on = "The training goes on with the app that it began with"
    if reason == Reason.APP_CHANGED:
        trouble = f"{wrong} {goes_on}; create another FederatedTraining for the new one."
    else:
        trouble = f"{wrong} {goes_on}, which the hub still has."
    return dataclasses.replace(own, trouble=snapshot.Problem(reason, trouble))


def needed(app: snapshot.App | snapshot.Problem) -> snapshot.Problem | None:
    """Return why no aggregator can be started with this app; None if one can."""
    if isinstance(app, snapshot.Problem):
        return app
    if app.startable or app.trouble is None:
        return None
    return snapshot.Problem(app.trouble.reason, f"The aggregator has to be started. {app.trouble.message}")


def look_again_seconds(app: snapshot.App | snapshot.Problem) -> float | None:
    """Return after how long its source is to be looked at again; None if there is no need to."""
    if needed(app) is not None:
        return NEEDED_SECONDS
    return TOLD_SECONDS if isinstance(app, snapshot.App) and app.trouble is not None else None
