"""A round whose journal has no room: nothing is lost or asked twice, no deadline runs, and it goes on."""

from __future__ import annotations

import concurrent.futures
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict

from coordinator.aggregation import events
from coordinator.aggregator import driver as driver_module
from coordinator.journal import room
from federation.flower import arrays as flower_arrays
from tests.fakes import disks
from tests.fakes import exchange as fakes


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[disks.Disk]:
    """A disk for the journal and nothing else."""
    monkeypatch.setattr(room, "RETRY_SECONDS", 0.01)
    with disks.mounted(tmp_path, 24) as made:
        yield made


class Clients:
    """Two that answer with the model and their own number added; each waits at its gate."""

    def __init__(self, federation: fakes.Federation) -> None:
        self.asked: list[str] = []
        self.at_work, self.gate = threading.Semaphore(0), threading.Event()
        federation.expect("zurich", "geneva")
        self.clients = [federation.client(name, self._answers(name)) for name in ("zurich", "geneva")]
        federation.started()

    def _answers(self, name: str) -> fakes.Answer:
        def answer(message: Message, context: Context) -> Message:
            del context
            self.asked.append(name)
            self.at_work.release()
            assert self.gate.wait(fakes.LIMIT_SECONDS)
            sent = message.content["arrays"]["w"].numpy()  # type: ignore[index, call-overload]
            record = RecordDict(
                {
                    "arrays": ArrayRecord({"w": Array(sent + np.float32(len(name)))}),
                    "metrics": MetricRecord({"num-examples": 1}),
                }
            )
            return Message(record, reply_to=message)

        return answer

    def until_at_work(self) -> None:
        """Both have the message."""
        for _ in self.clients:
            assert self.at_work.acquire(timeout=fakes.LIMIT_SECONDS)


def ask(values: int) -> list[Message]:
    """The same model for both."""
    arrays = ArrayRecord({"w": Array(np.arange(values, dtype=np.float32))})
    return [
        Message(RecordDict({"arrays": arrays}), fakes.node(name), "train") for name in ("zurich", "geneva")
    ]


def model(replies: list[Message]) -> dict[int, bytes]:
    """What came of whom."""
    return {
        reply.metadata.src_node_id: reply.content["arrays"]["w"].numpy().tobytes()  # type: ignore[index, call-overload]
        for reply in replies
    }


@pytest.mark.parametrize("values", [8, 100_000, 1_000_000], ids=["small", "one chunk", "many chunks"])
def test_replies_wait_for_room(disk: disks.Disk, values: int) -> None:
    """Those that were on their way come when there is room; status says what is waited for."""
    with fakes.Federation(disk.path) as federation:
        clients = Clients(federation)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(federation.grid.send_and_receive, ask(values))
            clients.until_at_work()
            disk.fill()
            clients.gate.set()
            federation.until(lambda: federation.progress.report().reason == "StorageFull")
            assert str(disk.path) in federation.progress.report().message
            disk.make_room()
            replies = asked.result(fakes.LIMIT_SECONDS)
        federation.until(lambda: not federation.progress.report().reason)
        sent = np.arange(values, dtype=np.float32)
        want = {fakes.node(n): (sent + np.float32(len(n))).tobytes() for n in ("zurich", "geneva")}
        assert model(replies) == want
        again = model(federation.grid.send_and_receive(ask(values)))
        assert again == want
        assert sorted(clients.asked) == ["geneva", "geneva", "zurich", "zurich"]


def test_a_client_that_leaves_meanwhile_does_not_hold_up_the_rest(disk: disks.Disk) -> None:
    """What came of it is written when there is room, and time goes on."""
    with fakes.Federation(disk.path) as federation:
        clients = Clients(federation)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(federation.grid.send_and_receive, ask(1_000_000))
            clients.until_at_work()
            disk.fill()
            clients.gate.set()
            federation.until(lambda: federation.progress.report().reason == "StorageFull")
            for client in clients.clients:
                client.vanish()
            assert federation.progress.report().reason == "StorageFull"
            disk.make_room()
            federation.until(lambda: not federation.progress.report().reason)
            federation.handle(events.StopAsked("TrainingEnded", "the test is over"))
            with pytest.raises(driver_module.TrainingOver):
                asked.result(fakes.LIMIT_SECONDS)


def test_a_training_may_be_stopped_while_there_is_no_room(disk: disks.Disk) -> None:
    """The app's call ends, also where it waits for the disk."""
    with fakes.Federation(disk.path) as federation:
        Clients(federation)
        disk.fill()
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            asked = pool.submit(federation.grid.send_and_receive, ask(8))
            federation.until(lambda: federation.progress.report().reason == "StorageFull")
            federation.handle(events.StopAsked("StopRequested", "enough"))
            with pytest.raises(driver_module.TrainingOver) as over:
                asked.result(fakes.LIMIT_SECONDS)
        assert over.value.reason == "StopRequested"
        disk.make_room()


def test_no_deadline_runs_while_there_is_no_room() -> None:
    """A timer that fires meanwhile is set again when there is some, for what was left."""
    with fakes.Driving() as driving:
        driving.join("zurich", "geneva")
        for session in driving.sessions.values():
            session.holds_back = True
        driver = driving.driver
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            driving.on_loop(lambda: driver.room_changed("no room"))
            asked = pool.submit(driving.grid.send_and_receive, ask(8), timeout=0.05)
            fired = False
            while not fired:
                driving.clock += 1000.0
                fired = driving.on_loop(lambda: driver._due is not None and driver._timer is None)
            assert not asked.done()
            driving.on_loop(lambda: driver.room_changed(""))
            with pytest.raises(driver_module.TrainingOver, match="no reply within"):
                asked.result(fakes.LIMIT_SECONDS)


def test_a_disk_that_cannot_be_read_is_not_its_clients_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reply that cannot be read back to be checked is not refused: the training ends for its own disk."""

    def broken(*_: object) -> NoReturn:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with fakes.Federation(tmp_path) as federation, concurrent.futures.ThreadPoolExecutor(1) as pool:
        clients = Clients(federation)
        asked = pool.submit(federation.grid.send_and_receive, ask(1_000_000))
        clients.until_at_work()
        for how in ("_read", "_read_into"):
            monkeypatch.setattr(flower_arrays.SpoolFile, how, broken)
        clients.gate.set()
        with pytest.raises(driver_module.TrainingOver, match="could not be read from the disk") as over:
            asked.result(fakes.LIMIT_SECONDS)
    assert over.value.reason == "StorageUnavailable"
