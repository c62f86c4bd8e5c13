"""What the agent does about each assignment: one table of states, one function from facts to instructions.

Facts come in (`handle(now, *facts)`), instructions come out; whoever executes one feeds its outcome back
as a fact. The hub's wishes are level-triggered: the whole list comes again at every change, and nothing
is lost when one message is. This module refuses to know clocks, processes, the network and how policy
decides; `now` is an argument, in seconds of any clock that does not go back.

A training from its beginning to its end:
    Assigned -> Deciding -> (FetchBundle, RequestCertificate) Preparing -> Ready -> (StartClient) Running
    -> the client ends with 0: Ended -> no longer wanted: Gone
A permission withdrawn in the middle:
    Running -> Decided(Refused) -> (StopClient) Stopping -> the client is gone -> Deciding -> Refused
A client that dies:
    Running -> Restarting -> after the backoff Preparing -> (StartClient) Running -> ... -> Failed
A training that is suspended, and resumed:
    Running -> Resting (StopClient) Stopping -> the client is gone -> Deciding -> Preparing -> Ready
    -> the aggregator has an address (StartClient) Running, with what the client before it had kept
A client that outlived an earlier agent:
    ClientFound Running -> as every other; what an end of it needs again is prepared then
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from edge_agent import assignments, facts, policy, workloads
from federation.api import reasons

Assignment = assignments.Assignment

FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 60.0
"""Backoff doubles from the first to the longest: a broken app costs little, a mended one soon runs."""

STABLE_SECONDS = 600.0
"""A client that ran so long starts with a fresh count of restarts: it is not the same trouble."""


class State(enum.Enum):
    """Where one assignment stands at this agent."""

    DECIDING = "Deciding"
    REFUSED = "Refused"
    WAITING = "Waiting"
    PREPARING = "Preparing"
    READY = "Ready"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    FAILED = "Failed"
    ENDED = "Ended"
    STOPPING = "Stopping"
    GONE = "Gone"


class Trigger(enum.Enum):
    """What moves an assignment from one state to the next."""

    ALLOWED = "policy allows it"
    REFUSED = "policy refuses it"
    DEFERRED = "policy lets it wait"
    CHANGED = "the hub changed it"
    WITHDRAWN = "no longer wanted"
    PREPARED = "app and credentials are here"
    NOT_PREPARED = "cannot be prepared"
    ADDRESSED = "the aggregator has an address"
    READDRESSED = "the aggregator moved"
    RESTS = "the training is suspended"
    CLIENT_ENDED = "client exits with 0"
    CLIENT_BROKE = "client exits otherwise"
    CLIENT_BROKE_AGAIN = "client exits once too often"
    CLIENT_GONE = "client is gone"
    BACKOFF_OVER = "backoff is over"


TRANSITIONS: Mapping[State, Mapping[Trigger, State]] = {
    State.DECIDING: {
        Trigger.ALLOWED: State.PREPARING,
        Trigger.REFUSED: State.REFUSED,
        Trigger.DEFERRED: State.WAITING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.REFUSED: {
        Trigger.ALLOWED: State.PREPARING,
        Trigger.DEFERRED: State.WAITING,
        Trigger.CHANGED: State.DECIDING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.WAITING: {
        Trigger.ALLOWED: State.PREPARING,
        Trigger.REFUSED: State.REFUSED,
        Trigger.CHANGED: State.DECIDING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.PREPARING: {
        Trigger.PREPARED: State.READY,
        Trigger.NOT_PREPARED: State.FAILED,
        Trigger.REFUSED: State.REFUSED,
        Trigger.DEFERRED: State.WAITING,
        Trigger.CHANGED: State.DECIDING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.READY: {
        Trigger.ADDRESSED: State.RUNNING,
        Trigger.REFUSED: State.REFUSED,
        Trigger.DEFERRED: State.WAITING,
        Trigger.CHANGED: State.DECIDING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.RUNNING: {
        Trigger.CLIENT_ENDED: State.ENDED,
        Trigger.CLIENT_BROKE: State.RESTARTING,
        Trigger.CLIENT_BROKE_AGAIN: State.FAILED,
        Trigger.REFUSED: State.STOPPING,
        Trigger.DEFERRED: State.STOPPING,
        Trigger.CHANGED: State.STOPPING,
        Trigger.READDRESSED: State.STOPPING,
        Trigger.RESTS: State.STOPPING,
        Trigger.WITHDRAWN: State.STOPPING,
    },
    State.RESTARTING: {
        Trigger.BACKOFF_OVER: State.PREPARING,
        Trigger.REFUSED: State.REFUSED,
        Trigger.DEFERRED: State.WAITING,
        Trigger.CHANGED: State.DECIDING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.FAILED: {
        Trigger.REFUSED: State.REFUSED,
        Trigger.CHANGED: State.DECIDING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.ENDED: {
        Trigger.READDRESSED: State.PREPARING,
        Trigger.REFUSED: State.REFUSED,
        Trigger.CHANGED: State.DECIDING,
        Trigger.WITHDRAWN: State.GONE,
    },
    State.STOPPING: {Trigger.CLIENT_GONE: State.DECIDING},
    State.GONE: {},
}
"""The one table. A trigger that a state does not list leaves the state as it is."""


def diagram() -> str:
    """Draw the transition table as a Mermaid state diagram; edges with the same ends share one arrow."""
    lines = ["stateDiagram-v2", f"    [*] --> {State.DECIDING.value}: the hub asks"]
    for state, targets in TRANSITIONS.items():
        labels: dict[State, list[str]] = {}
        for trigger, target in targets.items():
            labels.setdefault(target, []).append(trigger.value)
        for target, names in labels.items():
            lines.append(f"    {state.value} --> {target.value}: {' / '.join(names)}")
        if not targets:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join(lines) + "\n"


@dataclasses.dataclass(slots=True)
class _Entry:
    assignment: assignments.Assignment
    state: State = State.DECIDING
    wanted: bool = True
    decision: policy.Decision | None = None
    held_digest: str | None = None
    held_certificate: bool = False
    fetching: str | None = None
    requesting: bool = False
    retries: int = 0
    restarts: int = 0
    started_at: float = 0.0
    due_at: float | None = None
    running_address: str = ""
    running_generation: int = 0
    reported: facts.Report | None = None

    @property
    def prepared(self) -> bool:
        has_app = not self.assignment.from_bundle or self.held_digest == self.assignment.app_digest
        return has_app and self.held_certificate


class Table:
    """The agent's assignments and where each stands.

    Law: handling AssignmentsReceived or Decided twice says nothing the second time.
    """

    def __init__(self) -> None:
        """Begin with no assignment."""
        self._entries: dict[str, _Entry] = {}
        self._instructions: list[facts.Instruction] = []

    def handle(self, now: float, *happened: facts.Fact) -> list[facts.Instruction]:
        """Take facts in order and return what to do about them, in order."""
        self._instructions = []
        for fact in happened:
            self._take(now, fact)
        for uid in sorted(self._entries):
            self._settle(now, self._entries[uid])
        self._entries = {uid: entry for uid, entry in self._entries.items() if entry.state is not State.GONE}
        return self._instructions

    def states(self) -> dict[str, State]:
        """Return where each assignment stands, by uid."""
        return {uid: entry.state for uid, entry in self._entries.items()}

    def assignments(self) -> tuple[assignments.Assignment, ...]:
        """Return the assignments that policy has to decide about, by uid."""
        return tuple(entry.assignment for _, entry in sorted(self._entries.items()) if entry.wanted)

    def has_client(self, name: str) -> bool:
        """Whether a workload of this name is an assignment's here, wanted or on its way out."""
        return any(
            workloads.name_of(entry.assignment.uid, entry.assignment.name) == name
            for entry in self._entries.values()
        )

    def using_data(self) -> tuple[Assignment, ...]:
        """Return the assignments whose clients may have their data open, by uid."""
        return tuple(
            entry.assignment
            for _, entry in sorted(self._entries.items())
            if entry.state in (State.RUNNING, State.STOPPING)
        )

    def reports(self) -> tuple[facts.Report, ...]:
        """Return the last report of each assignment, for a hub that was away."""
        return tuple(
            entry.reported for _, entry in sorted(self._entries.items()) if entry.reported is not None
        )

    def due_at(self) -> float | None:
        """Return when TimePassed is next of use; None: not until something else happens."""
        due = [entry.due_at for entry in self._entries.values() if entry.due_at is not None]
        return min(due, default=None)

    def _take(self, now: float, fact: facts.Fact) -> None:
        if isinstance(fact, facts.TimePassed):
            return
        if isinstance(fact, facts.AssignmentsReceived):
            self._take_assignments(fact)
            return
        if isinstance(fact, facts.ClientFound):
            self._take_over(now, fact.assignment)
            return
        entry = self._entries.get(fact.uid)
        if entry is None:
            return  # an outcome that came after its assignment was gone
        if isinstance(fact, facts.Decided):
            entry.decision = fact.decision
        elif isinstance(fact, facts.BundleFetched):
            entry.held_digest, entry.fetching = fact.digest, None
        elif isinstance(fact, facts.CertificateIssued):
            entry.held_certificate, entry.requesting = True, False
        elif isinstance(fact, facts.BundleNotFetched):
            entry.fetching = None
            if fact.digest == entry.assignment.app_digest:
                self._not_prepared(now, entry, fact)
        elif isinstance(fact, facts.CertificateNotIssued):
            entry.requesting = False
            self._not_prepared(now, entry, fact)
        elif isinstance(fact, facts.ClientExited):
            self._client_exited(now, entry, fact)
        elif entry.state is State.RUNNING:
            self._client_begins(now, entry, fact)

    def _take_over(self, now: float, assignment: Assignment) -> None:
        # Wanted until the hub's list says otherwise: while the hub is away clients run on.
        found = _Entry(assignment, State.RUNNING)
        found.started_at, found.running_address = now, assignment.aggregator_address
        found.running_generation = assignment.generation
        self._entries.setdefault(assignment.uid, found)

    def _take_assignments(self, fact: facts.AssignmentsReceived) -> None:
        wanted = {assignment.uid: assignment for assignment in fact.assignments}
        for uid, entry in self._entries.items():
            entry.wanted = uid in wanted
        for uid, assignment in wanted.items():
            entry = self._entries.setdefault(uid, _Entry(assignment))
            before, entry.assignment = entry.assignment, assignment
            if entry.state is State.RUNNING:
                entry.running_generation = assignment.generation
            if before.rounds != assignment.rounds and entry.state is State.RUNNING:
                entry.decision = None  # its client works on, unless policy refuses so many
                before = dataclasses.replace(before, rounds=assignment.rounds)
            if _task(before) != _task(assignment):
                entry.decision = None  # what was decided was about something else
                entry.restarts = entry.retries = 0
                if (before.namespace, before.name, before.dataset) != (
                    assignment.namespace, assignment.name, assignment.dataset,
                ):  # fmt: skip
                    entry.held_certificate = False
                self._move(entry, Trigger.CHANGED)

    def _settle(self, now: float, entry: _Entry) -> None:
        """Follow every transition that the facts at hand allow, to the state where something is awaited."""
        while True:
            before = entry.state
            self._step(now, entry)
            if entry.state is before:
                return

    def _step(self, now: float, entry: _Entry) -> None:
        state = entry.state
        if state in (State.STOPPING, State.GONE):
            return
        if not entry.wanted:
            self._move(entry, Trigger.WITHDRAWN)
            return
        trigger = _trigger_of(entry.decision)
        if trigger is not None and trigger in TRANSITIONS[state]:
            self._move(entry, trigger)
            return
        if state in (State.REFUSED, State.WAITING):
            self._report_decision(entry)
        elif state is State.PREPARING:
            self._prepare(now, entry)
        elif state is State.RUNNING and entry.assignment.resting:
            self._move(entry, Trigger.RESTS)
        elif state is State.READY and entry.assignment.aggregator_address:
            self._move(entry, Trigger.ADDRESSED)
            self._start(now, entry)
        elif state is State.RESTARTING and entry.due_at is not None and now >= entry.due_at:
            self._move(entry, Trigger.BACKOFF_OVER)
        elif state is State.ENDED and not entry.assignment.aggregator_address:
            entry.running_address = ""  # whoever listens at the same address later is another aggregator
        elif state is State.ENDED and entry.assignment.generation != entry.running_generation:
            self._move(entry, Trigger.READDRESSED)  # it was suspended and goes on, while the hub was away
        elif (
            state in (State.RUNNING, State.ENDED)
            and entry.assignment.aggregator_address
            and entry.assignment.aggregator_address != entry.running_address
        ):
            self._move(entry, Trigger.READDRESSED)

    def _move(self, entry: _Entry, trigger: Trigger) -> None:
        target = TRANSITIONS[entry.state].get(trigger)
        if target is None or target is entry.state:
            return
        uid, came_from, entry.state, entry.due_at = entry.assignment.uid, entry.state, target, None
        if target is State.STOPPING:
            self._instructions.append(facts.StopClient(uid))
            self._report_decision(entry)
        elif target is State.READY and came_from is State.PREPARING:
            entry.retries = 0
            if not entry.assignment.aggregator_address:
                rests = entry.assignment.resting
                waits = "waits until the training goes on" if rests else "waits for the aggregator"
                self._report(entry, facts.Reported.PREPARING, "", f"prepared; {waits}")
        elif target is State.PREPARING and not entry.prepared:
            self._report(entry, facts.Reported.PREPARING, "", "fetching the app and the client's certificate")
        elif target is State.GONE:
            self._report(
                entry, facts.Reported.STOPPED, reasons.ClusterReason.TRAINING_ENDED, "the hub asks no longer"
            )
            self._instructions.append(facts.Discard(uid, entry.assignment))

    def _report_decision(self, entry: _Entry) -> None:
        decision = entry.decision
        if isinstance(decision, policy.Refused):
            self._report(entry, facts.Reported.REFUSED, decision.reason, decision.message)
        elif isinstance(decision, policy.Waiting):
            self._report(entry, facts.Reported.WAITING, decision.reason, decision.message)

    def _prepare(self, now: float, entry: _Entry) -> None:
        if entry.prepared:
            self._move(entry, Trigger.PREPARED)
            return
        if entry.due_at is not None and now < entry.due_at:
            return
        entry.due_at = None
        assignment = entry.assignment
        if assignment.from_bundle and assignment.app_digest not in (entry.held_digest, entry.fetching):
            entry.fetching = assignment.app_digest
            self._instructions.append(facts.FetchBundle(assignment.uid, assignment.app_digest))
        if not entry.held_certificate and not entry.requesting:
            entry.requesting = True
            self._instructions.append(facts.RequestCertificate(assignment.uid, assignment))

    def _not_prepared(
        self, now: float, entry: _Entry, fact: facts.BundleNotFetched | facts.CertificateNotIssued
    ) -> None:
        if entry.state is not State.PREPARING:
            return
        if fact.may_retry:
            delay = _backoff(entry.retries)
            entry.retries += 1
            entry.due_at = now + delay
            self._report(
                entry, facts.Reported.PREPARING, fact.reason, f"{fact.message}; trying again in {delay:g} s"
            )
            return
        self._move(entry, Trigger.NOT_PREPARED)
        self._report(entry, facts.Reported.FAILED, fact.reason, fact.message)

    def _start(self, now: float, entry: _Entry) -> None:
        assert isinstance(entry.decision, policy.Allowed)  # READY is reached by no other way
        entry.started_at = now
        entry.running_address = entry.assignment.aggregator_address
        entry.running_generation = entry.assignment.generation
        self._instructions.append(facts.StartClient(entry.assignment.uid, entry.assignment, entry.decision))
        self._report(entry, facts.Reported.PREPARING, "", "the client is being started")

    def _client_begins(
        self, now: float, entry: _Entry, fact: facts.ClientStarted | facts.ClientWaiting
    ) -> None:
        if isinstance(fact, facts.ClientWaiting):
            self._report(entry, facts.Reported.WAITING, fact.reason, fact.message)
            return
        entry.started_at = now
        self._report(entry, facts.Reported.RUNNING, "", "the client is running")

    def _client_exited(self, now: float, entry: _Entry, fact: facts.ClientExited) -> None:
        if entry.state is State.STOPPING:
            self._move(entry, Trigger.CLIENT_GONE)
            return
        if entry.state is not State.RUNNING:
            return
        if fact.exit_code == 0:
            self._move(entry, Trigger.CLIENT_ENDED)
            self._report(
                entry,
                facts.Reported.STOPPED,
                reasons.ClusterReason.TRAINING_ENDED,
                "the client ended as its aggregator asked",
            )
            return
        if now - entry.started_at >= STABLE_SECONDS:
            entry.restarts = 0
        most = entry.assignment.maximum_restarts
        if entry.restarts >= most:
            self._move(entry, Trigger.CLIENT_BROKE_AGAIN)
            self._report(
                entry, facts.Reported.FAILED, fact.reason, _given_up(fact.detail, most), fact.log_tail
            )
            return
        delay = _backoff(entry.restarts)
        entry.restarts += 1
        self._move(entry, Trigger.CLIENT_BROKE)
        entry.due_at = now + delay
        message = _followed_by(fact.detail, f"restart {entry.restarts} of {most} in {delay:g} s")
        self._report(entry, facts.Reported.PREPARING, fact.reason, message, fact.log_tail)

    def _report(
        self, entry: _Entry, state: facts.Reported, reason: str, message: str, log_tail: tuple[str, ...] = ()
    ) -> None:
        report = facts.Report(entry.assignment.uid, state, str(reason), message, log_tail)
        if report != entry.reported:
            entry.reported = report
            self._instructions.append(report)


def _trigger_of(decision: policy.Decision | None) -> Trigger | None:
    if decision is None:
        return None
    if isinstance(decision, policy.Allowed):
        return Trigger.ALLOWED
    return Trigger.REFUSED if isinstance(decision, policy.Refused) else Trigger.DEFERRED


def _task(assignment: assignments.Assignment) -> assignments.Assignment:
    """Return what is asked, without where and when."""
    return dataclasses.replace(
        assignment, aggregator_address="", aggregator_server_name="", resting=False, generation=0
    )


def _given_up(detail: str, restarts: int) -> str:
    """What is said of a client that is not started again; one whose end explains itself names the remedy."""
    again = f" after {restarts} restart{'s' if restarts > 1 else ''}" if restarts else ""
    if detail.endswith("."):
        return f"{detail} It failed{again}." if again else detail
    return f"{detail}{again}; see the end of its log and correct the app"


def _followed_by(detail: str, next_step: str) -> str:
    """Add what happens next to how a client ended, which may be whole sentences."""
    return f"{detail} {next_step.capitalize()}" if detail.endswith(".") else f"{detail}; {next_step}"


def _backoff(failures: int) -> float:
    return min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16), LONGEST_BACKOFF_SECONDS)
