"""What a client that breaks the rules gets: a typed denial or a named refusal, while the others go on."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from federation.flower import messages as flower_messages
from federation.trust import authorisation, calls, credentials
from federation.wire import codec, denials, digests, frames, outbox, protocol
from federation.wire import hanse_pb2 as pb
from tests.fakes import exchange as fakes

import grpc.aio  # isort: skip  # after federation.trust

OURS = pb.ProtocolRange(oldest=protocol.OLDEST, newest=protocol.NEWEST)
HELLO = pb.ClientFrame(hello=pb.ClientHello(protocol=OURS, warm=True))


federation = fakes.federation


async def denied(
    federation: fakes.Federation, own: credentials.CredentialDirectory, *said: Any
) -> denials.Denial:
    """Say some frames and read until the stream is ended; return why."""
    async with federation.session(own) as call:

        async def talk() -> None:
            await calls.admitted(call)
            for frame in said:
                await call.write(frame)
            while await call.read() is not grpc.aio.EOF:
                pass

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await talk()
    found = denials.from_rpc_error(caught.value)
    assert found is not None, caught.value
    return found


SECOND = pb.ClientFrame(begin=pb.TransferBegin(transfer_id="m", total_bytes=9))
DENIED: list[tuple[str, list[Any], denials.Reason]] = [
    ("a message instead of hello", [SECOND], denials.Reason.BAD_MESSAGE),
    ("a chunk instead of hello", [frames.Chunk(0, b"abc")], denials.Reason.BAD_MESSAGE),
    ("nothing that is a frame", [pb.ClientFrame()], denials.Reason.BAD_MESSAGE),
    (
        "a protocol that is not spoken",
        [pb.ClientFrame(hello=pb.ClientHello(protocol=pb.ProtocolRange(oldest=7, newest=9)))],
        denials.Reason.UNSUPPORTED_PROTOCOL,
    ),
    ("no protocol", [pb.ClientFrame(hello=pb.ClientHello())], denials.Reason.UNSUPPORTED_PROTOCOL),
    ("hello twice", [HELLO, HELLO], denials.Reason.BAD_MESSAGE),
    ("a chunk of nothing", [HELLO, frames.Chunk(0, b"abc")], denials.Reason.BAD_MESSAGE),
    (
        "a transfer that answers nothing",
        [HELLO, SECOND, frames.Chunk(0, b"123456789")],
        denials.Reason.BAD_MESSAGE,
    ),
    (
        "a transfer without an id",
        [HELLO, pb.ClientFrame(begin=pb.TransferBegin(total_bytes=9))],
        denials.Reason.BAD_MESSAGE,
    ),
]  # fmt: skip


def test_broken_sessions_are_denied_with_their_reason(federation: fakes.Federation) -> None:
    """Each is told why, and a client that behaves is served as if nothing had been."""
    federation.expect("zurich", "geneva")
    own = federation.credentials_of(fakes.identity("geneva"))
    for name, said, reason in DENIED:
        assert federation.call(denied(federation, own, *said)).reason is reason, name
    federation.client("zurich", lambda message, _: Message(RecordDict(), reply_to=message))
    federation.until_state("zurich", "Ready")


def test_who_may_not_speak_is_denied_before_it_does(federation: fakes.Federation) -> None:
    """The wrong training and an expelled cluster learn the reason, although they write at once."""
    federation.expect("zurich")
    federation.on_loop(
        lambda: federation.guard.revoke(authorisation.Revocations(clusters=frozenset({"basel"})))
    )
    for who, reason in [
        (fakes.identity("zurich", "other"), denials.Reason.WRONG_TRAINING),
        (fakes.identity("basel"), denials.Reason.EXPELLED),
        (fakes.identity("geneva"), denials.Reason.NOT_EXPECTED),
    ]:
        own = federation.credentials_of(who)
        assert federation.call(denied(federation, own, HELLO)).reason is reason


def test_links_that_are_denied_for_good_end_with_the_reason(federation: fakes.Federation) -> None:
    """A client with another training's certificate does not try again."""
    end = federation.client("zurich", who=fakes.identity("zurich", "other")).end()
    assert (end.reason, end.failed) == ("WrongTraining", True)
    assert "demo/other" in end.message


