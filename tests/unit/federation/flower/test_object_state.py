"""What is written of objects makes fresh ones the same, and what cannot be written is refused."""

from __future__ import annotations

import collections
import dataclasses
import json
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
    return object_state.Origins(roots, surroundings.said_by, lambda name: name == __name__)


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


GENERATORS: dict[str, Callable[[], Any]] = {
    "python": lambda: random.Random(1),
    "older": lambda: np.random.RandomState(1),
    **{
        bits.__name__: lambda bits=bits: np.random.Generator(bits(1))  # type: ignore[misc]
        for bits in (
            np.random.MT19937,
            np.random.PCG64,
            np.random.PCG64DXSM,
            np.random.Philox,
            np.random.SFC64,
        )
    },
}


def changed(written: object_state.Written, change: Callable[[Any], None]) -> object_state.Written:
    """The same with another state."""
    told = json.loads(written.state)
    change(told)
    return dataclasses.replace(written, state=json.dumps(told).encode())


def parts_of(told: Any) -> dict[str, Any]:
    """What a written mapping holds, by key."""
    return {key: value for key, value in told["of"] if isinstance(key, str)}


def drawn(generator: Any) -> list[float]:
    """Its next numbers."""
    return [generator.random() for _ in range(3)]


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_goes_on_where_it_was(kind: str) -> None:
    """Of each kind that there is; one of another kind is found before anything is changed."""
    was, fresh = GENERATORS[kind](), GENERATORS[kind]()
    given = origins(generator=was)
    drawn(was)
    written = object_state.write({"generator": was}, given)
    again(written, origins(generator=fresh))
    assert drawn(fresh) == drawn(was)
    for other in GENERATORS.keys() - {kind}:
        generator = GENERATORS[other]()
        with pytest.raises(object_state.Mismatch):
            again(written, origins(generator=generator))
        assert drawn(generator) == drawn(GENERATORS[other]())


@pytest.mark.parametrize(
    ("kind", "place", "number"),
    [
        ("MT19937", "pos", 10**9), ("MT19937", "pos", 625), ("MT19937", "pos", -1), ("older", "pos", 10**9),
        ("Philox", "buffer_pos", 5), ("Philox", "buffer_pos", -1), ("Philox", "buffer_pos", "4"),
        ("PCG64", "has_uint32", 2**70), ("PCG64", "has_uint32", None),
    ],
)  # fmt: skip
def test_a_generator_is_not_set_to_what_ends_the_process(kind: str, place: str, number: object) -> None:
    """A place outside its table: the next draw would read there. What comes before it stays as it was."""
    was = Thing(before=[1], generator=GENERATORS[kind]())
    written = object_state.write({"thing": was}, origins(thing=was))

    def change(told: Any) -> None:
        state = parts_of(told["thing"])["generator"]["of"]
        holds = state if place in parts_of(state) else parts_of(state)["state"]
        holds["of"] = [[key, number if key == place else value] for key, value in holds["of"]]

    fresh: Any = Thing(before=[], generator=GENERATORS[kind]())
    with pytest.raises(object_state.Mismatch):
        again(changed(written, change), origins(thing=fresh))
    assert fresh.before == []
    assert drawn(fresh.generator) == drawn(GENERATORS[kind]())


def test_a_place_of_a_python_generator_is_looked_at() -> None:
    """Behind the end of its table, or of other parts."""
    was = random.Random(1)
    written = object_state.write({"generator": was}, origins(generator=was))

    def behind(told: Any) -> None:
        told["generator"]["of"]["of"][1]["of"][-1] = 10**9

    def fewer(told: Any) -> None:
        del told["generator"]["of"]["of"][1]["of"][0]

    def words(told: Any) -> None:
        told["generator"]["of"]["of"][2] = "no number"

    for change in (behind, fewer, words):
        with pytest.raises(object_state.Mismatch):
            again(changed(written, change), origins(generator=random.Random(1)))


def no_such_run(last: Any) -> None:
    last["blob"] = 17


def other_dtype(last: Any) -> None:
    last["dtype"] = "<f8"


def no_dtype(last: Any) -> None:
    last["dtype"] = "nothing"


def other_shape(last: Any) -> None:
    last["shape"] = [4]


def no_kind(last: Any) -> None:
    last["is"] = "nothing"


def nowhere(last: Any) -> None:
    last.update({"is": "same"})


def again_of_nothing(last: Any) -> None:
    last.update({"is": "again", "number": 10**6})


def no_key(last: Any) -> None:
    last.update({"is": "dict", "of": [[{"is": "list", "of": []}, 1]]})


def no_metric(last: Any) -> None:
    last.update({"is": "MetricRecord", "of": [["loss", "no number"]]})


def no_json(last: Any) -> None:
    last["hex"] = {"is": 3}
    last.update({"is": "scalar", "dtype": "<f4"})


@pytest.mark.parametrize(
    "change",
    [
        no_such_run, other_dtype, no_dtype, other_shape, no_kind, nowhere, again_of_nothing, no_key,
        no_metric, no_json,
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_found_before_anything_is_changed(change: Callable[[Any], None]) -> None:
    """Also where it stands last: all before it is as the app made it."""

    def made() -> Any:
        thing = Thing(heard=[0], table={"a": 0}, seen={0}, sums=np.zeros(3), generator=random.Random(1))
        vars(thing)["last"] = None
        return thing

    was = made()
    given = origins(thing=was)
    was.heard.append(1), was.table.update(b=1), was.seen.add(1), was.generator.random()
    was.sums += 1
    was.last = np.ones(3, np.float32)
    written = object_state.write({"thing": was}, given)
    fresh = made()
    heard, table, seen, sums = fresh.heard, fresh.table, fresh.seen, fresh.sums
    with pytest.raises(object_state.Mismatch):
        again(
            changed(written, lambda told: change(parts_of(told["thing"])["last"])),
            origins(thing=fresh),
        )
    assert (heard, table, seen, sums.tolist()) == ([0], {"a": 0}, {0}, [0, 0, 0])
    assert list(vars(fresh)) == list(vars(made()))
    assert fresh.last is None
    assert fresh.generator.random() == random.Random(1).random()


@pytest.mark.parametrize("state", [b"", b"[]", b'{"a": {}}', b'{"a": ' + b"[" * 100_000])
def test_what_is_no_state_is_refused(state: bytes) -> None:
    """As what cannot be read."""
    with pytest.raises(object_state.Mismatch):
        again(object_state.Written(state, (), lambda _: False), origins())


def test_a_generator_of_an_unknown_kind_is_not_written() -> None:
    """Nobody could check its state."""

    class Own(np.random.MT19937):
        """Somebody's own source of bits."""

    thing = Thing(generator=np.random.Generator(Own(1)))
    with pytest.raises(object_state.Unsafe, match="is of no kind whose state can be checked"):
        object_state.write({"thing": thing}, origins(thing=thing))
