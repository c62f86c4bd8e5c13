"""Clients that die with work on their hands, and those that come after them: real gRPC, real rounds."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict

from coordinator.aggregation import events
from coordinator.aggregator import grid as grids
from edge_agent.client import keeping
from federation.wire import outbox
from simulations.chaos import proxy as proxies
from tests.fakes import exchange as fakes

KEY = bytes(32)

federation = fakes.federation
proxy = fakes.proxy


class Edge:
    """One cluster's clients, one after the other, over what they keep; the app's state counts its calls."""

    def __init__(self, directory: Path, federation: fakes.Federation) -> None:
        self.kept = directory / "kept"
        self.asked: list[tuple[str, int]] = []
        self.reached, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()
        self._federation = federation
        self._keep: keeping.Keep | None = None

    def start(self, address: str | None = None) -> fakes.Client:
        self._keep = keeping.Keep(self.kept, KEY)
        return self._federation.client("zurich", self.answer, address=address, keep=self._keep)

    def dies(self, client: fakes.Client) -> None:
        """Without a word, and with all that is only in memory."""
        client.vanish()
        assert self._keep is not None
        self._keep.close()

    def answer(self, message: Message, context: Context) -> Message:
        self.reached.release()
        assert self.gate.wait(fakes.LIMIT_SECONDS)
        state = context.state.setdefault("count", ConfigRecord({"calls": 0}))
        calls = int(state["calls"])  # type: ignore[index, call-overload]
        self.asked.append((message.metadata.message_id, calls))
        state["calls"] = calls + 1  # type: ignore[index]
        if "fail" in message.content["config"]:  # type: ignore[operator]
            raise ValueError(f"the scanner is out of paper after {calls} calls")
        record = RecordDict(
            {
                "arrays": message.content["arrays"],
                "metrics": MetricRecord({"calls": calls, "num-examples": 1}),
            }
        )
        return Message(record, reply_to=message)

    def files(self) -> list[str]:
        return sorted(path.name.partition("-")[0] for path in self.kept.iterdir())


@pytest.fixture
def edge(tmp_path: Path, federation: fakes.Federation) -> Edge:
    federation.expect("zurich")
    return Edge(tmp_path, federation)


def ask(*values: float, kind: str = "evaluate", **config: int) -> Message:
    arrays = ArrayRecord({"w": Array(np.array(values, np.float32))})
    content = RecordDict({"arrays": arrays, "config": ConfigRecord(dict(config))})
    return Message(content, fakes.node("zurich"), kind)


def calls(reply: Message) -> int:
    return int(reply.content["metrics"]["calls"])  # type: ignore[index, arg-type]


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + fakes.LIMIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextlib.contextmanager
def pending(
    federation: fakes.Federation, *messages: Message
) -> Iterator[concurrent.futures.Future[list[Message]]]:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(federation.grid.send_and_receive, list(messages))
        try:
            yield asked
        finally:
            if not asked.done():
                federation.handle(events.StopAsked("TrainingEnded", "the test is over"))


def test_a_confirmed_reply_is_kept_no_longer_and_the_state_is(
    federation: fakes.Federation, edge: Edge
) -> None:
    """The bytes go when the aggregator has them; the next process goes on from the state."""
    client = edge.start()
    federation.started()
    (reply,) = federation.grid.send_and_receive([ask(1)])
    until(lambda: edge.files() == ["commit", "state"])
    edge.dies(client)
    edge.start()
    (again,) = federation.grid.send_and_receive([ask(2)])
    assert (calls(reply), calls(again)) == (0, 1)


def test_a_finished_reply_is_delivered_by_the_next_process(
    federation: fakes.Federation, edge: Edge, proxy: proxies.Proxy
) -> None:
    """The link is half-open while the app answers: nobody hears of it, and it is not asked again."""
    client = edge.start(proxy.address)
    federation.started()
    edge.gate.clear()
    with pending(federation, ask(1, 2, 3)) as replies:
        assert edge.reached.acquire(timeout=fakes.LIMIT_SECONDS)
        federation.on_loop(proxy.freeze)
        edge.gate.set()
        until(lambda: edge.files() == ["commit", "reply", "state"])
        edge.dies(client)
        edge.start()
        (reply,) = replies.result(fakes.LIMIT_SECONDS)
    assert calls(reply) == 0
    assert reply.content["arrays"]["w"].numpy().tolist() == [1, 2, 3]  # type: ignore[union-attr]
    (after,) = federation.grid.send_and_receive([ask(2)])
    assert [count for _, count in edge.asked] == [0, 1]
    assert calls(after) == 1
    until(lambda: edge.files() == ["commit", "state"])


def test_several_replies_that_nobody_has_come_each_to_its_message(
    federation: fakes.Federation, edge: Edge, proxy: proxies.Proxy
) -> None:
    """An error reply among them: it is the app's answer as any other, and is not asked for again."""
    client = edge.start(proxy.address)
    federation.started()
    edge.gate.clear()
    messages = [ask(1), ask(2, fail=1), ask(3)]
    with pending(federation, *messages) as replies:
        assert edge.reached.acquire(timeout=fakes.LIMIT_SECONDS)
        federation.until(lambda: federation.seen("zurich").bytes_sent > 0)
        until(lambda: client._inbox.qsize() == 2)
        federation.on_loop(proxy.freeze)
        edge.gate.set()
        until(lambda: edge.files().count("reply") == 3)
        edge.dies(client)
        edge.start()
        answers = replies.result(fakes.LIMIT_SECONDS)
    assert [count for _, count in edge.asked] == [0, 1, 2]
    assert [reply.has_content() for reply in answers] == [True, False, True]
    assert [calls(reply) for reply in answers if reply.has_content()] == [0, 2]
    assert "out of paper after 1 calls" in (answers[1].error.reason or "")


