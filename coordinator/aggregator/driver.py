"""Carrying out what the round machine decides.

Why it exists: the round machine only decides. The driver holds the messages on their way out, the replies
that came in, the clients' sessions and the timer, feeds events in and executes instructions in order. Two
worlds meet here: sessions live on the event loop, the ServerApp calls from threads of its own. It decides
nothing about rounds and knows nothing of certificates or frames.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn, Protocol, TypeVar

from flwr.app import Message

from coordinator.aggregation import events, instructions, rounds
from coordinator.aggregator import clocks
from coordinator.aggregator import progress as progress_module
from coordinator.journal import book as journal
from coordinator.journal import entries
from federation.api import reasons
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.wire import codec

log = logs.get_logger(__name__)

ADMIT_SECONDS = 5.0
"""A resumed app has threads that push again what was open; longer than that nobody waits for them."""

Result = TypeVar("Result")


class TrainingOver(BaseException):
    """The training ended while the app was in a call of the Grid.

    Not an Exception: an app that catches and carries on must not hold up the end.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Say why, for the condition that the coordinator shows."""
        super().__init__(message)
        self.reason = reason
        self.message = message


class Session(Protocol):
    """A client's open session, as the driver uses it. Calls never block and come from the event loop."""

    def send(self, message_id: str, message: codec.OutgoingMessage) -> None:
        """Queue a message, or send it again if the client does not have it."""

    def confirm(self, message_id: str) -> None:
        """Tell the client that its reply to this message need not be sent again."""

    def withdraw(self, message_id: str) -> None:
        """Tell the client that nobody waits for its reply to this message."""

    def goodbye(self, reason: str, message: str) -> None:
        """End the session for good."""


@dataclasses.dataclass(frozen=True)
class ReceivedReply:
    """A whole reply that was checked; `build` makes the Flower message of it, as an answer to a message.

    written: as the journal has it, with its attachment; None: the journal has it already.
    """

    message_id: str
    verdict: events.Verdict
    build: Callable[[str], Message]
    written: tuple[entries.Received, bytes] | None = None


@dataclasses.dataclass(frozen=True)
class Late:
    """A message that a round before a restart did not wait for. reply: what came since; None: it may come."""

    push: Push
    round: int
    reply: ReceivedReply | None


@dataclasses.dataclass(frozen=True)
class Fetched:
    """What the app is given for one message, and how the journal says so."""

    message: Message
    outcome: entries.Outcome


@dataclasses.dataclass(frozen=True)
class Push:
    """One message of the app: what the machine needs of it, its bytes, and the maker of its error reply."""

    message_id: str
    node: int
    expires_at_unix: float
    outgoing: codec.OutgoingMessage
    error: Callable[[int, str], Message]