def test_a_cluster_that_is_not_expected_yet_may_come_back(federation: fakes.Federation) -> None:
    """It is denied with NotExpected, dials again, and is let in when the roster names it."""
    federation.expect("zurich")
    own = federation.credentials_of(fakes.identity("geneva"))
    assert federation.call(denied(federation, own, HELLO)).may_retry
    early = federation.client("geneva", lambda message, _: Message(RecordDict(), reply_to=message))
    federation.expect("zurich", "geneva")
    federation.until_state("geneva", "Ready")
    assert not early.ended.done()


@pytest.mark.parametrize(("why", "reason"), [("clusters", "Expelled"), ("left", "Revoked")])
def test_a_client_of_a_cluster_that_is_out_is_cut_at_once(
    federation: fakes.Federation, why: str, reason: str
) -> None:
    """Its stream ends with the reason, and it does not come back: it was expelled, or its operator left."""
    federation.expect("zurich")
    client = federation.client("zurich")
    federation.until_state("zurich", "Ready")
    out = authorisation.Revocations(**{why: frozenset({"zurich"})})
    federation.on_loop(lambda: federation.guard.revoke(out))
    end = client.end()
    assert (end.reason, end.failed) == (reason, True)


def test_a_removed_cluster_is_told_why(federation: fakes.Federation) -> None:
    """The roster's reason arrives as a goodbye; the client does not come back."""
    federation.expect("zurich", "geneva")
    client = federation.client("geneva")
    federation.until_state("geneva", "Ready")
    member = fakes.events.Member(fakes.node("geneva"), "geneva", False, "PolicyDenied", "no rule allows it")
    federation.handle(fakes.events.RosterChanged((member,), 0.0))
    end = client.end()
    assert (end.reason, end.message) == ("PolicyDenied", "no rule allows it")


# -- replies that lie --------------------------------------------------------------------------------


def update(asked: pb.MessageHeader, value: float = 2.0) -> codec.OutgoingMessage:
    """An update as an honest client would send it."""
    message = flower_messages.to_flower(asked, lambda entry: Array(np.zeros(8, np.float32)))
    content = RecordDict(
        {"arrays": ArrayRecord({"w": Array(np.full(8, value, np.float32))}), "m": MetricRecord({"a": 1})}
    )
    return flower_messages.to_wire(Message(content, reply_to=message), outbox.reply_id(asked.message_id))


def stream(outgoing: codec.OutgoingMessage) -> bytes:
    return b"".join(bytes(chunk) for chunk in outgoing.chunks())


def begin(outgoing: codec.OutgoingMessage, total: int | None = None) -> pb.ClientFrame:
    total = outgoing.total_bytes() if total is None else total
    return pb.ClientFrame(begin=pb.TransferBegin(transfer_id=outgoing.header.message_id, total_bytes=total))


def whole(outgoing: codec.OutgoingMessage) -> list[Any]:
    return [begin(outgoing), frames.Chunk(0, stream(outgoing))]


def changed(change: Callable[[pb.MessageHeader], object]) -> Callable[[codec.OutgoingMessage], list[Any]]:
    def frames_of(honest: codec.OutgoingMessage) -> list[Any]:
        change(honest.header)
        return whole(honest)

    return frames_of


def ten_gigabytes(honest: codec.OutgoingMessage) -> list[Any]:
    return [begin(honest, 10 * 2**30), frames.Chunk(0, stream(honest)), frames.Chunk(5, b"and more")]


def corrupted(honest: codec.OutgoingMessage) -> list[Any]:
    data = bytearray(stream(honest))
    data[-1] ^= 1
    return [begin(honest), frames.Chunk(0, bytes(data))]


def out_of_order(honest: codec.OutgoingMessage) -> list[Any]:
    data = stream(honest)
    return [begin(honest), frames.Chunk(0, data[:50]), frames.Chunk(60, data[60:])]


def too_short(honest: codec.OutgoingMessage) -> list[Any]:
    return [begin(honest, 100), frames.Chunk(0, stream(honest)[:100])]


def no_beginning(honest: codec.OutgoingMessage) -> list[Any]:
    frame = begin(honest)
    frame.begin.offset = 7
    return [frame]


def twice(header: pb.MessageHeader) -> None:
    header.records.add().CopyFrom(header.records[1])


def nested(header: pb.MessageHeader) -> None:
    header.records.add(name="c").config.entries.add(name="l").value.list.items.add().list.integers.append(1)


def entry(header: pb.MessageHeader) -> pb.ArrayEntry:
    return header.records[0].arrays.entries[0]


