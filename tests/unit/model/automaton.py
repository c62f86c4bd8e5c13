"""A part of the model as a table that fills itself: state and input in, state and output out.

Why it exists: the product's own classes hold generators, locks and callables, which nobody can copy. So
a state is known by the inputs that led to it, and made again from them when it must go on in another
way. States that look alike are one, and what a state does with an input is worked out once. What the
parts are is not known here.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol


class Part(Protocol):
    """Something that runs: it does the same for the same inputs, and says how it looks."""

    def take(self, given: Any) -> Hashable:
        """Take one input and return what comes of it."""
        ...

    def looks(self) -> Hashable:
        """Return all that its later answers depend on; also what others may read of it."""
        ...


@dataclasses.dataclass(slots=True)
class _State:
    origin: Hashable
    inputs: tuple[Any, ...]
    looks: Hashable


class Automaton:
    """One kind of part: its states by number, and its steps."""

    def __init__(self, make: Callable[[Any], Part]) -> None:
        """make: begins a part anew from its origin."""
        self._make = make
        self._numbers: dict[Hashable, int] = {}
        self._states: list[_State] = []
        self._origins: dict[Hashable, int] = {}
        self._steps: dict[tuple[int, Hashable], tuple[int, Any]] = {}
        self._alive: dict[int, Part] = {}  # the one that took the last step, to be asked again soon

    def __len__(self) -> int:
        """How many states were met."""
        return len(self._states)

    @property
    def steps(self) -> int:
        """How many steps were worked out."""
        return len(self._steps)

    def begin(self, origin: Hashable) -> int:
        """The state in which a part begins."""
        if origin not in self._origins:
            part = self._make(origin)
            self._origins[origin] = self._number(part, origin, ())
        return self._origins[origin]

    def step(self, state: int, given: Hashable) -> tuple[int, Any]:
        """The state after an input, and what came of it."""
        known = self._steps.get((state, given))
        if known is not None:
            return known
        before = self._states[state]
        part = self._alive.pop(state, None) or self._again(before)
        self._alive.clear()
        output = part.take(given)
        after = self._number(part, before.origin, (*before.inputs, given))
        self._alive[after] = part
        self._steps[state, given] = after, output
        return after, output

    def looks(self, state: int) -> Any:
        """How a state looks."""
        return self._states[state].looks

    def _again(self, state: _State) -> Part:
        part = self._make(state.origin)
        for given in state.inputs:
            part.take(given)
        return part

    def _number(self, part: Part, origin: Hashable, inputs: tuple[Any, ...]) -> int:
        looks = part.looks()
        number = self._numbers.setdefault(looks, len(self._states))
        if number == len(self._states):
            self._states.append(_State(origin, inputs, looks))
        return number


_PLAIN = (enum.Enum, str, bytes, int, float, bool, type(None))


def picture(thing: Any, *, without: frozenset[str], instead: Mapping[type, Callable[[Any], Any]]) -> Hashable:
    """Return what an object consists of as a value that can be compared, however deep and whatever the class.

    without: names of attributes that no later answer depends on. instead: how to see objects of a class.
    A new attribute is part of the picture until somebody says that it does not count.
    """
    seen: dict[int, int] = {}

    def see(thing: Any) -> Hashable:
        if isinstance(thing, _PLAIN):
            return thing
        if (other := instead.get(type(thing))) is not None:
            return type(thing).__name__, see(other(thing))
        if isinstance(thing, collections.OrderedDict):
            return tuple((see(key), see(value)) for key, value in thing.items())
        if isinstance(thing, Mapping):
            return tuple(sorted(((see(key), see(value)) for key, value in thing.items()), key=repr))
        if isinstance(thing, set | frozenset):
            return frozenset(map(see, thing))
        if isinstance(thing, functools.partial):
            return "partial", see(thing.func), see(thing.args)
        if isinstance(thing, types.MethodType):
            return thing.__qualname__
        if isinstance(thing, types.FunctionType):
            return thing.__qualname__, tuple(see(cell.cell_contents) for cell in thing.__closure__ or ())
        if id(thing) in seen:
            return "again", seen[id(thing)]
        if isinstance(thing, list | tuple | collections.deque):
            return tuple(map(see, thing))
        seen[id(thing)] = len(seen)
        return type(thing).__name__, *(
            (name, see(value)) for name, value in _attributes(thing) if name not in without
        )

    return see(thing)


def _attributes(thing: Any) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(thing):
        return [(field.name, getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    return sorted(vars(thing).items())
