"""An outbox and the receiver at the other end of a link that may be cut anywhere."""

import collections
import dataclasses

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from federation.wire import codec, digests, frames, limits, outbox, transfers
from federation.wire import hanse_pb2 as pb

CHUNK_BYTES = 16
"""Small enough that every message is cut into several chunks."""


@pytest.fixture(autouse=True, scope="module")
def _small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "CHUNK_BYTES", CHUNK_BYTES)
        patch.setattr(limits, "SMALLEST_WANTED_CHUNK_BYTES", 4)
        yield


def message(message_id: str, arrays: list[bytes], created_at: float = 1.0) -> codec.OutgoingMessage:
    header = pb.MessageHeader(message_id=message_id, has_content=True, created_at=created_at)
    entries = header.records.add(name="model").arrays.entries
    sources = {digests.digest(data): data for data in arrays}
    for index, (digest, data) in enumerate(sources.items()):
        entries.add(name=str(index), digest=digest, length_bytes=len(data))
    return codec.OutgoingMessage(header, sources)


@dataclasses.dataclass
class Receiver:
    """Keeps what it gets as a client does: the arrays of the last message that had any."""

    holds: bool
    got: list[tuple[str, list[bytes]]] = dataclasses.field(default_factory=list)
    held: dict[bytes, bytes] = dataclasses.field(default_factory=dict)
    came: dict[bytes, bytearray] = dataclasses.field(default_factory=dict)
    chunk_bytes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    transfer_id: str = ""

    def __post_init__(self) -> None:
        self.incoming = transfers.Incoming(held=self.held.__contains__, sink_factory=self.sink)

    def sink(self, entry: pb.ArrayEntry) -> codec.Sink:
        self.came[entry.digest] = data = bytearray()
        return data.extend

    def take(self, frame: outbox.Frame) -> list[pb.TransferReceived]:
        if isinstance(frame, frames.Chunk):
            self.chunk_bytes[self.transfer_id] += len(frame.data)
            return self.act(self.incoming.chunk(frame))
        self.transfer_id = frame.transfer_id
        return self.act(self.incoming.begin(frame))

    def act(self, happened: list[transfers.Event]) -> list[pb.TransferReceived]:
        said = []
        for event in happened:
            match event:
                case codec.MessageReceived(header):
                    known = self.held | {digest: bytes(data) for digest, data in self.came.items()}
                    digests = list(codec.distinct_entries(header))
                    self.got.append((header.message_id, [known[digest] for digest in digests]))
                    self.came.clear()
                    if digests and self.holds:
                        self.held.clear()
                        self.held.update({digest: known[digest] for digest in digests})
                    said.append(pb.TransferReceived(transfer_id=header.message_id))
                case transfers.TransferRepeated(transfer_id):
                    said.append(pb.TransferReceived(transfer_id=transfer_id))
                case transfers.TransferAbandoned():
                    self.came.clear()
        return said


class Link:
    """Frames in flight in both directions, until they are cut."""

    def __init__(self, *, holds: bool) -> None:
        self.outbox = outbox.Outbox(receiver_holds=holds)
        self.receiver = Receiver(holds)
        self.put: dict[str, codec.OutgoingMessage] = {}
        self.restart()

    def restart(self) -> None:
        """Cut the link; what was in flight is lost. Then a new one."""
        self.down: collections.deque[outbox.Frame] = collections.deque()
        self.up: collections.deque[pb.TransferReceived] = collections.deque()
        self.receiver.incoming.link_lost()
        self.outbox.link_lost()
        assert self.outbox.next_frame() is None
        self.outbox.link_up(self.receiver.incoming.position, list(self.receiver.held))

    def sender_dies(self, *following: codec.OutgoingMessage) -> None:
        """Another process is the sender, with an outbox of its own and these messages."""
        self.outbox = outbox.Outbox(receiver_holds=self.receiver.holds)
        self.restart()
        self.put.clear()
        for one in following:
            self.send(one)

    def send(self, sent: codec.OutgoingMessage) -> None:
        self.put.setdefault(sent.header.message_id, sent)
        self.outbox.put(self.put[sent.header.message_id])

    def produce(self) -> bool:
        frame = self.outbox.next_frame()
        if frame is not None:
            self.down.append(frame)
        return frame is not None

    def deliver(self) -> bool:
        if not self.down:
            return False
        self.up.extend(self.receiver.take(self.down.popleft()))
        return True

    def deliver_some(self) -> None:
        """Bring the receiver into the middle of a message of these tests' size."""
        for _ in range(30):
            self.produce()
            self.deliver()

    def confirm(self) -> bool:
        if not self.up:
            return False
        self.outbox.received(self.up.popleft())
        return True

    def run(self) -> None:
        """Until nothing happens any more."""
        while self.produce() or self.deliver() or self.confirm():
            pass


ARRAYS = [b"", b"a" * 40, b"b" * 70, b"c" * 5]

