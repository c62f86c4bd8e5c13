"""A start that goes on from any round, or with more rounds, ends as one that was not interrupted, with every
stock strategy.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import flwr.serverapp.strategy as strategies
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.logger import FLOWER_LOGGER
from flwr.supercore.task_identity import TaskIdentity

from federation.flower import host, kept_rounds, object_state, surroundings, watch
from tests.unit.federation.flower import test_watch as watched

ROUNDS = 5
NODES = 6


class Shelf:
    """A keeper of every round, in memory; the next process takes one of them down.

    raised: the number of rounds after each that was asked for.
    """

    def __init__(
        self,
        restore: int = 0,
        kept: Mapping[int, object_state.Written] | None = None,
        raised: Mapping[int, int] | None = None,
    ) -> None:
        self.kept: dict[int, object_state.Written] = dict(kept or {})
        self._restore, self._raised = restore, dict(raised or {})

    def begins(self, roots: Mapping[str, object], num_rounds: int) -> kept_rounds.Past:
        self._given = {name: roots[name] for name in roots if name != "initial_arrays"}
        self._origins = object_state.Origins(roots, surroundings.said_by, lambda name: name == __name__)
        if not self._restore:
            return kept_rounds.Past()
        written = self.kept[self._restore]
        blobs = [blob.data for blob in written.blobs]

        def read(number: int) -> bytes:
            data = blobs[number]
            return bytes(data) if isinstance(data, bytes | memoryview) else data.read(0, len(data))  # type: ignore[union-attr]

        def make(number: int, dtype: str, shape: tuple[int, ...], stype: str) -> Array:
            return Array(dtype, shape, stype, read(number))

        past = object_state.read(written.state, self._origins, read, make)
        return kept_rounds.Past(self._restore, past)

    def ended(self, server_round: int, roots: Mapping[str, object]) -> None:
        self.kept[server_round] = object_state.write({**self._given, **roots}, self._origins)

    def after(self, num_rounds: int) -> int:
        return self._raised.pop(num_rounds, num_rounds)


@pytest.fixture(autouse=True)
def process() -> Iterator[None]:
    before = (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)
    disabled = FLOWER_LOGGER.disabled
    FLOWER_LOGGER.disabled = True
    host.prepare_process(1, host.SERVER_NODE_ID)
    yield
    FLOWER_LOGGER.disabled = disabled
    TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id = before


class Grid(watched.FakeGrid):
    """Nodes that answer by what they are sent, and count what they are asked."""

    def __init__(self, grows_trees: bool) -> None:
        super().__init__(lambda node: np.zeros(0))
        self.asked: list[tuple[int, int]] = []
        self._grows_trees = grows_trees

    def answer(self, message: Message) -> Message:
        node, received = message.metadata.dst_node_id, message.content["arrays"]
        number = int(message.content["config"]["server-round"])  # type: ignore[call-overload]
        self.asked.append((number, node))
        lr = float(message.content["config"].get("lr", 1.0))  # type: ignore[arg-type,union-attr]
        said = {"num-examples": node, "loss": lr / number, "norm_bit": node % 2, "train_loss": 0.5 / node}
        content = RecordDict({"metrics": MetricRecord(said)})
        if message.metadata.message_type == "train":
            assert isinstance(received, ArrayRecord)
            if self._grows_trees:
                content["arrays"] = ArrayRecord([trees(node, received["0"].numpy().tobytes())])
            else:
                old = {name: array.numpy() for name, array in received.items()}
                step = lr * np.sin(node + number)
                content["arrays"] = ArrayRecord(
                    {name: Array((value + step).astype(value.dtype)) for name, value in old.items()}
                )
        return Message(content, reply_to=message)


def trees(node: int, model: bytes) -> np.ndarray[Any, Any]:
    """A boosted model of one more tree."""
    count = 1
    if model:
        booster = json.loads(model)["learner"]["gradient_booster"]["model"]
        count += int(booster["gbtree_model_param"]["num_trees"])
    said = {"gbtree_model_param": {"num_trees": str(count), "num_parallel_tree": "1"}}
    grown = [{"id": index, "of": node} for index in range(count)]
    booster = {**said, "iteration_indptr": list(range(count + 1)), "trees": grown, "tree_info": [0] * count}
    return np.frombuffer(json.dumps({"learner": {"gradient_booster": {"model": booster}}}).encode(), np.uint8)


class Halving(strategies.FedAvgM):
    """An app's own strategy, with a generator and a memory."""

    def __init__(self) -> None:
        super().__init__(server_learning_rate=0.9, server_momentum=0.7)
        self.generator = np.random.default_rng(7)
        self.heard: list[float] = []

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        config["lr"] = float(config["lr"]) / 2
        self.heard.append(float(self.generator.random()))
        return super().configure_train(server_round, arrays, config, grid)


