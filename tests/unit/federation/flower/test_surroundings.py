"""What an app remembers outside of its strategy is noticed, wherever it is."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp import strategy as strategies

from federation.flower import object_state, surroundings

MODULE = "an_app_of_a_test"

SOURCE = """
import functools
import logging
import threading

import numpy as np
from flwr.app import ArrayRecord, Context, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAdam, FedAvg

app = ServerApp()
inner = FedAdam()
context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
velocity = ArrayRecord([np.zeros(3)])
log = logging.getLogger(__name__)
table = np.zeros(100)
best = 0.0
history = []
local = None


class Helper:
    shared = {"a": 1}
    __slots__ = ("value",)

    def __init__(self):
        self.value = 0


helper = Helper()


def evaluate(number, arrays):
    return helper


def counting(number, arrays):
    counting.calls = getattr(counting, "calls", 0) + 1


def wrapped(function):
    seen = set()

    @functools.wraps(function)
    def inner(*args):
        seen.add(args)
        return function(*args)

    return inner


@wrapped
def decorated(number):
    return number


def defaults(number, known=[]):
    known.append(number)


def writes(directory):
    (directory / "best.txt").write_text("round 1")


def set_global():
    global best
    best = 1.0


def lazy():
    global another
    another = 1


def step(value):
    return value


def steps():
    global step
    step = lambda value: value


@functools.lru_cache
def loaded(name):
    return [name]


