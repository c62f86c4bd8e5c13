"""Aggregators that die while a large message or reply is on its way: the next one goes on at its offset."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from coordinator.aggregator import driver
from coordinator.aggregator import grid as grids
from simulations.chaos import proxy as proxies
from tests.fakes import exchange as fakes

LARGE = 6_000_000
"""float32 numbers: 24 MB."""
LARGE_BYTES = LARGE * 4
CUT_AT = 13_000_000

federation = fakes.federation
proxy = fakes.proxy


def record(size: int, seed: int = 0) -> ArrayRecord:
    """Three arrays, one of them small, so that a cut lies within the second large one."""
    rng = np.random.default_rng(seed)
    sizes = {"first": size // 3, "bias": 10, "second": size - size // 3}
    return ArrayRecord({name: Array(rng.random(length, np.float32)) for name, length in sizes.items()})


def data_of(arrays: ArrayRecord) -> dict[str, bytes]:
    return {name: array.data for name, array in arrays.items()}


class App:
    """A ServerApp that asks one client once; it is run again by each aggregator."""

    def __init__(self, federation: fakes.Federation, arrays: ArrayRecord, pool: concurrent.futures.Executor):
        self._federation, self._arrays, self._pool = federation, arrays, pool

    def runs(self) -> concurrent.futures.Future[list[Message]]:
        return self._pool.submit(self._run, self._federation.grid)

    def _run(self, grid: grids.HanseGrid) -> list[Message]:
        assert grid.get_node_ids() == [fakes.node("zurich")]
        content = RecordDict({"arrays": self._arrays, "config": ConfigRecord()})
        return grid.send_and_receive([Message(content, fakes.node("zurich"), "evaluate")])


@contextlib.contextmanager
def dies_while(
    federation: fakes.Federation, proxy: proxies.Proxy, arrays: ArrayRecord, **cut: int
) -> Iterator[App]:
    """The aggregator dies when so many bytes have passed; what follows is in the next one's life."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        app = App(federation, arrays, pool)
        federation.on_loop(lambda: proxy.cut_after(**cut))
        federation.on_loop(lambda: proxy.lead_to(nobody.getsockname()[1]))  # until there is a successor
        asked = app.runs()
        federation.until_lost("zurich")
        assert proxy.cuts == 1
        federation.dies()
        with pytest.raises(driver.TrainingOver):
            asked.result(fakes.LIMIT_SECONDS)
        federation.expect("zurich")
        federation.on_loop(lambda: proxy.lead_to(federation.port))
        yield app


def test_a_download_goes_on_where_it_was(federation: fakes.Federation, proxy: proxies.Proxy) -> None:
    """The message of 24 MB has another time now; the client gets the same arrays, and few bytes twice."""
    got: list[dict[str, bytes]] = []

    def looks(message: Message, _: object) -> Message:
        got.append(data_of(message.content["arrays"]))  # type: ignore[arg-type]
        return Message(RecordDict({"arrays": record(3)}), reply_to=message)

    federation.expect("zurich")
    federation.client("zurich", looks, address=proxy.address)
    federation.started()
    arrays = record(LARGE)
    with dies_while(federation, proxy, arrays, downward=CUT_AT) as app:
        (reply,) = app.runs().result(fakes.LIMIT_SECONDS)
    assert reply.has_content(), reply
    assert got == [data_of(arrays)]
    assert LARGE_BYTES < proxy.carried["downward"] < 1.3 * LARGE_BYTES