def test_a_reply_that_nobody_waits_for_is_dropped(
    federation: fakes.Federation, edge: Edge, proxy: proxies.Proxy, tmp_path: Path
) -> None:
    """An aggregator that knows nothing of the message says so, and the client keeps nothing for it."""
    client = edge.start(proxy.address)
    federation.started()
    edge.gate.clear()
    with pending(federation, ask(1)):
        assert edge.reached.acquire(timeout=fakes.LIMIT_SECONDS)
        federation.on_loop(proxy.freeze)
        edge.gate.set()
        until(lambda: "reply" in edge.files())
        edge.dies(client)
        (tmp_path / "other").mkdir()
        with fakes.Federation(tmp_path / "other") as other:
            other.expect("zurich")
            stranger = Edge(tmp_path, other)
            stranger.start()
            until(lambda: stranger.files() == ["commit", "state"])
            assert stranger.asked == []


def test_a_training_that_begins_anew_meets_an_app_that_does(federation: fakes.Federation, edge: Edge) -> None:
    """Messages of another history: the state of the first belongs to no other, in a process or after it."""
    client = edge.start()
    federation.started()
    for _ in range(2):
        federation.grid.send_and_receive([ask(1)])

    def anew(prefix: str) -> grids.HanseGrid:
        return fakes.a_grid(federation.driver, federation.progress, federation.book, prefix)

    second = anew("u")
    assert [calls(second.send_and_receive([ask(1)])[0]) for _ in range(2)] == [0, 1]  # type: ignore[index]
    edge.dies(client)
    edge.start()
    (third,) = anew("v").send_and_receive([ask(1)])
    assert calls(third) == 0


def test_another_prefix_of_the_same_history_meets_the_same_state(
    federation: fakes.Federation, edge: Edge
) -> None:
    """An aggregator that cannot tell which ids it has used goes on with others; the training is the same."""
    edge.start()
    federation.started()
    (first,) = federation.grid.send_and_receive([ask(1)])
    prefix = outbox.another_prefix("t", "5f")
    other = fakes.a_grid(federation.driver, federation.progress, federation.book, prefix)
    (second,) = other.send_and_receive([ask(1)])
    assert [calls(first), calls(second)] == [0, 1]


def test_a_new_link_says_that_replies_are_safe_only_when_they_are_written(
    federation: fakes.Federation, edge: Edge, proxy: proxies.Proxy
) -> None:
    """The link is cut while the disk is slow: what came on it is the client's to keep until it is written.

    Time decides here only how surely a mistake is seen.
    """
    client = edge.start(proxy.address)
    federation.started()
    edge.gate.clear()
    confirmed = threading.Event()
    client.link._on_confirmed = lambda _: confirmed.set()
    with pending(federation, ask(1), ask(2)) as replies:
        assert edge.reached.acquire(timeout=fakes.LIMIT_SECONDS)
        with federation.book._file_lock:
            edge.gate.set()
            replies.result(fakes.LIMIT_SECONDS)
            federation.on_loop(proxy.cut)
            assert not confirmed.wait(1)
            assert edge.files().count("reply") == 2
    assert confirmed.wait(fakes.LIMIT_SECONDS)


def test_a_link_that_is_cut_again_leaves_the_check_of_a_reply_alone(
    federation: fakes.Federation, edge: Edge, proxy: proxies.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new link waits until the replies of the one before are checked; its own end does not end the check.

    Time decides here only how surely a mistake is seen.
    """
    checker = federation.exchange._verifier
    values, reached, gate = checker.values, threading.Event(), threading.Event()

    async def slow(*given: Any) -> events.Accepted | events.Refused:
        reached.set()
        await asyncio.to_thread(gate.wait, fakes.LIMIT_SECONDS)
        return await values(*given)

    monkeypatch.setattr(checker, "values", slow)
    edge.start(proxy.address)
    federation.started()
    with pending(federation, ask(1)) as replies:
        assert reached.wait(fakes.LIMIT_SECONDS)
        for _ in range(3):
            federation.on_loop(proxy.cut)
            time.sleep(0.5)
        gate.set()
        (reply,) = replies.result(fakes.LIMIT_SECONDS)
    assert calls(reply) == 0
    assert len(edge.asked) == 1
