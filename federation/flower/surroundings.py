"""Whether an app's code remembers anything outside of its strategy, from round to round.

Why it exists: a snapshot has what a strategy holds, and what its evaluation function closes over. An app may
hold more: a global variable, an object that cannot be written, a file that it writes each round. What rounds
before a snapshot left there would be missing after it, so where any of it changes there must be no snapshot.
All that the app's own modules and functions can reach is looked at when the strategy starts, and again; only
libraries are trusted to keep nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from flwr.app import Array
from flwr.serverapp import ServerApp

from federation.flower import arrays as flower_arrays
from federation.flower import object_state, watch
from federation.wire import codec, digests

MAXIMUM_BYTES = 64 * 1024 * 1024
"""Looked at each time, in one variable: an evaluation's data set of that size takes less than a tenth of a
second. Whoever holds more gets no snapshots, and keeps its training's pace."""

_CACHING: Final = type(functools.lru_cache(len))
_LOOKED_INTO: Final = (*object_state.CODE, _CACHING)
"""Named where they stand; what they keep is looked at by itself, if they are the app's own."""
_NOT_THEIRS: Final = ("_abc_impl",)
"""What Python itself keeps in a class."""


class _Hashing(io.RawIOBase):
    """A file that keeps nothing but the digest of what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.digest = digests.start()
        self._bytes = 0

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.count(len(view))
        self.digest.update(view)
        return len(view)

    def count(self, count: int) -> None:
        """So many bytes more are looked at. Raises: Unsafe if they are too many."""
        self._bytes += count
        if self._bytes > MAXIMUM_BYTES:
            raise object_state.Unsafe(f"more than {MAXIMUM_BYTES} bytes")


@dataclasses.dataclass(frozen=True)
class Said:
    """What an object says; equal ones say the same.

    code: what can be called through it. held: whatever it names by an id, so that an id means one object.
    """

    digest: bytes
    code: tuple[object, ...] = dataclasses.field(default=(), compare=False)
    held: tuple[object, ...] = dataclasses.field(default=(), compare=False)


class _Sayer(pickle.Pickler):
    """Says what an object is, for comparing; nothing is ever read back."""

    def __init__(self, file: _Hashing, known: Callable[[object], bool]) -> None:
        super().__init__(file, protocol=5)
        self._file, self._known = file, known
        self.code: list[object] = []
        self.held: list[object] = []

    def persistent_id(self, obj: Any) -> str | None:
        """Code is named and not looked into here; so is the app as Flower holds it."""
        if isinstance(obj, _LOOKED_INTO):
            self.code.append(obj)
            return self._named("code", obj)
        if type(obj) is ServerApp:
            return self._named("server app", obj)
        if self._known(obj):
            return self._named("known", obj)
        if isinstance(obj, Array):  # what is kept beside its bytes, a digest say, comes and goes
            data = flower_arrays.bytes_of(obj)
            hasher = digests.start()
            for start in range(0, len(data), _PIECE_BYTES):
                piece = _piece(data, start)
                self._file.count(len(piece))
                hasher.update(piece)
            digest = hasher.digest(digests.DIGEST_BYTES).hex()
            return f"array {obj.dtype!r} {tuple(obj.shape)!r} {obj.stype!r} {digest}"
        return None

    def _named(self, what: str, obj: object) -> str:
        self.held.append(obj)
        return f"{what} {id(obj)}"


def said_by(value: object) -> Said:
    """Return what an object says. Raises: Unsafe for one that says nothing, or too much."""
    return _said(value, lambda _: False)


def code_of(origins: object_state.Origins) -> list[object]:
    """Return what the rounds of a start may call: functions and classes, also those inside of what cannot be
    looked into. Raises: Unsafe.
    """
    inside = (code for one in origins.opaque() for code in said_by(one).code)
    return [*object_state.code_of(origins.objects()), *inside]


def _said(value: object, known: Callable[[object], bool]) -> Said:
    file = _Hashing()
    sayer = _Sayer(file, known)
    try:
        sayer.dump(value)
    except object_state.Unsafe:
        raise
    except Exception as error:  # whatever an object's own way to be pickled raises
        raise object_state.Unsafe(
            f"a {type(value).__name__} cannot be compared: {type(error).__name__}"
        ) from error
    return Said(file.digest.digest(digests.DIGEST_BYTES), tuple(sayer.code), tuple(sayer.held))


_PIECE_BYTES: Final = 4 * 1024 * 1024


def _piece(data: codec.Buffer | codec.ByteSource, start: int) -> memoryview:
    length = min(_PIECE_BYTES, len(data) - start)
    if isinstance(data, bytes | bytearray | memoryview):
        return memoryview(data)[start : start + length]
    return memoryview(data.read(start, length))


class Surroundings:
    """What the app's code can reach, as it was when this was made."""

    def __init__(
        self,
        reached: Iterable[object],
        known: Callable[[object], bool],
        directory: pathlib.Path,
        is_of_app: Callable[[str], bool],
    ) -> None:
        """Look at everything.

        reached: functions and classes that the rounds call.
        known: whether an object is the snapshot's to keep, and not looked into here.
        directory: the app's working directory, which does not outlive the process.
        is_of_app: whether the module of this name is the app's own.
        Raises: Unsafe.
        """
        self._directory, self._is_of_app = directory, is_of_app
        self._first = [one for one in reached if is_of_app(getattr(one, "__module__", None) or "")]
        self._files = self._listed()
        self._before = self._look(known)

    def changed(self, known: Callable[[object], bool]) -> str:
        """Say what is not as it was, as part of a sentence; empty: nothing. Raises: Unsafe."""
        files = self._listed()
        for path in files.keys() | self._files.keys():
            if files.get(path) != self._files.get(path):
                return f"file {path} in its working directory was written"
        now = self._look(known)
        for place in now.keys() | self._before.keys():
            if now.get(place) != self._before.get(place):
                return f"{place} has changed"
        return ""

    def _listed(self) -> dict[str, tuple[int, int]]:
        found = {}
        for folder, folders, names in os.walk(self._directory):
            folders[:] = [name for name in folders if name != "__pycache__"]
            for name in names:
                path = pathlib.Path(folder, name)
                status = path.lstat()
                found[str(path.relative_to(self._directory))] = (status.st_size, status.st_mtime_ns)
        return found

    def _look(self, known: Callable[[object], bool]) -> dict[str, Said]:
        """What every variable of the app's code says, by name; nothing where no code of it is called."""
        if not self._first:
            return {}
        said: dict[str, Said] = {}
        seen: dict[int, object] = {}
        waiting: list[object] = [*self._first, *self._modules()]
        while waiting:
            code = waiting.pop()
            if id(code) in seen:
                continue
            seen[id(code)] = code
            for name, value in _variables(code, known):
                try:
                    said[name] = _said(value, known)
                except object_state.Unsafe as error:
                    raise object_state.Unsafe(f"{name}: {error}") from error
                waiting.extend(one for one in said[name].code if self._is_own(one))
        return said

    def _modules(self) -> list[types.ModuleType]:
        return [module for name, module in list(sys.modules.items()) if self._is_of_app(name)]

    def _is_own(self, code: object) -> bool:
        name = getattr(code, "__name__" if isinstance(code, types.ModuleType) else "__module__", None)
        return isinstance(name, str) and self._is_of_app(name)


