"""Two clients, an aggregator and the links between them: the whole, and what may happen next.

What a client does with a message mirrors Answering and Keep, in a few lines of tuples: a Train message
changes the app's state, so its reply is kept before it is sent; an Evaluate message does not, and its
reply is sent before it is kept. Faults are an aggregator's death, a client's death, and a link's cut;
how many is the configuration's to say. A process that is started again has what was written or kept. Of
what was on its way on a link that is cut, or whose other end died, any first part arrives. Each end
notices in its own time.

Some orders are left out, since they would lead to the same states: what only one process can see
(`Model._first`) happens before all else but faults; a link that is whole is read to its last frame; a
process that is started again is there from its first word on.

The invariants are checked where something happens, as `Violation`:

- the app is given what it is given in a run without faults;
- a message that is sent is in the journal, and a reply that is confirmed is;
- no client is asked for what it has finished;
- no message's id means two things.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from coordinator.aggregation import events
from coordinator.journal import entries
from federation.wire import outbox
from tests.unit.model import aggregators, automaton, links
from tests.unit.model.aggregators import NODES, Violation


class Link(NamedTuple):
    """A session: whether each end has it open, whether they still reach one another, frames on their way."""

    client_up: bool = False
    aggregator_up: bool = False
    joined: bool = False
    up: tuple[links.Frame, ...] = ()
    down: tuple[links.Frame, ...] = ()


class Client(NamedTuple):
    """A client's process, and what it keeps. Replies are pairs: the message's id, and what is said."""

    end: int
    inbox: tuple[tuple[str, str], ...] = ()
    in_hand: tuple[str, str] | None = None  # the app has answered; to be sent, or to be kept
    in_hand_is_confirmed: bool = False
    known: frozenset[str] = frozenset()  # what earlier processes answered and left
    kept: tuple[tuple[str, str], ...] = ()
    state: int = 0
    finished: frozenset[str] = frozenset()  # what was said in messages whose answers were kept
    met: frozenset[tuple[str, str]] = frozenset()


class Faults(NamedTuple):
    """How many may still happen: of each kind, and of all together."""

    aggregator: int
    client: int
    cuts: int
    together: int

    def less(self, kind: str) -> Faults:
        """One fewer."""
        return self._replace(**{kind: getattr(self, kind) - 1}, together=self.together - 1)

    def may(self, kind: str) -> bool:
        """Whether one more may happen."""
        return self.together > 0 and getattr(self, kind) > 0


ONE_FAULT = Faults(aggregator=1, client=1, cuts=1, together=1)


class World(NamedTuple):
    """The whole."""

    aggregator: int
    ends: tuple[int, ...]
    links: tuple[Link, ...]
    clients: tuple[Client, ...]
    faults: Faults


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What is searched."""

    rounds: int = 2
    kinds: tuple[events.Kind, ...] = (events.Kind.TRAIN, events.Kind.EVALUATE)
    faults: Faults = ONE_FAULT
    classes: aggregators.Classes = aggregators.REAL
    client_keeps_late: bool = False
    """A broken client: it sends before it keeps also where its app's state has changed."""
    welcomes_at_once: bool = False
    """A broken aggregator: a new link is welcomed before what came on others is written."""


Step = tuple[str, World]
"""What happens, in words, and the state after it."""


