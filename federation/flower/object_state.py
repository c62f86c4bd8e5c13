"""What a strategy is made of at a moment, as JSON and runs of bytes, and a fresh one made the same.

Why it exists: a training that goes on from a snapshot has the app's own objects, made anew by the app, and
needs in them what stood there at the snapshot. Nothing is pickled: plain values, Flower's records, numpy
arrays and generators are written by what they say. Everything else is taken from the fresh start and so must
be what it was at the start; where that cannot be known, `Unsafe` says so and there is no snapshot.

Identity is kept: an object that stood somewhere at the start is filled where it stands, so that the app's own
variables see it too, and what was one object in two places is one again. Where bytes are kept is not known.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from federation.flower import arrays as flower_arrays
from federation.flower import generators
from federation.flower import messages as flower_messages
from federation.wire import codec

MAXIMUM_OBJECTS = 100_000
"""Looked at in one strategy; one that has more holds a data set, and looking would stop the training."""

_PLAIN: Final = (type(None), bool, int, float, str)
_RECORDS: Final[Mapping[str, type]] = {
    cls.__name__: cls for cls in (ArrayRecord, ConfigRecord, MetricRecord, RecordDict)
}
_MAPPINGS: Final[Mapping[str, type]] = {"dict": dict, "OrderedDict": OrderedDict, **_RECORDS}
_CONTAINERS: Final[Mapping[str, type]] = {
    **_MAPPINGS,
    **{cls.__name__: cls for cls in (list, tuple, set, frozenset, np.ndarray)},
}
CODE: Final = (
    type,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.ModuleType,
    types.MethodWrapperType,
    np.ufunc,
)
_HEAP_TYPE: Final = 1 << 9  # Py_TPFLAGS_HEAPTYPE: a class that was written in Python


class Unsafe(Exception):
    """What is there cannot be made the same again; the message is part of a sentence."""


class Mismatch(Exception):
    """What the app made anew is built otherwise than before; the message is part of a sentence."""


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """A run of bytes that a state names by its number. digest: of the bytes, where it is known already."""

    data: codec.Buffer | codec.ByteSource
    digest: bytes | None = None

    def __len__(self) -> int:
        """Return how many bytes there are."""
        return len(self.data)


class Origins:
    """What stood where when a strategy began, by path; it is held on to, so that an id means one object."""

    def __init__(
        self,
        roots: Mapping[str, object],
        digest: Callable[[object], object],
        is_of_app: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Look at everything that can be reached from `roots`.

        digest: what an object says that cannot be looked into; equal ones say the same. May raise Unsafe.
        is_of_app: whether the module of this name is the app's own; its functions may close over variables.
        Raises: Unsafe.
        """
        self._digest = digest
        self._is_of_app = is_of_app
        self._objects: dict[str, object] = {}
        self._paths: dict[int, str] = {}
        self._said: dict[str, object] = {}
        waiting = list(roots.items())
        while waiting:
            path, value = waiting.pop()
            if isinstance(value, (*_PLAIN, bytes)) or id(value) in self._paths:
                continue
            if len(self._objects) >= MAXIMUM_OBJECTS:
                raise Unsafe(f"it holds more than {MAXIMUM_OBJECTS} objects")
            self._objects[path], self._paths[id(value)] = value, path
            if _is_opaque(value):
                self._said[path] = digest(value)
            waiting.extend((path + step, child) for step, child in children(value))
            waiting.extend((f"{path}.{name}", cell.cell_contents) for name, cell in self.cells(value))

    def cells(self, value: object) -> list[tuple[str, types.CellType]]:
        """The variables that a function of the app closes over, by name."""
        if not isinstance(value, types.FunctionType) or not self._is_of_app(value.__module__ or ""):
            return []
        return [
            (name, cell)
            for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
            if _is_assigned(cell)
        ]

    def path_of(self, value: object) -> str | None:
        """Where an object stood, if it is one of these."""
        return self._paths.get(id(value))

    def at(self, path: str) -> object:
        """What stood there. Raises: Mismatch."""
        if path not in self._objects:
            raise Mismatch(f"there is no {path}")
        return self._objects[path]

    def is_unchanged(self, path: str, value: object) -> bool:
        """Whether an object that cannot be looked into says what it said."""
        return path in self._said and self._digest(value) == self._said[path]

    def objects(self) -> list[object]:
        """Everything that stood somewhere."""
        return list(self._objects.values())

    def opaque(self) -> list[object]:
        """Those of them that cannot be looked into."""
        return [self._objects[path] for path in self._said]


