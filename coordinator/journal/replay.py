"""The answer to each call of a ServerApp that runs again from its top.

A `Replay` is asked in the order of the calls and answers as the journal says, until the app comes to a call
that the journal does not have: from there on the training is live. Whether the app does the same again is
checked at each call: what it sends is compared by fingerprint, so an app that read the clock, or kept
something where no journal sees it, is found at the first call in which that shows.

Calls of the thread that the app began on are answered in their order. Other threads (Flower's older API has
one for each client) run as they like, and get the answer to the first call that was just like theirs. This
module is pure.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

from coordinator.journal import entries

_Call = TypeVar("_Call", bound=entries.Entry)


class Diverged(Exception):
    """The app did something else than before; the message says what, as part of a sentence.

    position: of the entry that it did not repeat, counted from 0.
    """

    def __init__(self, message: str, position: int) -> None:
        """Say what it did, and where it stands in the journal."""
        super().__init__(message)
        self.position = position


@dataclasses.dataclass(frozen=True, slots=True)
class _At(Generic[_Call]):
    """A call, and its place in the journal."""

    position: int
    entry: _Call


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """A message that the app wants to send: to whom, and the digest of what it says."""

    node: int
    fingerprint: str


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """A batch with its ids. outcomes: those of one that was closed before a restart; None: it is to be sent.

    new: it was not pushed before.
    """

    pushed: entries.Pushed
    outcomes: tuple[entries.Outcome, ...] | None = None
    new: bool = False


class Replay:
    """The journal's answers, to be asked by one thread at a time."""

    def __init__(self, found: Iterable[entries.Any]) -> None:
        """Take the entries in order."""
        self._main: collections.deque[_At[entries.NodesGiven | entries.Pushed | entries.Pulled]] = (
            collections.deque()
        )
        self._pushed: list[_At[entries.Pushed]] = []
        self._pulled: list[_At[entries.Pulled]] = []
        self._nodes: list[_At[entries.NodesGiven]] = []
        self._closed: dict[str, tuple[entries.Outcome, ...]] = {}
        self._received: dict[str, entries.Received] = {}
        self._fetched: set[str] = set()
        self.late: tuple[entries.KeptReply, ...] = ()
        """Late replies to messages of rounds that a snapshot stands for."""
        self._snapshots: dict[int, _At[entries.Snapshot]] = {}
        self._position = -1
        self.mixed = False
        """Whether there were calls of other threads, or such as do not wait: no snapshot stands for them."""
        self.messages = 0
        """How many messages and batches were numbered."""
        self.round = 0
        """The last round that was begun."""
        self.calls = 0
        """How many calls were answered."""
        for position, entry in enumerate(found):
            self._sort_in(position, entry)
        self.empty = not (self._main or self._pushed or self._pulled or self._snapshots)
        """Whether there was no call: the training begins."""

    def _sort_in(self, position: int, entry: entries.Any) -> None:
        match entry:
            case entries.Snapshot():
                self._snapshots[entry.start] = _At(position, entry)
                self._nodes.append(_At(position, entries.NodesGiven(nodes=entry.nodes, main=True)))
                self.round, self.messages = entry.round, entry.messages
                self.calls += entry.calls
                self.late += entry.late
            case entries.NodesGiven():
                self._nodes.append(_At(position, entry))
                self.mixed = self.mixed or not entry.main
                if entry.main:
                    self._main.append(_At(position, entry))
            case entries.Pushed():
                self.round = entry.round or self.round
                self.messages += 1 + len(entry.messages)
                self.mixed = self.mixed or not (entry.main and entry.waits)
                if entry.main:
                    self._main.append(_At(position, entry))
                else:
                    self._pushed.append(_At(position, entry))
            case entries.Pulled():
                self.mixed = True
                self._fetched.update(outcome.message_id for outcome in entry.outcomes)
                if entry.main:
                    self._main.append(_At(position, entry))
                else:
                    self._pulled.append(_At(position, entry))
            case entries.Closed():
                self._closed[entry.batch_id] = entry.outcomes
            case entries.Received():
                self._received.setdefault(entry.message_id, entry)
            case entries.Dropped() | entries.Resumed():
                pass

    def remember(self, nodes: tuple[entries.Node, ...], number: int) -> None:
        """Take over what an earlier replay, of which the rest is forgotten, knew of nodes and rounds."""
        self._nodes.append(_At(0, entries.NodesGiven(nodes=nodes, main=False)))
        self.round = number

    @property
    def position(self) -> int:
        """Where the last call that was answered stands, counted from 0; -1 if none was."""
        return self._position

    def snapshot(self, start: int, rounds: int, *, may_grow: bool = False) -> entries.Snapshot | None:
        """What a start's first rounds came to, which stands for their calls.

        may_grow: whether it may have had fewer rounds before. Raises: Diverged.
        """
        at = self._snapshots.get(start)
        if at is None:
            return None
        if rounds < at.entry.rounds or (rounds > at.entry.rounds and not may_grow):
            what = f"start {start} of a strategy is to have {rounds} rounds"
            raise Diverged(f"{what} where it had {at.entry.rounds} before", at.position)
        self._position = max(self._position, at.position)
        return at.entry

    def differs(self, start: int, how: str) -> Diverged:
        """What the app began with is built otherwise than what a snapshot was taken of."""
        return Diverged(f"in start {start} of a strategy {how}", self._snapshots[start].position)

    @property
    def over(self) -> bool:
        """Whether every call was answered."""
        return not (self._main or self._pushed or self._pulled)

    @property
    def known_nodes(self) -> tuple[entries.Node, ...]:
        """The nodes that the app was last told of."""
        return self._nodes[-1].entry.nodes if self._nodes else ()

    def received(self, message_id: str) -> entries.Received | None:
        """The reply to a message that came before, if it did."""
        return self._received.get(message_id)

    def unfetched(self, pushed: entries.Pushed) -> list[entries.SentMessage]:
        """The messages of a batch whose outcome the app has not been given."""
        return [message for message in pushed.messages if message.message_id not in self._fetched]

    def nodes(self, *, main: bool) -> tuple[entries.Node, ...] | None:
        """The nodes that the app was told of at this call; None: it is live. Raises: Diverged."""
        if not main:
            return None if self.over else self._nodes_meanwhile()
        if not self._main:
            return None
        entry = self._main[0].entry
        if not isinstance(entry, entries.NodesGiven):
            raise self._diverged("asks for the nodes")
        self._answered(self._main.popleft().position)
        return entry.nodes

    def push(self, calls: Sequence[Call], *, main: bool) -> Batch | None:
        """The batch that the app pushed at this call; None: it is live. Raises: Diverged."""
        wanted = [(call.node, call.fingerprint) for call in calls]
        if main:
            if not self._main:
                return None
            pushed = self._main[0].entry
            if not isinstance(pushed, entries.Pushed):
                raise self._diverged("sends messages")
            if _said(pushed) != wanted:
                raise Diverged(self._difference(pushed, wanted), self._main[0].position)
            self._answered(self._main.popleft().position)
        else:
            found = next((at for at in self._pushed if _said(at.entry) == wanted), None)
            if found is None:
                return None
            self._pushed.remove(found)
            self._answered(found.position)
            pushed = found.entry
        return Batch(pushed, self._closed.get(pushed.batch_id))

    def pull(self, message_ids: Collection[str], *, main: bool) -> tuple[entries.Outcome, ...] | None:
        """What the app fetched when it asked for these; None: it is live. Raises: Diverged."""
        asked = set(message_ids)
        if main and self._main:
            pulled = self._main[0].entry
            if not isinstance(pulled, entries.Pulled):
                return ()  # who polls may ask once more than before; there was nothing
            if not _ids(pulled) <= asked:
                raise self._diverged("fetches the replies to other messages")
            self._answered(self._main.popleft().position)
            return pulled.outcomes
        found = next((at for at in self._pulled if _ids(at.entry) <= asked), None)
        if found is None:
            return None
        self._pulled.remove(found)
        self._answered(found.position)
        return found.entry.outcomes

    def _nodes_meanwhile(self) -> tuple[entries.Node, ...]:
        """The nodes as they were known when the last answered call was made, or at first."""
        before = [at.entry.nodes for at in self._nodes if at.position <= self._position]
        return before[-1] if before else self._nodes[0].entry.nodes if self._nodes else ()

    def _answered(self, position: int) -> None:
        self.calls += 1
        self._position = max(self._position, position)

    def _diverged(self, does: str) -> Diverged:
        did = _DID[type(self._main[0].entry)]
        what = f"call {self.calls + 1} of the ServerApp {does} where it {did} before"
        return Diverged(what, self._main[0].position)

    def _difference(self, pushed: entries.Pushed, wanted: list[tuple[int, str]]) -> str:
        before = _said(pushed)
        of_round = f" of round {pushed.round}" if pushed.round else ""
        where = f"call {self.calls + 1} of the ServerApp, {pushed.kind}{of_round},"
        if len(before) != len(wanted):
            return f"{where} sends {len(wanted)} messages where it sent {len(before)} before"
        old, new = next(pair for pair in zip(before, wanted, strict=True) if pair[0] != pair[1])
        name = next((node.cluster for node in self.known_nodes if node.node == old[0]), str(old[0]))
        if old[0] != new[0]:
            return f"{where} sends to another node than {name}, to which it sent before"
        return f"{where} sends something else to {name} than before"


_DID: Mapping[type[entries.Entry], str] = {
    entries.NodesGiven: "asked for the nodes",
    entries.Pushed: "sent messages",
    entries.Pulled: "fetched replies",
}


def _said(pushed: entries.Pushed) -> list[tuple[int, str]]:
    return [(message.node, message.fingerprint) for message in pushed.messages]


def _ids(pulled: entries.Pulled) -> set[str]:
    return {outcome.message_id for outcome in pulled.outcomes}