def delegating():
    hidden = FedAdam()

    class Delegating(FedAvg):
        def aggregate_train(self, server_round, replies):
            return hidden.aggregate_train(server_round, replies)

    return Delegating(), hidden
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An app's module, in a directory of its own."""
    (tmp_path / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module(MODULE)
    del sys.modules[MODULE]


def nothing(app: ModuleType, directory: Path) -> None:
    app.evaluate(1, None)


def a_global(app: ModuleType, directory: Path) -> None:
    app.set_global()


def a_new_global(app: ModuleType, directory: Path) -> None:
    app.lazy()


def a_list(app: ModuleType, directory: Path) -> None:
    app.history.append(1)


def an_array(app: ModuleType, directory: Path) -> None:
    app.table[3] = 1


def an_object(app: ModuleType, directory: Path) -> None:
    app.helper.value = 1


def a_class(app: ModuleType, directory: Path) -> None:
    app.Helper.shared["a"] = 2


def a_functions_attribute(app: ModuleType, directory: Path) -> None:
    app.counting(1, None)


def what_a_decorator_keeps(app: ModuleType, directory: Path) -> None:
    app.decorated(1)


def a_default(app: ModuleType, directory: Path) -> None:
    app.defaults(1)


def a_file(app: ModuleType, directory: Path) -> None:
    app.writes(directory)


def a_strategy(app: ModuleType, directory: Path) -> None:
    app.inner.m_t = {"0": np.ones(3)}


def flowers_context(app: ModuleType, directory: Path) -> None:
    app.context.state["best"] = ArrayRecord([np.ones(3)])


def an_array_in_anothers_place(app: ModuleType, directory: Path) -> None:
    """As in each round: the new array stands where one stood that is gone."""
    for value in (1.0, 2.0, 3.0):
        app.velocity["0"] = Array(np.full(3, value))


def a_cache(app: ModuleType, directory: Path) -> None:
    app.loaded("data")


@pytest.mark.parametrize(
    ("does", "says"),
    [
        (a_strategy, "inner has changed"),
        (flowers_context, "context has changed"),
        (an_array_in_anothers_place, "velocity has changed"),
        (nothing, ""),
        (a_global, "best has changed"),
        (a_new_global, "another has changed"),
        (a_list, "history has changed"),
        (an_array, "table has changed"),
        (an_object, "helper has changed"),
        (a_class, "Helper.shared has changed"),
        (a_functions_attribute, "attributes of an_app_of_a_test.counting has changed"),
        (what_a_decorator_keeps, "seen of an_app_of_a_test.decorated has changed"),
        (a_default, "defaults of an_app_of_a_test.defaults has changed"),
        (a_file, "best.txt in its working directory was written"),
    ],
)
def test_what_is_remembered_is_named(
    app: ModuleType, tmp_path: Path, does: Callable[[ModuleType, Path], None], says: str
) -> None:
    """All that a round's code can reach in the app's own modules, and the app's directory."""
    around = looked_at(app, tmp_path)
    assert around.changed(lambda _: False) == ""
    does(app, tmp_path)
    if says:
        assert says in around.changed(lambda _: False)
    else:
        assert around.changed(lambda _: False) == ""


def looked_at(app: ModuleType, directory: Path) -> surroundings.Surroundings:
    """What can be reached from the app's evaluation."""
    return surroundings.Surroundings([app.evaluate], lambda _: False, directory, lambda name: name == MODULE)


def test_what_was_there_is_held(app: ModuleType, tmp_path: Path) -> None:
    """The one after the next is made where the first one stood, if that is free: it is not the same."""
    for _ in range(20):
        around = looked_at(app, tmp_path)
        app.steps()
        app.steps()
        assert around.changed(lambda _: False).endswith("has changed")


def test_what_a_strategy_delegates_to_is_looked_at(app: ModuleType, tmp_path: Path) -> None:
    """A stock strategy that one of the app's own has in a closure: no snapshot has what it remembers."""
    strategy, hidden = app.delegating()
    assert isinstance(strategy, strategies.Strategy)
    around, known = looked_at_from(strategy, tmp_path)
    assert around.changed(known) == ""
    hidden.m_t = {"0": np.ones(3)}
    assert "hidden of an_app_of_a_test.delegating" in around.changed(known)


def test_code_within_what_cannot_be_looked_into_is_looked_at(app: ModuleType, tmp_path: Path) -> None:
    """An evaluation with arguments of its own may write a global variable as any other."""
    around, known = looked_at_from(functools.partial(app.evaluate, 1), tmp_path)
    assert around.changed(known) == ""
    app.set_global()
    assert "best has changed" in around.changed(known)
    aggregation = strategies.FedAvg(train_metrics_aggr_fn=functools.partial(app.evaluate, 1))
    around, known = looked_at_from(aggregation, tmp_path)
    app.history.append(1)
    assert "history has changed" in around.changed(known)


def test_what_is_cached_is_not_safe(app: ModuleType, tmp_path: Path) -> None:
    """A function of the app's own that remembers what it returned: who has it may write to it."""
    around = looked_at(app, tmp_path)
    a_cache(app, tmp_path)
    with pytest.raises(object_state.Unsafe, match=r"what an_app_of_a_test.loaded has cached"):
        around.changed(lambda _: False)


def looked_at_from(
    root: object, directory: Path
) -> tuple[surroundings.Surroundings, Callable[[object], bool]]:
    """What can be reached from a strategy, or a function; and whether an object is the snapshot's to keep."""
    origins = object_state.Origins({"root": root}, surroundings.said_by, lambda name: name == MODULE)

    def known(value: object) -> bool:
        return origins.path_of(value) is not None

    reached = surroundings.code_of(origins)
    return surroundings.Surroundings(reached, known, directory, lambda name: name == MODULE), known


def test_what_says_nothing_is_not_safe(app: ModuleType, tmp_path: Path) -> None:
    """A lock, and what lies beside one; it is named."""
    app.local = app.threading.Lock()
    with pytest.raises(object_state.Unsafe, match=r"an_app_of_a_test.local: a lock cannot be compared"):
        looked_at(app, tmp_path)


def test_what_is_too_much_is_not_safe(
    app: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look at it would hold the training up each time."""
    monkeypatch.setattr(surroundings, "MAXIMUM_BYTES", 500)
    with pytest.raises(object_state.Unsafe, match="table: more than 500 bytes"):
        looked_at(app, tmp_path)


def test_libraries_are_trusted(app: ModuleType, tmp_path: Path) -> None:
    """Where no code of the app's own is called, none is looked at; its files are all the same."""
    around = surroundings.Surroundings(
        [importlib.import_module], lambda _: False, tmp_path, lambda name: name == MODULE
    )
    app.set_global()
    assert around.changed(lambda _: False) == ""
    (tmp_path / "results.csv").touch()
    assert "results.csv" in around.changed(lambda _: False)
