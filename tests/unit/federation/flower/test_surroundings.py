"""What an app remembers outside of its strategy is noticed, wherever it is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from federation.flower import object_state, surroundings

MODULE = "an_app_of_a_test"

SOURCE = """
import functools
import logging
import threading

import numpy as np
from flwr.serverapp import ServerApp

app = ServerApp()
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


@pytest.mark.parametrize(
    ("does", "says"),
    [
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
