"""An exhaustive search: every state that can be reached is met once, and from each the end can be reached."""

from __future__ import annotations

import array
import collections
import dataclasses
import gc

from tests.unit.model import world as world_module
from tests.unit.model.aggregators import Violation


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search met. parts: states and steps of the real code."""

    states: int
    transitions: int
    ends: int
    parts: str


class Broken(Exception):
    """An invariant does not hold; the message has the steps that lead there."""


def search(configuration: world_module.Configuration) -> Found:
    """Meet every state. Raises: Broken."""
    collects = gc.isenabled()
    gc.disable()  # nothing is thrown away, and looking for it among millions of tuples takes most of the time
    try:
        return _search(configuration)
    finally:
        if collects:
            gc.enable()


def _search(configuration: world_module.Configuration) -> Found:
    model = world_module.Model(configuration)
    model.expect(_undisturbed(configuration))
    begin = model.begin()
    numbers: dict[world_module.World, int] = {begin: 0}
    came_from, word = array.array("q", [-1]), [""]
    edges_from, edges_to = array.array("q"), array.array("q")
    ends: list[int] = []
    waiting = collections.deque([begin])
    while waiting:
        world = waiting.pop()
        number = numbers[world]
        if model.finished(world):
            ends.append(number)
        last = ""
        try:
            for what, after in model.steps(world):
                last = what
                known = numbers.setdefault(after, len(numbers))
                if known == len(came_from):
                    came_from.append(number)
                    word.append(what)
                    waiting.append(after)
                edges_from.append(number)
                edges_to.append(known)
        except Exception as error:
            story = _story(number, came_from, word)
            kind = "" if isinstance(error, Violation) else f"{type(error).__name__}: "
            raise Broken(f"{kind}{error}\nafter the step that follows {last!r} here:\n{story}") from error
    stuck = _cannot_end(len(numbers), edges_from, edges_to, ends)
    if stuck is not None:
        raise Broken(f"the end cannot be reached any more:\n{_story(stuck, came_from, word)}")
    parts = ", ".join(
        f"{name} {len(table)} states and {table.steps} steps"
        for name, table in (
            ("aggregator", model.aggregators),
            ("its links", model.aggregator_ends),
            ("clients' links", model.client_ends),
        )
    )
    return Found(len(numbers), len(edges_to), len(ends), parts)


def _undisturbed(configuration: world_module.Configuration) -> tuple[object, ...]:
    """What the app is given when nothing goes wrong."""
    none = world_module.Faults(0, 0, 0, 0)
    model = world_module.Model(dataclasses.replace(configuration, faults=none))
    world = model.begin()
    while not model.finished(world):
        try:
            _, world = next(model.steps(world))
        except Violation as error:
            raise Broken(f"{error}\nwithout any fault") from error
    return model.given(world)


def _story(number: int, came_from: array.array[int], word: list[str]) -> str:
    steps: list[str] = []
    while number > 0:
        steps.append(word[number])
        number = came_from[number]
    return "\n".join(f"  {step}" for step in reversed(steps))


def _cannot_end(
    count: int, edges_from: array.array[int], edges_to: array.array[int], ends: list[int]
) -> int | None:
    """A state from which no end can be reached, if there is one."""
    before: list[list[int]] = [[] for _ in range(count)]
    for source, target in zip(edges_from, edges_to, strict=True):
        before[target].append(source)
    reaches = bytearray(count)
    waiting = list(ends)
    for end in ends:
        reaches[end] = 1
    while waiting:
        for source in before[waiting.pop()]:
            if not reaches[source]:
                reaches[source] = 1
                waiting.append(source)
    stuck = reaches.find(0)
    return None if stuck < 0 else stuck