class Driver:
    """One training's messages between its ServerApp and its clients."""

    def __init__(
        self,
        machine: rounds.RoundMachine,
        progress: progress_module.Progress,
        book: journal.Book,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        on_change: Callable[[], None] = lambda: None,
        one_refusal_ends: bool = False,
    ) -> None:
        """Take the machine, the journal and the clocks.

        clock counts seconds from anywhere; wall_clock gives unix seconds, for deadlines of the app.
        one_refusal_ends: a refused update ends the training (updateChecks.onViolation is FailTraining).
        """
        self._one_refusal_ends = one_refusal_ends
        self._machine = machine
        self._progress = progress
        self._book = book
        self._loop = loop
        self._clock = clocks.Clock(clock)
        self._wall_clock = wall_clock
        self._on_change = on_change
        self._sessions: dict[int, Session] = {}
        self._pushed: dict[str, Push] = {}
        self._arrived: dict[tuple[str, int], ReceivedReply] = {}
        self._kept: dict[str, ReceivedReply] = {}
        self._missed: dict[int, Push] = {}  # by node, so that stragglers cost no more than one model each
        self._batches: dict[str, concurrent.futures.Future[list[Message]]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due: float | None = None
        self._settled: dict[str, Fetched] = {}
        self._settled_lock = threading.Lock()
        self._over: TrainingOver | None = None
        self.app_may_start: concurrent.futures.Future[None] = concurrent.futures.Future()
        """Done when enough clients are there; raises TrainingOver if they never will be."""
        book.wait_for_room(lambda why: loop.call_soon_threadsafe(self.room_changed, why))
        book.when_broken(lambda why: loop.call_soon_threadsafe(self._journal_broken, why))
        self.admits = asyncio.Event()
        """Set when clients may speak: at once, or when a resumed app has come to where it was."""

    # -- from the event loop: sessions and the coordinator ---------------------------------------

    def handle(self, *happened: events.Event) -> None:
        """Tell the machine and execute what it answers. On the event loop only."""
        for instruction in self._machine.handle(*happened):
            self._execute(instruction)
        self._on_change()

    def now(self) -> float:
        """The machine's time, in seconds."""
        return self._clock()

    def room_changed(self, missing: str) -> None:
        """The journal's disk has no room, as a sentence says, or has some again (empty).

        Time stands still meanwhile: what cannot be written down must not cost a cluster its round.
        """
        if missing:
            self._clock.stop()
        else:
            self._clock.go_on()
            if self._due is not None:
                self._wake_at(self._due)
        self._progress.held_up(reasons.TrainingReason.STORAGE_FULL if missing else "", missing)
        self._on_change()

    def _journal_broken(self, why: str) -> None:
        # At once: who waits for what is never written, a client that comes back say, waits in vain.
        stop = events.StopAsked(
            reasons.TrainingReason.STORAGE_UNAVAILABLE, f"The training was ended, since {why}."
        )
        self.handle(stop)

    def connected(self, node: int, session: Session) -> None:
        """A warm client opened a session; it replaces the one that the node had, which has said goodbye."""
        self._sessions[node] = session
        self.handle(events.NodeConnected(node, self._clock()))

    def disconnected(self, node: int, session: Session) -> None:
        """A session ended; nothing happens if another has replaced it."""
        if self._sessions.get(node) is session:
            del self._sessions[node]
            self.handle(events.LinkLost(node, self._clock()))

    def delivered(self, message_id: str) -> None:
        """The client has the whole message."""
        self.handle(events.MessageDelivered(message_id))

    def replied(self, node: int, reply: ReceivedReply) -> None:
        """A whole reply arrived and was checked, or was refused at its header."""
        failpoints.reach("aggregator.reply-received")
        self._arrived.setdefault((reply.message_id, node), reply)
        counted = self.awaits(reply.message_id, node)
        if (missed := self._missed.get(node)) and missed.message_id == reply.message_id:
            del self._missed[node]
        self.handle(events.ReplyArrived(reply.message_id, node, reply.verdict, self._clock()))
        if counted and self._one_refusal_ends and isinstance(reply.verdict, events.Refused):
            why = f"{self._machine.cluster(node)}: its update was refused, {reply.verdict.message}"
            ends = "spec.updateChecks.onViolation is FailTraining"
            self.handle(events.StopAsked(reasons.TrainingReason.UPDATES_REFUSED, f"{why}; {ends}"))

    def refused(self, node: int, round_number: int, how: str) -> None:
        """A strategy could not use an accepted reply beside the others; the app has an error in its place."""
        cluster = self._machine.cluster(node)
        why = f"{reasons.UpdateViolation.INCONSISTENT}: {how}"
        report = instructions.ReportCluster(
            node,
            cluster,
            reasons.ClusterState.REPORTED,
            reasons.ClusterReason.UPDATE_REFUSED,
            why,
            round_number,
        )
        self._progress.cluster(report, self._wall_clock())
        if self._one_refusal_ends:
            ends = "spec.updateChecks.onViolation is FailTraining"
            self.handle(events.StopAsked(reasons.TrainingReason.UPDATES_REFUSED, f"{cluster}: {why}; {ends}"))
        self._on_change()

    def awaits(self, message_id: str, node: int) -> bool:
        """Whether a reply of this node to this message would still be looked at."""
        push = self._pushed.get(message_id)
        return push is not None and push.node == node

    def outgoing(self, message_id: str, node: int) -> codec.OutgoingMessage | None:
        """The message to this node that a reply may answer, for comparing the two.

        It is not settled yet, or it is the last one that was settled without the node's reply.
        """
        push = self._pushed.get(message_id) or self._missed.get(node)
        return push.outgoing if push and (push.message_id, push.node) == (message_id, node) else None

    async def written(self) -> None:
        """Return when all that came until now is in the journal for good; never, if it cannot be written."""
        written = asyncio.Event()
        self._book.when_durable(functools.partial(self._loop.call_soon_threadsafe, written.set))
        await written.wait()

    # -- from the app's threads ------------------------------------------------------------------

    def push(
        self,
        batch_id: str,
        kind: events.Kind,
        pushes: Sequence[Push],
        *,
        closed: concurrent.futures.Future[list[Message]],
        timeout_seconds: float | None,
        waits: bool,
        judged: bool,
        round_number: int | None,
        arrived: Sequence[tuple[int, ReceivedReply]] = (),
    ) -> None:
        """Send a batch. `closed` is done when the batch is closed (only if `waits`), or raises TrainingOver.

        arrived: replies, by node, that an earlier process received.
        """

        def on_loop() -> None:
            now, unix_now = self._clock(), self._wall_clock()
            if waits:  # otherwise replies are collected one by one
                self._batches[batch_id] = closed
            self._pushed.update((push.message_id, push) for push in pushes)
            outgoing = tuple(
                events.Outgoing(push.message_id, push.node, now + push.expires_at_unix - unix_now)
                for push in pushes
            )
            for node, reply in arrived:
                self._arrived[reply.message_id, node] = reply
            self.handle(
                events.BatchPushed(
                    batch_id, kind, outgoing, timeout_seconds, waits, now, judged=judged, round=round_number
                ),
                *(events.ReplyArrived(reply.message_id, node, reply.verdict, now) for node, reply in arrived),
            )

        self._call(on_loop)

    def resume(self, members: Sequence[events.Member], round_number: int, late: Sequence[Late] = ()) -> None:
        """Go on after a restart: the app has had every answer that there was. `admit` follows.

        late: what earlier rounds did not wait for, in the order pushed.
        If it does not, since threads of the app do not come again, clients are let in all the same.
        """

        def on_loop() -> None:
            self._loop.call_later(ADMIT_SECONDS, self.admits.set)
            for one in late:
                if one.reply is None:
                    self._missed[one.push.node] = one.push
                else:
                    self._kept[one.push.message_id] = one.reply
            known = tuple(
                events.Late(
                    one.push.message_id,
                    one.push.node,
                    one.round,
                    one.reply is not None,
                    getattr(one.reply.verdict, "examples", None) if one.reply is not None else None,
                )
                for one in late
            )
            self.handle(events.Resumed(tuple(members), round_number, self._clock(), known))

        self._call(on_loop)

    def admit(self) -> None:
        """Let clients speak: what they may answer has been pushed again."""
        self._loop.call_soon_threadsafe(self.admits.set)

    def collect(self, message_ids: Iterable[str]) -> list[Fetched]:
        """The replies to these messages that came since the last call; each is handed out once."""
        self._raise_if_over()
        with self._settled_lock:
            return [
                self._settled.pop(message_id) for message_id in message_ids if message_id in self._settled
            ]

    def nodes(self) -> list[tuple[int, str]]:
        """The nodes that the app may address now, by ascending id, with the names of their clusters."""

        def on_loop() -> list[tuple[int, str]]:
            self.handle(events.NodesAsked(self._clock()))
            return [(node, self._machine.cluster(node)) for node in sorted(self._machine.nodes())]

        return self._call(on_loop)

    def kept(self) -> dict[str, tuple[str, str]]:
        """The messages whose late replies may count in a round to come, with their types and groups: those
        replies wait, or may still come.
        """

        def on_loop() -> dict[str, tuple[str, str]]:
            missed = {push.message_id: push.outgoing.header for push in self._missed.values()}
            built = {message_id: reply.build(message_id) for message_id, reply in self._kept.items()}
            return {
                **{key: (one.message_type, one.group_id) for key, one in missed.items()},
                **{key: (one.metadata.message_type, one.metadata.group_id) for key, one in built.items()},
            }

        return self._call(on_loop)

    def finished(self) -> None:
        """The ServerApp returned."""
        self._call(lambda: self.handle(events.AppFinished(self._clock())))

    def end(self, reason: str, message: str) -> NoReturn:
        """End the training, for a reason that shows on the app's side. Raises: TrainingOver."""
        stop = events.StopAsked(reason, message)
        if asyncio._get_running_loop() is self._loop:  # which cannot wait for itself
            self._loop.call_soon(self.handle, stop)
        else:
            self._call(lambda: self.handle(stop))
        raise TrainingOver(reason, message)

    def _call(self, on_loop: Callable[[], Result]) -> Result:
        self._raise_if_over()
        done: concurrent.futures.Future[Result] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(on_loop())
            except BaseException as error:  # handed to the caller's thread, whatever it is
                done.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        result = done.result()
        self._raise_if_over()
        return result

    def _raise_if_over(self) -> None:
        if self._over is not None:
            raise TrainingOver(self._over.reason, self._over.message)

    # -- executing -------------------------------------------------------------------------------

    def _execute(self, instruction: instructions.Instruction) -> None:
        match instruction:
            case instructions.SendMessage(message_id, node):
                if (session := self._sessions.get(node)) and (push := self._pushed.get(message_id)):
                    session.send(message_id, push.outgoing)
            case instructions.ConfirmReply(message_id, node):
                # The client forgets its reply then, so the journal must have it first.
                confirm = functools.partial(self._confirm, message_id, node)
                self._book.when_durable(functools.partial(self._loop.call_soon_threadsafe, confirm))
            case instructions.WithdrawMessage(message_id, node):
                # The client may leave it undone then, so that its batch is closed must be a fact first.
                withdraw = functools.partial(self._withdraw, message_id, node)
                self._book.when_durable(functools.partial(self._loop.call_soon_threadsafe, withdraw))
            case instructions.SettleMessage(message_id, outcome):
                self._settle(message_id, outcome)
            case instructions.CloseBatch(batch_id, message_ids, missing):
                self._close(batch_id, message_ids, missing)
            case instructions.AbandonBatch(batch_id, reason, message):
                if (batch := self._batches.pop(batch_id, None)) and not batch.done():
                    batch.set_exception(TrainingOver(reason, message))
            case instructions.KeepReply(message_id, node):
                self._kept[message_id] = self._arrived.pop((message_id, node))
                self._write(self._kept[message_id])
            case instructions.DropKeptReply(message_id, _):
                if self._kept.pop(message_id, None) is not None:
                    self._book.append(entries.Dropped(message_id=message_id))
            case instructions.DiscardReply(message_id, node, why):
                self._arrived.pop((message_id, node), None)
                log.info("reply discarded", message_id=message_id, node_id=node, reason=why)
            case instructions.CutLink(node, reason, message):
                if session := self._sessions.pop(node, None):
                    session.goodbye(reason, message)
            case instructions.WakeAt(due):
                self._wake_at(due)
            case instructions.FailTraining(reason, message) | instructions.StopApp(reason, message):
                self._end(TrainingOver(reason, message))
            case instructions.StartApp():
                if not self.app_may_start.done():
                    self.app_may_start.set_result(None)
            case instructions.ReportCluster():
                self._progress.cluster(instruction, self._wall_clock())
            case instructions.ReportRound():
                self._progress.round(instruction, self._wall_clock())

    def _confirm(self, message_id: str, node: int) -> None:
        failpoints.reach("aggregator.reply-written")
        if session := self._sessions.get(node):
            session.confirm(message_id)
        failpoints.reach("aggregator.reply-confirmed")

    def _withdraw(self, message_id: str, node: int) -> None:
        if session := self._sessions.get(node):
            session.withdraw(message_id)

    def _write(self, reply: ReceivedReply) -> None:
        if reply.written is not None:
            self._book.append(*reply.written)

    def _settle(self, message_id: str, outcome: instructions.Outcome) -> None:
        push = self._pushed.pop(message_id, None)
        if push is None:
            return
        if isinstance(outcome, instructions.Reply):
            # A reply that stands in for another message (a late one) was kept under its own id.
            reply = self._kept.pop(outcome.message_id, None)
            if reply is None:
                reply = self._arrived.pop((outcome.message_id, push.node))
                self._write(reply)
            written = entries.Outcome(message_id=message_id, reply=outcome.message_id)
            message = reply.build(message_id)
            if outcome.message_id != message_id:
                self._missed[push.node] = push
        else:
            arrived = self._arrived.pop((message_id, push.node), None)
            if arrived is not None:
                self._write(arrived)
            # A client's own error reply is handed on as it is; ours are made here.
            own = arrived is not None and isinstance(arrived.verdict, events.Errored)
            message = (
                arrived.build(message_id) if own and arrived else push.error(outcome.code, outcome.reason)
            )
            written = entries.Outcome(
                message_id=message_id,
                reply=message_id if own else "",
                code=outcome.code,
                reason=outcome.reason,
            )
        with self._settled_lock:
            self._settled[message_id] = Fetched(message, written)

    def _close(self, batch_id: str, message_ids: Sequence[str], missing: Sequence[str]) -> None:
        for message_id in missing:
            if push := self._pushed.pop(message_id, None):
                self._missed[push.node] = push
        batch = self._batches.pop(batch_id, None)
        if batch is None or batch.done():
            return
        with self._settled_lock:
            fetched = [
                self._settled.pop(message_id) for message_id in message_ids if message_id in self._settled
            ]
        self._book.append(entries.Closed(batch_id=batch_id, outcomes=tuple(one.outcome for one in fetched)))
        failpoints.reach("aggregator.batch-closed")
        self._book.hurry()  # while the app aggregates, so that its next batch has less to wait for
        batch.set_result([one.message for one in fetched])

    def _wake_at(self, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._loop.call_later(max(0.0, due - self._clock()), self._woken, due)

    def _woken(self, due: float) -> None:
        self._timer = None
        if self._clock.stands:
            return  # it is set again when time goes on
        self._due = None
        # A timer may fire a hair too early; the machine asks for each moment once.
        self.handle(events.TimePassed(max(due, self._clock())))

    def _end(self, over: TrainingOver) -> None:
        if self._over is None:
            self._over = over
            log.warning("training over", reason=over.reason, message=over.message)
            self._book.give_up()
        if not self.app_may_start.done():
            self.app_may_start.set_exception(TrainingOver(over.reason, over.message))
        for batch in self._batches.values():
            if not batch.done():
                batch.set_exception(TrainingOver(over.reason, over.message))
        self._batches.clear()

    def close(self, reason: str, message: str) -> None:
        """Say goodbye to every client. On the event loop only."""
        if self._timer is not None:
            self._timer.cancel()
        for session in list(self._sessions.values()):
            session.goodbye(reason, message)

    @property
    def over(self) -> TrainingOver | None:
        """Why the training ended before the app did, if it did."""
        return self._over
