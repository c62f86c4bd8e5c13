"""Aggregators that die while a large message or reply is on its way: the next one goes on at its offset."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from coordinator.aggregation import events
from coordinator.aggregator import driver
from coordinator.aggregator import grid as grids
from coordinator.journal import book as journals
from simulations.chaos import proxy as proxies
from tests.fakes import exchange as fakes

LARGE = 6_000_000
"""float32 numbers: 24 MB."""
LARGE_BYTES = LARGE * 4
CUT_AT = 13_000_000
CUT_AGAIN_AFTER = 6_000_000
FRAMES = 1.05
"""What surrounds the bytes on their way, as a factor."""

federation = fakes.federation
proxy = fakes.proxy


def record(size: int, seed: int = 0) -> ArrayRecord:
    """Three arrays, one of them small, so that a cut lies within the second large one."""
    rng = np.random.default_rng(seed)
    sizes = {"first": size // 3, "bias": 10, "second": size - size // 3}
    return ArrayRecord({name: Array(rng.random(length, np.float32)) for name, length in sizes.items()})


def data_of(arrays: ArrayRecord) -> dict[str, bytes]:
    return {name: array.data for name, array in arrays.items()}


def position(federation: fakes.Federation) -> int:
    """How far a reply has come, as the one record of an aggregator that is dead says it.

    What was on its way to it when the link was cut counts for nothing, which on a slow machine is more.
    """
    ((found, _),) = federation.book.unfinished.read()
    return found.position


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + fakes.LIMIT_SECONDS
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


class App:
    """A ServerApp that asks one client, once for each record; it is run again by each aggregator."""

    def __init__(
        self, federation: fakes.Federation, asked: list[ArrayRecord], pool: concurrent.futures.Executor
    ):
        self._federation, self._asked, self._pool = federation, asked, pool

    def runs(self) -> concurrent.futures.Future[list[Message]]:
        return self._pool.submit(self._run, self._federation.grid)

    def _run(self, grid: grids.HanseGrid) -> list[Message]:
        assert grid.get_node_ids() == [fakes.node("zurich")]
        contents = [RecordDict({"arrays": arrays, "config": ConfigRecord()}) for arrays in self._asked]
        return grid.send_and_receive([Message(one, fakes.node("zurich"), "evaluate") for one in contents])


@contextlib.contextmanager
def dies_while(
    federation: fakes.Federation,
    proxy: proxies.Proxy,
    asked: list[ArrayRecord],
    harm: Callable[[], object] = lambda: None,
    **cut: int,
) -> Iterator[App]:
    """The aggregator dies when so many bytes have passed; what follows is in the next one's life.

    harm: what happens to its disk between the two.
    """
    with concurrent.futures.ThreadPoolExecutor(2) as pool, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        app = App(federation, asked, pool)
        federation.on_loop(lambda: proxy.cut_after(**cut))
        federation.on_loop(lambda: proxy.lead_to(nobody.getsockname()[1]))  # until there is a successor
        answered = app.runs()
        federation.until_lost("zurich")
        assert proxy.cuts == 1
        federation.dies(harm)
        with pytest.raises(driver.TrainingOver):
            answered.result(fakes.LIMIT_SECONDS)
        federation.expect("zurich")
        federation.on_loop(lambda: proxy.lead_to(federation.port))
        try:
            yield app
        finally:
            federation.handle(events.StopAsked("TrainingEnded", "the test is over"))


def start(federation: fakes.Federation, proxy: proxies.Proxy, answer: fakes.Answer) -> fakes.Client:
    """One client behind the proxy, and the aggregator that expects it; both are there when this returns."""
    federation.expect("zurich")
    client = federation.client("zurich", answer, address=proxy.address)
    federation.started()
    return client


def test_a_download_goes_on_where_it_was(federation: fakes.Federation, proxy: proxies.Proxy) -> None:
    """The message of 24 MB has another time now; the client gets the same arrays, and few bytes twice."""
    got: list[dict[str, bytes]] = []

    def looks(message: Message, _: object) -> Message:
        got.append(data_of(message.content["arrays"]))  # type: ignore[arg-type]
        return Message(RecordDict({"arrays": record(3)}), reply_to=message)

    start(federation, proxy, looks)
    arrays = record(LARGE)
    with dies_while(federation, proxy, [arrays], downward=CUT_AT) as app:
        (reply,) = app.runs().result(fakes.LIMIT_SECONDS)
    assert reply.has_content(), reply
    assert got == [data_of(arrays)]
    assert LARGE_BYTES < proxy.carried["downward"] < LARGE_BYTES + 0.9 * CUT_AT, "not from its beginning"


def uploads(arrays: ArrayRecord, asked: list[str]) -> fakes.Answer:
    """An app whose answer is large, and which writes down how often it was asked."""

    def answer(message: Message, _: object) -> Message:
        asked.append(message.metadata.message_id)
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    return answer


def test_an_upload_goes_on_where_it_was(federation: fakes.Federation, proxy: proxies.Proxy) -> None:
    """A reply of 24 MB: the next aggregator has its beginning on disk, and few bytes come twice."""
    large, asked = record(LARGE), list[str]()
    start(federation, proxy, uploads(large, asked))
    reached: list[int] = []
    with dies_while(
        federation, proxy, [record(3)], lambda: reached.append(position(federation)), upward=CUT_AT
    ) as app:
        (reply,) = app.runs().result(fakes.LIMIT_SECONDS)
        assert data_of(reply.content["arrays"]) == data_of(large)  # type: ignore[arg-type]
    assert len(asked) == 1
    assert LARGE_BYTES < proxy.carried["upward"] < (LARGE_BYTES + CUT_AT - reached[0]) * FRAMES
    until(lambda: not list(federation.book.unfinished.read()))


def test_an_upload_goes_on_from_one_aggregator_to_the_next_and_the_next(
    federation: fakes.Federation, proxy: proxies.Proxy
) -> None:
    """Each of them dies while it comes: what the first one had counts for the third."""
    large, asked = record(LARGE), list[str]()
    start(federation, proxy, uploads(large, asked))
    reached: list[int] = []

    def look() -> None:
        reached.append(position(federation))

    with dies_while(federation, proxy, [record(3)], look, upward=CUT_AT):
        pass
    with dies_while(federation, proxy, [record(3)], look, upward=CUT_AGAIN_AFTER) as app:
        (reply,) = app.runs().result(fakes.LIMIT_SECONDS)
        assert data_of(reply.content["arrays"]) == data_of(large)  # type: ignore[arg-type]
    assert len(asked) == 1
    twice = (CUT_AT - reached[0]) + (reached[0] + CUT_AGAIN_AFTER - reached[1])
    assert LARGE_BYTES < proxy.carried["upward"] < (LARGE_BYTES + twice) * FRAMES


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "torn record"])
def test_an_upload_whose_beginning_is_damaged_comes_anew(
    federation: fakes.Federation, proxy: proxies.Proxy, damage: str
) -> None:
    """What lies on the disk is not what came: the reply is sent from its first byte, and is right."""
    large, asked = record(LARGE), list[str]()
    start(federation, proxy, uploads(large, asked))
    journal = federation.directory / "journal"

    def harm() -> None:
        (segment,), (part,) = (journal / "arrays").iterdir(), (journal / "unfinished").iterdir()
        match damage:
            case "changed":
                with segment.open("r+b") as file:
                    file.seek(3_000_000)
                    byte = file.read(1)[0]
                    file.seek(3_000_000)
                    file.write(bytes((byte ^ 1,)))
            case "cut":
                with segment.open("r+b") as file:
                    file.truncate(3_000_000)
            case "gone":
                segment.unlink()
            case "torn record":
                with part.open("r+b") as file:
                    file.truncate(part.stat().st_size - 1)

    with dies_while(federation, proxy, [record(3)], harm=harm, upward=CUT_AT) as app:
        (reply,) = app.runs().result(fakes.LIMIT_SECONDS)
        assert data_of(reply.content["arrays"]) == data_of(large)  # type: ignore[arg-type]
    assert len(asked) == 1
    assert proxy.carried["upward"] > 1.4 * LARGE_BYTES


def test_a_reply_before_it_that_no_disk_had_is_not_taken_for_received(
    federation: fakes.Federation, proxy: proxies.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replies, and no room for the first: who is told where the second goes on would forget the first."""
    large, asked = record(LARGE), list[int]()

    def no_room() -> NoReturn:
        raise journals.NoRoom("none")

    def answer(message: Message, _: object) -> Message:
        asked.append(len(asked))
        if len(asked) == 1:
            monkeypatch.setattr(federation.book, "_flush", no_room)
        arrays = record(3) if len(asked) == 1 else large
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    start(federation, proxy, answer)
    with dies_while(federation, proxy, [record(3, 1), record(3, 2)], upward=CUT_AT) as app:
        replies = app.runs().result(fakes.LIMIT_SECONDS)
        got = [data_of(reply.content["arrays"]) for reply in replies]  # type: ignore[arg-type]
    assert got == [data_of(record(3)), data_of(large)]
    assert asked == [0, 1]


