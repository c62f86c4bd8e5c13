"""What is written of objects makes fresh ones the same, and what cannot be written is refused."""

from __future__ import annotations

import collections
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from federation.flower import object_state, surroundings

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())
NDARRAYS = st_numpy.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_, np.float16]),
    st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0),
)
VALUES = st.recursive(
    PLAIN | NDARRAYS | st.frozensets(st.integers()),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(KEYS, inner)
        | st.tuples(inner, inner)
        | st.sets(st.text()).map(lambda found: found)
    ),
    max_leaves=15,
)


class Thing:
    """An object as an app has them."""

    def __init__(self, **values: Any) -> None:
        vars(self).update(values)


def origins(**roots: object) -> object_state.Origins:
    """As a start begins with these."""
    return object_state.Origins(roots, surroundings.digest_of, lambda name: name == __name__)


def again(written: object_state.Written, fresh: object_state.Origins) -> dict[str, Any]:
    """Read what was written into fresh objects."""
    blobs = [bytes(blob.data) for blob in written.blobs]  # type: ignore[arg-type]

    def make(number: int, dtype: str, shape: tuple[int, ...], stype: str) -> Array:
        return Array(dtype, shape, stype, blobs[number])

    return object_state.read(written.state, fresh, lambda number: blobs[number], make)


def same(got: Any, want: Any) -> bool:
    """Equal in type and value, to the bit."""
    if isinstance(want, np.ndarray):
        described = (got.dtype, got.shape, got.flags.f_contiguous) == (
            want.dtype, want.shape, want.flags.f_contiguous,
        )  # fmt: skip
        return type(got) is np.ndarray and described and got.tobytes() == want.tobytes()
    if type(got) is not type(want):
        return False
    if isinstance(want, dict):
        keys = same(list(got), list(want))
        return keys and all(same(got[key], value) for key, value in want.items())
    if isinstance(want, list | tuple):
        return len(got) == len(want) and all(map(same, got, want))
    return bool(got == want)


@given(VALUES)
def test_law_what_is_read_is_what_was_written(value: object) -> None:
    """Whatever plain values, containers and arrays an object holds."""
    was, fresh = Thing(value=None), Thing(value=None)
    given = origins(thing=was)
    was.value = value  # type: ignore[attr-defined]
    again(object_state.write({"thing": was}, given), origins(thing=fresh))
    assert same(fresh.value, value)  # type: ignore[attr-defined]


def test_an_object_that_was_there_is_filled_where_it_stands() -> None:
    """The app's own variables name it as well; what is one object in two places stays one."""

    def made() -> tuple[Thing, list[int], dict[str, Any]]:
        heard: list[int] = []
        table: dict[str, Any] = {"inner": Thing(heard=heard, sums=np.zeros(3))}
        return Thing(heard=heard, table=table, config=ConfigRecord({"lr": 1.0})), heard, table

    was, heard, table = made()
    given = origins(thing=was)
    heard.append(7)
    table["inner"].sums += 2
    table["again"] = new = [1]
    was.new, was.config["lr"] = new, 0.5  # type: ignore[attr-defined]
    written = object_state.write({"thing": was}, given)
    fresh, heard, table = made()
    inner, sums, config = table["inner"], table["inner"].sums, fresh.config  # type: ignore[attr-defined]
    assert again(written, origins(thing=fresh)) == {"thing": fresh}
    assert (heard, inner.heard is heard, table["inner"] is inner) == ([7], True, True)
    assert inner.sums is sums
    assert sums.tolist() == [2, 2, 2]
    assert fresh.config is config  # type: ignore[attr-defined]
    assert config == {"lr": 0.5}
    assert fresh.new is table["again"]  # type: ignore[attr-defined]


