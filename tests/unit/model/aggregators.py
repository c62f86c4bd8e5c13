"""An aggregator as the model runs it: the real round machine, driver, history and replay, without a clock.

What is real: RoundMachine, Replay, Driver and History, with all that they decide about what is done
when. Stand-ins, each as thin as it can be:

- `Loop` runs at once what asyncio's loop would run soon. Time stands still: no deadline and no grace is
  over.
- `MemoryBook` keeps journal.Book's promises: what was appended and not written is lost with the process;
  what was written is not, also when the power fails. Writing, and telling those who wait for it, are two
  steps.
- `app_of` is a ServerApp on HanseGrid: in each round it asks for the nodes and sends batches to all of
  them. `_begin` and `_push` mirror HanseGrid's methods of these names, split where `send_and_receive`
  waits; `_replied` mirrors Exchange's `_look_at_header` and `_check`, with no time between them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
from collections.abc import Callable, Collection, Generator, Hashable, Mapping
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from coordinator.aggregation import events, records, rounds
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import history as history_module
from coordinator.journal import entries, replay
from federation.flower import messages as flower_messages
from federation.flower import replies
from federation.wire import codec, digests
from federation.wire import hanse_pb2 as pb
from tests.unit.model import automaton
from tests.unit.model.stand_ins import (
    Journal,
    Loop,
    MemoryBook,
    Unshown,
    Violation,
    canonical,
    read,
    timeless,
)

NODES = {1: "zurich", 2: "basel"}


# -- what an aggregator does to others ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Send:
    """A message to a node's session. awaited: the messages to this node that still wait for a reply."""

    node: int
    message_id: str
    said: str
    awaited: frozenset[str]


@dataclasses.dataclass(frozen=True)
class Confirm:
    """Word to a node's session that its reply to a message is safe."""

    node: int
    message_id: str


@dataclasses.dataclass(frozen=True)
class Welcome:
    """A node's new session may begin to speak: all that came on earlier ones is in the journal."""

    node: int


Effect = Send | Confirm | Welcome


@dataclasses.dataclass(frozen=True)
class Done:
    """What came of one input. crashes: what the journal held meanwhile, besides before and after."""

    effects: tuple[Effect, ...] = ()
    crashes: tuple[Journal, ...] = ()


@dataclasses.dataclass(frozen=True)
class Looks:
    """How an aggregator looks; the first ones are for others to read."""

    journal: Journal
    admits: bool
    may_call: bool
    may_write: bool
    may_tell: bool
    knows_roster: bool
    finished: bool
    given: tuple[Given, ...]
    rest: Hashable = dataclasses.field(repr=False)


# -- one process -----------------------------------------------------------------------------------------


class Session:
    """A client's open session, as the driver sees it."""

    def __init__(self, node: int, aggregator: Aggregator) -> None:
        self.node, self._aggregator = node, aggregator

    def withdraw(self, message_id: str) -> None:
        """Everybody is waited for in this training."""
        raise Violation(f"{message_id} is withdrawn")

    def send(self, message_id: str, message: codec.OutgoingMessage) -> None:
        """Note the message for the link."""
        self._aggregator.sends(self.node, message_id, message.header.group_id)

    def confirm(self, message_id: str) -> None:
        """Note the confirmation for the link."""
        self._aggregator.effects.append(Confirm(self.node, message_id))

    def goodbye(self, reason: str, message: str) -> None:
        """Nobody is sent away in this training."""
        raise Violation(f"node {self.node} is sent away: {reason}, {message}")


# -- the app --------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Batch:
    """The app's call of send_and_receive: `said` to each node."""

    kind: events.Kind
    number: int
    said: str


ASKS = "asks for the nodes"

Given = tuple[Any, ...]


def app_of(count: int, kinds: tuple[events.Kind, ...]) -> Generator[Batch | str, Given, None]:
    """A ServerApp of `count` rounds with a batch of each kind; its messages say what was answered before."""
    heard = ""
    for number in range(1, count + 1):
        yield ASKS
        for kind in kinds:
            answers = yield Batch(kind, number, f"{kind}{number}({heard})")
            heard = digests.digest(repr((heard, answers)).encode()).hex()[:8]


