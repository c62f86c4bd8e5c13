"""A client's replies that are dropped give their room back, however often it begins one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.aggregator import progress, received, sessions
from coordinator.journal import segments, unfinished
from federation.wire import codec, digests, frames, transfers
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits

LENGTH = 100_000
TIMES = 100


def a_client(files: segments.Segments) -> sessions.Client:
    """A client that has sent nothing yet."""
    parts = unfinished.Unfinished(files._directory / "unfinished")
    return sessions.Client(
        "zurich", 7, wire_limits.DEFAULT_MESSAGE_LIMITS, files, parts, progress.Progress(), 1 << 20
    )


def an_entry(length: int) -> pb.ArrayEntry:
    """An array that goes to a file."""
    return pb.ArrayEntry(name="w", digest=hashlib.sha256(b"%d" % length).digest(), length_bytes=length)


def stored(directory: Path) -> int:
    """How many bytes all segments have."""
    return sum(path.stat().st_size for path in directory.iterdir())


def write(reply: received.Reply, length: int) -> None:
    """Let an array come, whole."""
    reply.sink(an_entry(length))(memoryview(bytes(length)))


@pytest.mark.parametrize("length_of", [lambda _: LENGTH, lambda time: LENGTH + time], ids=["same", "longer"])
def test_dropped_replies_do_not_add_up(tmp_path: Path, length_of: Callable[[int], int]) -> None:
    """What stays is the first one, which shares its file with others; so with arrays of other lengths."""
    client = a_client(segments.Segments(tmp_path))
    for time in range(TIMES):
        reply = client.arriving()
        write(reply, length_of(time))
        write(reply, 2 * length_of(time))
        client.drop(client.reply)
        client.reply = None
    assert stored(tmp_path) == 3 * LENGTH


def test_a_transfer_that_begins_again_and_again(tmp_path: Path) -> None:
    """The same by frames: a reply is begun at its first byte a hundred times, and comes whole in the end."""
    data = bytes(range(250)) * 400
    header = pb.MessageHeader(message_id="m.reply", reply_to_message_id="m", has_content=True)
    digest = digests.digest(data)
    record = header.records.add(name="arrays")
    record.arrays.entries.add(name="w", digest=digest, length_bytes=LENGTH)
    outgoing = codec.OutgoingMessage(header, {digest: data})
    sent = b"".join(bytes(chunk) for chunk in outgoing.chunks())
    client = a_client(segments.Segments(tmp_path))
    begin = pb.TransferBegin(transfer_id="m.reply", total_bytes=len(sent))
    for time in range(TIMES):
        happened = client.incoming.begin(begin)
        if time:
            assert happened == [transfers.TransferAbandoned("m.reply")]
            client.drop(client.reply)
            client.reply = None
        client.incoming.chunk(frames.Chunk(0, sent[:-1]))
    client.incoming.chunk(frames.Chunk(len(sent) - 1, sent[-1:]))
    assert client.reply is not None
    source = client.reply.source_of(digest)
    assert not isinstance(source, bytes)
    assert source.read(0, len(source)) == data
    assert stored(tmp_path) == 2 * LENGTH - 1  # the last byte of the first try never came


def test_who_drops_nothing_shares_files(tmp_path: Path) -> None:
    """Many replies lie in one file: making one durable costs as much as making all of them so."""
    files = segments.Segments(tmp_path)
    for _ in range(3):
        client = a_client(files)
        write(client.arriving(), LENGTH)
    assert files.numbers() == [1]


def test_a_dropped_reply_takes_nothing_more(tmp_path: Path) -> None:
    """What still comes of a refused reply is not written, in a segment of its own as in a shared one."""
    client = a_client(segments.Segments(tmp_path))
    for _ in range(2):
        reply = client.arriving()
        rest = reply.sink(an_entry(LENGTH))
        rest(memoryview(bytes(1000)))
        client.drop(reply)
        rest(memoryview(bytes(1000)))
        client.reply = None
    assert stored(tmp_path) == 1000


def test_a_segment_that_is_gone_takes_nothing_more(tmp_path: Path) -> None:
    """As when the training ends while a reply comes: what is set aside next lies in a file that is there."""
    files = segments.Segments(tmp_path)
    reply = received.Reply(files, alone=True)
    write(reply, LENGTH)
    files.allocate(10)
    files.drop(files.numbers())
    write(reply, LENGTH + 1)
    assert files.allocate(10).number in files.numbers()
    reply.refuse()
    assert stored(tmp_path) == 0
