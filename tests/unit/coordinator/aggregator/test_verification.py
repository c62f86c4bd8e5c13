"""Between a reply in a file and the pure checks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import ndarrays_to_parameters

from coordinator.aggregation import checks, events
from coordinator.aggregator import received, verification
from coordinator.journal import segments
from federation.flower import messages, secagg
from federation.wire import codec
from federation.wire import hanse_pb2 as pb
from tests.fakes import exchange as fakes

LIMITS = checks.Limits(maximum_update_bytes=10**8, maximum_examples=1000)
ONES = {"w": np.ones((3, 2), np.float32), "b": np.zeros(2)}


process = fakes.process


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., Any]:
    """Checks a reply as the exchange does: its header, then its arrays through a spool."""

    async def check(
        sent: RecordDict,
        back: RecordDict,
        kind: str = "train",
        limits: checks.Limits = LIMITS,
        verifier: verification.Verifier | None = None,
    ) -> events.Verdict | None:
        message = Message(sent, 5, kind)
        outgoing = messages.to_wire(message, "m-1")
        answer = messages.to_wire(Message(back, reply_to=message), "m-1.reply")
        verifier = verifier or verification.Verifier(limits)
        refused = verifier.header(outgoing.header, answer.header)
        if refused is not None:
            return refused
        spool = received.Reply(segments.Segments(tmp_path))
        decoder = codec.MessageDecoder(sink_factory=spool.sink)
        for chunk in answer.chunks(chunk_bytes=100_000):
            decoder.feed(chunk)
        return await verifier.values(outgoing, answer.header, spool)

    return check


def model(arrays: dict[str, np.ndarray], **metrics: float) -> RecordDict:
    record = ArrayRecord({name: Array(value) for name, value in arrays.items()})
    return RecordDict({"arrays": record, **({"metrics": MetricRecord(dict(metrics))} if metrics else {})})


def legacy(*arrays: np.ndarray) -> RecordDict:
    """Arrays as Flower's older API sends them: bytes without dtype and shape."""
    tensors = ndarrays_to_parameters(list(arrays)).tensors
    return RecordDict(
        {"p": ArrayRecord({str(i): Array("", (), "numpy.ndarray", t) for i, t in enumerate(tensors)})}
    )


def reason(verdict: Any) -> str:
    return verdict.reason if isinstance(verdict, events.Refused) else "Accepted"


@pytest.mark.parametrize("size", [4, 200_000, 900_000])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
async def test_a_nan_is_found_wherever_it_is(checked: Callable[..., Any], size: int, dtype: Any) -> None:
    """In memory, in a file, and in a block beyond the first."""
    values = np.ones(size, dtype)
    sent = model({"w": values})
    assert await checked(sent, model({"w": values}, **{"num-examples": 7})) == events.Accepted(7)
    bad = values.copy()
    bad[-1] = np.nan
    verdict = await checked(sent, model({"w": bad}))
    assert (verdict.reason, verdict.array) == ("NotFinite", "w")
    assert f"element {size - 1}" in verdict.message


async def test_odd_layouts_are_as_good_as_others(checked: Callable[..., Any]) -> None:
    """0-d, empty, Fortran's order, integers and booleans."""
    arrays = {
        "zero-d": np.array(2.0, np.float32), "empty": np.zeros((0, 2), np.float32), "int": np.arange(3),
        "fortran": np.asfortranarray(np.ones((3, 2))), "bool": np.array([True]),
    }  # fmt: skip
    limits = checks.Limits(10**8, 1000, maximum_norm=0.5)
    assert reason(await checked(model(arrays), model(arrays), limits=limits)) == "Accepted"
    moved = {**arrays, "fortran": np.asfortranarray(np.ones((3, 2)) + 1)}
    assert reason(await checked(model(arrays), model(moved), limits=limits)) == "NormExceeded"
    far = {**arrays, "int": np.arange(3) + 10**6}
    assert reason(await checked(model(arrays), model(far), limits=limits)) == "Accepted", (
        "integers do not count"
    )