def other_header(honest: codec.OutgoingMessage) -> list[Any]:
    """The bytes are of two rows where the header says eight numbers."""
    data = Array(np.zeros((2, 4), np.float32)).data
    entry(honest.header).digest, entry(honest.header).length_bytes = digests.digest(data), len(data)
    return whole(codec.OutgoingMessage(honest.header, {digests.digest(data): data}))


LIES: list[tuple[str, Callable[[codec.OutgoingMessage], list[Any]], str]] = [
    ("ten gigabytes", ten_gigabytes, "TooLarge"),
    ("corrupted", corrupted, "Unreadable"),
    ("out of order", out_of_order, "Unreadable"),
    ("too short", too_short, "Unreadable"),
    ("no beginning", no_beginning, "Unreadable"),
    ("answers another", changed(lambda h: setattr(h, "reply_to_message_id", "another")), "Unreadable"),
    ("a record twice", changed(twice), "Unreadable"),
    ("a list in a list", changed(nested), "Unreadable"),
    ("an object array", changed(lambda h: setattr(entry(h), "dtype", "|O")), "Unreadable"),
    ("no dtype at all", changed(lambda h: setattr(entry(h), "dtype", "nonsense(")), "Unreadable"),
    ("another shape in its bytes", other_header, "ShapeMismatch"),
    ("another array", changed(lambda h: setattr(entry(h), "name", "v")), "MissingArray"),
]


async def lie(federation: fakes.Federation, own: credentials.CredentialDirectory, *tells: Any) -> None:
    """One session that answers each message with what `tells` makes of an honest reply."""
    async with federation.session(own) as call:
        await calls.admitted(call)
        await call.write(HELLO)
        incoming = fakes.Frames(call)
        for make in tells:
            decoder = codec.MessageDecoder(held=lambda _: True)
            while not decoder.done:
                frame = await incoming.read()
                assert frame is not grpc.aio.EOF
                if isinstance(frame, frames.Chunk):
                    for event in decoder.feed(frame.data):
                        if isinstance(event, codec.HeaderReceived):
                            asked = event.header
            await call.write(pb.ClientFrame(received=pb.TransferReceived(transfer_id=asked.message_id)))
            for frame in make(update(asked)):
                await call.write(frame)
            while True:
                frame = await incoming.read()
                assert frame is not grpc.aio.EOF
                if not isinstance(frame, frames.Chunk) and frame.WhichOneof("body") == "received":
                    assert frame.received.transfer_id == outbox.reply_id(asked.message_id)
                    break


def ask(federation: fakes.Federation, *clusters: str, size: int = 8) -> dict[str, Message]:
    content = RecordDict({"arrays": ArrayRecord({"w": Array(np.ones(size, np.float32))})})
    replies = federation.grid.send_and_receive(
        [Message(content, fakes.node(cluster), "train") for cluster in clusters], timeout=fakes.LIMIT_SECONDS
    )
    by_node = {reply.metadata.src_node_id: reply for reply in replies}
    return {cluster: by_node[fakes.node(cluster)] for cluster in clusters}


def test_lies_are_refused_by_name_and_the_session_goes_on(federation: fakes.Federation) -> None:
    """Each lie costs its own reply only: not the session, not the round, not the client's next reply."""

    def honest(message: Message, _: Any) -> Message:
        return Message(
            RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(8, np.float32))})}), reply_to=message
        )

    federation.expect("geneva", "zurich")
    federation.client("zurich", honest)
    own = federation.credentials_of(fakes.identity("geneva"))
    liar = federation.spawn(lie(federation, own, *(make for _, make, _ in LIES), whole))
    federation.started()
    for name, _, reason in LIES:
        replies = ask(federation, "geneva", "zurich")
        assert f"its reply was refused, {reason}" in str(replies["geneva"].error.reason), name
        assert replies["zurich"].has_content()
        seen = federation.seen("geneva")
        assert (seen.reason, seen.message.partition(":")[0]) == ("UpdateRefused", reason), name
    assert ask(federation, "geneva", "zurich")["geneva"].has_content()
    liar.result(fakes.LIMIT_SECONDS)