actions = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 4)),
    st.tuples(st.sampled_from(["produce", "deliver", "confirm"]), st.integers(1, 9)),
    st.tuples(st.just("cut"), st.just(0)),
)
contents = st.lists(st.lists(st.sampled_from(ARRAYS), max_size=3), min_size=5, max_size=5)
EXAMPLE = [[ARRAYS[1]], [ARRAYS[2]], [ARRAYS[1]], [], [ARRAYS[2]]]


@given(st.booleans(), contents, st.lists(actions, max_size=40))
@example(
    True,
    EXAMPLE,
    [("put", 0), ("put", 1), ("produce", 20), ("deliver", 9), ("deliver", 4), ("cut", 0), ("put", 0)],
)
@example(
    True, EXAMPLE, [("put", 0), ("produce", 20), ("deliver", 20), ("confirm", 1), ("cut", 0), ("put", 0)]
)
def test_every_message_comes_once_in_order_with_its_bytes(
    holds: bool, arrays: list[list[bytes]], happened: list[tuple[str, int]]
) -> None:
    """Whatever is put, carried, confirmed and cut: each message is there once, and no byte came twice."""
    link = Link(holds=holds)
    for what, number in happened:
        match what:
            case "put":
                link.send(message(f"m-{number}", arrays[number]))
            case "cut":
                link.restart()
            case step:
                for _ in range(number):
                    getattr(link, step)()
    link.run()
    link.restart()
    link.run()

    want = [(key, list(dict.fromkeys(bytes(sent.arrays[d]) for d in codec.distinct_entries(sent.header))))
            for key, sent in link.put.items()]  # fmt: skip
    assert link.receiver.got == want
    held: frozenset[bytes] = frozenset()
    for key, sent in link.put.items():
        assert link.receiver.chunk_bytes[key] == sent.total_bytes(held), (
            "a byte came twice, or a held array came"
        )
        digests = frozenset(codec.distinct_entries(sent.header))
        if holds and digests:
            held = digests
    assert link.outbox.next_frame() is None


def test_the_same_model_travels_once() -> None:
    """The second message with the same arrays is its header only."""
    link = Link(holds=True)
    model = [b"m" * 1000]
    link.send(message("m-1", model))
    link.run()
    link.send(message("m-2", model))
    link.run()
    assert link.receiver.chunk_bytes["m-1"] > 1000
    assert link.receiver.chunk_bytes["m-2"] < 200
    assert link.receiver.got[1] == ("m-2", model)


def test_a_receiver_that_holds_nothing_is_sent_everything() -> None:
    """An aggregator keeps no arrays: the same update comes twice."""
    link = Link(holds=False)
    for key in ("m-1", "m-2"):
        link.send(message(key, [b"m" * 1000]))
    link.run()
    assert min(link.receiver.chunk_bytes.values()) > 1000


def test_a_receiver_that_starts_anew_gets_everything_again() -> None:
    """A process that was started again has nothing; what its predecessor confirmed is sent to it too."""
    link = Link(holds=True)
    link.send(message("m-1", [b"m" * 100]))
    link.run()
    link.receiver = Receiver(True)
    link.restart()
    link.send(message("m-1", [b"m" * 100]))
    link.run()
    assert link.receiver.got == [("m-1", [b"m" * 100])]


def test_another_sender_goes_on_where_the_first_was() -> None:
    """Cut after any frame: its header has another time, and no byte of an array comes twice."""
    arrays, held = [b"a" * 80, b"b" * 70, b"c" * 25], [b"b" * 70]
    whole = message("m-1", arrays).total_bytes({digests.digest(held[0])})
    head = whole - 105
    went_on = 0
    for frames_before in range(30):
        link = Link(holds=True)
        link.send(message("m-0", held))
        link.run()
        link.send(message("m-1", arrays))
        for _ in range(frames_before):
            link.produce()
            link.deliver()
        before = link.receiver.chunk_bytes["m-1"]
        link.sender_dies(message("m-1", arrays, created_at=2.0))
        link.run()
        assert link.receiver.got == [("m-0", held), ("m-1", arrays)], frames_before
        if head <= before < whole:
            assert link.receiver.chunk_bytes["m-1"] == whole, frames_before
            went_on += 1
    assert went_on == 6


def test_another_sender_begins_with_what_was_under_way() -> None:
    """A message before it, which nobody confirmed, comes later: its begin would void what is there."""
    first, second = [b"a" * 40], [b"b" * 700]
    link = Link(holds=True)
    link.send(message("m-1", first))
    while link.produce() or link.deliver():
        pass
    link.send(message("m-2", second))
    link.deliver_some()
    link.sender_dies(message("m-1", first, 2.0), message("m-2", second, 2.0))
    link.run()
    assert link.receiver.got == [("m-1", first), ("m-2", second)]
    assert link.receiver.chunk_bytes["m-2"] == message("m-2", second).total_bytes()


