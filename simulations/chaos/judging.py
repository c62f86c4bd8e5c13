"""What came of a run: the model of an undisturbed one, a documented reason, or a failure."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from federation.runtime import failpoints
from simulations.chaos import faults, scenario
from simulations.local import results

REFERENCE = "reference"


@dataclasses.dataclass(frozen=True)
class Reference:
    """What an undisturbed run of a shape ends with."""

    sha256: str
    metrics: list[dict[str, Any]]
    calls: list[str]


@dataclasses.dataclass(frozen=True)
class Result:
    """One run.

    ended: `reference`, the documented reason, or empty; wrong: why it failed, empty if it did not.
    hit: places that ended a process or failed a disk, and other faults that struck. visited: places passed.
    redone: calls of apps that were made again; finished: those of them that had finished; anew: those that a
    training which began anew made again.
    """

    seed: int
    faults: list[str]
    snapshots: bool
    ended: str
    wrong: str
    hit: list[str]
    visited: dict[str, int]
    restarts: dict[str, int]
    redone: int
    anew: int
    finished: int
    seconds: float


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a run left to be judged."""

    status: Mapping[str, Any]
    struck: Sequence[str]
    restarts: Mapping[str, int]
    left: Sequence[str]
    seconds: float
    trouble: str = ""


def reference(places: scenario.Places, status: Mapping[str, Any]) -> Reference:
    """Read what an undisturbed run ended with. Raises: ValueError if it did not complete."""
    if status.get("phase") != "Completed":
        raise ValueError(f"the undisturbed run ended as {status.get('phase')}: {_message(status)}")
    card = json.loads((_model(status) / results.CARD_FILE).read_text())
    return Reference(status["model"]["sha256"], card["metrics"], sorted(_calls(places.calls)))


def judge(places: scenario.Places, plan: faults.Plan, seen: Seen, want: Reference) -> Result:
    """Compare a run with the undisturbed one."""
    visited = _visits(places.failpoints)
    hit = [
        fault.target
        for fault in plan.faults
        if fault.kind == "point" and visited.get(fault.target, 0) >= fault.value
    ]
    starts = _client_starts(places)
    began_anew = plan.begins_anew and seen.restarts.get("coordinator", 0) > 0
    redone, anew, finished = _redone(places, starts, plan, began_anew=began_anew)
    ended, wrong = _ending(plan, seen, want)
    if not wrong and finished:
        wrong = f"{finished} calls were made again though they had finished"
    if not wrong and ended == REFERENCE and set(_calls(places.calls)) != set(want.calls):
        wrong = "the apps met other calls or counts than in an undisturbed run"
    if not wrong and seen.left:
        wrong = "; ".join(seen.left)
    aggregators = sum(
        log.read_text(errors="replace").count('"aggregator started again"')
        for log in places.logs.glob("coordinator.log")
    )
    return Result(
        plan.seed,
        [str(fault) for fault in plan.faults],
        plan.snapshots,
        "" if wrong else ended,
        wrong,
        [*hit, *seen.struck],
        visited,
        {**seen.restarts, "aggregator": aggregators, "client": sum(max(0, n - 1) for n in starts.values())},
        redone,
        anew,
        finished,
        round(seen.seconds, 2),
    )


def _ending(plan: faults.Plan, seen: Seen, want: Reference) -> tuple[str, str]:
    status = seen.status
    if seen.trouble:
        return "", f"{seen.trouble} (phase {status.get('phase', 'unknown')}: {_message(status)})"
    outcome = results.outcome_of("", status, [], {})
    if outcome.state != "Completed":
        if outcome.reason in plan.may_end_as:
            return str(outcome.reason), ""
        return "", f"{outcome.state}, {outcome.reason}: {outcome.message}"
    directory = _model(status)
    digest = hashlib.sha256((directory / results.MODEL_FILE).read_bytes()).hexdigest()
    card = json.loads((directory / results.CARD_FILE).read_text())
    if digest != status["model"]["sha256"]:
        return "", f"the stored model is {digest}, and the status says {status['model']['sha256']}"
    if digest != want.sha256:
        return "", f"the model is {digest}, and {want.sha256} when nothing disturbs"
    if card["metrics"] != want.metrics:
        return "", f"the metrics are {card['metrics']}, and {want.metrics} when nothing disturbs"
    return REFERENCE, ""


def _redone(
    places: scenario.Places, starts: Mapping[str, int], plan: faults.Plan, *, began_anew: bool
) -> tuple[int, int, int]:
    """Count the calls made again, those of them that a training which began anew made, and those that had
    finished.

    A call has finished when its client has kept the answer: no message whose answer was kept is put to an app
    again, in any run. Besides, a client that died can have had one call in hand, and no more than so many are
    made again; but for where the training began anew, and on an edge whose disk did not take what it should.
    """
    redone = {edge: 0 for edge in starts}
    for line, number in collections.Counter(_calls(places.calls)).items():
        edge = line.split()[0]
        redone[edge] = redone.get(edge, 0) + number - 1
    total, finished = sum(redone.values()), 0
    for edge, number in redone.items():
        again, could_not_keep = _told(places, edge)
        excused = began_anew or (plan.client_cannot_keep and could_not_keep)
        beyond = 0 if excused else number - max(0, starts.get(edge, 0) - 1)
        finished += max(again, beyond)
    return total, total - min(finished, total) if began_anew else 0, finished


_NOT_KEPT = frozenset(
    {"reply not kept", "reply not made durable", "state of the client app not kept", "disk not reliable"}
)


def _told(places: scenario.Places, edge: str) -> tuple[int, bool]:
    """What an edge's clients logged: how often they put a message to their app whose answer they had kept,
    and whether their disk did not take something.
    """
    kept: set[str] = set()
    again, could_not_keep = 0, False
    for file in places.client_logs(edge):
        for line in file.read_text(errors="replace").splitlines():
            try:
                said = json.loads(line)
            except ValueError:
                continue  # what the app printed, or a line that a death has cut
            if said.get("event") == "answer kept":
                kept.add(said["message_id"])
            elif said.get("event") == "app is asked":
                again += said["message_id"] in kept
            could_not_keep = could_not_keep or said.get("event") in _NOT_KEPT
    return again, could_not_keep


def _client_starts(places: scenario.Places) -> dict[str, int]:
    """How often each edge's client was started, by its agent's log."""
    return {
        log.stem: log.read_text(errors="replace").count('"client started"')
        for log in places.logs.glob("edge-*.log")
    }


def _visits(directory: Path) -> dict[str, int]:
    files = ((name, directory / f"{name}.visits") for name in failpoints.NAMES)
    return {name: file.stat().st_size for name, file in files if file.exists()}


def _calls(file: Path) -> list[str]:
    return file.read_text().splitlines() if file.exists() else []


def _model(status: Mapping[str, Any]) -> Path:
    return Path(status["model"]["uri"].removeprefix("file://"))


def _message(status: Mapping[str, Any]) -> str:
    return str((status.get("summary") or {}).get("message", ""))