class Model:
    """All that may happen in one configuration."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._want: list[Any] = []
        self.aggregators = automaton.Automaton(
            lambda journal: aggregators.Aggregator(
                journal, configuration.rounds, configuration.kinds, configuration.classes
            )
        )
        self.aggregator_ends = automaton.Automaton(lambda _: links.AggregatorEnd())
        self.client_ends = automaton.Automaton(lambda _: links.ClientEnd())
        self._confirmable: dict[aggregators.Journal, frozenset[str]] = {}

    def begin(self) -> World:
        """Nobody is connected, nothing was written."""
        count = len(NODES)
        return World(
            self.aggregators.begin(()),
            (self.aggregator_ends.begin(()),) * count,
            (Link(),) * count,
            (Client(self.client_ends.begin(())),) * count,
            self._configuration.faults,
        )

    def expect(self, given: tuple[Any, ...]) -> None:
        """What the app is given in a run without faults."""
        self._want = list(given)

    def finished(self, world: World) -> bool:
        """Whether the app has returned."""
        return bool(self._looks(world).finished)

    def given(self, world: World) -> tuple[Any, ...]:
        """What the app was given until now."""
        return tuple(self._looks(world).given)

    def _looks(self, world: World) -> aggregators.Looks:
        looks: aggregators.Looks = self.aggregators.looks(world.aggregator)
        return looks

    # -- what may happen ---------------------------------------------------------------------------------

    def steps(self, world: World) -> Iterator[Step]:
        """Everything that may happen now. Raises: Violation, or what the real code raises."""
        looks = self._looks(world)
        if (first := self._first(world, looks)) is not None:
            yield from first
        else:
            if looks.may_call:
                yield "the app goes on", self._aggregator(world, ("app",))
            if looks.may_write:
                yield "the journal is written", self._aggregator(world, ("write",))
            if not looks.knows_roster:
                yield "the roster comes", self._aggregator(world, ("told_roster",))
            for at, node in enumerate(NODES):
                yield from self._of_node(world, at, node, looks)
        yield from self._faults(world, looks)

    def _first(self, world: World, looks: aggregators.Looks) -> list[Step] | None:
        """What may as well happen before all else but faults: nobody else sees whether it has happened."""
        if looks.may_tell:
            return [("the journal tells", self._aggregator(world, ("tell",)))]
        if looks.given and looks.admits and not looks.knows_roster:
            return [("the roster comes", self._aggregator(world, ("told_roster",)))]
        for at, name in enumerate(NODES.values()):
            link, client = world.links[at], world.clients[at]
            if client.in_hand is not None:
                return [(f"{name} ends its answer", self._ends_answer(world, at))]
            if link.client_up and not link.joined:
                after, _ = self.client_ends.step(client.end, ("down",))
                cut = _linked(world, at, link._replace(client_up=False, down=()))
                steps = [(f"{name} notices the cut", _with(cut, at, client._replace(end=after)))]
                if link.down:
                    steps.append((f"{name} still reads {link.down[0][:2]}", self._client_reads(world, at)))
                return steps
        return None

    def _of_node(self, world: World, at: int, node: int, looks: aggregators.Looks) -> Iterator[Step]:
        link, client, name = world.links[at], world.clients[at], NODES[node]
        if not link.client_up and looks.admits and not looks.finished:
            yield f"{name} connects", self._connects(world, at, node)
        if link.down:
            after = world
            while after.links[at].down:
                after = self._client_reads(after, at)
            yield f"{name} reads", after
        if link.up and link.joined:
            after = world
            while after.links[at].up:
                after = self._aggregator_reads(after, at, node)
            yield f"the aggregator hears {name}", after
        if link.aggregator_up and not link.joined:
            yield f"the aggregator notices the cut of {name}", self._aggregator_notices(world, at, node)
            if link.up:
                yield f"{name} is still heard {link.up[0][:2]}", self._aggregator_reads(world, at, node)
        if client.inbox:
            yield f"{name} answers {client.inbox[0][0]}", self._answers(world, at)

    def _faults(self, world: World, looks: aggregators.Looks) -> Iterator[Step]:
        if world.faults.may("aggregator"):
            journals = {looks.journal: None}
            if looks.may_call:
                journals |= dict.fromkeys(self.aggregators.step(world.aggregator, ("app",))[1].crashes)
            for number, journal in enumerate(journals):
                word = "the aggregator dies" + (", within the app's call" if number else "")
                yield word, self._aggregator_dies(world, journal)
        for at, name in enumerate(NODES.values()):
            link = world.links[at]
            if link.joined and world.faults.may("cuts"):
                cut = _linked(world, at, link._replace(joined=False))
                yield f"the link of {name} is cut", cut._replace(faults=world.faults.less("cuts"))
            if world.faults.may("client"):
                yield f"{name} dies", self._client_dies(world, at)

    # -- the aggregator ----------------------------------------------------------------------------------

    def _aggregator(self, world: World, given: tuple[Any, ...]) -> World:
        """Let something happen to the aggregator, and its sessions do what it says."""
        after, done = self.aggregators.step(world.aggregator, given)
        world = world._replace(aggregator=after)
        told = self._looks(world).given
        if self._want and told != tuple(self._want[: len(told)]):
            raise Violation(f"the app is given {told[-1]}, want {self._want[len(told) - 1]}")
        for effect in done.effects:
            at = list(NODES).index(effect.node)
            if not world.links[at].aggregator_up:
                continue
            said: tuple[Any, ...]
            if isinstance(effect, aggregators.Send):
                said = ("send", effect.message_id, effect.said, effect.awaited)
            elif isinstance(effect, aggregators.Confirm):
                said = ("confirm", effect.message_id)
            else:
                said = ("welcome",)
            world, _ = self._aggregator_end(world, at, said)
        return world

    def _aggregator_end(
        self, world: World, at: int, given: tuple[Any, ...]
    ) -> tuple[World, tuple[tuple[Any, ...], ...]]:
        after, out = self.aggregator_ends.step(world.ends[at], given)
        for frame in out.frames:
            if frame[0] == "received":
                self._check_confirmed(world, frame[1])
        world = world._replace(ends=_put(world.ends, at, after))
        link = world.links[at]
        if link.joined and out.frames:
            world = _linked(world, at, link._replace(down=link.down + out.frames))
        return world, out.happened

    def _check_confirmed(self, world: World, transfer_id: str) -> None:
        journal = self._looks(world).journal
        if journal not in self._confirmable:
            found = (entries.read(line) for line, _ in journal)
            self._confirmable[journal] = frozenset(
                outbox.reply_id(entry.message_id) for entry in found if isinstance(entry, entries.Received)
            )
        if transfer_id not in self._confirmable[journal]:
            raise Violation(f"{transfer_id} is confirmed, and is not in the journal")

    def _aggregator_reads(self, world: World, at: int, node: int) -> World:
        link = world.links[at]
        frame, world = link.up[0], _linked(world, at, link._replace(up=link.up[1:]))
        world, happened = self._aggregator_end(world, at, ("frame", frame))
        for what, *to in happened:
            world = self._aggregator(world, (what, *([node] if what == "replied" else []), *to))
        return world

    def _aggregator_notices(self, world: World, at: int, node: int) -> World:
        world = _linked(world, at, world.links[at]._replace(aggregator_up=False, up=()))
        world, _ = self._aggregator_end(world, at, ("down",))
        return self._aggregator(world, ("disconnected", node))

    def _aggregator_dies(self, world: World, journal: aggregators.Journal) -> World:
        """It ends, and another one is started: who dials before it listens is as who does not dial yet."""
        begun = tuple(self.aggregator_ends.begin(()) for _ in world.ends)
        cut = tuple(link._replace(aggregator_up=False, joined=False, up=()) for link in world.links)
        faults = world.faults.less("aggregator")
        return world._replace(
            aggregator=self.aggregators.begin(journal), ends=begun, links=cut, faults=faults
        )

    # -- a client ----------------------------------------------------------------------------------------

    def _connects(self, world: World, at: int, node: int) -> World:
        end, out = self.client_ends.step(world.clients[at].end, ("dials",))
        (_, position), *_ = out.happened
        world = _with(world, at, world.clients[at]._replace(end=end))
        world = _linked(world, at, Link(True, True, True))
        world, _ = self._aggregator_end(world, at, ("up", position))
        if self._configuration.welcomes_at_once:
            world, _ = self._aggregator_end(world, at, ("welcome",))
            return self._aggregator(world, ("connected", node, False))
        return self._aggregator(world, ("connected", node, True))

    def _client_end(self, world: World, at: int, given: tuple[Any, ...]) -> World:
        after, out = self.client_ends.step(world.clients[at].end, given)
        client, link = world.clients[at]._replace(end=after), world.links[at]
        for what, *to in out.happened:
            if what == "confirmed":
                self._check_confirmed(world, to[0])
            client = _received(client, *to) if what == "message" else _confirmed(client, *to)
        world = _with(world, at, client)
        if link.joined and out.frames:
            world = _linked(world, at, link._replace(up=link.up + out.frames))
        return world

    def _client_reads(self, world: World, at: int) -> World:
        link = world.links[at]
        world = _linked(world, at, link._replace(down=link.down[1:]))
        return self._client_end(world, at, ("frame", link.down[0]))

    def _answers(self, world: World, at: int) -> World:
        """The app answers; what it says follows from the message and its state."""
        client = world.clients[at]
        (message_id, said), *inbox = client.inbox
        client = client._replace(inbox=tuple(inbox))
        if message_id in client.known:
            return _with(world, at, client)
        if said in client.finished:
            raise Violation(f"a client is asked again for {said}, which it has finished")
        answer = (message_id, f"{client.state}:{said}")
        client = client._replace(in_hand=answer, in_hand_is_confirmed=False)
        if _changes_state(said) and not self._configuration.client_keeps_late:
            return _with(world, at, _keep(client))
        return self._client_end(_with(world, at, client), at, ("send", *answer))

    def _ends_answer(self, world: World, at: int) -> World:
        client = world.clients[at]
        answer = client.in_hand
        assert answer is not None
        after = client._replace(in_hand=None, in_hand_is_confirmed=False)
        said = answer[1].partition(":")[2]
        if said in client.finished:
            return self._client_end(_with(world, at, after), at, ("send", *answer))
        kept = _keep(client)
        if client.in_hand_is_confirmed:
            kept = kept._replace(kept=client.kept)
        return _with(world, at, kept._replace(in_hand=None, in_hand_is_confirmed=False))

    def _client_dies(self, world: World, at: int) -> World:
        """It ends, and another process has what it kept."""
        before = world.clients[at]
        end = self.client_ends.begin(())
        for message_id, said in before.kept:
            end, _ = self.client_ends.step(end, ("send", message_id, said))
        known = frozenset(message_id for message_id, _ in before.kept)
        client = before._replace(end=end, inbox=(), in_hand=None, in_hand_is_confirmed=False, known=known)
        link = world.links[at]._replace(client_up=False, joined=False, down=())
        return _with(_linked(world, at, link), at, client)._replace(faults=world.faults.less("client"))


def _changes_state(said: str) -> bool:
    return said.startswith("Train")


def _keep(client: Client) -> Client:
    """A commit: the state, and the reply."""
    assert client.in_hand is not None
    said = client.in_hand[1].partition(":")[2]
    return client._replace(
        kept=(*client.kept, client.in_hand),
        state=client.state + _changes_state(said),
        finished=client.finished | {said},
    )


def _received(client: Client, message_id: str, said: str) -> Client:
    meant = dict(client.met).get(message_id, said)
    if meant != said:
        raise Violation(f"{message_id} means {said}, and meant {meant} before")
    return client._replace(inbox=(*client.inbox, (message_id, said)), met=client.met | {(message_id, said)})


def _confirmed(client: Client, transfer_id: str) -> Client:
    """The reply's bytes go; one that is not kept yet is not kept any more."""
    message_id = outbox.answered_by(transfer_id)
    of_hand = client.in_hand is not None and client.in_hand[0] == message_id
    kept = tuple(one for one in client.kept if one[0] != message_id)
    return client._replace(kept=kept, in_hand_is_confirmed=client.in_hand_is_confirmed or of_hand)


def _put(of_all: tuple[Any, ...], at: int, one: Any) -> tuple[Any, ...]:
    return (*of_all[:at], one, *of_all[at + 1 :])


def _with(world: World, at: int, client: Client) -> World:
    return world._replace(clients=_put(world.clients, at, client))


def _linked(world: World, at: int, link: Link) -> World:
    return world._replace(links=_put(world.links, at, link))