@dataclasses.dataclass(frozen=True)
class Classes:
    """The code that is checked; tests put something broken in its place."""

    machine: type[rounds.RoundMachine] = rounds.RoundMachine
    driver: type[driver_module.Driver] = driver_module.Driver
    history: type[history_module.History] = history_module.History
    book: type[MemoryBook] = MemoryBook


REAL = Classes()

_RULES = events.RoundRules(quorum=len(NODES), deadline_seconds=None, link_grace_seconds=30)


class Aggregator:
    """One process, from its start to its end or death. Inputs are tuples: what happens, and to whom."""

    def __init__(
        self, journal: Journal, count: int, kinds: tuple[events.Kind, ...], classes: Classes
    ) -> None:
        """Begin as coordinator/aggregator/app.py does. count: of rounds; kinds: of the batches in each."""
        self.effects: list[Effect] = []
        self.given: list[Given] = []
        self._loop = Loop()
        self._book: Any = classes.book(journal)
        self._machine = classes.machine("demo/model", _RULES, 0.0)
        progress: Any = Unshown()
        loop: Any = self._loop
        self._driver = classes.driver(
            self._machine, progress, self._book, loop=loop, clock=lambda: 0.0, wall_clock=lambda: 0.0
        )
        self._history = classes.history(self._book)
        self._sessions: dict[int, Session] = {}
        self._numbered: dict[str, int] = {}
        self._app = app_of(count, kinds)
        self._call: Batch | str | None = next(self._app)
        self._closed: concurrent.futures.Future[list[Message]] | None = None
        self._roster = self._finished = False
        self._history.attach(self._driver)

    # -- what happens ------------------------------------------------------------------------------------

    def take(self, given: tuple[Any, ...]) -> Done:
        """Let one thing happen. Raises: Violation, and whatever the real code raises."""
        self.effects, self._book.crashes = [], []
        what, *to = given
        if what == "app":
            self._app_goes_on()
        elif what == "write":
            self._book.write()
        elif what == "tell":
            self._book.tell()
        else:
            self._loop.call_soon_threadsafe(getattr(self, f"_{what}"), *to)
        if self._driver.over is not None:
            raise Violation(f"the training ends: {self._driver.over}")
        return Done(tuple(self.effects), tuple(dict.fromkeys(self._book.crashes)))

    def _told_roster(self) -> None:
        self._roster = True
        members = tuple(events.Member(node, cluster) for node, cluster in NODES.items())
        self._driver.handle(events.RosterChanged(members, 0.0))

    def _connected(self, node: int, is_to_be_welcomed: bool) -> None:
        """As Exchange.Session: the welcome waits for the journal, as Driver.written does."""
        session = self._sessions[node] = Session(node, self)
        self._driver.connected(node, session)
        if not is_to_be_welcomed:
            return
        welcome = functools.partial(self._welcome, session)
        self._book.when_durable(functools.partial(self._loop.call_soon_threadsafe, welcome))

    def _welcome(self, session: Session) -> None:
        if self._sessions.get(session.node) is session:
            self.effects.append(Welcome(session.node))

    def _disconnected(self, node: int) -> None:
        self._driver.disconnected(node, self._sessions.pop(node))

    def _delivered(self, message_id: str) -> None:
        self._driver.delivered(message_id)

    def _replied(self, node: int, message_id: str, said: str) -> None:
        """As Exchange: what nobody waits for is refused unread, and the machine says what it was."""
        if self._driver.outgoing(message_id, node) is None:
            refused = events.Refused("Unreadable", "nobody waits for it any more")
            written = entries.Received(message_id=message_id, node=node, verdict=entries.verdict_of(refused))
            self._driver.replied(
                node, driver_module.ReceivedReply(message_id, refused, _never, (written, b""))
            )
            return
        verdict = events.Accepted(1)
        head = _reply(message_id, node, said)
        entry = entries.Received(
            message_id=message_id, node=node, verdict=entries.verdict_of(verdict), header_bytes=len(head)
        )

        def build(answered: str) -> Message:
            message = flower_messages.to_flower(_header(head), _no_arrays)
            replies.set_answered(message, answered)
            return message

        reply = driver_module.ReceivedReply(message_id, verdict, build, (entry, head))
        self._driver.replied(node, reply)

    def sends(self, node: int, message_id: str, said: str) -> None:
        """A message is handed to a session: it must be written by then."""
        pushed = {
            message.message_id
            for line, _ in self._book.durable
            if isinstance(entry := read(timeless(line)), entries.Pushed)
            for message in entry.messages
        }
        if message_id not in pushed:
            raise Violation(f"{message_id} is sent, and no batch with it is in the journal")
        awaited = (m for m in self._numbered if self._driver.awaits(m, node))
        self.effects.append(Send(node, message_id, said, frozenset(awaited)))

    # -- the app's thread --------------------------------------------------------------------------------

    def _may_call(self) -> bool:
        if self._finished or not (self._history.resumes or self._driver.app_may_start.done()):
            return False
        return self._closed is None or self._closed.done()

    def _app_goes_on(self) -> None:
        """Go on to the app's next call that is not answered from the journal."""
        if self._closed is not None:
            closed, self._closed = self._closed, None
            self._answer(tuple(_text(message) for message in closed.result()))
        while self._call is not None:
            live = self._history._live
            if isinstance(self._call, str):
                self._answer(tuple(self._history.nodes()))
                if self._history._live or live:
                    return
                continue
            recorded = self._send_and_receive(self._call)
            if recorded is None:
                return
            self._answer(recorded)
        self._history.finish()
        self._driver.finished()
        self._finished = True

    def _answer(self, given: Given) -> None:
        self.given.append(given)
        self._call = next(_after(self._app, given), None)

    def _send_and_receive(self, call: Batch) -> Given | None:
        """What the app was given before a restart, or None: it waits."""
        batch, pushes = self._begin(call)
        if batch.outcomes is None:
            self._closed = self._push(call, batch, pushes)
            return None
        answers = []
        for outcome in batch.outcomes:
            reply = self._history.reply(outcome, pushes[outcome.message_id].outgoing.header)
            answers.append(f"error {outcome.code}" if reply is None else _text(reply))
        return tuple(answers)

    def _begin(self, call: Batch) -> tuple[replay.Batch, dict[str, driver_module.Push]]:
        nodes = self.given[-1] if self._is_node_list(self.given[-1]) else self.given[-2]
        said = digests.digest(call.said.encode()).hex()[:8]
        batch = self._history.batch(
            call.kind, call.number, [replay.Call(node, said) for node in nodes], waits=True
        )
        pushes = {}
        for sent in batch.pushed.messages:
            header = pb.MessageHeader(
                message_id=sent.message_id, group_id=call.said, message_type=str(call.kind).lower()
            )
            outgoing = codec.OutgoingMessage(header, {})
            pushes[sent.message_id] = driver_module.Push(
                sent.message_id, sent.node, 3600.0, outgoing, functools.partial(_error, sent.node)
            )
            self._numbered[sent.message_id] = sent.node
        return batch, pushes

    @staticmethod
    def _is_node_list(given: Given) -> bool:
        return all(isinstance(one, int) for one in given)

    def _push(
        self, call: Batch, batch: replay.Batch, pushes: Mapping[str, driver_module.Push]
    ) -> concurrent.futures.Future[list[Message]]:
        closed: concurrent.futures.Future[list[Message]] = concurrent.futures.Future()

        def push(message_ids: Collection[str], came: Mapping[str, entries.Received]) -> None:
            self._driver.push(
                batch.pushed.batch_id,
                call.kind,
                [push for push in pushes.values() if push.message_id in message_ids],
                closed=closed,
                timeout_seconds=None,
                waits=True,
                judged=True,
                round_number=call.number,
                arrived=[
                    self._history.received(reply, pushes[message_id].outgoing.header)
                    for message_id, reply in came.items()
                    if message_id in message_ids
                ],
            )

        self._history.push(batch, push)
        return closed

    # -- how it looks ------------------------------------------------------------------------------------

    def looks(self) -> Looks:
        """Everything that counts later, and nothing that tells two alike ones apart."""
        book, history = self._book, self._history
        before = () if history._live else _picture(history._replay)
        rest = (
            canonical(book.unwritten),
            # Who is told first is of no matter: those told are different nodes.
            frozenset(map(_picture, book.waiting)),
            frozenset(map(_picture, book.written)),
            _picture(self._machine),
            _picture(self._driver),
            (history._live, history._admitted, repr(history._numbers), len(history._open), before),
            self._closed is not None,
            tuple(sorted(self._sessions)),
        )
        return Looks(
            canonical(book.durable),
            self._driver.admits.is_set(),
            self._may_call(),
            bool(book.unwritten or book.waiting) and not book.written,
            bool(book.written),
            self._roster,
            self._finished,
            tuple(self.given),
            rest,
        )


