"""A member that turns on its aggregator: real Exchange, driver and TLS; the client's side is written by hand.

Every attack ends as a refusal of the attacker's own reply, or of its own session. The honest cluster's reply
counts in each, and the batch closes: nobody can hold a training up, end it, or speak for somebody else.
"""

from __future__ import annotations

import asyncio
import io
import struct
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from coordinator.aggregation import checks, events, instructions, rounds
from coordinator.aggregator import driver as drivers
from coordinator.aggregator import exchange, grid, history, verification
from coordinator.aggregator import progress as progresses
from coordinator.journal import book as journal
from coordinator.journal import entries as journal_entries
from coordinator.journal import reading
from federation.flower import host, messages
from federation.trust import authorisation, interceptors
from federation.trust import identity as identities
from federation.wire import codec, denials, digests, frames, outbox, transfers
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits
from tests.fakes import certificates
from tests.fakes import exchange as fakes

import grpc  # isort: skip  # after federation.trust
import grpc.aio  # isort: skip

TD, NAMESPACE, NAME = certificates.TRUST_DOMAIN, "cardiology", "hospitals"
AGGREGATOR = identities.AggregatorIdentity(TD, NAMESPACE, NAME)
MODEL = {"weights": np.arange(12, dtype=np.float32).reshape(4, 3) + 100, "bias": np.zeros(3, np.float32)}
RUN_ID = 4711
NODES = {"budapest": 7, "zurich": 9}
LATE_SECONDS = 0.3
PATIENCE_SECONDS = 60.0  # for what must come; a slow machine decides no test


def npy(value: np.ndarray, padding: int = 0) -> bytes:
    """The .npy file of an array, its header longer by so many blanks."""
    stream = io.BytesIO()
    np.save(stream, value, allow_pickle=True)
    data = stream.getvalue()
    length = struct.unpack("<H", data[8:10])[0]
    head = data[10 : 10 + length].rstrip(b"\n") + b" " * padding + b"\n"
    return data[:8] + struct.pack("<H", len(head)) + head + data[10 + length :]


