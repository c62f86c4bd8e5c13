"""Transfers over links that are cut: one message, whatever happens."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import codec, digests, limits, transfers
from federation.wire import hanse_pb2 as pb


def message(arrays: list[bytes], message_id: str = "m-1") -> codec.OutgoingMessage:
    header = pb.MessageHeader(message_id=message_id, has_content=True)
    entries = header.records.add(name="model").arrays.entries
    sources = {digests.digest(data): data for data in arrays}
    for index, (digest, data) in enumerate(sources.items()):
        entries.add(name=str(index), digest=digest, length_bytes=len(data))
    return codec.OutgoingMessage(header, sources)


def collect(events: list[transfers.Event], arrays: dict[bytes, bytearray]) -> list[pb.MessageHeader]:
    headers = []
    for event in events:
        match event:
            case codec.ArrayBytes(digest, offset, data):
                assert offset == len(arrays.setdefault(digest, bytearray()))
                arrays[digest] += data
            case codec.ArrayReceived(digest):
                arrays.setdefault(digest, bytearray())
            case codec.MessageReceived(header):
                headers.append(header)
    return headers


def run_link(
    sender: transfers.Outgoing, receiver: transfers.Incoming, chunk_bytes: int, frames: int | None = None
) -> list[transfers.Event]:
    """Carry up to `frames` chunks over a new link, then cut it."""
    position = receiver.position
    events = receiver.begin(sender.begin(position))
    for count, chunk in enumerate(sender.chunks(chunk_bytes)):
        if count == frames:
            break
        events += receiver.chunk(chunk)
    receiver.link_lost()
    return events


links = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 6)), max_size=8)


@given(st.lists(st.binary(max_size=80), max_size=5), links)
def test_a_transfer_cut_anywhere_gives_the_same_message(
    arrays: list[bytes], cuts: list[tuple[int, int]]
) -> None:
    """Cut links cost nothing but the bytes in flight; the message is that of an undisturbed transfer."""
    sent = message(arrays)
    sender, receiver = transfers.Outgoing(sent), transfers.Incoming()
    got: dict[bytes, bytearray] = {}
    headers: list[pb.MessageHeader] = []
    for chunk_bytes, frames in cuts:
        headers += collect(run_link(sender, receiver, chunk_bytes, frames), got)
    headers += collect(run_link(sender, receiver, 64), got)
    assert headers == [sent.header]
    assert {digest: bytes(data) for digest, data in got.items()} == sent.arrays
    assert receiver.position == pb.TransferPosition(transfer_id="m-1", offset=sender.total_bytes)


@given(st.lists(st.binary(max_size=80), max_size=4), st.integers(1, 50), st.integers(0, 10))
def test_a_repeated_transfer_has_no_effect(arrays: list[bytes], chunk_bytes: int, frames: int) -> None:
    """A transfer that was received is recognised, however much of it comes again."""
    receiver = transfers.Incoming()
    run_link(transfers.Outgoing(message(arrays)), receiver, 64)
    again = transfers.Outgoing(message(arrays))
    events = receiver.begin(again.begin(None))
    for _, chunk in zip(range(frames), again.chunks(chunk_bytes), strict=False):
        events += receiver.chunk(chunk)
    assert events == [transfers.TransferRepeated("m-1")]
    other = transfers.Outgoing(message([b"other"], "m-2"))
    assert collect(run_link(other, receiver, 64), {}) == [message([b"other"], "m-2").header]


def test_a_sender_that_missed_the_acknowledgement_sends_nothing_again() -> None:
    """The receiver announces a finished transfer at its last byte; the sender has nothing left to send."""
    receiver = transfers.Incoming()
    sender = transfers.Outgoing(message([b"abc"]))
    run_link(sender, receiver, 64)
    begin = sender.begin(receiver.position)
    assert begin.offset == begin.total_bytes
    assert list(sender.chunks()) == []
    assert receiver.begin(begin) == [transfers.TransferRepeated("m-1")]


def test_an_acknowledged_transfer_stops() -> None:
    """TransferReceived ends the sending, even halfway through a repetition."""
    sender = transfers.Outgoing(message([bytes(1000)]))
    sender.begin()
    chunks = sender.chunks(100)
    next(chunks)
    assert not sender.received(pb.TransferReceived(transfer_id="another"))
    assert not sender.done
    assert sender.received(pb.TransferReceived(transfer_id="m-1"))
    assert sender.done
    assert list(chunks) == []


def test_a_new_transfer_abandons_an_unfinished_one() -> None:
    """A sender may give a message up; what came of it is void, and the next one comes whole."""
    receiver = transfers.Incoming()
    run_link(transfers.Outgoing(message([bytes(500)], "m-1")), receiver, 50, frames=3)
    events = run_link(transfers.Outgoing(message([b"x"], "m-2")), receiver, 50)
    assert events[0] == transfers.TransferAbandoned("m-1")
    assert [header.message_id for header in collect(events, {})] == ["m-2"]


def test_a_transfer_may_begin_anew() -> None:
    """A sender that has lost its place begins at zero, and the message is whole."""
    receiver = transfers.Incoming()
    run_link(transfers.Outgoing(message([bytes(500)])), receiver, 50, frames=3)
    sender = transfers.Outgoing(message([bytes(500)]))
    assert receiver.begin(sender.begin(None)) == [transfers.TransferAbandoned("m-1")]
    events = [event for chunk in sender.chunks() for event in receiver.chunk(chunk)]
    assert len(collect(events, {})) == 1


def test_a_forgotten_message_is_received_again() -> None:
    """What could not be kept is asked for again."""
    receiver = transfers.Incoming()
    run_link(transfers.Outgoing(message([b"abc"])), receiver, 50)
    receiver.forget("m-1")
    assert receiver.position is None
    assert len(collect(run_link(transfers.Outgoing(message([b"abc"])), receiver, 50), {})) == 1


def test_only_so_many_transfers_are_remembered() -> None:
    """The memory of finished transfers is bounded, oldest first."""
    receiver = transfers.Incoming(remembered=2)
    for message_id in ("m-1", "m-2", "m-3"):
        run_link(transfers.Outgoing(message([b"a"], message_id)), receiver, 50)
    begin = transfers.Outgoing(message([b"a"], "m-2")).begin()
    assert receiver.begin(begin) == [transfers.TransferRepeated("m-2")]
    begin = transfers.Outgoing(message([b"a"], "m-1")).begin()
    assert receiver.begin(begin) == []


def test_held_arrays_stay_out_of_a_transfer() -> None:
    """What the receiver holds is not sent, and both sides count the same bytes."""
    data = bytes(1000)
    digest = digests.digest(data)
    sender = transfers.Outgoing(message([data, b"new"]), held={digest})
    receiver = transfers.Incoming(held=lambda wanted: wanted == digest)
    got: dict[bytes, bytearray] = {}
    assert len(collect(run_link(sender, receiver, 64), got)) == 1
    assert list(got.values()) == [b"new"]


def begun(total_bytes: int = 100, **options: object) -> transfers.Incoming:
    receiver = transfers.Incoming(**options)
    receiver.begin(pb.TransferBegin(transfer_id="m-1", total_bytes=total_bytes))
    return receiver


def test_a_chunk_outside_a_transfer_is_refused() -> None:
    """Chunks belong to a begin on the same link."""
    with pytest.raises(transfers.TransferNotBegun):
        transfers.Incoming().chunk(pb.TransferChunk(offset=0, data=b"x"))
    receiver = begun()
    receiver.link_lost()
    with pytest.raises(transfers.TransferNotBegun):
        receiver.chunk(pb.TransferChunk(offset=0, data=b"x"))


def test_gaps_and_overlaps_are_refused_and_void_the_transfer() -> None:
    """Chunks follow one another without gaps; after an error the transfer begins anew."""
    receiver = begun()
    receiver.chunk(pb.TransferChunk(offset=0, data=codec.MAGIC))
    with pytest.raises(transfers.OffsetMismatch, match="goes on at offset 5, want 4"):
        receiver.chunk(pb.TransferChunk(offset=5, data=b"x"))
    assert receiver.position is None


@pytest.mark.parametrize(
    "begin, want_error",
    [
        pytest.param(
            pb.TransferBegin(transfer_id="m-1", total_bytes=100, offset=5), transfers.OffsetMismatch
        ),
        pytest.param(pb.TransferBegin(transfer_id="m-1", total_bytes=90, offset=4), transfers.LengthMismatch),
        pytest.param(pb.TransferBegin(transfer_id="m-2", total_bytes=90, offset=4), transfers.OffsetMismatch),
        pytest.param(pb.TransferBegin(transfer_id="m-2", total_bytes=9, offset=10), transfers.OffsetMismatch),
        pytest.param(pb.TransferBegin(total_bytes=90), transfers.TransferIdInvalid),
        pytest.param(pb.TransferBegin(transfer_id="m-2", total_bytes=1001), codec.MessageTooLarge),
    ],
)
def test_impossible_continuations_are_refused(
    begin: pb.TransferBegin, want_error: type[codec.WireError]
) -> None:
    """A continuation must agree with what has come so far."""
    receiver = begun(limits=limits.MessageLimits(message_bytes=1000))
    receiver.chunk(pb.TransferChunk(offset=0, data=codec.MAGIC))
    receiver.link_lost()
    with pytest.raises(want_error):
        receiver.begin(begin)


@pytest.mark.parametrize("difference", [-1, 1, 50])
def test_a_wrong_total_is_found_with_the_header(difference: int) -> None:
    """A sender that announces more or fewer bytes than its message has is refused before the arrays."""
    sent = message([bytes(500)])
    receiver = begun(sent.total_bytes() + difference)
    with pytest.raises(transfers.LengthMismatch):
        receiver.data(0, b"".join(sent.chunks())[:200])


def test_an_end_before_the_header_is_found() -> None:
    """A total that ends within the header is a truncated message."""
    receiver = begun(20)
    with pytest.raises(codec.Truncated):
        receiver.data(0, b"".join(message([b"abc"]).chunks())[:20])


def test_more_bytes_than_announced_are_refused() -> None:
    """No chunk may go beyond the announced end."""
    with pytest.raises(transfers.LengthMismatch):
        begun(10).data(0, bytes(11))


def test_a_transfer_is_named_after_its_message() -> None:
    """A transfer under another name than its message's would defeat the recognition of repetitions."""
    sent = message([b"abc"], "m-2")
    with pytest.raises(transfers.TransferIdInvalid):
        begun(sent.total_bytes()).data(0, b"".join(sent.chunks()))


