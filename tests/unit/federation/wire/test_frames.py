"""Frames made and read by hand are protobuf's, byte for byte."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from federation.wire import frames
from federation.wire import hanse_pb2 as pb

OFFSETS = st.integers(0, 2**62) | st.just(0)
CHUNKS = st.builds(frames.Chunk, OFFSETS, st.binary(min_size=1, max_size=300))
SMALL = st.builds(
    lambda name: pb.ClientFrame(received=pb.TransferReceived(transfer_id=name)), st.text(max_size=200)
)


def as_protobuf(frame: frames.Chunk | pb.ClientFrame) -> pb.ClientFrame:
    """The frame as protobuf has it."""
    if isinstance(frame, frames.Chunk):
        return pb.ClientFrame(chunk=pb.TransferChunk(offset=frame.offset, data=bytes(frame.data)))
    return frame


def as_compared(frame: frames.Chunk | pb.ClientFrame) -> object:
    """The frame as something that can be compared."""
    return (frame.offset, bytes(frame.data)) if isinstance(frame, frames.Chunk) else frame


@given(st.lists(CHUNKS | SMALL, min_size=1, max_size=frames.MAXIMUM_TOGETHER))
def test_frames_made_by_hand_are_protobuf_s(together: list[frames.Chunk | pb.ClientFrame]) -> None:
    """A message has the same bytes however it is made, and is read as it was made."""
    made = frames.serialise(together)
    assert made == pb.ClientFrames(frames=map(as_protobuf, together)).SerializeToString()
    assert list(map(as_compared, frames.client_frames(made))) == list(map(as_compared, together))


@given(OFFSETS, st.binary(min_size=1, max_size=300))
def test_a_chunk_is_read_where_it_lies(offset: int, data: bytes) -> None:
    """Both directions read a chunk's frame, and its bytes are a view of the message."""
    made = frames.serialise(frames.Chunk(offset, memoryview(data)))
    for (read,) in (frames.client_frames(made), frames.aggregator_frames(made)):
        assert isinstance(read, frames.Chunk)
        assert (read.offset, bytes(read.data)) == (offset, data)
        assert isinstance(read.data, memoryview)
        assert read.data.obj is made


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda rest: b"\x1a" + rest))
@example(b"\x1a\x00")  # an empty chunk
@example(b"\x1a\x04\x08\x01\x12\x00")
@example(b"\x1a\x03\x12\x01x\x1a\x03\x12\x01y")  # the last of two chunks counts
@example(b"\x1a\x06\x12\x01x\x12\x01y")
@example(b"\x1a\x83\x00\x12\x01x")  # a number longer than it need be
def test_whatever_comes_is_read_as_protobuf_reads_it(data: bytes) -> None:
    """The short way and protobuf never disagree about what a frame is."""
    message = b"\x0a" + bytes((len(data),)) + data
    try:
        want = pb.ClientFrames.FromString(message).frames[0]
    except DecodeError:
        with pytest.raises(DecodeError):
            frames.client_frames(message)
        return
    (got,) = frames.client_frames(message)
    if want.WhichOneof("body") == "chunk":
        assert isinstance(got, frames.Chunk)
        assert (got.offset, bytes(got.data)) == (want.chunk.offset, want.chunk.data)
    else:
        assert got == want


@given(st.binary(max_size=60))
@example(b"")
@example(b"\x0a")
@example(b"\x0a\x05ab")
@example(b"\x12\x00")  # something else beside frames
def test_a_message_holds_frames_and_nothing_else(data: bytes) -> None:
    """What is read is what protobuf reads; where it is anything else, nothing is."""
    try:
        got = frames.client_frames(data)
    except DecodeError:
        return
    assert [as_protobuf(frame) for frame in got] == list(pb.ClientFrames.FromString(data).frames)


def test_a_message_holds_few_frames() -> None:
    """More than MAXIMUM_TOGETHER are refused before they are read."""
    frame = pb.ClientFrame(received=pb.TransferReceived(transfer_id="m-1"))
    most = [frame] * frames.MAXIMUM_TOGETHER
    assert frames.client_frames(frames.serialise(most)) == most
    with pytest.raises(DecodeError, match="more than 16"):
        frames.client_frames(frames.serialise([*most, frame]))


def test_small_frames_are_protobuf_s() -> None:
    """Frames that are no chunks go through protobuf both ways."""
    answer = pb.AggregatorFrame(goodbye=pb.Goodbye(reason="TrainingEnded"))
    assert frames.aggregator_frames(frames.serialise(answer)) == [answer]
