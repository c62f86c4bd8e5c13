"""FedBuff against a few lines of numpy, on a Grid whose clients answer in an order that a test chooses."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.flower import host, replies
from federation.strategies import FedBuff, fedbuff
from tests.fakes import exchange as fakes

Vector = np.ndarray[Any, Any]


class Fleet(Grid):
    """Clients that answer when `next_to_answer` says so; a node that has left answers with an error.

    Each adds a number of its own to the model that it was sent; `delivered` says in which order updates came,
    with the version that each was computed from.
    """

    def __init__(self, nodes: Iterable[int], next_to_answer: Callable[[list[str]], list[str]]) -> None:
        self.nodes = set(nodes)
        self.next_to_answer = next_to_answer
        self.under_way: dict[str, Message] = {}
        self.delivered: list[tuple[int, Vector]] = []
        self.most_under_way = 0
        self.pushed = 0
        self.asked: list[int] = []
        self.before_pull: Callable[[], None] = lambda: None
        self.fails: Callable[[int], bool] = lambda node: False

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return sorted(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            self.pushed += 1
            ids.append(f"m{self.pushed}")
            replies.set_message_id(message, ids[-1])
            self.under_way[ids[-1]] = message
            self.asked.append(message.metadata.dst_node_id)
        nodes = [message.metadata.dst_node_id for message in self.under_way.values()]
        assert len(nodes) == len(set(nodes)), "a client has one message at a time"
        self.most_under_way = max(self.most_under_way, len(nodes))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.before_pull()
        wanted = [one for one in message_ids if one in self.under_way]
        gone = [one for one in wanted if self.under_way[one].metadata.dst_node_id not in self.nodes]
        return [self._answer(one) for one in gone or self.next_to_answer(wanted)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return [
            Message(RecordDict({"m": MetricRecord({"num-examples": 1, "loss": 0.5})}), reply_to=message)
            for message in messages
            if replies.set_message_id(message, "e") is None
        ]

    def _answer(self, message_id: str) -> Message:
        message = self.under_way.pop(message_id)
        node = message.metadata.dst_node_id
        if node not in self.nodes or self.fails(node):
            return Message(Error(5, f"node {node} is gone"), reply_to=message)
        version = int(message.content["config"]["server-round"]) - 1  # type: ignore[index, call-overload, arg-type]
        new = message.content["arrays"]["w"].numpy() * 0.9 + np.float32(node / 7)  # type: ignore[union-attr]
        self.delivered.append((version, new))
        metrics = MetricRecord({"num-examples": 1, "node": node})
        content = RecordDict({"arrays": ArrayRecord({"w": Array(new)}), "metrics": metrics})
        return Message(content, reply_to=message)


@pytest.fixture(autouse=True, scope="module")
def process() -> Iterator[None]:
    """Messages are made as by a ServerApp."""
    with fakes.server_process():
        yield


FIRST = np.linspace(-1, 1, 6, dtype=np.float32)


def model(values: Vector = FIRST) -> ArrayRecord:
    return ArrayRecord({"w": Array(values)})


def reference(delivered: list[tuple[int, Vector]], size: int, rate: float, exponent: float = 0.5) -> Vector:
    """Algorithm 1 of the paper, for updates in the order of their arrival."""
    models, buffer = [FIRST.astype(np.float64)], []
    for version, new in delivered:
        buffer.append((version, new))
        if len(buffer) == size:
            now = len(models) - 1
            weighted = [(new - models[version]) / (1 + now - version) ** exponent for version, new in buffer]
            models.append(models[-1] + rate * sum(weighted) / size)
            buffer = []
    return models[-1]


def in_order(message_ids: list[str]) -> list[str]:
    return message_ids[:1]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6),
    st.sampled_from([0.0, 0.5, 2.0]), st.sampled_from([0.3, 1.0]),
)  # fmt: skip
def test_it_makes_the_model_of_the_paper(
    size: int, nodes: int, concurrency: int, seed: int, exponent: float, rate: float
) -> None:
    """Whoever answers when: the model is that of a few lines of numpy, up to rounding of float32."""
    rng = random.Random(seed)

    def some(message_ids: list[str]) -> list[str]:
        chosen = rng.sample(message_ids, rng.randint(1, len(message_ids)))
        # The strategy takes the replies of one look by node.
        return sorted(chosen, key=lambda one: fleet.under_way[one].metadata.dst_node_id)

    fleet = Fleet(range(1, nodes + 1), some)
    strategy = FedBuff(
        buffer_size=size, concurrency=concurrency, staleness_exponent=exponent, server_learning_rate=rate
    )
    result = strategy.start(fleet, model(), num_rounds=4)
    want = reference(fleet.delivered[: 4 * size], size, rate, exponent)
    np.testing.assert_allclose(result.arrays["w"].numpy(), want, rtol=1e-5, atol=1e-6)
    assert result.arrays["w"].numpy().dtype == np.float32
    assert fleet.most_under_way == min(nodes, concurrency)
    assert sorted(result.train_metrics_clientapp) == [1, 2, 3, 4]
    assert sorted(result.evaluate_metrics_clientapp) == [4]


def test_an_older_update_weighs_less() -> None:
    """By hand: the second client is one version behind, and its update counts 1 / sqrt(2)."""
    order = iter([["m1"], ["m2"]])  # node by node: node ids are drawn, so ask what was sent
    fleet = Fleet([1, 2], lambda ids: next(order))
    FedBuff(buffer_size=1).start(fleet, model(), num_rounds=2)
    (v1, first), (v2, second) = fleet.delivered
    assert (v1, v2) == (0, 0)
    one = FIRST + (first - FIRST)
    fleet_model = one + (second - FIRST) / np.sqrt(2)
    np.testing.assert_allclose(reference(fleet.delivered, 1, 1.0), fleet_model, rtol=1e-6)


def test_the_order_within_a_buffer_has_no_part_in_it() -> None:
    """Answers that come in either order give the same bits."""

    def aggregate(backwards: bool) -> bytes:
        host.seed(1)

        def one_by_one(ids: list[str]) -> list[str]:
            first = [one for one in ids if one in ("m1", "m2", "m3")]
            return first[-1:] if backwards else first[:1]

        fleet = Fleet([1, 2, 3], one_by_one)
        result = FedBuff(buffer_size=3).start(fleet, model(), num_rounds=1)
        assert len(fleet.delivered) == 3
        return result.arrays["w"].numpy().tobytes()

    assert aggregate(False) == aggregate(True)


def test_a_node_that_is_gone_is_replaced() -> None:
    """Its message ends with an error; another one, that has come meanwhile, is asked in its place."""
    fleet = Fleet([1, 2], in_order)
    looks = iter(range(1000))

    def happens() -> None:
        if next(looks) == 2:
            fleet.nodes.discard(1)
            fleet.nodes.add(3)

    fleet.before_pull = happens
    result = FedBuff(buffer_size=2, concurrency=2).start(fleet, model(), num_rounds=5)
    assert 3 in fleet.asked
    assert 1 not in fleet.asked[5:]
    want = reference(fleet.delivered, 2, 1.0)
    np.testing.assert_allclose(result.arrays["w"].numpy(), want, rtol=1e-5)


def test_it_waits_while_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as it needs come at last."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 9:
            fleet.nodes.update({1, 2})

    monkeypatch.setattr(fedbuff.time, "sleep", sleep)
    fleet = Fleet([1], in_order)
    FedBuff(buffer_size=1, min_available_nodes=2).start(fleet, model(), num_rounds=1)
    assert slept[:3] == [0.01, 0.02, 0.04]
    assert max(slept) == fedbuff.LONGEST_PAUSE_SECONDS


def test_one_that_fails_rests_until_the_next_version() -> None:
    """It is not asked again at once, so that a broken client does not keep the others from work."""
    fleet = Fleet([1, 2], in_order)
    fleet.fails = lambda node: node == 1
    FedBuff(buffer_size=3, concurrency=1).start(fleet, model(), num_rounds=2)
    assert fleet.asked.count(2) == 6
    assert fleet.asked.count(1) <= 2


def test_nothing_but_errors_ends_it() -> None:
    """With the last one's reason."""
    fleet = Fleet([1, 2], in_order)
    fleet.fails = lambda node: True
    with pytest.raises(
        RuntimeError, match=r"5 replies in a row were errors, the last one of node .: node . is"
    ):
        FedBuff(buffer_size=1, maximum_failures=5).start(fleet, model(), num_rounds=1)