def test_records_arrays_and_generators() -> None:
    """Flower's records with their arrays, and generators in the middle of their sequences."""

    def made() -> Thing:
        return Thing(
            random=random.Random(1),
            numpy=np.random.default_rng(2),
            older=np.random.RandomState(3),
            records=None,
        )

    was: Any = made()
    given = origins(thing=was)
    was.random.random(), was.numpy.normal(size=3), was.older.normal()
    arrays = ArrayRecord({"w": Array(np.arange(6.0).reshape(2, 3))})
    was.records = (arrays, MetricRecord({"loss": float("nan"), "n": 3, "all": [0.5, -0.0]}), np.float32(0.1))
    written = object_state.write({"thing": was, "infinite": float("inf")}, given)
    fresh: Any = made()
    roots = again(written, origins(thing=fresh))
    assert roots["infinite"] == float("inf")
    assert fresh.records[0] == arrays
    assert str(fresh.records[1]) == str(was.records[1])
    assert (type(fresh.records[2]), fresh.records[2]) == (np.float32, np.float32(0.1))
    assert fresh.random.random() == was.random.random()
    assert fresh.numpy.normal() == was.numpy.normal()
    assert fresh.older.normal() == was.older.normal()


def test_what_a_function_closes_over_is_set() -> None:
    """As an evaluation that keeps the best model's round."""

    def made() -> tuple[Callable[[int], None], Callable[[], object]]:
        best, seen = {"round": 0}, 0

        def evaluate(number: int) -> None:
            nonlocal seen
            seen += 1
            best["round"] = number

        return evaluate, lambda: (best, seen)

    evaluate, _ = made()
    given = origins(evaluate=evaluate)
    evaluate(4)
    evaluate(5)
    written = object_state.write({"evaluate": evaluate}, given)
    fresh, told = made()
    again(written, origins(evaluate=fresh))
    assert told() == ({"round": 5}, 2)


def late_object(thing: Any) -> None:
    thing.late = Thing()


def late_function(thing: Any) -> None:
    thing.late = lambda: 1


def lock_beside(thing: Any) -> None:
    thing.counter["a"] += 1


def part_of_an_array(thing: Any) -> None:
    thing.array = np.zeros((4, 4))[:, 1]


def shared_memory(thing: Any) -> None:
    thing.array = np.zeros(4)
    thing.view = thing.array[:2]


def objects_in_an_array(thing: Any) -> None:
    thing.array = np.array([{}, None])


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (late_object, "thing.late is a Thing that was not there"),
        (late_function, "thing.late is a function that was not there"),
        (lock_beside, "thing.counter, a Counter, has changed"),
        (part_of_an_array, "is a part of another array"),
        (shared_memory, "shares its memory"),
        (objects_in_an_array, "an array of object"),
    ],
)
def test_what_cannot_be_made_again_is_refused(does: Callable[[Any], None], says: str) -> None:
    """By its place; where it is as it was at the start, it is the app's to make."""
    thing = Thing(counter=collections.Counter(a=1))
    given = origins(thing=thing)
    object_state.write({"thing": thing}, given)
    does(thing)
    with pytest.raises(object_state.Unsafe, match=says):
        object_state.write({"thing": thing}, given)


def test_what_cannot_be_compared_is_refused_at_the_start() -> None:
    """A lock says nothing of itself."""
    with pytest.raises(object_state.Unsafe, match="a lock cannot be compared"):
        origins(thing=Thing(lock=threading.Lock()))


def test_an_app_that_is_built_otherwise_is_found_before_anything_is_changed() -> None:
    """Another class in a place, or nothing."""
    was = Thing(first=[1], second=Thing(value=1))
    written = object_state.write({"thing": was}, origins(thing=was))
    other = Thing(first=[], second=[1])
    with pytest.raises(object_state.Mismatch, match=r"thing.second is a builtins.list"):
        again(written, origins(thing=other))
    assert vars(other) == {"first": [], "second": [1]}
    with pytest.raises(object_state.Mismatch, match=r"there is no thing.second"):
        again(written, origins(thing=Thing(first=[])))