def test_a_client_cannot_speak_for_another(federation: fakes.Federation) -> None:
    """Whose a reply is, and of which run, group and type, is not the client's to say."""

    def claims(honest: codec.OutgoingMessage) -> list[Any]:
        honest.header.source_node_id = fakes.node("zurich")
        honest.header.destination_node_id = 77
        honest.header.run_id = 9
        honest.header.message_type = "no such type"
        honest.header.group_id = "mine"
        return whole(honest)

    federation.expect("geneva")
    own = federation.credentials_of(fakes.identity("geneva"))
    liar = federation.spawn(lie(federation, own, claims))
    federation.started()
    metadata = ask(federation, "geneva")["geneva"].metadata
    liar.result(fakes.LIMIT_SECONDS)
    assert (metadata.src_node_id, metadata.dst_node_id) == (fakes.node("geneva"), 1)
    assert (metadata.run_id, metadata.message_type, metadata.group_id) == (fakes.RUN_ID, "train", "")


def test_a_client_cannot_answer_for_another(federation: fakes.Federation) -> None:
    """A reply to another cluster's message has no effect."""
    answers: concurrent.futures.Future[str] = concurrent.futures.Future()

    async def steal(own: credentials.CredentialDirectory) -> None:
        message_id = await asyncio.wrap_future(answers)
        async with federation.session(own) as call:
            await calls.admitted(call)
            await call.write(HELLO)
            incoming = fakes.Frames(call)
            for frame in whole(
                update(pb.MessageHeader(message_id=message_id, message_type="train", run_id=1))
            ):
                await call.write(frame)
            while (frame := await incoming.read()).WhichOneof("body") != "received":
                pass
            stolen.set()

    stolen = asyncio.Event()
    done = concurrent.futures.Future[None]()

    def waits(message: Message, _: Any) -> Message:
        answers.set_result(message.metadata.message_id)
        done.result(fakes.LIMIT_SECONDS)
        return Message(
            RecordDict({"arrays": ArrayRecord({"w": Array(np.zeros(8, np.float32))})}), reply_to=message
        )

    federation.expect("zurich")
    federation.client("zurich", waits)
    federation.started()
    federation.expect("zurich", "geneva")
    thief = federation.spawn(steal(federation.credentials_of(fakes.identity("geneva"))))
    thief.add_done_callback(lambda _: done.set_result(None))
    reply = ask(federation, "zurich")["zurich"]
    thief.result(fakes.LIMIT_SECONDS)
    assert reply.content["arrays"]["w"].numpy().sum() == 0  # type: ignore[union-attr]


def test_a_reply_begun_again_and_again_takes_the_room_of_two(federation: fakes.Federation) -> None:
    """What stays is what came of the first one, and the one that counts."""
    size, tries = 100_000, 30

    def begins_again(honest: codec.OutgoingMessage) -> list[Any]:
        data = Array(np.ones(size, np.float32)).data
        entry(honest.header).digest, entry(honest.header).length_bytes = digests.digest(data), len(data)
        del entry(honest.header).shape[:]
        entry(honest.header).shape.append(size)
        large = codec.OutgoingMessage(honest.header, {digests.digest(data): data})
        unfinished = [begin(large), frames.Chunk(0, stream(large)[:-1])]
        return [*unfinished * tries, *whole(large)]

    federation.expect("geneva")
    own = federation.credentials_of(fakes.identity("geneva"))
    done = federation.spawn(lie(federation, own, begins_again))
    federation.started()
    assert ask(federation, "geneva", size=size)["geneva"].has_content()
    done.result(fakes.LIMIT_SECONDS)
    length = len(Array(np.ones(size, np.float32)).data)
    files = (federation.directory / "journal").rglob("segment-*")
    assert sum(path.stat().st_size for path in files) == 2 * length - 1


def test_megabytes_of_words_do_not_reach_status(federation: fakes.Federation) -> None:
    """An error's reason and log lines are cut: a report to the hub has to pass."""

    def talks(honest: codec.OutgoingMessage) -> list[Any]:
        header = pb.MessageHeader()
        header.CopyFrom(honest.header)
        header.ClearField("records")
        header.has_content = False
        header.error.CopyFrom(pb.MessageError(code=2, reason="x" * 3_000_000, has_reason=True))
        lines = pb.LogLines(lines=["y" * 1_000_000] * 3)
        return [pb.ClientFrame(log=lines), *whole(codec.OutgoingMessage(header, {}))]

    federation.expect("geneva")
    own = federation.credentials_of(fakes.identity("geneva"))
    liar = federation.spawn(lie(federation, own, talks, whole))
    federation.started()
    assert ask(federation, "geneva")["geneva"].error.code == 2
    seen = federation.seen("geneva")
    assert seen.reason == "ClientAppFailed"
    assert len(seen.message) < 20_000
    assert ask(federation, "geneva")["geneva"].has_content()
    liar.result(fakes.LIMIT_SECONDS)