def test_a_receiver_cannot_claim_more_than_there_is() -> None:
    """A position beyond the end is refused by the sender."""
    sender = transfers.Outgoing(message([b"abc"]))
    position = pb.TransferPosition(transfer_id="m-1", offset=sender.total_bytes + 1)
    with pytest.raises(transfers.OffsetMismatch):
        sender.begin(position)


@pytest.mark.parametrize("wanted, length", [(0, 2**20), (2**21, 2**20), (2**16, 2**16), (1, 2**14)])
def test_how_long_chunks_are(wanted: int, length: int) -> None:
    """No longer than wanted; nobody is sent crumbs, whatever they want."""
    assert limits.chunk_bytes(wanted) == length


class Half:
    """A receiver whose arrays lie where its successor finds them."""

    def __init__(self) -> None:
        self.there: dict[bytes, bytearray] = {}
        self.incoming = transfers.Incoming(sink_factory=self.sink)

    def sink(self, entry: pb.ArrayEntry) -> codec.Sink:
        data = self.there[entry.digest] = bytearray()
        return data.extend

    def kept(self, entry: pb.ArrayEntry, length: int) -> Iterator[bytes]:
        for start in range(0, length, 7):
            yield bytes(self.there[entry.digest][start : min(start + 7, length)])


def part_of(sent: codec.OutgoingMessage, position: int) -> tuple[Half, transfers.Part | None]:
    """What a receiver has when so many bytes have come."""
    first = Half()
    first.incoming.begin(transfers.Outgoing(sent).begin())
    if position:
        first.incoming.data(0, b"".join(sent.chunks())[:position])
    return first, first.incoming.part


