"""Watching a Flower strategy from outside, without changing what it does.

`install` puts a thin wrapper around the methods of every strategy class through which results pass, the
classes that exist and those that an app defines later. The wrappers tell an observer and hand on the
very objects that the strategy made, and its exceptions; only where replies do not fit together may the
observer give others in their place. Only the outermost call counts: `super()` calls
and a strategy inside a differential-privacy wrapper do not tell of themselves. What an observer does
with what it hears is not known here; if it raises, the app sees that exception.

One thing is changed: Flower's older server hands results over in the order of a set. Here they are put into
the order of node ids, as replies are everywhere, so that an average has the same last bit each time.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from flwr.app import Array, ArrayRecord, Message
from flwr.common import Parameters
from flwr.compat.common.recorddict_compat import EMPTY_TENSOR_KEY
from flwr.server.strategy import Strategy as LegacyStrategy
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import Strategy

from federation.flower import arrays as flower_arrays
from federation.flower import kept_rounds

Metrics = Mapping[str, Any]


class Observer(Protocol):
    """Hears of a strategy's results, on the thread that computes them, before the app does."""

    def started(self, strategy: object, num_rounds: int) -> None:
        """Hear that `strategy.start` begins. num_rounds is 0 where its arguments do not tell.

        An app's own `start` may call Flower's with the number; then this is called again with it.
        """
        ...

    def fit_collected(self, server_round: int, results: Sequence[Any], failures: Sequence[Any]) -> None:
        """Hear of the answers to a legacy strategy's fit, as it gets them, before they are aggregated."""
        ...

    def train_aggregated(
        self, server_round: int, arrays: ArrayRecord | None, metrics: Metrics | None
    ) -> None:
        """Hear of the new global arrays (None: aggregation failed) and of the clients' joint metrics."""
        ...

    def evaluate_aggregated(self, server_round: int, metrics: Metrics | None) -> None:
        """Hear of the clients' joint evaluation metrics; a legacy strategy's loss is the metric `loss`."""
        ...

    def server_evaluated(self, server_round: int, metrics: Metrics | None) -> None:
        """Hear of the app's own evaluation on the server; round 0 is the one before the first."""
        ...

    def inconsistent(self, server_round: int, replies: Sequence[Message]) -> Sequence[Message] | None:
        """Hear that a strategy cannot aggregate replies that do not fit together.

        Returns the replies to aggregate instead, or None to let the strategy's exception end the run.
        """
        ...


Report = Callable[[Observer, int, Any], None]


def _train(observer: Observer, server_round: int, result: Any) -> None:
    arrays, metrics = result
    observer.train_aggregated(server_round, arrays, metrics)


def _fit(observer: Observer, server_round: int, result: Any) -> None:
    parameters, metrics = result
    arrays = None if parameters is None else arrays_of(parameters)
    observer.train_aggregated(server_round, arrays, metrics)


def _evaluate(observer: Observer, server_round: int, result: Any) -> None:
    observer.evaluate_aggregated(server_round, result)


def _legacy_evaluate(observer: Observer, server_round: int, result: Any) -> None:
    observer.evaluate_aggregated(server_round, _with_loss(result))


def _server_evaluate(observer: Observer, server_round: int, result: Any) -> None:
    observer.server_evaluated(server_round, result)


def _legacy_server_evaluate(observer: Observer, server_round: int, result: Any) -> None:
    if result is not None:  # a strategy without an evaluation function says None each round
        observer.server_evaluated(server_round, _with_loss(result))


def _with_loss(result: Any) -> Metrics | None:
    if result is None:
        return None
    loss, metrics = result
    joint = {} if loss is None else {"loss": loss}
    return {**joint, **(metrics or {})} or None


_REPORTS: Final[Mapping[type, Mapping[str, Report]]] = {
    Strategy: {"aggregate_train": _train, "aggregate_evaluate": _evaluate},
    LegacyStrategy: {
        "aggregate_fit": _fit,
        "aggregate_evaluate": _legacy_evaluate,
        "evaluate": _legacy_server_evaluate,
    },
}
WATCHED: Final = "__hanse_watched__"
_AGGREGATE: Final = ("server_round", "replies")
_LEGACY_AGGREGATE: Final = ("server_round", "results", "failures")


