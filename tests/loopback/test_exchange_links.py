"""Links that are cut, frozen and renewed: nothing is lost, and nothing travels twice."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime as dt
import threading
import time

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from edge_agent.client import link
from federation.trust import pinning
from simulations.chaos import proxy as proxies
from tests.fakes import exchange as fakes

LARGE = 5_000_000
"""float32 numbers: 20 MB."""
LARGE_BYTES = LARGE * 4


federation = fakes.federation
proxy = fakes.proxy


def echo(message: Message, _: object) -> Message:
    return Message(RecordDict({"arrays": message.content["arrays"]}), reply_to=message)


def record(size: int, seed: int = 0) -> ArrayRecord:
    return ArrayRecord({"w": Array(np.random.default_rng(seed).random(size, np.float32))})


def ask(federation: fakes.Federation, arrays: ArrayRecord, kind: str = "evaluate") -> Message:
    message = Message(RecordDict({"arrays": arrays, "config": ConfigRecord()}), fakes.node("zurich"), kind)
    (reply,) = federation.grid.send_and_receive([message])
    assert reply.has_content(), reply
    return reply


def test_a_download_that_is_cut_goes_on_where_it_was(
    federation: fakes.Federation, proxy: proxies.Proxy
) -> None:
    """A model of 20 MB, cut at 8 MB: the client gets the same bytes, and few of them twice."""

    def digest(message: Message, _: object) -> Message:
        values = message.content["arrays"]["w"].numpy()  # type: ignore[union-attr]
        return Message(RecordDict({"arrays": ArrayRecord({"w": Array(values[::100_000])})}), reply_to=message)

    federation.expect("zurich")
    federation.client("zurich", digest, address=proxy.address)
    federation.started()
    arrays = record(LARGE)
    want = arrays["w"].numpy()[::100_000]
    federation.on_loop(lambda: proxy.cut_after(downward=8_000_000))
    reply = ask(federation, arrays)
    assert np.array_equal(reply.content["arrays"]["w"].numpy(), want)  # type: ignore[union-attr]
    assert proxy.cuts == 1
    assert LARGE_BYTES < proxy.carried["downward"] < 1.3 * LARGE_BYTES


def test_an_upload_that_is_cut_goes_on_where_it_was(
    federation: fakes.Federation, proxy: proxies.Proxy
) -> None:
    """A reply of 20 MB, cut at 8 MB."""
    large = record(LARGE)
    want = large["w"].data

    def upload(message: Message, _: object) -> Message:
        return Message(RecordDict({"arrays": large}), reply_to=message)

    federation.expect("zurich")
    federation.client("zurich", upload, address=proxy.address)
    federation.started()
    federation.on_loop(lambda: proxy.cut_after(upward=8_000_000))
    reply = ask(federation, record(1), "evaluate")
    assert reply.content["arrays"]["w"].data == want  # type: ignore[union-attr]
    assert proxy.cuts == 1
    assert LARGE_BYTES < proxy.carried["upward"] < 1.3 * LARGE_BYTES


def test_many_cuts_change_nothing(federation: fakes.Federation, proxy: proxies.Proxy) -> None:
    """Cut in both directions, at every stage of a message: each answer is right, and comes once."""
    federation.expect("zurich")
    federation.client("zurich", echo, address=proxy.address)
    federation.started()
    for seed in range(4):
        arrays = record(150_000, seed)
        want = arrays["w"].data
        federation.on_loop(
            lambda s=seed: proxy.cut_after(downward=150_000 * (s + 1), upward=200_000 * s + 3_000)
        )
        assert ask(federation, arrays).content["arrays"]["w"].data == want  # type: ignore[union-attr]
    assert proxy.cuts >= 4


def test_a_link_that_is_cut_while_the_app_works_costs_nothing(
    federation: fakes.Federation, proxy: proxies.Proxy
) -> None:
    """The message is not sent again, the app is not called again, and its answer comes over the next link."""
    calls: list[str] = []
    reached, gate = threading.Event(), threading.Event()

    def works(message: Message, _: object) -> Message:
        calls.append(message.metadata.message_id)
        reached.set()
        assert gate.wait(fakes.LIMIT_SECONDS)
        return echo(message, _)

    federation.expect("zurich")
    federation.client("zurich", works, address=proxy.address)
    federation.started()
    arrays = record(500_000)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(ask, federation, arrays)
        assert reached.wait(fakes.LIMIT_SECONDS)
        before = proxy.carried["downward"]
        for _ in range(3):
            federation.after("zurich", proxy.cut)
        assert proxy.carried["downward"] - before < 100_000
        gate.set()
        pending.result(fakes.LIMIT_SECONDS)
    assert len(calls) == 1


def test_a_half_open_link_is_replaced(federation: fakes.Federation, proxy: proxies.Proxy) -> None:
    """The aggregator does not know yet that nobody reads there; a newer session gets the work at once."""
    federation.expect("zurich")
    federation.client("zurich", echo, address=proxy.address)
    federation.started()
    federation.on_loop(proxy.freeze)
    arrays = record(2_000_000)  # more than the frozen link takes up
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(ask, federation, arrays)
        federation.until_state("zurich", "Training")
        federation.client("zurich", echo)
        reply = pending.result(fakes.LIMIT_SECONDS)
    assert reply.content["arrays"]["w"].data == arrays["w"].data  # type: ignore[union-attr]


def test_renewed_certificates_leave_open_streams_alone(
    federation: fakes.Federation, proxy: proxies.Proxy
) -> None:
    """Both sides renew; the session goes on, and the next one shows the new certificates."""
    federation.expect("zurich")
    client = federation.client("zurich", echo, address=proxy.address)
    federation.started()
    ask(federation, record(10))

    own = federation.authority.issue(fakes.identity("zurich"))
    client.credentials.write(own.key_pem, own.chain_pem, own.bundle_pem)
    server = federation.authority.issue(federation.credentials.identity(), dns=[fakes.SERVER_NAME])
    federation.credentials.write(server.key_pem, server.chain_pem, server.bundle_pem)
    before = federation.on_loop(lambda: {call.peer.serial for call in federation.guard._open if call.peer})
    ask(federation, record(10))
    assert (
        federation.on_loop(lambda: {call.peer.serial for call in federation.guard._open if call.peer})
        == before
    )

    federation.after("zurich", proxy.cut)
    ask(federation, record(10))
    assert federation.on_loop(lambda: {call.peer.serial for call in federation.guard._open if call.peer}) == {
        own.serial
    }
    chain = asyncio.run(asyncio.to_thread(pinning.presented_chain, federation.address, 10.0))
    assert chain[0].serial_number == server.serial


def test_a_client_whose_certificate_has_ended_comes_back_with_the_next(
    federation: fakes.Federation, proxy: proxies.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on dialling, is refused, and takes the new certificate when it is there."""
    monkeypatch.setattr(link, "LOOK_SECONDS", 0.05)
    federation.expect("zurich")
    ended = federation.authority.expired(fakes.identity("zurich")).directory(federation.directory / "zurich")
    client = fakes.Client(proxy.address, ended, "zurich", echo)
    federation.clients.append(client)
    client.start()
    while not federation.on_loop(lambda: proxy.carried["upward"]):
        time.sleep(0.01)
    own = federation.authority.issue(fakes.identity("zurich"))
    client.credentials.write(own.key_pem, own.chain_pem, own.bundle_pem)
    federation.started()
    ask(federation, record(10))


def test_a_certificate_that_ends_as_the_aggregator_is_dialled_ends_no_client(
    federation: fakes.Federation,
) -> None:
    """TLS took it, and the guard did not any more: it is a matter of moments, and of the agent's."""
    federation.expect("zurich")
    now, asked = federation.guard._now, threading.Event()

    def later() -> dt.datetime:
        asked.set()
        return now() + dt.timedelta(hours=2)

    federation.guard._now = later
    federation.client("zurich", echo)
    assert asked.wait(fakes.LIMIT_SECONDS)
    federation.guard._now = now
    federation.started()
    ask(federation, record(10))