@given(st.lists(st.binary(max_size=40), max_size=4), st.data())
def test_another_receiver_goes_on_where_the_first_was(arrays: list[bytes], data: st.DataObject) -> None:
    """From any position beyond the header; what came before is not sent again, and the message is whole."""
    sent = message(arrays)
    stream = b"".join(sent.chunks())
    position = data.draw(st.integers(0, len(stream) - 1))
    first, part = part_of(sent, position)
    head = len(stream) - sum(map(len, set(arrays)))
    assert (part is None) == (position < head)
    if part is None:
        return
    second = Half()
    happened = second.incoming.go_on(part, first.kept)
    assert second.incoming.position == first.incoming.position
    sender = transfers.Outgoing(sent)
    happened += run_link(sender, second.incoming, 9)
    assert sender.offset == sent.total_bytes()
    assert [event for event in happened if isinstance(event, codec.MessageReceived)] == [
        codec.MessageReceived(sent.header)
    ]
    assert {digest: bytes(came) for digest, came in second.there.items()} == {
        digests.digest(one): one for one in arrays
    }


ARRAYS = [b"a" * 30, b"", b"b" * 50]


@pytest.mark.parametrize("where", range(50))
def test_what_was_kept_and_is_not_what_came_voids_the_transfer(where: int) -> None:
    """A changed byte of any array is found, also of the one that is not whole; the sender begins anew."""
    sent = message(ARRAYS)
    total = sent.total_bytes()
    first, part = part_of(sent, total - 30)  # 20 bytes of the second
    assert part is not None
    kept = bytearray(b"".join(first.there.values()))
    kept[where] ^= 1
    arrays = iter((kept[:30], kept[30:30], kept[30:]))
    second = Half()
    with pytest.raises(codec.WireError):
        second.incoming.go_on(part, lambda entry, length: [bytes(next(arrays)[:length])])
    assert second.incoming.position is None
    assert len(collect(run_link(transfers.Outgoing(sent), transfers.Incoming(), 64), {})) == 1
    assert second.incoming.begin(transfers.Outgoing(sent).begin()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"position": 0},
        {"position": -1},
        {"position": 10**6},
        {"total_bytes": 10**6},
        {"total_bytes": 2**62},
        {"transfer_id": "m-2"},
        {"transfer_id": ""},
        {"transfer_id": "m" * 1000},
        {"head": b""},
        {"head": b"HNS1"},
        {"head": b"x" * 100},
        {"unverified": b""},
        {"unverified": b"x" * 32},
    ],
)
def test_a_part_that_nobody_had_voids_the_transfer(changes: dict[str, Any]) -> None:
    """Whatever it says: an error of ours, and nothing is under way."""
    sent = message(ARRAYS)
    first, part = part_of(sent, sent.total_bytes() - 30)
    assert part is not None
    second = Half()
    with pytest.raises(codec.WireError):
        second.incoming.go_on(dataclasses.replace(part, **changes), first.kept)
    assert second.incoming.position is None
    assert second.incoming.part is None


def test_a_whole_message_is_no_part() -> None:
    """A transfer at its last byte would count as received, and its sender would forget it."""
    sent = message(ARRAYS)
    first, part = part_of(sent, sent.total_bytes() - 1)
    assert part is not None
    first.there[digests.digest(ARRAYS[2])] += b"b"
    second = Half()
    whole = dataclasses.replace(part, position=sent.total_bytes(), unverified=b"")
    with pytest.raises(transfers.PartCorrupted):
        second.incoming.go_on(whole, first.kept)
    assert second.incoming.position is None
