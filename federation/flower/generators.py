"""What random generators say of themselves, and whether one may be set to what was written.

Why it exists: numpy takes states that it never has, a place behind the end of its table, say, and ends the
process at the next draw. Where states are kept, and by what generators are found again, is not known here.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

KINDS: Final = (random.Random, np.random.Generator, np.random.RandomState)

_PLACES: Final[Mapping[type, tuple[str, int]]] = {
    np.random.MT19937: ("pos", 624),
    np.random.Philox: ("buffer_pos", 4),
    np.random.PCG64: ("", 0),
    np.random.PCG64DXSM: ("", 0),
    np.random.SFC64: ("", 0),
}
"""Of numpy's sources of bits, which number says where in its table one is, and the highest there is."""

_PYTHON_VERSION: Final = 3  # of what random.Random.getstate returns
_PYTHON_LENGTH: Final = 625


def name_of(generator: Any) -> str:
    """Return which kind of generator it is, with its source of bits."""
    named = f"{type(generator).__module__}.{type(generator).__qualname__}"
    if isinstance(generator, random.Random):
        return named
    bits = type(_bits(generator))
    return f"{named}({bits.__module__}.{bits.__qualname__})"


def why_unknown(generator: Any) -> str:
    """Say why nobody could check a state of this generator; empty: it can be."""
    known = isinstance(generator, random.Random) or type(_bits(generator)) in _PLACES
    return "" if known else f"{name_of(generator)} is of no kind whose state can be checked"


def state_of(generator: Any) -> Any:
    """Return what a generator's next draws follow from: plain values and numpy's arrays."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    return generator.bit_generator.state


def set_state(generator: Any, state: Any) -> None:
    """Set a generator to a state that `check` has let pass."""
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def check(generator: Any, state: Any) -> None:
    """Look whether a generator may be set to this state; it stays as it is.

    Raises: ValueError, OverflowError.
    """
    if why := why_unknown(generator):
        raise ValueError(why)
    if isinstance(generator, random.Random):
        if not isinstance(state, tuple) or len(state) != 3:
            raise ValueError("a state of a generator has three parts")
        version, inner, gauss = state
        if version != _PYTHON_VERSION or not isinstance(inner, tuple) or len(inner) != _PYTHON_LENGTH:
            raise ValueError("a state of a generator is of another version")
        if not all(type(word) is int and 0 <= word < 2**32 for word in inner) or not (
            gauss is None or type(gauss) is float
        ):
            raise ValueError("a state of a generator holds other values than one has")
    else:
        _check_alike(state, state_of(generator))
        place, highest = _PLACES[type(_bits(generator))]
        if place:
            at = state[place] if place in state else state["state"][place]
            if not 0 <= at <= highest:
                raise ValueError(f"a generator's {place} is {at}, and at most {highest} in any state")
    # What is left, numbers that are too large for their place, the generator says by itself.
    set_state(copy.deepcopy(generator), state)


def _bits(generator: Any) -> Any:
    named = "_bit_generator" if isinstance(generator, np.random.RandomState) else "bit_generator"
    return getattr(generator, named)


def _check_alike(state: Any, has: Any) -> None:
    """Look whether a state is built as the one that a generator has."""
    if type(state) is not type(has):
        raise ValueError(f"a state of a generator has a {type(state).__name__} for a {type(has).__name__}")
    if isinstance(has, dict):
        if state.keys() != has.keys():
            raise ValueError("a state of a generator has other parts than one has")
        for name, value in has.items():
            _check_alike(state[name], value)
    elif isinstance(has, np.ndarray):
        if (state.dtype, state.shape) != (has.dtype, has.shape):
            raise ValueError(f"a state of a generator has an array of {state.dtype} {state.shape}")
    elif isinstance(has, str) and state != has:
        raise ValueError(f"a state is of a {state}, and the generator is a {has}")
    elif isinstance(has, int) and state < 0:
        raise ValueError("a state of a generator has a negative number")