@pytest.mark.parametrize("offset", [0, 1, 90, 150, 899, 900, 10**9])
def test_a_claimed_part_of_a_message_never_begins_otherwise(offset: int) -> None:
    """A receiver that names any place has its message begun there, or at the first byte."""
    box = outbox.Outbox(receiver_holds=True)
    sent = message("m-1", [b"m" * 1000])
    box.put(sent)
    box.link_up(pb.TransferPosition(transfer_id="m-1", offset=offset))
    begin = box.next_frame()
    assert isinstance(begin, pb.TransferBegin)
    head = sent.total_bytes() - 1000
    assert begin.offset == (offset if head <= offset < sent.total_bytes() else 0)


def test_another_process_of_the_receiver_of_messages_sends_its_reply_whole() -> None:
    """Its app may have been asked again, and have answered something else."""
    link = Link(holds=False)
    link.send(message("m-1.reply", [b"m" * 1000]))
    link.deliver_some()
    link.sender_dies(message("m-1.reply", [b"n" * 1000]))
    link.run()
    assert link.receiver.got == [("m-1.reply", [b"n" * 1000])]


def test_a_message_that_another_sender_makes_otherwise_is_found_out() -> None:
    """It does not fit what is there: the receiver says so, and has it whole over the next link."""
    link = Link(holds=True)
    link.send(message("m-1", [b"m" * 1000]))
    link.deliver_some()
    link.sender_dies(message("m-1", [b"n" * 1000]))
    with pytest.raises(codec.ArrayCorrupted):
        link.run()
    link.restart()
    link.run()
    assert link.receiver.got == [("m-1", [b"n" * 1000])]


def test_a_confirmation_in_the_middle_ends_the_transfer() -> None:
    """A refused reply is confirmed before it has come: the rest of it is not sent, the next one follows."""
    link = Link(holds=False)
    link.send(message("m-1", [b"m" * 1000]))
    link.send(message("m-2", [b"n" * 10]))
    for _ in range(5):
        link.produce()
        link.deliver()
    assert link.outbox.received(pb.TransferReceived(transfer_id="m-1"))
    assert not link.outbox.received(pb.TransferReceived(transfer_id="m-1"))
    link.run()
    assert link.receiver.got == [("m-2", [b"n" * 10])]
    assert link.receiver.chunk_bytes["m-1"] < 200


def test_a_position_beyond_the_end_begins_anew() -> None:
    """What a receiver claims never stops the others' messages."""
    box = outbox.Outbox(receiver_holds=True)
    box.put(message("m-1", [b"m" * 10]))
    box.link_up(None)
    assert isinstance(box.next_frame(), pb.TransferBegin)
    box.link_up(pb.TransferPosition(transfer_id="m-1", offset=10**9))
    begin = box.next_frame()
    assert isinstance(begin, pb.TransferBegin)
    assert begin.offset == 0


def test_a_dropped_message_is_not_sent() -> None:
    """Unless it is under way: then it comes to its end."""
    link = Link(holds=False)
    for key in ("m-1", "m-2", "m-3"):
        link.send(message(key, [b"m" * 100]))
    link.produce()
    link.outbox.drop("m-1")
    link.outbox.drop("m-2")
    link.run()
    assert [key for key, _ in link.receiver.got] == ["m-1", "m-3"]


def test_confirmations_of_unknown_messages_mean_nothing() -> None:
    """Neither before nor after the link is up."""
    box = outbox.Outbox(receiver_holds=False)
    assert not box.received(pb.TransferReceived(transfer_id="nobody"))
    box.link_up(pb.TransferPosition(transfer_id="nobody", offset=3))
    assert box.next_frame() is None


@pytest.mark.parametrize("message_id", ["m-1", "", "x.reply"])
def test_reply_ids(message_id: str) -> None:
    """The id of a reply says what it answers."""
    assert outbox.answered_by(outbox.reply_id(message_id)) == message_id
    assert outbox.answered_by("m-1") is None


def test_a_link_carries_no_longer_chunks_than_it_may() -> None:
    """A link may be narrower than the last one: a transfer goes on in shorter chunks, and no byte is lost."""
    link = Link(holds=False)
    sent = message("m-1", [b"m" * 1000])
    link.send(sent)
    for _ in range(3):  # begin and two chunks
        link.produce()
        link.deliver()
    link.restart()
    link.outbox.link_up(link.receiver.incoming.position, (), CHUNK_BYTES // 2)
    while link.produce():
        pass
    lengths = [len(frame.data) for frame in link.down if isinstance(frame, frames.Chunk)]
    assert max(lengths) == CHUNK_BYTES // 2
    link.run()
    assert link.receiver.got == [("m-1", [b"m" * 1000])]
    assert link.receiver.chunk_bytes["m-1"] == sent.total_bytes()


def test_ids_of_one_history_are_known_by_their_beginning() -> None:
    """Under another prefix of the same history, too; another history's are none of it."""
    ids = [f"{prefix}-7-1f" for prefix in ("ab12", outbox.another_prefix("ab12", "01"))]
    ids.append(outbox.another_prefix(outbox.another_prefix("ab12", "01"), "02") + "-7-1f")
    assert len(set(ids)) == 3
    assert {outbox.history_of(one) for one in ids} == {"ab12"}
    assert outbox.history_of("ab13-7-1f") == "ab13"
