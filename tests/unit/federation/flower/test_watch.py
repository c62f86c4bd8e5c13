"""Watching strategies from outside: everything is heard once, nothing is changed."""

import inspect
import json
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import flwr.server.strategy as legacy
import flwr.serverapp.strategy as strategies
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import Code, EvaluateRes, FitRes, Parameters, Status, ndarrays_to_parameters
from flwr.server.client_proxy import ClientProxy
from flwr.serverapp import Grid
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.supercore.logger import FLOWER_LOGGER
from flwr.supercore.task_identity import TaskIdentity

from federation.flower import host, watch


class Recorder:
    """An observer that writes down what it hears."""

    def __init__(self) -> None:
        self.starts: list[tuple[object, int]] = []
        self.trained: list[tuple[int, ArrayRecord | None, Any]] = []
        self.evaluated: list[tuple[int, Any]] = []
        self.server: list[tuple[int, Any]] = []
        self.collected: list[tuple[int, list[Any], list[Any]]] = []
        self.odd: list[tuple[int, int]] = []
        self.instead: list[Message] | None = None

    def started(self, strategy: object, num_rounds: int) -> None:
        self.starts.append((strategy, num_rounds))

    def fit_collected(self, server_round: int, results: Any, failures: Any) -> None:
        self.collected.append((server_round, [proxy for proxy, _ in results], list(failures)))

    def inconsistent(self, server_round: int, replies: Any) -> Any:
        self.odd.append((server_round, len(replies)))
        return self.instead

    def train_aggregated(self, server_round: int, arrays: ArrayRecord | None, metrics: Any) -> None:
        self.trained.append((server_round, arrays, metrics))

    def evaluate_aggregated(self, server_round: int, metrics: Any) -> None:
        self.evaluated.append((server_round, metrics))

    def server_evaluated(self, server_round: int, metrics: Any) -> None:
        self.server.append((server_round, metrics))


@pytest.fixture
def heard() -> Iterator[Recorder]:
    recorder = Recorder()
    watching = watch.install(recorder)
    yield recorder
    watching.remove()


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    disabled = FLOWER_LOGGER.disabled
    FLOWER_LOGGER.disabled = True
    host.prepare_process(1, host.SERVER_NODE_ID)
    yield
    FLOWER_LOGGER.disabled = disabled
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


def trees() -> np.ndarray[Any, Any]:
    model = {"gbtree_model_param": {"num_trees": "1", "num_parallel_tree": "1"}}
    model |= {"iteration_indptr": [0, 1], "trees": [{"id": 0}], "tree_info": [0]}  # type: ignore[dict-item]
    return np.frombuffer(
        json.dumps({"learner": {"gradient_booster": {"model": model}}}).encode(), dtype=np.uint8
    )


class FakeGrid(Grid):
    """Six nodes that answer at once, with a model of their own and an example count."""

    def __init__(self, ndarray: Callable[[int], np.ndarray[Any, Any]]) -> None:
        self.ndarray = ndarray

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return host.make_run(1)

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return [11, 12, 13, 14, 15, 16]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return [self.answer(message) for message in messages]

    def answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        content = RecordDict(
            {"metrics": MetricRecord({"num-examples": node, "loss": 0.5, "norm_bit": 1.0, "train_loss": 0.5})}
        )
        if message.metadata.message_type == "train":
            content["arrays"] = ArrayRecord([self.ndarray(node)])
        return Message(content, reply_to=message)


def weights(node: int) -> np.ndarray[Any, Any]:
    return np.full((2, 3), node, dtype=np.float32)


s = strategies
STOCK: dict[type, Callable[[], strategies.Strategy]] = {
    **{
        cls: cls
        for cls in (
            s.FedAvg, s.FedProx, s.FedAvgM, s.FedAdam, s.FedAdagrad, s.FedYogi, s.FedMedian, s.FedTrimmedAvg,
            s.Krum, s.MultiKrum, s.Bulyan, s.FedXgbBagging, s.FedXgbCyclic,
        )
    },
    s.QFedAvg: lambda: s.QFedAvg(client_learning_rate=0.1, train_loss_key="train_loss"),
    s.DifferentialPrivacyServerSideFixedClipping: lambda: s.DifferentialPrivacyServerSideFixedClipping(
        s.FedAdam(), 0.1, 1.0, 6
    ),
    s.DifferentialPrivacyClientSideFixedClipping: lambda: s.DifferentialPrivacyClientSideFixedClipping(
        s.FedAvg(), 0.1, 1.0, 6
    ),
    s.DifferentialPrivacyServerSideAdaptiveClipping: lambda: s.DifferentialPrivacyServerSideAdaptiveClipping(
        s.FedAvg(), 0.1, 6
    ),
    s.DifferentialPrivacyClientSideAdaptiveClipping: lambda: s.DifferentialPrivacyClientSideAdaptiveClipping(
        s.FedAvg(), 0.1, 6
    ),
}  # fmt: skip