def _variables(code: object, known: Callable[[object], bool]) -> Iterator[tuple[str, object]]:
    """Every variable that code keeps: a module's, a class's, those that a function closes over."""
    if isinstance(code, types.ModuleType):
        for name, value in list(vars(code).items()):
            if not (name.startswith("__") and name.endswith("__")):
                yield f"{code.__name__}.{name}", value
    elif isinstance(code, type):
        where = f"{code.__module__}.{code.__qualname__}"
        for name, value in list(vars(code).items()):
            if isinstance(value, (staticmethod, classmethod)):
                yield f"{where}.{name}", value.__func__
            elif isinstance(value, property):
                yield from ((f"{where}.{name}", one) for one in (value.fget, value.fset) if one is not None)
            elif isinstance(value, types.FunctionType) or not (
                name in _NOT_THEIRS
                or name.startswith("__")
                or isinstance(value, (types.GetSetDescriptorType, types.MemberDescriptorType))
            ):
                yield f"{where}.{name}", value
    elif isinstance(code, types.FunctionType):
        where = f"{code.__module__}.{code.__qualname__}"
        if getattr(code, watch.WATCHED, False):  # ours, around theirs
            yield f"{where} itself", watch.unwatched(code)
            return
        if not known(code):
            for name, cell in zip(code.__code__.co_freevars, code.__closure__ or (), strict=True):
                with contextlib.suppress(ValueError):  # not assigned yet
                    yield f"{name} of {where}", cell.cell_contents
        yield f"defaults of {where}", (code.__defaults__, code.__kwdefaults__)
        yield f"attributes of {where}", dict(vars(code))
    elif isinstance(code, _CACHING):
        where = f"{code.__module__}.{code.__qualname__}"
        if code.cache_info().currsize:
            raise object_state.Unsafe(f"what {where} has cached cannot be compared")
        yield f"{where} itself", code.__wrapped__