_WITHOUT = frozenset(
    {
        # of the machine: what it has said, and time, which stands still
        *("_out", "_told_clusters", "_told_round", "_timers", "_wake_at", "_rules", "rules", "training"),
        *("away_until", "expires_at"),
        # of the driver: its surroundings, which are seen beside it
        *("_machine", "_progress", "_book", "_loop", "_clock", "_wall_clock", "_on_change", "_timer", "_due"),
        *("_settled_lock", "_one_refusal_ends"),
    }
)

_INSTEAD: Mapping[type, Callable[[Any], Any]] = {
    Session: lambda session: session.node,
    driver_module.Push: lambda push: (push.message_id, push.node, push.outgoing.header.group_id),
    driver_module.ReceivedReply: lambda reply: (reply.message_id, reply.verdict, reply.written),
    driver_module.Fetched: lambda fetched: (fetched.outcome, _text(fetched.message)),
    concurrent.futures.Future: lambda future: future.done(),
    asyncio.Event: lambda event: event.is_set(),
    entries.Received: lambda entry: entries.write(entry),
    entries.Pushed: lambda entry: entries.write(entry),
    entries.NodesGiven: lambda entry: entries.write(entry),
    records.BatchRecord: lambda batch: {
        field.name: getattr(batch, field.name)
        for field in dataclasses.fields(batch)
        if field.name not in ("messages", "rules")
    },
}