def test_whole_numbers_stay_whole() -> None:
    """A counter in the model moves by the rounded mean."""
    moved = fedbuff._moved(Array(np.array([3, 4], np.int64)), np.array([0.6, -0.2]))
    assert moved.numpy().tolist() == [4, 4]
    assert moved.numpy().dtype == np.int64


def test_evaluation_is_of_those_who_are_idle() -> None:
    """Every other version and the last one; the server's own function hears of each, and of the first."""
    fleet = Fleet([1, 2, 3], in_order)
    heard: list[int] = []

    def evaluate(version: int, arrays: ArrayRecord) -> MetricRecord:
        heard.append(version)
        return MetricRecord({"version": version})

    result = FedBuff(buffer_size=1, evaluate_every=2).start(
        fleet, model(), num_rounds=5, evaluate_fn=evaluate
    )
    assert heard == [0, 1, 2, 3, 4, 5]
    assert sorted(result.evaluate_metrics_clientapp) == [2, 4, 5]
    assert sorted(result.evaluate_metrics_serverapp) == heard


def test_old_models_are_let_go() -> None:
    """Those that nobody at work began from cost no memory."""
    fleet = Fleet([1, 2], lambda ids: ids[-1:])  # the first one that was asked never answers
    strategy = FedBuff(buffer_size=1)
    strategy.start(fleet, model(), num_rounds=20)
    assert sorted(strategy._models) == [0, 20]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"buffer_size": 0}, "buffer_size is 0, it must be at least 1"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"server_learning_rate": 0}, "server_learning_rate is 0, it must be above 0"),
        ({"staleness_exponent": -1}, "staleness_exponent is -1"),
        ({"maximum_failures": 0}, "maximum_failures is 0"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
    ],
)
def test_numbers_out_of_their_range_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FedBuff(**wrong)


def test_what_is_put_around_it_is_told() -> None:
    """A wrapper that runs rounds of its own would not know what an update was computed from."""
    message = Message(RecordDict({"arrays": model()}), 1, "train")
    replies.set_message_id(message, "other")
    content = RecordDict({"arrays": model(), "metrics": MetricRecord({"num-examples": 1})})
    with pytest.raises(RuntimeError, match="another strategy cannot be put around it"):
        FedBuff().aggregate_train(1, [Message(content, reply_to=message)])