def test_no_stock_strategy_is_forgotten() -> None:
    """Every strategy that Flower exports is in the table below."""
    exported = {getattr(strategies, name) for name in strategies.__all__}
    assert {cls for cls in exported if issubclass(cls, strategies.Strategy)} - {
        strategies.Strategy
    } == STOCK.keys()


@pytest.mark.parametrize("make", [pytest.param(make, id=cls.__name__) for cls, make in STOCK.items()])
def test_every_stock_strategy_is_heard_once_a_round(heard: Recorder, make: Callable[[], Any]) -> None:
    """Each phase of each round is told once, with the very objects that the app gets."""
    strategy = make()
    xgboost = isinstance(strategy, s.FedXgbBagging | s.FedXgbCyclic)
    grid = FakeGrid((lambda node: trees()) if xgboost else weights)
    initial = ArrayRecord([trees() if xgboost else np.zeros((2, 3), np.float32)])
    scores = [MetricRecord({"accuracy": 0.5}), None, MetricRecord({"accuracy": 0.7})]
    result = strategy.start(grid, initial, num_rounds=2, evaluate_fn=lambda rnd, arrays: scores[rnd])
    assert heard.starts == [(strategy, 2)]
    assert [server_round for server_round, _, _ in heard.trained] == [1, 2]
    assert heard.trained[-1][1] is result.arrays
    assert heard.trained[-1][2] is result.train_metrics_clientapp[2]
    assert [
        (1, result.evaluate_metrics_clientapp[1]),
        (2, result.evaluate_metrics_clientapp[2]),
    ] == heard.evaluated
    assert heard.server == list(enumerate(scores))


def rounds(strategy: strategies.Strategy, *args: Any, **kwargs: Any) -> Any:
    random.seed(1)  # Flower samples nodes with it, and their order decides the last bits
    return strategy.start(FakeGrid(weights), ArrayRecord([weights(0)]), *args, **kwargs)


def test_results_are_the_same_unwatched() -> None:
    """Watching changes no bit of the result."""
    want = rounds(s.FedAdam(), 2)
    watching = watch.install(Recorder())
    try:
        got = rounds(s.FedAdam(), 2)
    finally:
        watching.remove()
    assert got.arrays == want.arrays


def test_evaluate_fn_is_found_by_position(heard: Recorder) -> None:
    """However the app hands its evaluation in, it is heard."""
    rounds(s.FedAvg(), 1, 10.0, None, None, lambda rnd, arrays: MetricRecord({"x": rnd}))
    assert heard.server == [(0, {"x": 0}), (1, {"x": 1})]


def test_a_strategy_that_overrides_start_is_heard_once(heard: Recorder) -> None:
    """Defined later, with arguments passed through and an evaluation function of its own."""

    class Mine(s.FedAvg):
        def start(self, grid: Grid, initial_arrays: ArrayRecord, **kwargs: Any) -> Any:  # type: ignore[override]
            kwargs["evaluate_fn"] = lambda rnd, arrays: MetricRecord({"mine": rnd})
            return super().start(grid, initial_arrays, **kwargs)

        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            arrays, metrics = super().aggregate_train(server_round, replies)
            return arrays, MetricRecord({"outer": 1}) if metrics is not None else None

    strategy = Mine()
    rounds(strategy, num_rounds=1)
    assert heard.starts == [(strategy, 1)]
    assert [(rnd, metrics) for rnd, _, metrics in heard.trained] == [(1, {"outer": 1})]
    assert heard.server == [(0, {"mine": 0}), (1, {"mine": 1})]


def test_a_start_that_tells_no_rounds_is_heard_again_with_them(heard: Recorder) -> None:
    """An app's own start may know the rounds from elsewhere; Flower's is told them."""

    class Mine(s.FedAvg):
        def start(self, grid: Grid) -> Any:  # type: ignore[override]
            return super().start(grid, ArrayRecord([weights(0)]), 3)

    strategy = Mine()
    strategy.start(FakeGrid(weights))
    assert heard.starts == [(strategy, 0), (strategy, 3)]
    assert [rnd for rnd, _ in heard.evaluated] == [1, 2, 3]


def test_a_start_with_a_loop_of_its_own_is_heard(heard: Recorder) -> None:
    """A start that never calls Flower's: its aggregations and its evaluation are heard all the same."""

    class Mine(s.FedAvg):
        def start(self, grid: Grid, *, evaluate_fn: Any) -> Any:  # type: ignore[override]
            arrays = ArrayRecord([weights(0)])
            replies = grid.send_and_receive(self.configure_train(5, arrays, ConfigRecord(), grid))
            arrays, _ = self.aggregate_train(server_round=5, replies=replies)
            return evaluate_fn(server_round=5, arrays=arrays)

    Mine().start(FakeGrid(weights), evaluate_fn=lambda server_round, arrays: MetricRecord({"x": 1}))
    assert [rnd for rnd, _, _ in heard.trained] == [5]
    assert heard.server == [(5, {"x": 1})]