class Rig:
    """One training's aggregator without its ServerApp, on loopback."""

    def __init__(self, path: Path, **bounds: Any) -> None:
        self.path = path
        self.authority = certificates.Authority()
        self.deadline: float | None = bounds.pop("deadline", None)
        self.late = bounds.pop("late", events.LateReplies.DISCARD)
        limits = {"maximum_update_bytes": 10**7, "maximum_examples": 10**6} | bounds
        self.verifier = verification.Verifier(checks.Limits(**limits))
        self.progress = progresses.Progress()

    async def __aenter__(self) -> Rig:
        rules = events.RoundRules(
            1, deadline_seconds=self.deadline, late_replies=self.late, start_grace_seconds=0.0,
            start_deadline_seconds=60.0,  # a slow machine takes longer to connect than a round may
        )  # fmt: skip
        machine = rounds.RoundMachine(f"{NAMESPACE}/{NAME}", rules, time.monotonic())
        self.book = journal.Book(self.path / "journal", {"training": f"{NAMESPACE}/{NAME}"})
        self.driver = drivers.Driver(machine, self.progress, self.book, loop=asyncio.get_running_loop())
        self.exchange = exchange.Exchange(
            self.driver,
            self.progress,
            self.verifier,
            node_of=NODES.__getitem__,
            run_id=RUN_ID,
            book=self.book,
            message_limits=wire_limits.MessageLimits(),
        )
        scope = authorisation.exchange_scope(TD, NAMESPACE, NAME)
        self.guard = interceptors.Guard(scope)
        self.server = grpc.aio.server(interceptors=[self.guard])
        self.exchange.add_to_server(self.server)
        own = self.authority.server(AGGREGATOR).directory(self.path / "aggregator")
        self.address = f"127.0.0.1:{self.server.add_secure_port('127.0.0.1:0', own.server_credentials())}"
        await self.server.start()
        self.exchange.expect(NODES)
        members = tuple(events.Member(node, cluster) for cluster, node in NODES.items())
        self.driver.handle(events.RosterChanged(members, self.driver.now()))
        host.prepare_process(RUN_ID, host.SERVER_NODE_ID)
        past = history.History(self.book)
        past.attach(self.driver)
        self.grid = grid.HanseGrid(
            self.driver, self.progress, past, run=host.make_run(RUN_ID), judged=lambda: False
        )
        self.peers: list[Peer] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.peers:
            await peer.close()
        self.driver.handle(events.StopAsked("TrainingEnded", "the test is over"))  # lets waiting threads go
        self.driver.close("TrainingEnded", "the test is over")
        await self.server.stop(0)
        self.book.close()

    def channel(self, cluster: str) -> grpc.aio.Channel:
        who = identities.ClientIdentity(TD, cluster, NAMESPACE, NAME, "heart")
        own = self.authority.client(who).directory(self.path / f"{cluster}-{len(self.peers)}")
        return own.channel(self.address, AGGREGATOR.server_name)

    async def peer(self, cluster: str) -> Peer:
        """A client's session that was welcomed; with it there are enough for the app to start."""
        peer = Peer(self.channel(cluster))
        self.peers.append(peer)
        before = self.driver._sessions.get(NODES[cluster])
        await peer.hello()
        # The welcome goes out before the round machine hears of the session.
        await until(lambda: self.driver._sessions.get(NODES[cluster]) is not before)
        await asyncio.shield(asyncio.wrap_future(self.driver.app_may_start))
        return peer

    def train(self, *clusters: str) -> asyncio.Task[list[Message]]:
        """Send the model to be trained, as a strategy would; the replies come with the task."""
        return asyncio.create_task(asyncio.to_thread(self._train, clusters))

    def _train(self, clusters: tuple[str, ...]) -> list[Message]:
        try:
            return self._send_and_receive(clusters)
        except drivers.TrainingOver as over:
            raise RuntimeError("the training ended") from over

    def _send_and_receive(self, clusters: tuple[str, ...]) -> list[Message]:
        self.driver.app_may_start.result()  # as the aggregator does: an app that is not there asks nothing
        self.driver.nodes()
        arrays = ArrayRecord({name: Array(value) for name, value in MODEL.items()})
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": 1})})
        return self.grid.send_and_receive([Message(content, NODES[name], "train") for name in clusters])


