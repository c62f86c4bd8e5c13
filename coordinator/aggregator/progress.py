"""The picture of a running training that the coordinator is told.

Why it exists: many small things happen in a round; the hub wants the whole picture, a few times a second at
most. This module keeps it and turns it into the wire's report. It decides nothing and sends nothing.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from coordinator.aggregation import events, instructions
from federation.api import reasons
from federation.wire import hanse_pb2 as pb

MAXIMUM_TEXT_CHARACTERS = 2000
MAXIMUM_LINE_CHARACTERS = 400
MAXIMUM_METRICS = 64
MAXIMUM_NAME_CHARACTERS = 128
"""A report goes into one frame and then into status: what apps and clients say in it is bounded."""

LOG_LINES = 20
"""Kept of each client: the end of a traceback and what led to it."""

_LASTING = frozenset(
    {
        reasons.ClusterReason.UPDATE_REFUSED,
        reasons.ClusterReason.CLIENT_APP_FAILED,
        reasons.ClusterReason.DEADLINE_EXCEEDED,
        reasons.ClusterReason.ENOUGH_REPORTED,
    }
)
"""What was wrong with a cluster's reply. It stays to be read until a reply in the same phase counts again: an
update that was refused is not mended by the evaluation that follows it."""


@dataclasses.dataclass
class _Cluster:
    state: str = ""
    reason: str = ""
    message: str = ""
    round: int = 0
    examples: int | None = None
    last_update_at: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    wrong_in: str = ""
    """The phase that the reason, if it is a lasting one, comes from."""
    log: collections.deque[str] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=LOG_LINES)
    )

    def take(self, state: str, reason: str, message: str, phase: str) -> None:
        """Take what the round machine says, but for a lasting reason that nothing has made good."""
        self.state = state
        counts = state == reasons.ClusterState.REPORTED
        if not reason and self.reason in _LASTING and not (counts and phase == self.wrong_in):
            return
        self.reason, self.message = reason, message[:MAXIMUM_TEXT_CHARACTERS]
        self.wrong_in = phase if reason in _LASTING else ""

    def sentence(self) -> str:
        """The message, with the end of the client's traceback where its app failed."""
        if self.reason == reasons.ClusterReason.CLIENT_APP_FAILED and self.log:
            return "\n".join((self.message, *self.log))
        return self.message