def test_a_mixin_outside_the_family_is_heard_as_the_outermost(heard: Recorder) -> None:
    """A method that comes from a mixin counts, and what it makes of Flower's result is what is told."""

    class Mixin:
        def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
            return MetricRecord({"n": len(super().aggregate_evaluate(server_round, replies))})  # type: ignore[misc]

    class Mine(Mixin, s.FedAvg): ...

    rounds(Mine(), 1)
    assert len(heard.evaluated) == 1
    assert heard.evaluated[0][1].keys() == {"n"}


def test_exceptions_pass_through_and_tell_nothing(heard: Recorder) -> None:
    """The app sees its own exception, and the next call is heard again."""

    class Mine(s.FedAvg):
        fail = True

        def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
            if self.fail:
                raise RuntimeError("mine")
            return None, None

    strategy = Mine()
    with pytest.raises(RuntimeError, match="mine"):
        rounds(strategy, 1)
    assert heard.trained == []
    strategy.fail = False
    assert strategy.aggregate_train(1, []) == (None, None)
    assert heard.trained == [(1, None, None)]
    rounds(s.FedAvg(), 1)
    assert len(heard.starts) == 2


def test_an_observer_that_fails_stops_the_app(heard: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must be written down before training goes on, and cannot be, ends the training."""

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(heard, "train_aggregated", fail)
    with pytest.raises(OSError, match="disk full"):
        rounds(s.FedAvg(), 1)


def test_wrong_arguments_fail_as_without_a_watch(heard: Recorder) -> None:
    """The app's TypeError is Python's own, and nothing is told."""
    with pytest.raises(TypeError, match="initial_arrays"):
        s.FedAvg().start(FakeGrid(weights))  # type: ignore[call-arg]
    assert heard.starts == []


def test_threads_do_not_hide_each_other(heard: Recorder) -> None:
    """A call is outermost on its own thread."""

    class Mine(s.FedAvg):
        def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
            if server_round == 1:
                thread = threading.Thread(target=self.aggregate_evaluate, args=(2, []))
                thread.start()
                thread.join()
            return None

    Mine().aggregate_evaluate(1, [])
    assert heard.evaluated == [(2, None), (1, None)]


def test_abstract_methods_stay_abstract(heard: Recorder) -> None:
    """A strategy that lacks a method cannot be made, as ever."""

    class Unfinished(strategies.Strategy):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return None, None

    assert inspect.isabstract(Unfinished)
    assert "aggregate_train" not in Unfinished.__abstractmethods__
    assert "aggregate_evaluate" in Unfinished.__abstractmethods__
    with pytest.raises(TypeError, match="abstract"):
        Unfinished()  # type: ignore[abstract]


def test_a_removed_watch_leaves_nothing_behind() -> None:
    """The classes are as they were, and later classes are left alone."""
    family = [*_all_subclasses(strategies.Strategy), *_all_subclasses(legacy.Strategy)]
    before = {cls: dict(cls.__dict__) for cls in family}
    recorder = Recorder()
    watching = watch.install(recorder)
    assert any(dict(cls.__dict__) != before[cls] for cls in family)
    watching.remove()
    assert all(dict(cls.__dict__) == before[cls] for cls in family)

    class Later(s.FedAvg):
        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            return None, None

    Later().aggregate_train(1, [])
    assert recorder.trained == []


def _all_subclasses(cls: type) -> list[type]:
    return [cls] + [found for sub in cls.__subclasses__() for found in _all_subclasses(sub)]


# --- the older API ----------------------------------------------------------------------------------


class Proxy(ClientProxy):
    def get_properties(self, *args: Any) -> Any: ...
    def get_parameters(self, *args: Any) -> Any: ...
    def fit(self, *args: Any) -> Any: ...
    def evaluate(self, *args: Any) -> Any: ...
    def reconnect(self, *args: Any) -> Any: ...


OK = Status(Code.OK, "")


def fit_results() -> list[tuple[ClientProxy, FitRes]]:
    return [
        (Proxy(str(n)), FitRes(OK, ndarrays_to_parameters([weights(n)]), n, {"norm_bit": 1}))
        for n in range(1, 7)
    ]


def evaluate_results() -> list[tuple[ClientProxy, EvaluateRes]]:
    return [(Proxy(str(n)), EvaluateRes(OK, 0.5, n, {})) for n in range(1, 7)]


def initial() -> Parameters:
    return ndarrays_to_parameters([weights(0)])


def average(metrics: list[tuple[int, Any]]) -> Any:
    return {"clients": len(metrics)}


LEGACY: list[Callable[[], legacy.Strategy]] = [
    lambda: legacy.FedAvg(
        fit_metrics_aggregation_fn=average, evaluate_fn=lambda *_: (0.25, {"accuracy": 0.5})
    ),
    lambda: legacy.FedAdam(initial_parameters=initial(), evaluate_fn=lambda *_: (0.25, {"accuracy": 0.5})),
    lambda: legacy.FedMedian(evaluate_fn=lambda *_: (0.25, {"accuracy": 0.5})),
    lambda: legacy.DifferentialPrivacyClientSideFixedClipping(
        legacy.FedAvg(evaluate_fn=lambda *_: (0.25, {"accuracy": 0.5})), 0.1, 1.0, 6
    ),
]


@pytest.mark.parametrize("make", LEGACY)
def test_legacy_strategies_are_heard_once(heard: Recorder, make: Callable[[], legacy.Strategy]) -> None:
    """Parameters arrive as arrays with dtype and shape, losses as metrics; the app gets its own objects."""
    strategy = make()
    parameters, metrics = strategy.aggregate_fit(3, fit_results(), [])
    loss, _ = strategy.aggregate_evaluate(3, evaluate_results(), [])
    assert strategy.evaluate(3, parameters) == (0.25, {"accuracy": 0.5})
    ((rnd, arrays, told),) = heard.trained
    assert (rnd, told) == (3, metrics)
    assert arrays["0"].data is parameters.tensors[0]
    ndarray = arrays["0"].numpy()
    assert (arrays["0"].dtype, arrays["0"].shape) == (str(ndarray.dtype), ndarray.shape)
    assert heard.evaluated == [(3, {"loss": loss})]
    assert heard.server == [(3, {"loss": 0.25, "accuracy": 0.5})]


def test_a_legacy_strategy_without_evaluation_tells_nothing_of_it(heard: Recorder) -> None:
    """No evaluation function, no evaluation; no results, no arrays."""
    strategy = legacy.FedAvg()
    assert strategy.evaluate(1, initial()) is None
    assert strategy.aggregate_fit(1, [], []) == (None, {})
    assert strategy.aggregate_evaluate(1, [], []) == (None, {})
    assert heard.server == []
    assert heard.trained == [(1, None, {})]
    assert heard.evaluated == [(1, None)]


def test_every_legacy_strategy_is_wrapped(heard: Recorder) -> None:
    """Each concrete method of each exported strategy tells, where it or a parent defines it."""
    for name in legacy.__all__:
        cls = getattr(legacy, name)
        for method in ("aggregate_fit", "aggregate_evaluate", "evaluate"):
            found = inspect.getattr_static(cls, method)
            if cls is not legacy.Strategy:
                assert hasattr(found, "__hanse_watched__"), (name, method)


def test_parameters_that_are_no_npy_files_become_arrays_without_shape() -> None:
    """Boosted trees and Android's tensors have no numpy header."""
    trees_record = watch.arrays_of(Parameters([b"{}", b""], "json"))
    assert [(a.dtype, a.shape, a.stype, a.data) for a in trees_record.values()] == [
        ("", (), "json", b"{}"), ("", (), "json", b"")
    ]  # fmt: skip
    odd = watch.arrays_of(Parameters([b"no numpy"], "numpy.ndarray"))
    assert odd["0"].shape == ()
    assert list(watch.arrays_of(Parameters([], "numpy.ndarray"))) == ["_empty"]


def metric_reply(key: str) -> Message:
    """A train reply whose metric record has this key beside the example count."""
    content = RecordDict({"metrics": MetricRecord({"num-examples": 4, key: 1.0})})
    content["arrays"] = ArrayRecord([np.ones(2)])
    return Message(content, reply_to=Message(RecordDict(), 5, "train"))


def test_replies_that_do_not_fit_together(heard: Recorder) -> None:
    """The observer may give others in their place, and then the strategy aggregates those."""
    replies = [metric_reply("loss"), metric_reply("loss"), metric_reply("other")]
    heard.instead = replies[:2]

    arrays, metrics = strategies.FedAvg().aggregate_train(3, replies)

    assert arrays is not None
    assert dict(metrics) == {"loss": 1.0}
    assert heard.odd == [(3, 3)]
    assert [number for number, _, _ in heard.trained] == [3]


def test_replies_that_nobody_can_mend(heard: Recorder) -> None:
    """Without others the strategy's own exception reaches the app."""
    with pytest.raises(InconsistentMessageReplies):
        strategies.FedAvg().aggregate_train(server_round=3, replies=[metric_reply("a"), metric_reply("b")])

    assert heard.odd == [(3, 2)]
    assert heard.trained == []
