"""The journal as the Grid uses it: what each call was answered before a restart, and what is written since.

Why it exists: a ServerApp that runs again from its top must not notice. Until it comes to a call that the
journal does not have, nothing is sent and no client is heard; then the driver goes on with what was open, and
the clients with it. How a batch is carried out is not known here.
"""

from __future__ import annotations

import dataclasses
import itertools
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NoReturn, TypeVar

from flwr.app import Array, Message

from coordinator.aggregation import events
from coordinator.aggregator import driver as driver_module
from coordinator.journal import book as journal
from coordinator.journal import entries, late, replay, segments
from federation.api import reasons
from federation.flower import arrays as flower_arrays
from federation.flower import messages as flower_messages
from federation.flower import replies
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.wire import codec, digests, outbox
from federation.wire import hanse_pb2 as pb

log = logs.get_logger(__name__)

WHY = (
    "The app does not do the same when it is run again: it may read the clock, or draw random numbers from a "
    "generator of its own."
)
ENDS = "Seed it, or set spec.server.onDivergence to RestartRound."
GOES_ON = (
    "What it did from that call on is forgotten and done anew, as spec.server.onDivergence says, and the "
    "model may be another than without the restart."
)


class History:
    """One training's journal, from the side of its ServerApp. Any of the app's threads may call."""

    def __init__(
        self,
        book: journal.Book,
        *,
        restarts_round: bool = False,
        on_divergence: Callable[[str], object] = lambda _: None,
    ) -> None:
        """Take the journal; `attach` follows.

        restarts_round: what the app does otherwise than before is taken as it is, and the rest of the journal
            is forgotten; if False, the training ends there. on_divergence: is told of the first such call, in
            sentences.
        """
        self._book = book
        self._restarts_round = restarts_round
        self._on_divergence = on_divergence
        self.diverged = book.facts.get(journal.DIVERGED, "")
        """The first call that an earlier process did not repeat, in sentences; empty if there was none."""
        found = book.found
        self._replay = replay.Replay(entry for entry, _ in found)
        self._attachments = {
            entry.message_id: attachment for entry, attachment in found if isinstance(entry, entries.Received)
        }
        self._late = _late_in(found)
        self._late_pushes: dict[str, driver_module.Push] = {}
        self.resumes = not self._replay.empty
        """Whether an earlier process had begun."""
        self._prefix = book.fact("prefix", lambda: secrets.token_hex(4))
        if book.was_cut:  # numbers may be used again, for other messages
            self._rename()
            book.mended()
        self._numbers = itertools.count(1 + self._replay.messages)
        self._mixed = self._replay.mixed
        self._starts = 0
        self._states = {
            entry.start: attachment for entry, attachment in found if isinstance(entry, entries.Snapshot)
        }
        self._lock = threading.RLock()
        self._main = threading.get_ident()
        self._live = not self.resumes
        self._admitted = not self.resumes
        self._open: list[Callable[[], object]] = []
        self._told: tuple[entries.Node, ...] | None = None

    @property
    def round(self) -> int:
        """The last round that an earlier process began; 0 if none did."""
        return self._replay.round

    def attach(self, driver: driver_module.Driver) -> None:
        """Take the driver; clients may speak at once if nothing is to be replayed."""
        self._driver = driver
        if self._admitted:
            driver.admit()

    # -- the app's calls -------------------------------------------------------------------------

    def nodes(self) -> list[int]:
        """The nodes that the app may address, ascending."""
        main = self._on_main()
        self._mixed = self._mixed or not main
        with self._lock:
            given = self._recorded(lambda: self._replay.nodes(main=main))
            if given is None:
                self._go_live()
        if given is None:
            given = tuple(entries.Node(node=node, cluster=name) for node, name in self._driver.nodes())
            self._write_nodes(given, main)
            self._admit()
        return [node.node for node in given]

    def batch(
        self, kind: events.Kind, number: int | None, calls: Sequence[replay.Call], *, waits: bool
    ) -> replay.Batch:
        """Number a batch, as before if it was pushed before; nothing of it is sent yet."""
        main = self._on_main()
        self._mixed = self._mixed or not (main and waits)
        with self._lock:
            before = self._recorded(lambda: self._replay.push(calls, main=main))
            if before is not None:
                return before
            batch_id = f"{self._prefix}-batch-{next(self._numbers)}"
            messages = tuple(
                entries.SentMessage(
                    message_id=f"{self._prefix}-{next(self._numbers)}-{one.node:x}",
                    node=one.node,
                    fingerprint=one.fingerprint,
                )
                for one in calls
            )
        pushed = entries.Pushed(
            batch_id=batch_id, kind=kind, round=number, waits=waits, main=main, messages=messages
        )
        return replay.Batch(pushed, new=True)

    def passed(self, pushes: Mapping[str, driver_module.Push]) -> None:
        """A batch was answered as before: remember what its clients were asked if they may still answer."""
        with self._lock:
            self._late_pushes.update((key, push) for key, push in pushes.items() if key in self._late)

    def push(self, batch: replay.Batch, push: Push) -> None:
        """Have a batch carried out that is not over: now, or when the app has come to where it was."""
        ids = {message.message_id for message in batch.pushed.messages}
        with self._lock:
            if not batch.new and not batch.pushed.waits:
                ids = {message.message_id for message in self._replay.unfetched(batch.pushed)}
                if not ids:
                    return
                if not self._live:
                    self._open.append(lambda: push(ids, self._arrived(batch.pushed)))
                    return
            self._go_live()
            if batch.new:
                self._book.append(batch.pushed)
        try:
            # What was decided before is a fact once somebody acts on these messages.
            self._book.commit()
        except journal.JournalUnusable as error:
            self._driver.end(
                reasons.TrainingReason.STORAGE_UNAVAILABLE, f"The training was ended, since {error}."
            )
        failpoints.reach("aggregator.batch-written")
        push(ids, self._arrived(batch.pushed))
        failpoints.reach("aggregator.batch-sent")
        self._admit()

    def pull(self, message_ids: Iterable[str]) -> tuple[list[entries.Outcome], list[Message]]:
        """Replies that came since the last call: of those fetched before a restart the outcomes, else
        messages.
        """
        wanted, main = list(message_ids), self._on_main()
        with self._lock:
            given = self._recorded(lambda: self._replay.pull(wanted, main=main))
            if given is not None:
                return list(given), []
            self._go_live()
        self._admit()
        fetched = self._driver.collect(wanted)
        if fetched:
            fetched.sort(key=lambda one: one.message.metadata.src_node_id)
            self._book.append(entries.Pulled(outcomes=tuple(one.outcome for one in fetched), main=main))
        return [], [one.message for one in fetched]

    def finish(self) -> None:
        """The app returned, maybe before it asked for anything that the journal does not have."""
        with self._lock:
            self._go_live()
        self._admit()

    def reply(self, outcome: entries.Outcome, sent: pb.MessageHeader) -> Message | None:
        """The reply that an outcome names, as an answer to the message that was sent; None: an error."""
        if not outcome.reply:
            return None
        found = self._replay.received(outcome.reply)
        if found is None:
            self._damaged(f"the reply to {outcome.reply} is missing")
        return self._built(found, sent, outcome.message_id)

    def examples(self, batch: replay.Batch) -> dict[str, int]:
        """How many examples each cluster's accepted reply to a batch counted, by cluster."""
        names = {node.node: node.cluster for node in self._replay.known_nodes}
        return {
            names[found.node]: found.verdict.examples
            for found in self._arrived(batch.pushed).values()
            if isinstance(found.verdict, entries.AcceptedReply)
            and found.verdict.examples
            and found.node in names
        }

    # -- snapshots -------------------------------------------------------------------------------

    def begins(
        self, rounds: int, restore: Callable[[entries.Snapshot, bytes], _Answer], *, may_grow: bool = False
    ) -> tuple[Place, entries.Snapshot | None, _Answer | None] | None:
        """A strategy's start of so many rounds begins: what it was restored to, if there is a snapshot of it.

        restore: makes what the app has now what it was then; raises ValueError, before it changed anything,
            if that cannot be.
        may_grow: whether it may have had fewer rounds before.
        Returns None for a start of which nothing can be kept.
        """
        if not self._on_main():
            return None
        with self._lock:
            self._starts += 1
            number = self._starts
            before = self._replay.position

            def found() -> tuple[entries.Snapshot, _Answer] | None:
                snapshot = self._replay.snapshot(number, rounds, may_grow=may_grow)
                if snapshot is None:
                    return None
                try:
                    return snapshot, restore(snapshot, self._states.pop(number))
                except ValueError as error:
                    raise self._replay.differs(number, str(error)) from error

            restored = self._recorded(found)
            after = self._book.position() if self._live else self._book.number_of(before)
        if restored is None:
            return Place(number, rounds, after), None, None
        return Place(number, rounds, restored[0].after), *restored

    @property
    def at_the_end(self) -> bool:
        """Whether what happens now has not happened before, and all of it on the app's first thread."""
        return self._live and not self._mixed and self._on_main()

    def entry_of(
        self, place: Place, server_round: int
    ) -> tuple[entries.Snapshot, dict[str, tuple[str, str]]]:
        """A snapshot of the rounds up to this one, but for what is in it, and messages with late replies.

        Raises: JournalUnusable.
        """
        with self._lock:
            following = next(self._numbers)
            self._numbers = itertools.count(following)
        snapshot = entries.Snapshot(
            start=place.start,
            round=server_round,
            rounds=place.rounds,
            after=place.after,
            until=self._book.position(),
            calls=0,
            messages=following - 1,
            nodes=self._told or self._replay.known_nodes,
            state_bytes=0,
            arrays=(),
        )
        return snapshot, self._driver.kept()

    def bytes_of(self, attachment: bytes, stored: entries.StoredArray) -> bytes | segments.Region:
        """Where the bytes of a snapshot's array lie, or, of a small one, what they are."""
        if not stored.segment:
            return attachment[stored.offset : stored.offset + stored.length]
        return self._book.segments.find(stored.segment, stored.offset, stored.length)

    # -- the rest --------------------------------------------------------------------------------

    def _on_main(self) -> bool:
        return threading.get_ident() == self._main

    def _recorded(self, ask: Callable[[], _Answer | None]) -> _Answer | None:
        try:
            return ask()
        except replay.Diverged as error:
            what = f"After a restart, {error}. {WHY}"
            if not self._restarts_round:
                self._driver.end(reasons.TrainingReason.RESUME_DIVERGED, f"{what} {ENDS}")
            log.warning("app diverged", detail=str(error))
            self._on_divergence(self._book.fact(journal.DIVERGED, lambda: f"{what} {GOES_ON}"))
            self._rename()  # first: what is cut off has used numbers, and the next process may not know it
            self._book.cut(error.position)
            self._late = _late_in(self._book.found)
            known, number = self._replay.known_nodes, self._replay.round
            self._replay = replay.Replay(())
            self._replay.remember(known, number)
            return None

    def _rename(self) -> None:
        """Begin message ids otherwise: numbers are used again, and clients know what they answered."""
        prefix = outbox.another_prefix(self._prefix, secrets.token_hex(4))
        self._prefix = self._book.replace_fact("prefix", prefix)

    def _go_live(self) -> None:
        if self._live:
            return
        self._live = True
        log.info("resumed", calls=self._replay.calls, round=self._replay.round)
        members = [events.Member(node.node, node.cluster) for node in self._replay.known_nodes]
        self._book.append(entries.Resumed(at_unix=time.time()))
        self._driver.resume(members, self._replay.round, self._late_messages())
        self._late_pushes.clear()
        for push in self._open:
            push()
        self._open.clear()
        failpoints.reach("aggregator.resumed")

    def _late_messages(self) -> list[driver_module.Late]:
        self._late_pushes.update((kept.message_id, _as_sent(kept)) for kept in self._replay.late)
        known = ((self._late_pushes.get(key), one) for key, one in self._late.items())
        return [
            driver_module.Late(
                push,
                one.round,
                None if one.reply is None else self.received(one.reply, push.outgoing.header)[1],
            )
            for push, one in known
            if push is not None
        ]

    def _admit(self) -> None:
        """Let clients speak once every open batch is known again."""
        if not self._admitted and self._replay.over:
            self._admitted = True
            self._driver.admit()

    def _write_nodes(self, nodes: tuple[entries.Node, ...], main: bool) -> None:
        if main or nodes != self._told:
            self._told = nodes
            self._book.append(entries.NodesGiven(nodes=nodes, main=main))

    def _arrived(self, pushed: entries.Pushed) -> dict[str, entries.Received]:
        came = (self._replay.received(message.message_id) for message in pushed.messages)
        return {reply.message_id: reply for reply in came if reply is not None}

    def received(
        self, found: entries.Received, sent: pb.MessageHeader
    ) -> tuple[int, driver_module.ReceivedReply]:
        """A reply that came before a restart, for the driver, with its node."""
        verdict = entries.event_of(found.verdict)
        return found.node, driver_module.ReceivedReply(
            found.message_id, verdict, lambda answered: self._built(found, sent, answered)
        )

    def _built(self, found: entries.Received, sent: pb.MessageHeader, answered: str) -> Message:
        attachment = self._attachments.get(found.message_id, b"")
        header = pb.MessageHeader.FromString(attachment[: found.header_bytes])
        header.message_type, header.group_id = sent.message_type, sent.group_id
        stored = {bytes.fromhex(array.digest): array for array in found.arrays}
        message = flower_messages.to_flower(header, lambda entry: self._array(entry, stored, attachment))
        replies.set_answered(message, answered)
        return message

    def _array(
        self, entry: pb.ArrayEntry, stored: Mapping[bytes, entries.StoredArray], attachment: bytes
    ) -> Array:
        shape = tuple(entry.shape)
        place = stored.get(entry.digest)
        if place is None:
            self._damaged(f"array {entry.name} is missing")
        if not place.segment:
            data = attachment[place.offset : place.offset + place.length]
            return Array(entry.dtype, shape, entry.serialization, data)
        try:
            region = self._book.segments.find(place.segment, place.offset, place.length)
        except (OSError, EOFError) as error:
            self._damaged(str(error))
        return flower_arrays.SpooledArray(entry.dtype, shape, entry.serialization, region, entry.digest)

    def _damaged(self, why: str) -> NoReturn:
        self._driver.end(reasons.TrainingReason.JOURNAL_DAMAGED, f"The journal is damaged: {why}.")