class Peer:
    """The client's end of one stream."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        open_stream = channel.stream_stream(
            "/hanse.v1.Exchange/Session",
            request_serializer=lambda frame: frame if isinstance(frame, bytes) else frames.serialise(frame),
            response_deserializer=frames.aggregator_frames,
        )
        self.call = open_stream()
        self.parts: dict[bytes, bytearray] = {}
        self.incoming = transfers.Incoming(held=self.parts.__contains__, sink_factory=self._sink)
        self._frames = fakes.Frames(self.call)
        self.confirms = True
        self.node_id = 0

    def _sink(self, entry: pb.ArrayEntry) -> codec.Sink:
        return self.parts.setdefault(entry.digest, bytearray()).extend

    async def hello(self, **fields: Any) -> None:
        hello = pb.ClientHello(protocol=pb.ProtocolRange(oldest=1, newest=1), warm=True, **fields)
        await self.call.write(pb.ClientFrame(hello=hello))
        first = await self.read()
        self.node_id = first.welcome.node_id

    async def read(self) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._frames.read()

    async def message(self) -> pb.MessageHeader:
        """The next message that comes whole."""
        while True:
            frame = await self.read()
            assert frame is not grpc.aio.EOF, await self.call.details()
            if isinstance(frame, frames.Chunk):
                happened = self.incoming.chunk(frame)
            elif frame.WhichOneof("body") == "begin":
                happened = self.incoming.begin(frame.begin)
            else:
                continue
            for event in happened:
                if isinstance(event, codec.MessageReceived):
                    if self.confirms:
                        received = pb.TransferReceived(transfer_id=event.header.message_id)
                        await self.call.write(pb.ClientFrame(received=received))
                    return event.header

    async def send(self, header: pb.MessageHeader, arrays: Mapping[bytes, bytes]) -> None:
        """Send a message as it is."""
        transfer = transfers.Outgoing(codec.OutgoingMessage(header, arrays))
        await self.call.write(pb.ClientFrame(begin=transfer.begin()))
        for chunk in transfer.chunks():
            await self.call.write(chunk)

    async def end(self) -> denials.Denial | None:
        """Read to the end; the denial that it ended with, if any."""
        try:
            while await self.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as error:
            return denials.from_rpc_error(error)
        return None

    async def close(self) -> None:
        self.call.cancel()
        await self._channel.close()


Change = Callable[[pb.MessageHeader, dict[bytes, bytes]], None]


def put_array(
    header: pb.MessageHeader,
    arrays: dict[bytes, bytes],
    name: str,
    data: bytes,
    *,
    record: int = 0,
    dtype: str = "float32",
    shape: tuple[int, ...] = (),
    serialization: str = "numpy.ndarray",
) -> None:
    """Add an array entry to a record of the reply, or replace the one of this name."""
    digest = digests.digest(data)
    arrays[digest] = data
    entries = header.records[record].arrays.entries
    entry = next((entry for entry in entries if entry.name == name), None) or entries.add(name=name)
    del entry.shape[:]
    entry.shape.extend(shape)
    entry.dtype, entry.serialization, entry.digest = dtype, serialization, digest
    entry.length_bytes = len(data)


def answer_to(
    asked: pb.MessageHeader, change: Change | None = None
) -> tuple[pb.MessageHeader, dict[bytes, bytes]]:
    """An honest reply to a train message, then spoilt by `change`."""
    header = pb.MessageHeader(
        message_id=outbox.reply_id(asked.message_id),
        reply_to_message_id=asked.message_id,
        run_id=asked.run_id,
        source_node_id=asked.destination_node_id,
        destination_node_id=asked.source_node_id,
        message_type=asked.message_type,
        created_at=time.time(),
        ttl_seconds=60.0,
        has_content=True,
    )
    record = header.records.add(name="arrays")
    record.arrays.SetInParent()
    arrays: dict[bytes, bytes] = {}
    for name, value in MODEL.items():
        put_array(header, arrays, name, npy(value + np.float32(1)), shape=value.shape)
    metrics = header.records.add(name="metrics")
    metrics.metrics.entries.add(name="num-examples", value=pb.Value(integer=10))
    if change is not None:
        change(header, arrays)
    return header, arrays


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with Rig(tmp_path) as started:
        yield started


async def one_bad_one_good(rig: Rig, change: Change) -> tuple[Message, Message]:
    """Budapest is honest, Zurich spoils its reply; both replies as the app gets them."""
    good, bad = await rig.peer("budapest"), await rig.peer("zurich")
    replies = rig.train("budapest", "zurich")
    await bad.send(*answer_to(await bad.message(), change))
    await good.send(*answer_to(await good.message()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        by_node = {reply.metadata.src_node_id: reply for reply in await replies}
    assert set(by_node) == set(NODES.values())
    assert by_node[NODES["budapest"]].has_content()
    return by_node[NODES["budapest"]], by_node[NODES["zurich"]]


def twice_the_metric(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    header.records[1].metrics.entries.add(name="num-examples", value=pb.Value(integer=10))


def twice_the_record(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    header.records.add(name="metrics").metrics.SetInParent()


def twice_the_array(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    record = header.records.add(name="more")
    for _ in range(2):
        record.arrays.entries.add().CopyFrom(header.records[0].arrays.entries[0])


def nameless_kind(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    header.records.add(name="void")


def valueless(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    header.records.add(name="config").config.entries.add(name="nothing")


def list_in_list(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    value = header.records.add(name="config").config.entries.add(name="nested").value
    value.list.items.add().list.integers.append(1)


def text_as_metric(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    header.records[1].metrics.entries.add(name="loss", value=pb.Value(text="low"))


def examples_as_list(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    del header.records[1].metrics.entries[:]
    value = pb.Value(list=pb.ValueList(integers=[10]))
    header.records[1].metrics.entries.add(name="num-examples", value=value)


def examples_behind_a_second_record(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
    header.records[1].metrics.entries[0].value.integer = 10**15
    honest = header.records.add(name="more").metrics.entries.add(name="num-examples")
    honest.value.integer = 10


def other_serialisation(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    put_array(header, arrays, "bias", b"no array at all", shape=(3,), serialization="pickle")


def pickled_objects(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    put_array(header, arrays, "bias", npy(np.array([{}, {}, {}], dtype=object)), shape=(3,))


def structured(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    data = npy(np.zeros(3, dtype=[("a", "<f4")]))
    put_array(header, arrays, "bias", data, dtype="[('a', '<f4')]", shape=(3,))


def big_endian(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    put_array(header, arrays, "bias", npy(np.zeros(3, ">f4")), dtype="float32", shape=(3,))


def not_a_number(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    put_array(header, arrays, "bias", npy(np.array([0, np.nan, 0], np.float32)), shape=(3,))


def nan_beside_the_model(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    header.records.add(name="more").arrays.SetInParent()
    put_array(header, arrays, "x", npy(np.array([np.inf], np.float32)), record=2, shape=(1,))


def shape_of_many_dimensions(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    header.records[0].arrays.entries[0].shape.extend([2**62] * 100_000)


def dtype_of_many_fields(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    header.records[0].arrays.entries[0].dtype = "f4," * 200_000 + "f4"


def more_values_than_shape(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    put_array(header, arrays, "bias", npy(np.zeros(3, np.float32)) + b"\0" * 400, shape=(3,))


def fewer_values_than_shape(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    put_array(header, arrays, "bias", npy(np.zeros(3, np.float32))[:-4], shape=(3,))


def megabytes_beside_the_arrays(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
    data = bytes(11_000_000)
    digest = digests.digest(data)
    arrays[digest] = data
    blob = pb.ArrayEntry(serialization="bytes", digest=digest, length_bytes=len(data))
    header.records.add(name="config").config.entries.add(name="blob", value=pb.Value(blob=blob))


@pytest.mark.parametrize(
    "spoil",
    [
        twice_the_metric,
        twice_the_record,
        twice_the_array,
        nameless_kind,
        valueless,
        list_in_list,
        text_as_metric,
        examples_as_list,
        examples_behind_a_second_record,
        other_serialisation,
        pickled_objects,
        structured,
        big_endian,
        not_a_number,
        nan_beside_the_model,
        shape_of_many_dimensions,
        dtype_of_many_fields,
        more_values_than_shape,
        fewer_values_than_shape,
        megabytes_beside_the_arrays,
    ],
    ids=lambda spoil: spoil.__name__,
)
async def test_a_spoilt_reply_is_its_senders_error_only(rig: Rig, spoil: Change) -> None:
    """The batch closes with an error reply for the attacker, and quickly."""
    began = time.monotonic()
    _, bad = await one_bad_one_good(rig, spoil)
    assert bad.has_error()
    assert bad.error.code == instructions.REPLY_REFUSED
    assert time.monotonic() - began < 5


async def test_nobody_speaks_for_another_node(rig: Rig) -> None:
    """Run, nodes, group and type of a reply are the aggregator's own knowledge, whatever its header says."""

    def impersonate(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
        header.source_node_id, header.destination_node_id = NODES["budapest"], 12345
        header.run_id, header.group_id, header.message_type = 1, "other", "query.secrets"
        header.created_at, header.ttl_seconds = float("inf"), float("nan")

    good, bad = await one_bad_one_good(rig, impersonate)
    assert bad.has_content()
    assert bad.metadata.src_node_id == NODES["zurich"]
    for field in ("run_id", "dst_node_id", "group_id", "message_type"):
        assert getattr(bad.metadata, field) == getattr(good.metadata, field)
    assert abs(bad.metadata.created_at - time.time()) < 60
    assert 0 < bad.metadata.ttl < 10**7


async def test_the_message_of_another_is_not_answered(rig: Rig) -> None:
    """A reply to somebody else's message changes nothing, even one with poison in it."""
    good, bad = await rig.peer("budapest"), await rig.peer("zurich")
    replies = rig.train("budapest", "zurich")
    asked, other = await good.message(), await bad.message()
    await bad.send(*answer_to(asked, not_a_number))
    await bad.send(*answer_to(other))
    await good.send(*answer_to(asked))
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert all(reply.has_content() for reply in await replies)


def moved_by(number: int) -> Change:
    """The model that was sent, and so much more."""

    def change(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
        for name, value in MODEL.items():
            put_array(header, arrays, name, npy(value + np.float32(number)), shape=value.shape)

    return change


async def test_replayed_replies_change_nothing(rig: Rig) -> None:
    """The first reply counts. What comes to the same message later, the same or another, in this round or in
    the next, is confirmed and dropped, also when the transfer itself is not remembered any more.
    """
    good, again = await rig.peer("budapest"), await rig.peer("zurich")
    answered: list[pb.MessageHeader] = []

    async def replay(*changes: Change | None) -> None:
        for asked in answered:
            for change in changes:
                rig.exchange._clients["zurich"].incoming.forget(outbox.reply_id(asked.message_id))
                for _ in range(2):
                    await again.send(*answer_to(asked, change))

    for number in (1, 2):
        replies = rig.train("budapest", "zurich")
        asked = await again.message()
        await replay(None, moved_by(7))
        await again.send(*answer_to(asked, moved_by(number)))
        await until(lambda asked=asked: not rig.driver.awaits(asked.message_id, NODES["zurich"]))  # type: ignore[misc]
        answered.append(asked)
        await replay(None, moved_by(7), not_a_number)
        await good.send(*answer_to(await good.message()))
        async with asyncio.timeout(PATIENCE_SECONDS):
            by_node = {reply.metadata.src_node_id: reply for reply in await replies}
        record = by_node[NODES["zurich"]].content["arrays"]
        for name, value in MODEL.items():
            assert np.array_equal(record[name].numpy(), value + np.float32(number))  # type: ignore[union-attr, index]
    rig.book.commit()
    lines = [line.entry for line in reading.read(rig.path / "journal").lines]
    received = [entry.message_id for entry in lines if isinstance(entry, journal_entries.Received)]
    assert sorted(received) == sorted(set(received)), "each reply is written once"
    assert len(received) == 4


@pytest.mark.parametrize("late", [events.LateReplies.NEXT_ROUND, events.LateReplies.DISCARD])
async def test_late_replies_are_checked_too(tmp_path: Path, late: events.LateReplies) -> None:
    """A reply that waits until its round's deadline is over gets past no check."""
    async with Rig(tmp_path, deadline=LATE_SECONDS, late=late) as rig:
        good, bad = await rig.peer("budapest"), await rig.peer("zurich")
        first = rig.train("budapest", "zurich")
        asked = await bad.message()
        await good.send(*answer_to(await good.message()))
        assert len(await first) == 1  # the deadline
        await bad.send(*answer_to(asked, not_a_number))
        await until(lambda: not rig.exchange._clients["zurich"].checking)
        second = rig.train("budapest", "zurich")
        await good.send(*answer_to(await good.message()))
        replies = {reply.metadata.src_node_id: reply for reply in await second}
        poisoned = replies.get(NODES["zurich"])
        assert poisoned is None or poisoned.has_error()


async def test_a_good_late_reply_counts_in_the_next_round(tmp_path: Path) -> None:
    """What NextRound promises still holds."""
    async with Rig(
        tmp_path, deadline=LATE_SECONDS, late=events.LateReplies.NEXT_ROUND, maximum_norm=10
    ) as rig:
        good, bad = await rig.peer("budapest"), await rig.peer("zurich")
        first = rig.train("budapest", "zurich")
        asked = await bad.message()
        await good.send(*answer_to(await good.message()))
        assert len(await first) == 1
        await bad.send(*answer_to(asked))
        await asyncio.sleep(0.1)
        second = rig.train("budapest", "zurich")
        await good.send(*answer_to(await good.message()))
        assert {reply.metadata.src_node_id for reply in await second if reply.has_content()} == set(
            NODES.values()
        )


def zeros(header: pb.MessageHeader, arrays: dict[bytes, bytes], padding: int, order: str) -> None:
    value = np.zeros((4, 3), np.float32, order=order)  # type: ignore[call-overload]
    put_array(header, arrays, "weights", npy(value, padding), shape=(4, 3))


@pytest.mark.parametrize(("padding", "order"), [(0, "C"), (64, "C"), (0, "F"), (64, "F")])
async def test_the_norm_is_that_of_the_change(tmp_path: Path, padding: int, order: str) -> None:
    """A model of zeros is far from the one sent, however its file is laid out."""
    async with Rig(tmp_path, maximum_norm=10.0) as rig:
        _, bad = await one_bad_one_good(rig, lambda header, arrays: zeros(header, arrays, padding, order))
        assert bad.has_error()
        assert "NormExceeded" in bad.error.reason


async def test_another_layout_of_a_good_update_counts(tmp_path: Path) -> None:
    """Fortran's order is no offence: sklearn makes such arrays."""

    def fortran(header: pb.MessageHeader, arrays: dict[bytes, bytes]) -> None:
        value = np.asfortranarray(MODEL["weights"] + np.float32(1))
        put_array(header, arrays, "weights", npy(value, 64), shape=(4, 3))

    async with Rig(tmp_path, maximum_norm=10.0) as rig:
        _, bad = await one_bad_one_good(rig, fortran)
        assert bad.has_content()
        assert np.array_equal(bad.content["arrays"]["weights"].numpy(), MODEL["weights"] + 1)


async def test_a_report_stays_small_whatever_clients_say(rig: Rig) -> None:
    """Errors, failures, logs and metrics of megabytes do not make a report that the hub cannot take."""

    def error(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
        del header.records[:]
        header.has_content = False
        header.error.code, header.error.reason, header.error.has_reason = 2, "no \x1b[2J" * 400_000, True

    def metrics(header: pb.MessageHeader, _: dict[bytes, bytes]) -> None:
        for number in range(40_000):
            name = f"{number:06}-" + "m" * 100
            header.records[1].metrics.entries.add(name=name, value=pb.Value(real=1.0))

    good, bad = await rig.peer("budapest"), await rig.peer("zurich")
    for _ in range(3):
        await bad.call.write(pb.ClientFrame(log=pb.LogLines(lines=["l" * 3_000_000])))
    for spoil in (error, metrics):
        replies = rig.train("budapest", "zurich")
        await bad.send(*answer_to(await bad.message(), spoil))
        await good.send(*answer_to(await good.message()))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await replies
        report = rig.progress.report()
        assert report.ByteSize() < 100_000
        assert all(len(entry.values) <= 64 for entry in report.metrics)


async def test_unasked_replies_are_dropped_at_their_header(rig: Rig) -> None:
    """Nothing is written or kept for a message that nobody sent; it is confirmed, so that it ends."""
    peer = await rig.peer("zurich")
    asked = pb.MessageHeader(message_id="m" * 200, destination_node_id=NODES["zurich"], message_type="train")
    await peer.send(*answer_to(asked, megabytes_beside_the_arrays))
    frame = await peer.read()
    assert frame.received.transfer_id == outbox.reply_id(asked.message_id)
    assert not rig.driver._arrived


async def test_long_ids_are_refused(rig: Rig) -> None:
    """Ids are remembered, so they are short."""
    peer = await rig.peer("zurich")
    await peer.call.write(pb.ClientFrame(begin=pb.TransferBegin(transfer_id="i" * 100_000, total_bytes=100)))
    denial = await peer.end()
    assert denial is not None
    assert denial.reason is denials.Reason.BAD_MESSAGE
    assert len(denial.message) < 1000


async def test_a_client_that_never_confirms_makes_nothing_pile_up(rig: Rig) -> None:
    """A reply says that its message came; messages that nobody waits for any more are not kept for it."""
    peer = await rig.peer("zurich")
    peer.confirms = False
    for _ in range(5):
        replies = rig.train("zurich")
        await peer.send(*answer_to(await peer.message()))
        assert (await replies)[0].has_content()
    assert len(rig.exchange._clients["zurich"].outbox._waiting) <= 1


async def test_a_client_that_never_answers_is_not_sent_old_rounds(tmp_path: Path) -> None:
    """After some rounds at most the newest messages wait for it."""
    async with Rig(tmp_path, deadline=0.1) as rig:
        peer = await rig.peer("zurich")
        for _ in range(5):
            await rig.train("zurich")
        assert len(rig.exchange._clients["zurich"].outbox._waiting) <= 2
        assert peer.node_id == NODES["zurich"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        frames.serialise(frames.Chunk(0, b"abc")),
        b"",
        frames.serialise(pb.ClientFrame()),
        frames.serialise(pb.ClientFrame(hello=pb.ClientHello())),
        frames.serialise([pb.ClientFrame(log=pb.LogLines())] * (frames.MAXIMUM_TOGETHER + 1)),
    ],
    ids=["no protobuf", "a chunk out of place", "no frame", "no body", "a second hello", "too many frames"],
)
async def test_malformed_frames_end_their_own_session(rig: Rig, garbage: bytes) -> None:
    """The session ends, with a typed denial where the frame could be read; the next one is served."""
    peer = await rig.peer("zurich")
    await peer.call.write(garbage)
    denial = await peer.end()
    assert denial is None or denial.reason is denials.Reason.BAD_MESSAGE
    again = await rig.peer("zurich")
    replies = rig.train("zurich")
    await again.send(*answer_to(await again.message()))
    assert (await replies)[0].has_content()


async def test_silent_streams_are_ended(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without a hello does not stay."""
    monkeypatch.setattr(exchange, "HELLO_SECONDS", 0.05)
    peer = Peer(rig.channel("zurich"))
    rig.peers.append(peer)
    denial = await peer.end()
    assert denial is not None
    assert denial.reason is denials.Reason.BAD_MESSAGE


async def test_sessions_that_nobody_reads_do_not_pile_up(rig: Rig) -> None:
    """An older session of a cluster ends when a newer one begins, though its client reads nothing."""
    rig.grid.set_run(rig.grid.run)
    big = {"weights": np.zeros(2_000_000, np.float32)}
    for _ in range(4):
        peer = await rig.peer("zurich")
        content = RecordDict({"arrays": ArrayRecord({name: Array(value) for name, value in big.items()})})
        await asyncio.to_thread(rig.grid.push_messages, [Message(content, NODES["zurich"], "train")])
        await asyncio.sleep(0.05)  # its window is full now
        del peer
    await until(lambda: len(rig.guard.open_calls()) == 1)


async def test_a_client_that_claims_to_have_everything_ends_itself_only(rig: Rig) -> None:
    """A position beyond the end of a message is not believed."""
    first = await rig.peer("zurich")
    first.confirms = False
    replies = rig.train("zurich")
    asked = await first.message()
    await first.close()
    second = Peer(rig.channel("zurich"))
    rig.peers.append(second)
    await second.hello(receiving=pb.TransferPosition(transfer_id=asked.message_id, offset=2**60))
    again = await second.message()
    await second.send(*answer_to(again))
    assert (await replies)[0].has_content()


def test_records_of_a_hostile_header_are_read_in_bounded_time() -> None:
    """An honest reply is described in no time, a hostile one too."""
    header, _ = answer_to(pb.MessageHeader(message_id="m", message_type="train"))
    shape_of_many_dimensions(header, {})
    began = time.monotonic()
    refused = verification.Verifier(checks.Limits(10**7, 10**6)).header(
        messages.to_wire(Message(RecordDict(), 1, "train"), "m").header, header
    )
    assert refused is not None
    assert time.monotonic() - began < 1


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition, five seconds at most."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds():  # noqa: ASYNC110  (a condition of the server's own)
            await asyncio.sleep(0.01)
