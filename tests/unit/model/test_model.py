"""The round machine, the journal and the links, checked as a model: all interleavings, a fault anywhere.

That the search finds mistakes is shown by putting some into the code that it runs.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from coordinator.aggregation import events, instructions, rounds
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import history as history_module
from coordinator.journal import replay
from tests.unit.model import aggregators, search, world
from tests.unit.model.world import Faults

TRAIN = events.Kind.TRAIN
TWO_FAULTS = Faults(aggregator=1, client=1, cuts=1, together=2)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What the code logs in hundreds of thousands of states is of no use to anybody."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


PAGE = Path(__file__).resolve().parents[3] / "docs" / "durability.md"


def check(name: str, configuration: world.Configuration) -> None:
    """Search, print what was met, and compare it with what docs/durability.md says of this configuration."""
    found = search.search(configuration)
    print(
        f"{name}: {found.states} states, {found.transitions} transitions, {found.ends} ends ({found.parts})"
    )
    assert found.ends
    counts = " | ".join(f"{number:,}".replace(",", " ") for number in (found.states, found.transitions))
    assert f"| {name} | {counts} |" in PAGE.read_text(), f"{PAGE.name} does not say: {counts}"


def test_one_fault_anywhere_in_two_rounds_of_training() -> None:
    """An aggregator's death, a client's, or a cut: the app sees the same, and comes to its end."""
    check(
        "two rounds of training; one death or cut",
        world.Configuration(rounds=2, kinds=(TRAIN,), faults=world.ONE_FAULT),
    )


def test_one_fault_anywhere_in_a_round_with_evaluation() -> None:
    """The same where a batch leaves the clients' state as it is: replies are sent before they are kept."""
    check("a round with evaluation; one death or cut", world.Configuration(rounds=1, faults=world.ONE_FAULT))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "configuration"),
    [
        pytest.param(
            "two rounds with evaluation; one death of the aggregator",
            world.Configuration(rounds=2, faults=Faults(1, 0, 0, 1)),
            id="more rounds",
        ),
        pytest.param(
            "a round of training; two faults of different kinds",
            world.Configuration(rounds=1, kinds=(TRAIN,), faults=TWO_FAULTS),
            id="more faults",
        ),
    ],
)
def test_more_rounds_and_more_faults(name: str, configuration: world.Configuration) -> None:
    """The same, larger."""
    check(name, configuration)


# -- mistakes that must be found -------------------------------------------------------------------------


class ConfirmsAtOnce(driver_module.Driver):
    """Tells a client that its reply is safe before the journal has it."""

    def _execute(self, instruction: instructions.Instruction) -> None:
        if isinstance(instruction, instructions.ConfirmReply):
            self._confirm(instruction.message_id, instruction.node)
        else:
            super()._execute(instruction)


class WritesNothing(driver_module.Driver):
    """Confirms replies that the journal never gets."""

    def _write(self, reply: driver_module.ReceivedReply) -> None:
        pass


class SendsFirst(history_module.History):
    """Sends a batch before it is in the journal."""

    def push(self, batch: replay.Batch, push: history_module.Push) -> None:
        if batch.new:
            push({message.message_id for message in batch.pushed.messages}, {})
            self._book.append(batch.pushed)
            self._book.commit()
        else:
            super().push(batch, push)


class LetsIn(history_module.History):
    """Lets clients speak before what they answer is known again."""

    def attach(self, driver: driver_module.Driver) -> None:
        super().attach(driver)
        driver.admit()


class AsksAgain(history_module.History):
    """Goes on with a batch that was open without the replies that had come."""

    def _arrived(self, pushed: object) -> dict[str, object]:  # type: ignore[override]
        return {}


class Forgets(rounds.RoundMachine):
    """Goes on after a restart without the nodes that the app knows."""

    def _resumed(self, members: tuple[events.Member, ...], number: int) -> None:
        super()._resumed((), number)


class TellsBeforeItWrites(aggregators.MemoryBook):
    """Calls those who wait for the disk at once."""

    def when_durable(self, call: Callable[[], object]) -> None:
        call()


REAL = aggregators.REAL

UNSAFE, STUCK = "is confirmed, and is not in the journal", "the end cannot be reached"

MISTAKES = {
    "confirms at once": (dataclasses.replace(REAL, driver=ConfirmsAtOnce), UNSAFE),
    "never writes replies": (dataclasses.replace(REAL, driver=WritesNothing), UNSAFE),
    "journal tells first": (
        dataclasses.replace(REAL, book=TellsBeforeItWrites),
        UNSAFE,
    ),
    "sends before it writes": (dataclasses.replace(REAL, history=SendsFirst), "is sent, and no batch"),
    "lets clients in too early": (dataclasses.replace(REAL, history=LetsIn), "'resumed' has no place"),
    "forgets replies at a restart": (
        dataclasses.replace(REAL, history=AsksAgain),
        STUCK,
    ),
    "forgets nodes at a restart": (dataclasses.replace(REAL, machine=Forgets), "gave no reply"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found(name: str) -> None:
    """Each mistake violates an invariant in some order of events."""
    classes, want = MISTAKES[name]
    configuration = world.Configuration(rounds=1, kinds=(TRAIN,), faults=Faults(1, 0, 0, 1), classes=classes)
    with pytest.raises(search.Broken, match=want):
        search.search(configuration)


def test_a_client_that_sends_before_it_keeps_is_found() -> None:
    """Its reply may count, and its successor answer the next message from an older state."""
    configuration = world.Configuration(
        rounds=2, kinds=(TRAIN,), faults=Faults(0, 1, 0, 1), client_keeps_late=True
    )
    with pytest.raises(search.Broken, match="the app is given"):
        search.search(configuration)


def test_a_welcome_that_does_not_wait_is_found() -> None:
    """A link that is new must not say that replies are safe which only memory has."""
    configuration = world.Configuration(
        rounds=1, kinds=(TRAIN,), faults=Faults(0, 0, 1, 1), welcomes_at_once=True
    )
    with pytest.raises(search.Broken, match=UNSAFE):
        search.search(configuration)
