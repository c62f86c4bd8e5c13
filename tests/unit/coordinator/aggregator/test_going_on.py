"""A reply that came in part, and the next process that takes it up: any place, any damage."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregator import progress, received, sessions
from coordinator.journal import segments, unfinished
from federation.wire import codec, digests, frames
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits

CHUNK_BYTES = 10_000


def message(arrays: list[bytes]) -> codec.OutgoingMessage:
    header = pb.MessageHeader(message_id="m.reply", reply_to_message_id="m", has_content=True)
    entries = header.records.add(name="arrays").arrays.entries
    sources = {digests.digest(data): data for data in arrays}
    for index, (digest, data) in enumerate(sources.items()):
        entries.add(name=str(index), digest=digest, length_bytes=len(data))
    return codec.OutgoingMessage(header, sources)


class Life:
    """One process: a journal's files, and a client of which nothing is known but what lies there."""

    def __init__(self, root: Path) -> None:
        self.files = segments.Segments(root / "arrays")
        self.parts = unfinished.Unfinished(root / "unfinished")
        self.files.keep_only(self.parts.segments())
        self.client = sessions.Client(
            "zurich",
            7,
            wire_limits.DEFAULT_MESSAGE_LIMITS,
            self.files,
            self.parts,
            progress.Progress(),
            1 << 20,
        )
        for record, attachment in self.parts.read():
            self.client.take_up(record, attachment)

    @property
    def offset(self) -> int:
        return self.client.incoming.arrived_bytes

    def take(self, sent: codec.OutgoingMessage, until: int) -> None:
        """Let the reply come from where it is, up to there, and be written down."""
        self.begin(sent)
        while self.offset < until:
            length = min(CHUNK_BYTES, until - self.offset)
            data = b"".join(sent.chunks((), self.offset))[:length]
            self.client.happened.extend(self.client.incoming.chunk(frames.Chunk(self.offset, data)))
            if self.client.incoming.part is None and self.offset == 0:
                break  # it is whole
        self.client.keep("m.reply")

    def begin(self, sent: codec.OutgoingMessage, offset: int | None = None) -> None:
        begin = pb.TransferBegin(
            transfer_id="m.reply",
            total_bytes=sent.total_bytes(),
            offset=self.offset if offset is None else offset,
        )
        for event in self.client.incoming.begin(begin):
            self.client.happened.append(event)
            self.client.drop(self.client.reply)
            self.client.reply = None

    def whole(self, sent: codec.OutgoingMessage) -> None:
        """It is whole, once, and its arrays are what was sent."""
        happened = list(self.client.happened)
        assert [event for event in happened if isinstance(event, codec.MessageReceived)] == [
            codec.MessageReceived(sent.header)
        ]
        assert self.client.reply is not None
        for entry in codec.entries_of(sent.header):
            assert self.client.reply.array_of(entry).data == sent.arrays[entry.digest]


def stored(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "arrays").iterdir())


ARRAYS = [
    b"a" * 50_000,  # to a file
    b"b" * 100,  # in memory
    b"",
    b"c" * (received.IN_MEMORY_BYTES - 1),
    b"d" * 70_000,
]
SENT = message(ARRAYS)
TOTAL = SENT.total_bytes()
HEAD = TOTAL - sum(map(len, ARRAYS))


@given(st.lists(st.integers(HEAD, TOTAL - 1), max_size=4).map(sorted))
def test_a_reply_goes_on_from_any_place_in_any_number_of_lives(
    tmp_path_factory: pytest.TempPathFactory, deaths: list[int]
) -> None:
    """Nothing that came before the last record comes again, and it takes the room of one."""
    root = tmp_path_factory.mktemp("lives")
    for death in deaths:
        Life(root).take(SENT, death)
        assert Life(root).offset == death
    last = Life(root)
    last.take(SENT, TOTAL)
    last.whole(SENT)
    assert stored(root) == 120_000
    shutil.rmtree(root)


def test_a_small_array_counts_where_another_version_draws_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was in memory goes to a file, and the other way round; the reply is the same."""
    for death, line in ((60_000, 16 * 1024), (60_000, 50), (TOTAL - 10, 10**6), (TOTAL - 5, 16 * 1024)):
        monkeypatch.setattr(received, "IN_MEMORY_BYTES", line)
        life = Life(tmp_path)
        life.take(SENT, death)
    last = Life(tmp_path)
    assert last.offset == TOTAL - 5
    last.take(SENT, TOTAL)
    last.whole(SENT)


@pytest.mark.parametrize("damage", ["first array", "second array", "short", "gone", "length", "beyond"])
def test_a_damaged_beginning_comes_anew(tmp_path: Path, damage: str) -> None:
    """Bytes that changed, lack, or were set aside otherwise; the reply is sent from its first byte."""
    life = Life(tmp_path)
    life.take(SENT, TOTAL - 20_000)
    ((record, attachment),) = life.parts.read()
    (segment,) = (tmp_path / "arrays").iterdir()
    match damage:
        case "first array" | "second array":
            data = bytearray(segment.read_bytes())
            data[100 if damage == "first array" else 60_000] ^= 1
            segment.write_bytes(data)
        case "short":
            segment.write_bytes(segment.read_bytes()[:99_999])
        case "gone":
            segment.unlink()
        case "length" | "beyond":
            change = {"length": 69_999} if damage == "length" else {"offset": 2**62}
            arrays = tuple(
                one.model_copy(update=change) if one.segment and one.length == 70_000 else one
                for one in record.arrays
            )
            life.parts.put(record.model_copy(update={"arrays": arrays}), attachment)
    after = Life(tmp_path)
    assert after.offset == 0
    assert after.client.incoming.position is None
    assert not list(after.parts.read())
    after.take(SENT, TOTAL)
    after.whole(SENT)


def test_a_longer_reply_than_is_taken_now_comes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training's limits were lowered meanwhile; it is refused when it comes."""
    Life(tmp_path).take(SENT, TOTAL - 1)
    monkeypatch.setattr(wire_limits, "DEFAULT_MESSAGE_LIMITS", wire_limits.MessageLimits(message_bytes=1000))
    assert Life(tmp_path).offset == 0


def test_a_reply_that_is_begun_anew_in_each_life_does_not_fill_the_journal(tmp_path: Path) -> None:
    """A client that drops what it has sent, and an aggregator that dies, again and again."""
    for _ in range(20):
        life = Life(tmp_path)
        for _ in range(3):
            life.begin(SENT, 0)
            life.take(SENT, TOTAL - 1)
        assert stored(tmp_path) <= 3 * 120_000
    assert Life(tmp_path).offset == TOTAL - 1


def test_a_refused_reply_is_not_written_down(tmp_path: Path) -> None:
    """Nor one that is over."""
    life = Life(tmp_path)
    life.take(SENT, TOTAL - 1)
    life.client.drop(life.client.reply)
    life.client.keep("m.reply")
    life.client.reply = None
    life.client.keep("m.reply")
    assert not list(life.parts.read())


def test_a_reply_that_waits_for_room_is_not_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one with a very long header."""
    life = Life(tmp_path)

    def no_room(*_: object) -> None:
        raise OSError(28, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(segments.Region, "write", no_room)
        life.take(SENT, HEAD + 60_000)
    assert not list(life.parts.read())
    assert life.client.reply is not None
    assert life.client.reply.write_again() == 0
    with monkeypatch.context() as patch:
        patch.setattr(unfinished, "HEAD_BYTES", HEAD - 1)
        life.client.keep("m.reply")
    assert not list(life.parts.read())
    life.client.keep("m.reply")
    assert Life(tmp_path).offset == HEAD + 60_000