class Progress:
    """Collects what happens; `report` says what is new since the last one. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clusters: dict[str, _Cluster] = {}
        self._round = 0
        self._rounds_total = 0
        self._phase: str = instructions.Phase.WAITING_FOR_CLIENTS
        self._message = ""
        self._held_up = ("", "")
        self._diverged = ""
        self._round_started_at = 0.0
        self._metrics: dict[tuple[int, str], Mapping[str, float]] = {}
        self._unreported: list[tuple[int, str]] = []
        self._seconds: dict[str, float] = {}

    def total(self, rounds: int) -> None:
        """How many rounds the app means to run."""
        with self._lock:
            self._rounds_total = max(self._rounds_total, rounds)

    def cluster(self, report: instructions.ReportCluster, now: float) -> None:
        """What the round machine says of one cluster; now is in unix seconds."""
        with self._lock:
            entry = self._clusters.setdefault(report.cluster, _Cluster())
            entry.take(report.state, report.reason, report.message, self._phase)
            entry.round = report.round or entry.round
            # An evaluation counts the rows that it judged by, which says nothing of what was trained on.
            if report.examples is not None and self._phase == instructions.Phase.TRAIN:
                entry.examples = report.examples
            if report.state is reasons.ClusterState.REPORTED:
                entry.last_update_at = now

    def round(self, report: instructions.ReportRound, now: float) -> None:
        """What the round machine says of the round; now is in unix seconds."""
        with self._lock:
            if report.round != self._round:
                self._round, self._round_started_at = report.round, now
            self._phase, self._message = report.phase, report.message

    def held_up(self, reason: str, message: str) -> None:
        """What keeps the training from going on, a reason of TrainingReason; empty: nothing does any more."""
        with self._lock:
            self._held_up = reason, message

    def diverged(self, what: str) -> None:
        """What the app, run again, did otherwise than before; the hub keeps it."""
        with self._lock:
            self._diverged = what[:MAXIMUM_TEXT_CHARACTERS]

    def resumed(self, number: int) -> None:
        """An earlier process had begun this round."""
        with self._lock:
            self._round = number

    def kept(self) -> dict[str, object]:
        """What rounds so far said, for `restore`."""
        with self._lock:
            metrics = [[*key, dict(values)] for key, values in self._metrics.items()]
            examples = {name: entry.examples for name, entry in self._clusters.items()}
            return {"metrics": metrics, "examples": examples}

    def restore(self, number: int, kept: Mapping[str, Any]) -> None:
        """Take over what an earlier process's rounds up to this one said."""
        with self._lock:
            self._round = max(number, self._round)
            for round_number, phase, values in kept["metrics"]:
                self._metrics[round_number, phase] = values
                self._unreported.append((round_number, phase))
            for name, count in kept["examples"].items():
                self._clusters.setdefault(name, _Cluster()).examples = count

    def replayed(self, number: int | None, kind: events.Kind, examples: Mapping[str, int]) -> None:
        """A phase that an earlier process saw to its end, with the examples that clusters counted."""
        with self._lock:
            self._round = max(number or 0, self._round)
            if kind is events.Kind.TRAIN:
                for cluster, count in examples.items():
                    self._clusters.setdefault(cluster, _Cluster()).examples = count

    def transferred(self, cluster: str, *, sent: int = 0, received: int = 0) -> None:
        """Bytes that went to a cluster's client, or came from it."""
        with self._lock:
            entry = self._clusters.setdefault(cluster, _Cluster())
            entry.bytes_sent += sent
            entry.bytes_received += received

    def client_log(self, cluster: str, lines: Iterable[str]) -> None:
        """The last lines that a client wrote; a traceback stands there."""
        with self._lock:
            self._clusters.setdefault(cluster, _Cluster()).log.extend(
                line[:MAXIMUM_LINE_CHARACTERS] for line in lines
            )

    def spent(self, phase: str, seconds: float) -> None:
        """Seconds that went into a phase."""
        with self._lock:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + seconds

    def measured(self, round_number: int, phase: str, values: Mapping[str, float]) -> None:
        """Metrics of a round; the latest for a round and phase stands."""
        if not values:
            return
        with self._lock:
            key = (round_number, phase)
            kept = {name[:MAXIMUM_NAME_CHARACTERS]: values[name] for name in sorted(values)[:MAXIMUM_METRICS]}
            if self._metrics.get(key) != kept:
                self._metrics[key] = kept
                self._unreported.append(key)

    def metrics(self) -> list[dict[str, object]]:
        """All metrics so far, by round and phase, for the model's card; None for what was not finite."""
        with self._lock:
            return [
                {
                    "round": number,
                    "phase": phase,
                    "values": {
                        name: value if math.isfinite(value) else None for name, value in values.items()
                    },
                }
                for (number, phase), values in sorted(self._metrics.items())
            ]

    def examples(self) -> dict[str, int]:
        """The examples of each cluster's last update, where it gave a number."""
        with self._lock:
            return {
                name: entry.examples
                for name, entry in sorted(self._clusters.items())
                if entry.examples is not None
            }

    @property
    def current_round(self) -> int:
        """The number of the round in progress, 0 before the first."""
        with self._lock:
            return self._round

    def report(self, whole: bool = False) -> pb.ProgressReport:
        """The picture as it is now; metrics only those that no earlier report carried, unless `whole`."""
        with self._lock:
            fresh = list(self._metrics) if whole else self._unreported
            self._unreported = []
            reason, why = self._held_up
            return pb.ProgressReport(
                round=self._round,
                rounds_total=self._rounds_total,
                phase=self._phase,
                message=why or self._message,
                reason=reason,
                diverged=self._diverged,
                round_started_at=self._round_started_at,
                clusters=[
                    pb.ClusterProgress(
                        cluster=name,
                        state=entry.state,
                        reason=entry.reason,
                        message=entry.sentence(),
                        round=entry.round,
                        examples=entry.examples,
                        last_update_at=entry.last_update_at,
                        bytes_sent=entry.bytes_sent,
                        bytes_received=entry.bytes_received,
                    )
                    for name, entry in sorted(self._clusters.items())
                ],
                metrics=[
                    pb.RoundMetrics(round=number, phase=phase, values=dict(self._metrics[number, phase]))
                    for number, phase in fresh
                ],
                bytes_sent=sum(entry.bytes_sent for entry in self._clusters.values()),
                bytes_received=sum(entry.bytes_received for entry in self._clusters.values()),
                phase_seconds=dict(self._seconds),
            )