ARGUMENTS: dict[str, dict[str, Any]] = {
    "FedProx": {"proximal_mu": 0.5},
    "FedAvgM": {"server_learning_rate": 0.9, "server_momentum": 0.7},
    "FedTrimmedAvg": {"beta": 0.2},
    "Krum": {"num_malicious_nodes": 1},
    "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 3},
    "Bulyan": {"num_malicious_nodes": 0},
    "QFedAvg": {"client_learning_rate": 0.1},
}
STOCK = [name for name in strategies.__all__ if name not in ("Strategy", "Result")]


def built(name: str) -> strategies.Strategy:
    """A strategy that samples nodes by chance; privacy wrappers go around a stateful one."""
    if name == "Halving":
        return Halving()
    made: strategies.Strategy
    if name.startswith("DifferentialPrivacy"):
        clipping = {"clipping_norm": 0.5} if "Fixed" in name else {}
        made = getattr(strategies, name)(
            strategies.FedAdam(), noise_multiplier=0.3, num_sampled_clients=NODES, **clipping
        )
        return made
    made = getattr(strategies, name)(**ARGUMENTS.get(name, {}))
    return made


def play(
    name: str, shelf: Shelf | None, rounds: int = ROUNDS
) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """A whole app, from its top: what it ends with, and what nodes were asked."""
    host.seed(3)
    watching = watch.install(watched.Recorder(), shelf)
    try:
        strategy, best = built(name), {"round": -1}
        seen, drawn = 0, random.random()

        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
            nonlocal seen
            seen += 1
            best["round"] = number
            return MetricRecord({"seen": seen, "drawn": float(np.random.random()), "size": len(arrays)})

        if name.startswith("FedXgb"):
            initial = ArrayRecord([np.frombuffer(b"", dtype=np.uint8)])
        else:
            weights = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
            initial = ArrayRecord({"w": Array(weights), "b": Array(np.zeros(3))})
        config = ConfigRecord({"lr": 0.5})
        grid = Grid(name.startswith("FedXgb"))
        result = strategy.start(grid, initial, rounds, train_config=config, evaluate_fn=evaluate)
    finally:
        watching.remove()
    made = {name: array.numpy() for name, array in result.arrays.items()}
    told = {
        "arrays": {name: (value.dtype.str, value.shape, value.tobytes()) for name, value in made.items()},
        "train": {n: dict(m) for n, m in result.train_metrics_clientapp.items()},
        "evaluate": {n: dict(m) for n, m in result.evaluate_metrics_clientapp.items()},
        "server": {n: dict(m) for n, m in result.evaluate_metrics_serverapp.items()},
        "own": (best, seen, drawn, random.random(), float(np.random.random()), dict(config)),
        "heard": getattr(strategy, "heard", None),
    }
    return told, grid.asked


@pytest.mark.parametrize("name", [*STOCK, "Halving"])
def test_a_start_goes_on_from_any_round(name: str) -> None:
    """Arrays, metrics, the app's variables and generators are the same; rounds before are not asked again."""
    want, asked = play(name, None)
    shelf = Shelf()
    assert play(name, shelf)[0] == want, "keeping changes nothing"
    assert sorted(shelf.kept) == list(range(1, ROUNDS))
    for number in shelf.kept:
        got, again = play(name, Shelf(number, shelf.kept))
        assert got == want
        assert again == [one for one in asked if one[0] > number]


@pytest.mark.parametrize("name", [*STOCK, "Halving"])
def test_a_start_with_more_rounds_later(name: str) -> None:
    """A number of rounds that is raised twice is as good as one that was so large from the beginning."""
    whole = Shelf()
    want, asked = play(name, whole)
    shelf = Shelf(raised={1: 3, 3: ROUNDS})
    assert play(name, shelf, rounds=1) == (want, asked)
    assert sorted(shelf.kept) == list(range(1, ROUNDS))
    for number in (1, 3):  # kept before a raise and after it, restored in a start of as many or of more
        goes_on = Shelf(number, shelf.kept, raised={number: number + 1, number + 1: ROUNDS})
        got, again = play(name, goes_on, rounds=number)
        assert got == want
        assert again == [one for one in asked if one[0] > number]


def test_flowers_loop_is_known() -> None:
    """What is done in the strategy's place is all that Flower's loop does with it; others are left alone."""
    assert kept_rounds.is_flowers(strategies.Strategy.start)
    assert not kept_rounds.is_flowers(Halving.configure_train)