def _picture(thing: Any) -> Hashable:
    return automaton.picture(thing, without=_WITHOUT, instead=_INSTEAD)


def _after(app: Generator[Batch | str, Given, None], given: Given) -> Generator[Batch | str, None, None]:
    try:
        yield app.send(given)
    except StopIteration:
        return


def _error(node: int, code: int, reason: str) -> Any:
    raise Violation(f"the app is told that node {node} gave no reply: {code}, {reason}")


def _never(_: str) -> Message:
    raise Violation("a refused reply is handed on")


def _no_arrays(_: pb.ArrayEntry) -> Any:
    raise AssertionError("these replies have no arrays")


@functools.cache
def _reply(message_id: str, node: int, said: str) -> bytes:
    """The header of a reply, whole."""
    header = flower_messages.content_to_wire(RecordDict({"said": ConfigRecord({"text": said})})).header
    header.message_id, header.reply_to_message_id = f"{message_id}.reply", message_id
    header.source_node_id, header.run_id, header.message_type = node, 1, "query"
    header.ttl_seconds, header.created_at, header.has_content = 3600.0, 1.0, True
    return header.SerializeToString(deterministic=True)


def _header(head: bytes) -> pb.MessageHeader:
    return pb.MessageHeader.FromString(head)


def _text(message: Message) -> str:
    return str(message.content["said"]["text"])