def children(value: object) -> Iterator[tuple[str, object]]:
    """What an object is made of, with the step that leads there."""
    if isinstance(value, Mapping) and type(value) in _MAPPINGS.values():
        yield from ((f"[{key!r}]", child) for key, child in value.items())
    elif isinstance(value, list | tuple) and type(value) in (list, tuple):
        yield from ((f"[{index}]", child) for index, child in enumerate(value))
    elif isinstance(value, types.MethodType):
        yield ".__self__", value.__self__
        yield ".__func__", value.__func__
    elif is_plain_object(value):
        yield from ((f".{name}", child) for name, child in vars(value).items())


def is_plain_object(value: object) -> bool:
    """Whether all that an object remembers is in its `__dict__`."""
    cls = type(value)
    if isinstance(value, (*CODE, *generators.KINDS, BaseException, Array)):
        return False
    if not isinstance(getattr(value, "__dict__", None), dict):
        return False
    return all(
        base is object
        or (
            base.__flags__ & _HEAP_TYPE
            and not vars(base).get("__slots__")
            and not {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__"} & vars(base).keys()
        )
        for base in cls.__mro__
        if base.__module__ not in ("abc", "typing")
    )


def _is_opaque(value: object) -> bool:
    known = (*_MAPPINGS.values(), list, tuple, set, frozenset, np.ndarray, bytes)
    if type(value) in known or isinstance(
        value, (*CODE, *generators.KINDS, Array, np.generic, types.MethodType)
    ):
        return False
    return not is_plain_object(value)


class _Writer:
    def __init__(self, origins: Origins) -> None:
        self._origins = origins
        self._numbers: dict[int, int] = {}
        self._alive: list[object] = []
        self._writeable: list[np.ndarray[Any, Any]] = []
        self.blobs: list[Blob] = []

    def write(self, value: object, path: str) -> Any:
        if type(value) in _PLAIN:
            return value
        if type(value) is bytes:
            return {"is": "bytes", "blob": self._blob(Blob(value))}
        if isinstance(value, np.generic):
            return {"is": "scalar", "dtype": _dtype(value.dtype, path), "hex": value.tobytes().hex()}
        if id(value) in self._numbers:
            return {"is": "again", "number": self._numbers[id(value)]}
        if len(self._alive) >= MAXIMUM_OBJECTS:
            raise Unsafe(f"it holds more than {MAXIMUM_OBJECTS} objects")
        self._numbers[id(value)] = len(self._alive)
        self._alive.append(value)
        at = self._origins.path_of(value)
        told = self._told(value, path, at)
        return told if at is None or isinstance(value, Array) else {**told, "at": at}

    def has(self, value: object) -> bool:
        return id(value) in self._numbers

    def _told(self, value: Any, path: str, at: str | None) -> dict[str, Any]:
        if type(value) in _MAPPINGS.values():
            items: Iterable[tuple[Any, Any]] = value.items()
            pairs = [[self.write(key, path), self.write(one, f"{path}[{key!r}]")] for key, one in items]
            return {"is": type(value).__name__, "of": pairs}
        if type(value) in (list, tuple, set, frozenset):
            told = [self.write(one, f"{path}[{index}]") for index, one in enumerate(value)]
            return {"is": type(value).__name__, "of": told}
        if isinstance(value, Array):
            blob = Blob(flower_arrays.bytes_of(value), flower_messages.digest_of(value))
            described = {"dtype": value.dtype, "shape": list(value.shape), "stype": value.stype}
            return {"is": "Array", **described, "blob": self._blob(blob)}
        if type(value) is np.ndarray:
            return self._ndarray(value, path)
        if at is None:
            raise Unsafe(f"{path} is a {type(value).__name__} that was not there when it started")
        if isinstance(value, CODE):
            cells = self._origins.cells(value)
            told = [[name, self.write(cell.cell_contents, f"{path}.{name}")] for name, cell in cells]
            return {"is": "function", "of": told} if told else {"is": "same"}
        if isinstance(value, types.MethodType):
            return {"is": "same", "of": self.write(value.__self__, f"{path}.__self__")}
        if type(value) in generators.KINDS:
            if why := generators.why_unknown(value):
                raise Unsafe(f"{path}: {why}")
            of = self.write(generators.state_of(value), path)
            return {"is": "generator", "class": generators.name_of(value), "of": of}
        if is_plain_object(value):
            told = [[name, self.write(one, f"{path}.{name}")] for name, one in vars(value).items()]
            return {"is": "object", "class": _name(value), "of": told}
        if not self._origins.is_unchanged(at, value):
            raise Unsafe(f"{path}, a {type(value).__name__}, has changed and cannot be looked into")
        return {"is": "same"}

    def _ndarray(self, value: np.ndarray[Any, Any], path: str) -> dict[str, Any]:
        flags = value.flags
        if not (flags.c_contiguous or flags.f_contiguous):
            raise Unsafe(f"{path} is a part of another array")
        if flags.writeable:
            if any(np.may_share_memory(value, other) for other in self._writeable):
                raise Unsafe(f"{path} shares its memory with another array")
            self._writeable.append(value)
        order = "C" if flags.c_contiguous else "F"
        flat = value.reshape(-1, order="A") if flags.c_contiguous else value.T.reshape(-1)
        data = flat.copy() if flags.writeable else flat  # the strategy may write into it at once
        described = {"dtype": _dtype(value.dtype, path), "shape": list(value.shape), "order": order}
        blob = self._blob(Blob(data.view(np.uint8).data if data.size else b""))
        return {"is": "ndarray", **described, "writeable": bool(flags.writeable), "blob": blob}

    def _blob(self, blob: Blob) -> int:
        self.blobs.append(blob)
        return len(self.blobs) - 1


@dataclasses.dataclass(frozen=True)
class Written:
    """What roots are made of, and the runs of bytes that `state` names. has: whether an object is in it."""

    state: bytes
    blobs: Sequence[Blob]
    has: Callable[[object], bool]


def write(roots: Mapping[str, object], origins: Origins) -> Written:
    """Return what the roots are made of.

    Later changes to what is there do not change what was returned. Raises: Unsafe.
    """
    writer = _Writer(origins)
    try:
        told = {name: writer.write(value, name) for name, value in roots.items()}
        state = json.dumps(told).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Unsafe(str(error)) from error
    return Written(state, writer.blobs, writer.has)


ReadBytes = Callable[[int], bytes]
MakeArray = Callable[[int, str, tuple[int, ...], str], Array]


class _StandsIn:
    """In the place of an object of the app's while it is tried whether all can be read."""


class _Unhashable(_StandsIn):
    """The same for one that cannot be a key."""

    __hash__ = None  # type: ignore[assignment]


_UNREADABLE: Final = (
    ArithmeticError, AttributeError, EOFError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip
"""What a state that no version wrote may lead to."""


class _Reader:
    """Reads twice: first into objects that stand in for the app's, then, with what was made, into these."""

    def __init__(self, origins: Origins, read: ReadBytes, make: MakeArray) -> None:
        self._origins, self._bytes, self._make = origins, read, make
        self._made: list[Any] = []
        self._ready: dict[int, Any] = {}
        """What was made of runs of bytes, by the identity of what names them."""
        self._tries = False

    def check(self, told: Any) -> None:
        """Look whether everything that is to be filled is there, before anything is changed."""
        if isinstance(told, list):
            for one in told:
                self.check(one)
        elif isinstance(told, dict) and "is" in told:
            if "at" in told:
                there = self._origins.at(told["at"])
                if not _is_as_told(told, there, self._origins.cells(there)):
                    raise Mismatch(f"{told['at']} is a {_name(there)}")
            self.check(told.get("of"))

    def all(self, told: Mapping[str, Any], *, tries: bool) -> dict[str, Any]:
        """Read the roots. tries: into what stands in for the app's objects."""
        self._made, self._tries = [], tries
        return {name: self.read(one) for name, one in told.items()}

    def read(self, told: Any) -> Any:
        if not isinstance(told, dict):
            if type(told) not in _PLAIN:
                raise ValueError(f"a {type(told).__name__} stands for itself")
            return told
        what = told["is"]
        if what in ("bytes", "scalar"):
            return self._once(told, self._bytes_of if what == "bytes" else _scalar)
        if what == "again":
            return self._made[told["number"]]
        number = len(self._made)
        self._made.append(None)
        there = self._origins.at(told["at"]) if "at" in told else None
        self._made[number] = made = self._begun(what, told, there)
        if what in _MAPPINGS:
            made.clear()
            for key, value in told["of"]:
                read_key = self.read(key)
                made[read_key] = self.read(value)
        elif what == "list":
            made[:] = [self.read(one) for one in told["of"]]
        elif what in ("tuple", "set", "frozenset"):
            self._made[number] = made = self._filled(what, [self.read(one) for one in told["of"]], there)
        elif what == "object":
            state = {str(name): self.read(one) for name, one in told["of"]}
            vars(made).clear()
            vars(made).update(state)
        elif what == "generator":
            state = self.read(told["of"])
            if self._tries:
                generators.check(made, state)
            else:
                generators.set_state(made, state)
        elif what == "function":
            values = [(name, self.read(one)) for name, one in told["of"]]
            if not self._tries:
                cells = dict(self._origins.cells(made))
                for name, value in values:
                    cells[name].cell_contents = value
        elif what == "same" and "of" in told:
            self.read(told["of"])
        return made

    def _once(self, told: dict[str, Any], make: Callable[[dict[str, Any]], Any]) -> Any:
        """What is made while it is tried is what is used then: its bytes are read once."""
        if self._tries:
            self._ready[id(told)] = made = make(told)
            return made
        return self._ready.pop(id(told))

    def _begun(self, what: str, told: dict[str, Any], there: Any) -> Any:
        """The object, before it is filled, so that what lies in it may name it."""
        if what == "Array":
            return self._once(told, self._array)
        if what == "ndarray":
            made = self._once(told, self._ndarray)
            fits = there is not None and (there.dtype, there.shape) == (made.dtype, made.shape)
            if self._tries or not fits or not there.flags.writeable:
                return made
            there[...] = made
            return there
        if what in ("tuple", "set", "frozenset"):
            return None
        if what in ("object", "generator", "function", "same"):
            if there is None:
                raise ValueError(f"it is not said where a {what} stood")
            if what != "object" or not self._tries:
                return there
            return _Unhashable() if type(there).__hash__ is None else _StandsIn()
        if there is not None and not self._tries:
            return there
        return [] if what == "list" else _MAPPINGS[what]()

    def _filled(self, what: str, values: list[Any], there: Any) -> Any:
        if what == "set" and there is not None and not self._tries:
            there.clear()
            there.update(values)
            return there
        made = {"tuple": tuple, "set": set, "frozenset": frozenset}[what](values)
        same = what == "tuple" and there is not None and len(there) == len(made)
        return there if same and all(a is b for a, b in zip(there, made, strict=True)) else made

    def _bytes_of(self, told: dict[str, Any]) -> bytes:
        return self._bytes(told["blob"])

    def _array(self, told: dict[str, Any]) -> Array:
        dtype, shape, stype = told["dtype"], _shape(told), told["stype"]
        if not isinstance(dtype, str) or not isinstance(stype, str):
            raise ValueError("an array is described by other things than words")
        return self._make(told["blob"], dtype, shape, stype)

    def _ndarray(self, told: dict[str, Any]) -> np.ndarray[Any, Any]:
        dtype, shape = np.dtype(told["dtype"]), _shape(told)
        flat = np.frombuffer(bytearray(self._bytes(told["blob"])), dtype=dtype)
        made = flat.reshape(shape) if told["order"] == "C" else flat.reshape(shape[::-1]).T
        made.flags.writeable = told["writeable"]
        return made


def _is_as_told(told: Mapping[str, Any], there: object, cells: Sequence[tuple[str, object]]) -> bool:
    """Whether an object of the app's is of the kind that was written."""
    match told["is"]:
        case "same":
            return True
        case "generator":
            if type(there) not in generators.KINDS:
                return False
            name = generators.name_of(there)
            return bool(told.get("class", name) == name)
        case "function":
            return [name for name, _ in cells] == [name for name, _ in told["of"]]
        case "object":
            return is_plain_object(there) and _name(there) == told["class"]
        case what:
            return type(there) is _CONTAINERS.get(what)


def _shape(told: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tuple(told["shape"])
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"no array has the shape {shape}")
    return shape


def _scalar(told: Mapping[str, Any]) -> Any:
    (made,) = np.frombuffer(bytes.fromhex(told["hex"]), dtype=np.dtype(told["dtype"]))
    return made


def read(state: bytes, origins: Origins, read_bytes: ReadBytes, make: MakeArray) -> dict[str, Any]:
    """Make everything as it was, and return the roots.

    make: an Array out of the run of bytes with this number, its dtype, shape and serialisation.
    Raises: Mismatch, or what `read_bytes` raises of the disk, and then nothing has been changed.
    """
    reader = _Reader(origins, read_bytes, make)
    try:
        told = json.loads(state)
        for one in told.values():
            reader.check(one)
        reader.all(told, tries=True)
    except _UNREADABLE as error:
        raise Mismatch(f"what was written of it cannot be read: {error}") from error
    return reader.all(told, tries=False)


def _is_assigned(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is cell.cell_contents
    except ValueError:
        return False


def _dtype(dtype: np.dtype[Any], path: str) -> str:
    if dtype.hasobject or dtype.fields is not None or np.dtype(dtype.str) != dtype:
        raise Unsafe(f"{path} is an array of {dtype}")
    return dtype.str


def _name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def code_of(values: Iterable[object]) -> Iterator[types.FunctionType | type]:
    """The functions among objects, and the classes that they are of."""
    for value in values:
        if isinstance(value, (types.FunctionType, type)):
            yield value
        elif not isinstance(value, CODE):
            yield type(value)
        if isinstance(value, types.MethodType) and inspect.isfunction(value.__func__):
            yield value.__func__