def test_a_beginning_that_nobody_waits_for_is_dropped(
    federation: fakes.Federation, proxy: proxies.Proxy
) -> None:
    """The next aggregator's app does something else: the client's reply is refused, and takes no room."""
    large, asked = record(LARGE), list[str]()
    start(federation, proxy, uploads(large, asked))
    journal = federation.directory / "journal"

    def harm() -> None:
        assert len(list((journal / "unfinished").iterdir())) == 1
        for index in journal.glob("journal.sqlite*"):
            index.unlink()

    with dies_while(federation, proxy, [record(3)], harm=harm, upward=CUT_AT):
        federation.started()
        until(lambda: not list(federation.book.unfinished.read()))
        federation.until(lambda: fakes.node("zurich") in federation.driver._sessions)
    assert len(asked) == 1


def test_a_client_that_died_as_well_is_asked_again(
    federation: fakes.Federation, proxy: proxies.Proxy
) -> None:
    """Its next process has nothing: what the aggregator knows of its reply keeps the message from nobody."""
    large, asked = record(LARGE), list[str]()
    first = start(federation, proxy, uploads(large, asked))
    with dies_while(federation, proxy, [record(3)], harm=first.vanish, upward=CUT_AT) as app:
        answered = app.runs()
        federation.client("zurich", uploads(record(5), asked), address=proxy.address)
        (reply,) = answered.result(fakes.LIMIT_SECONDS)
        assert data_of(reply.content["arrays"]) == data_of(record(5))  # type: ignore[arg-type]
    assert len(asked) == 2