_Answer = TypeVar("_Answer")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A start of a strategy: which one of the app's, of how many rounds, after which entry."""

    start: int
    rounds: int
    after: int


Push = Callable[[Collection[str], Mapping[str, entries.Received]], object]
"""Hands the messages with these ids to the driver, with the replies that came before a restart."""


def _late_in(found: Iterable[tuple[entries.Any, bytes]]) -> dict[str, late.Late]:
    return {one.message_id: one for one in late.waiting(entry for entry, _ in found)}


def _as_sent(kept: entries.KeptReply) -> driver_module.Push:
    """As much of a message as there must be to give its late reply to the app."""

    def error(code: int, reason: str) -> Message:
        raise AssertionError(f"it has its reply already: {code} {reason}")

    header = pb.MessageHeader(
        message_id=kept.message_id, message_type=kept.message_type, group_id=kept.group_id
    )
    return driver_module.Push(kept.message_id, kept.node, 0.0, codec.OutgoingMessage(header, {}), error)


def fingerprint(header: pb.MessageHeader) -> str:
    """Return the digest of what a message says: its type, its values, the digests of its arrays.

    Its id, times and group are not part of it: the app or Flower makes them anew each time.
    """
    said = pb.MessageHeader(
        destination_node_id=header.destination_node_id,
        message_type=header.message_type,
        records=header.records,
        has_content=header.has_content,
    )
    return digests.digest(said.SerializeToString(deterministic=True)).hex()