def _node_id(result: Any) -> int:
    return int(getattr(result[0], "node_id", 0)) if isinstance(result, tuple) else 0


def arrays_of(parameters: Parameters) -> ArrayRecord:
    """Return a legacy strategy's parameters as arrays named "0", "1", ...; their bytes are not copied.

    Legacy parameters say neither shape nor dtype; where they are .npy files, these come from their headers.
    """
    record = ArrayRecord()
    for index, tensor in enumerate(parameters.tensors):
        dtype, shape = _described(tensor, parameters.tensor_type)
        record[str(index)] = Array(dtype, shape, parameters.tensor_type, tensor)
    if not parameters.tensors:
        record[EMPTY_TENSOR_KEY] = Array("", (), parameters.tensor_type, b"")
    return record


def _described(tensor: bytes, tensor_type: str) -> tuple[str, tuple[int, ...]]:
    if tensor_type != flower_arrays.NUMPY_SERIALIZATION:
        return "", ()
    described = flower_arrays.describe_npy(tensor[: flower_arrays.HEADER_READ_BYTES])
    return ("", ()) if described is None else (str(described.dtype), described.shape)


class Watch:
    """An observer's hold on the strategy classes of this process, until `remove`."""

    def __init__(self, observer: Observer, keeper: kept_rounds.Keeper | None = None) -> None:
        """Wrap every strategy class that there is, and from now on every new one."""
        self._observer = observer
        self._keeper = keeper
        self._local = threading.local()
        self._undo: list[Callable[[], None]] = []
        for base in _REPORTS:
            for cls in _family(base):
                self._wrap_class(base, cls)
            self._wrap_later_classes(base)

    def remove(self) -> None:
        """Give the classes their own methods back."""
        while self._undo:
            self._undo.pop()()

    def _wrap_later_classes(self, base: type) -> None:
        def init_subclass(cls: type[Any], /, **kwargs: Any) -> None:
            super(base, cls).__init_subclass__(**kwargs)  # type: ignore[arg-type]  # base is a class
            self._wrap_class(base, cls)

        self._replace(base, "__init_subclass__", classmethod(init_subclass))

    def _wrap_class(self, base: type, cls: type) -> None:
        for name, report in _REPORTS[base].items():
            method = _method_to_wrap(base, cls, name)
            if method is not None:
                self._replace(cls, name, self._reporting(name, method, report, base is LegacyStrategy))
        if base is Strategy and (method := _method_to_wrap(base, cls, "start")) is not None:
            self._replace(cls, "start", self._starting(method))

    def _replace(self, cls: type, name: str, value: Any) -> None:
        missing = object()
        original = cls.__dict__.get(name, missing)
        setattr(cls, name, value)

        def undo() -> None:
            if original is missing:
                delattr(cls, name)
            else:
                setattr(cls, name, original)

        self._undo.append(undo)

    def _reporting(
        self, kind: str, method: Callable[..., Any], report: Report, of_older_api: bool
    ) -> Callable[..., Any]:
        legacy = of_older_api and kind.startswith("aggregate_")

        @functools.wraps(method)
        def reporting(*args: Any, **kwargs: Any) -> Any:
            outermost = self._enter(kind)
            try:
                if outermost and legacy:
                    self._collected(kind, args, kwargs)
                rescued = outermost and not legacy and kind.startswith("aggregate_")
                result = self._rescued(method, args, kwargs) if rescued else method(*args, **kwargs)
            finally:
                self._leave(kind)
            if outermost:
                server_round = kwargs["server_round"] if "server_round" in kwargs else args[1]
                report(self._observer, server_round, result)
            return result

        setattr(reporting, WATCHED, True)
        return reporting

    def _rescued(self, method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return method(*args, **kwargs)
        except InconsistentMessageReplies:
            # Raised before anything was aggregated, so the method may be called once more.
            server_round, replies = (*args[1:], *(kwargs[name] for name in _AGGREGATE if name in kwargs))
            instead = self._observer.inconsistent(server_round, list(replies))
            if instead is None:
                raise
            return method(args[0], server_round, instead)

    def _collected(self, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = (*args[1:], *(kwargs[name] for name in _LEGACY_AGGREGATE if name in kwargs))
        if len(given) != len(_LEGACY_AGGREGATE):
            return  # the method raises what the app would see anyway
        server_round, results, failures = given
        if isinstance(results, list):
            results.sort(key=_node_id)
        if kind == "aggregate_fit":
            self._observer.fit_collected(server_round, results, failures)

    def _starting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def starting(*args: Any, **kwargs: Any) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return method(*args, **kwargs)  # raises what the app would see anyway
            bound.apply_defaults()
            given = _arguments(bound)
            outermost = self._enter("start")
            try:
                num_rounds = int(given.get("num_rounds", {"num_rounds": 0})["num_rounds"] or 0)
                if outermost or (num_rounds and not self._local.announced):
                    self._local.announced = num_rounds
                    self._observer.started(bound.args[0], num_rounds)
                own = None
                if "evaluate_fn" in given:
                    holder = given["evaluate_fn"]
                    own = unwatched(holder["evaluate_fn"])
                    holder["evaluate_fn"] = self._evaluating(holder["evaluate_fn"])
                if self._keeper is not None and kept_rounds.is_flowers(method):
                    return kept_rounds.start(method, bound, self._keeper, own)
                return method(*bound.args, **bound.kwargs)
            finally:
                self._leave("start")

        setattr(starting, WATCHED, True)
        return starting

    def _evaluating(self, evaluate_fn: Any) -> Any:
        if not evaluate_fn or getattr(evaluate_fn, WATCHED, False):
            return evaluate_fn

        def evaluating(*args: Any, **kwargs: Any) -> Any:
            result = evaluate_fn(*args, **kwargs)
            server_round = args[0] if args else next(iter(kwargs.values()))
            _server_evaluate(self._observer, server_round, result)
            return result

        setattr(evaluating, WATCHED, True)
        evaluating.__wrapped__ = evaluate_fn  # type: ignore[attr-defined]
        return evaluating

    def _enter(self, kind: str) -> bool:
        depth = getattr(self._local, kind, 0)
        setattr(self._local, kind, depth + 1)
        return bool(depth == 0)

    def _leave(self, kind: str) -> None:
        setattr(self._local, kind, getattr(self._local, kind) - 1)


def install(observer: Observer, keeper: kept_rounds.Keeper | None = None) -> Watch:
    """Tell `observer` of everything that strategies of this process do, until the Watch is removed.

    keeper: keeps the rounds of Flower's own loop, if one is given.
    """
    return Watch(observer, keeper)


def unwatched(function: Any) -> Any:
    """Return the app's own function under the wrappers that were put around it here."""
    while getattr(function, WATCHED, False):
        function = function.__wrapped__
    return function


def _family(base: type) -> Iterator[type]:
    seen: set[type] = set()
    waiting = [base]
    while waiting:
        cls = waiting.pop()
        if cls not in seen:
            seen.add(cls)
            yield cls
            waiting.extend(cls.__subclasses__())


def _method_to_wrap(base: type, cls: type, name: str) -> Callable[..., Any] | None:
    """Return the method that `cls` brings into the family: its own, or one of a mixin outside of it."""
    for owner in cls.__mro__:
        if name in owner.__dict__:
            if owner is not cls and issubclass(owner, base):
                return None
            method = owner.__dict__[name]
            abstract = getattr(method, "__isabstractmethod__", False)
            watched = getattr(method, WATCHED, False)
            return method if inspect.isfunction(method) and not abstract and not watched else None
    return None


def _arguments(bound: inspect.BoundArguments) -> dict[str, dict[str, Any]]:
    """Return, for each named argument of a call, the dictionary that it lies in, **kwargs looked through."""
    places = {name: bound.arguments for name in bound.arguments}
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            places.update({key: bound.arguments[name] for key in bound.arguments[name]})
    return places