async def test_the_norm_is_of_the_change(checked: Callable[..., Any]) -> None:
    """Of received minus sent, over all arrays together, whatever their order in the reply."""
    limits = checks.Limits(10**8, 1000, maximum_norm=5.0)
    sent = {"a": np.full(1, 100.0), "b": np.full(1, 200.0)}
    within = {"b": np.full(1, 204.0), "a": np.full(1, 103.0)}
    beyond = {"b": np.full(1, 204.0), "a": np.full(1, 103.01)}
    assert reason(await checked(model(sent), model(within), limits=limits)) == "Accepted"
    assert reason(await checked(model(sent), model(beyond), limits=limits)) == "NormExceeded"


@pytest.mark.parametrize(
    "back, want",
    [
        ([np.ones((3, 2), np.float32), np.zeros(2)], "Accepted"),
        ([np.ones((2, 3), np.float32), np.zeros(2)], "ShapeMismatch"),
        ([np.ones((3, 2), np.float64), np.zeros(2)], "DtypeMismatch"),
        ([np.ones((3, 2), np.float32)], "MissingArray"),
        ([np.full((3, 2), np.inf, np.float32), np.zeros(2)], "NotFinite"),
    ],
)
async def test_arrays_of_the_older_api_are_described_by_their_bytes(
    checked: Callable[..., Any], back: list[np.ndarray], want: str
) -> None:
    """Neither header says dtype or shape; the same rules hold once the arrays are here."""
    sent = legacy(np.ones((3, 2), np.float32), np.zeros(2))
    assert reason(await checked(sent, legacy(*back))) == want


async def test_own_actions_may_answer_in_any_structure(checked: Callable[..., Any]) -> None:
    """train.something is the app's own; poison stays poison."""
    other = model({"x": np.ones(9)})
    assert reason(await checked(model(ONES), other)) == "MissingArray"
    assert reason(await checked(model(ONES), other, "train.mine")) == "Accepted"
    assert reason(await checked(model(ONES), model({"x": np.full(9, np.nan)}), "train.mine")) == "NotFinite"


async def test_secure_aggregation_answers_without_arrays(checked: Callable[..., Any]) -> None:
    """Its replies carry masked vectors in config records."""
    sent = model(ONES)
    sent[secagg.RECORD_NAME] = ConfigRecord({"stage": "x"})
    back = RecordDict({secagg.RECORD_NAME: ConfigRecord({"masked": b"v" * 50_000})})
    assert reason(await checked(sent, back)) == "Accepted"


async def test_an_evaluation_is_no_update(checked: Callable[..., Any]) -> None:
    """Any values may be an answer, but not any number of examples."""
    back = model({"confusion": np.array([[np.nan]])}, **{"num-examples": 3})
    assert await checked(model(ONES), back, "evaluate") == events.Accepted(3)
    wrong = RecordDict({"m": MetricRecord({"num-examples": -3})})
    assert reason(await checked(model(ONES), wrong, "evaluate")) == "ExampleCountInvalid"


async def test_a_model_that_is_no_numpy_array_is_not_looked_into(checked: Callable[..., Any]) -> None:
    """Boosted trees travel as bytes of any kind."""
    sent = RecordDict({"a": ArrayRecord({"t": Array("uint8", (3,), "trees", b"abc")})})
    back = RecordDict({"a": ArrayRecord({"t": Array("uint8", (5,), "trees", b"abcde")})})
    assert reason(await checked(sent, back)) == "Accepted"


def test_metrics_of_a_header_are_its_numbers() -> None:
    """By key; a config's are no metrics."""
    content = RecordDict({"m": MetricRecord({"a": 1, "b": 2.5}), "c": ConfigRecord({"d": 4})})
    header = messages.to_wire(Message(content, 5, "train"), "m").header
    assert verification.metrics_of(header) == {"a": 1, "b": 2.5}
    assert verification.metrics_of(pb.MessageHeader()) == {}


async def test_long_replies_are_checked_by_few_threads(checked: Callable[..., Any]) -> None:
    """Thirty-two that come at the same time: each check has a few blocks in memory, so the others wait."""
    sent, back = (model({"w": np.full(400_000, value, np.float32)}) for value in (0, 1))
    before = set(threading.enumerate())
    verifier = verification.Verifier(LIMITS)
    verdicts = await asyncio.gather(*(checked(sent, back, verifier=verifier) for _ in range(32)))
    assert [reason(verdict) for verdict in verdicts] == ["Accepted"] * 32
    # Other tests' leftovers may come and go; an idle thread takes the next check before another is made.
    checking = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("check")]
    assert 1 <= len(checking) <= verification.CHECKS_AT_ONCE
