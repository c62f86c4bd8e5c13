"""Between the planner's values and the wire's messages. It refuses to decide anything.

What comes in is bounded here, once: edges and aggregators (which run an app's code) are known, not trusted,
and what they say goes into status, which has a schema, and onto people's terminals.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence

from coordinator.planning import desired, snapshot
from federation.api import meta, training
from federation.wire import hanse_pb2 as pb

MAXIMUM_TEXT_CHARACTERS = 4096
MAXIMUM_LINES = 200
MAXIMUM_LINE_CHARACTERS = 2000
MAXIMUM_NAMES = 64
"""Metrics of one phase: as many as status holds."""
MAXIMUM_NAME_CHARACTERS = 128
MAXIMUM_PHASES = 32

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COUNT = 2**31 - 1
_BIG_COUNT = 2**62
_LATEST = 253_402_300_799.0  # the last second of the year 9999, which is as far as dates go
_PHASES = frozenset(phase.value for phase in training.MetricPhase)


def text(raw: str, characters: int = MAXIMUM_TEXT_CHARACTERS) -> str:
    """Return foreign text without what a terminal would obey, and no longer than it may be; lines stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else " " for character in raw[:characters]
    )


def lines(raw: Iterable[str]) -> tuple[str, ...]:
    """Return the last of foreign log lines, each cut."""
    return tuple(text(line, MAXIMUM_LINE_CHARACTERS) for line in list(raw)[-MAXIMUM_LINES:])


def word(raw: str) -> str:
    """Return a CamelCase reason, or nothing if it is none."""
    return raw if _WORD.fullmatch(raw) else ""


def big_count(raw: int) -> int:
    """Return a count as status may hold it."""
    return min(raw, _BIG_COUNT)


def _count(raw: int) -> int:
    return min(raw, _COUNT)


def _moment(raw: float) -> float:
    """Unix seconds that are a date, else 0, which stands for none."""
    return raw if 0 < raw <= _LATEST else 0.0


def _name(raw: str) -> str:
    return text(raw, MAXIMUM_NAME_CHARACTERS).replace("\n", " ")


@dataclasses.dataclass(frozen=True)
class Terms:
    """What holds for all assignments of a hub.

    same_address: aggregators are reached where the agent reached the hub. client_image: for trainings that
    name none.
    """

    same_address: bool = False
    client_image: str = ""


ONE_ADDRESS_EACH = Terms()
"""Hub and aggregators are reached at addresses of their own, as in a simulation."""


def assignments(wanted: Sequence[desired.Assignment], terms: Terms = ONE_ADDRESS_EACH) -> pb.Assignments:
    """The whole wanted list of one cluster."""
    return pb.Assignments(assignments=[_assignment(entry, terms) for entry in wanted])


def report(status: pb.AssignmentStatus) -> snapshot.Report:
    """What an edge says of one assignment."""
    try:
        name = pb.AssignmentState.Name(status.state).removeprefix("ASSIGNMENT_STATE_")
    except ValueError:  # a state of a newer agent
        name = "UNSPECIFIED"
    return snapshot.Report(name, word(status.reason), text(status.message), lines(status.log_tail))


def progress(message: pb.ProgressReport) -> tuple[snapshot.Progress, list[snapshot.RoundMetrics]]:
    """An aggregator's picture, and the metrics that are new in it."""
    clusters = {
        entry.cluster: snapshot.ClusterProgress(
            state=word(entry.state),
            reason=word(entry.reason),
            message=text(entry.message),
            round=_count(entry.round),
            examples=big_count(entry.examples) if entry.HasField("examples") else None,
            last_update_at=_moment(entry.last_update_at),
            bytes_sent=big_count(entry.bytes_sent),
            bytes_received=big_count(entry.bytes_received),
        )
        for entry in message.clusters[: training.MAXIMUM_CLUSTERS]
    }
    metrics = [
        snapshot.RoundMetrics(
            _count(entry.round),
            entry.phase,
            {_name(name): entry.values[name] for name in sorted(entry.values)[:MAXIMUM_NAMES]},
        )
        for entry in message.metrics
        if entry.phase in _PHASES
    ]
    picture = snapshot.Progress(
        round=_count(message.round),
        rounds_total=_count(message.rounds_total),
        phase=word(message.phase),
        message=text(message.message),
        reason=word(message.reason),
        diverged=text(message.diverged),
        round_started_at=_moment(message.round_started_at),
        clusters=clusters,
        bytes_sent=big_count(message.bytes_sent),
        bytes_received=big_count(message.bytes_received),
        phase_seconds={
            _name(name): message.phase_seconds[name]
            for name in sorted(message.phase_seconds)[:MAXIMUM_PHASES]
            if math.isfinite(message.phase_seconds[name]) and 0 <= message.phase_seconds[name] < 1e15
        },
    )
    return picture, metrics


def finished(message: pb.TrainingFinished) -> snapshot.Finished:
    """How the training ended. A model without a checksum is none."""
    stored = _SHA256.fullmatch(message.model_sha256) is not None
    return snapshot.Finished(
        message.succeeded,
        word(message.reason),
        text(message.message),
        text(message.model_uri, meta.MAXIMUM_URI_CHARACTERS).replace("\n", " ") if stored else "",
        message.model_sha256 if stored else "",
        _count(message.model_round),
        lines(message.log_tail),
    )


def roster(members: Sequence[desired.RosterMember]) -> pb.Roster:
    """The whole roster."""
    return pb.Roster(
        members=[
            pb.RosterMember(cluster=m.cluster, expected=m.expected, reason=str(m.reason), message=m.message)
            for m in members
        ]
    )


def rules(wanted: desired.RoundRules) -> pb.RoundRules:
    """The rules of the next round."""
    return pb.RoundRules(
        quorum=wanted.quorum,
        minimum_fraction=wanted.minimum_fraction,
        deadline_seconds=wanted.deadline_seconds,
        late_replies=wanted.late_replies,
        over_provision_fraction=wanted.over_provision_fraction,
        grace_seconds=wanted.grace_seconds,
        rounds=wanted.rounds,
    )


def _assignment(wanted: desired.Assignment, terms: Terms) -> pb.Assignment:
    app = wanted.app
    same_address = terms.same_address and bool(wanted.aggregator_address)
    if app.bundled:
        source = pb.AppSource(bundle=True)
    else:
        source = pb.AppSource(installed=pb.InstalledApp(client_app=app.client_app, server_app=app.server_app))
    return pb.Assignment(
        uid=wanted.uid,
        namespace=wanted.namespace,
        name=wanted.name,
        dataset=wanted.dataset,
        app_digest=app.digest,
        app=source,
        aggregator_address="" if same_address else wanted.aggregator_address,
        aggregator_server_name=wanted.aggregator_server_name,
        run_config_json=json.dumps(dict(wanted.run_config), sort_keys=True),
        image=wanted.image or terms.client_image,
        strategy=wanted.strategy,
        rounds=wanted.rounds,
        resource_limits=dict(wanted.resource_limits),
        resource_requests=dict(wanted.resource_requests),
        privacy_json=json.dumps(dict(wanted.privacy), sort_keys=True),
        maximum_restarts=wanted.maximum_restarts,
        same_address=same_address,
        resting=wanted.resting,
        generation=wanted.generation,
    )
