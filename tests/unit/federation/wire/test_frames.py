"""Frames made and read by hand are protobuf's, byte for byte."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import example, given
from hypothesis import strategies as st

from federation.wire import frames
from federation.wire import hanse_pb2 as pb


@given(st.integers(0, 2**62) | st.just(0), st.binary(min_size=1, max_size=300))
def test_frames_made_by_hand_are_protobuf_s(offset: int, data: bytes) -> None:
    """A chunk's frame has the same bytes however it is made, in both directions."""
    chunk = pb.TransferChunk(offset=offset, data=data)
    made = frames.serialise(frames.Chunk(offset, memoryview(data)))
    assert made == pb.AggregatorFrame(chunk=chunk).SerializeToString()
    assert made == pb.ClientFrame(chunk=chunk).SerializeToString()


@given(st.integers(0, 2**62) | st.just(0), st.binary(min_size=1, max_size=300))
def test_a_chunk_is_read_as_it_was_made(offset: int, data: bytes) -> None:
    """Both directions read a chunk's frame, and its bytes are a view of the frame."""
    made = frames.serialise(frames.Chunk(offset, data))
    for read in (frames.client_frame(made), frames.aggregator_frame(made)):
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
    try:
        want = pb.ClientFrame.FromString(data)
    except DecodeError:
        with pytest.raises(DecodeError):
            frames.client_frame(data)
        return
    got = frames.client_frame(data)
    if want.WhichOneof("body") == "chunk":
        assert isinstance(got, frames.Chunk)
        assert (got.offset, bytes(got.data)) == (want.chunk.offset, want.chunk.data)
    else:
        assert got == want


def test_small_frames_are_protobuf_s() -> None:
    """Frames that are no chunks go through protobuf both ways."""
    sent = pb.ClientFrame(received=pb.TransferReceived(transfer_id="m-1"))
    assert frames.client_frame(frames.serialise(sent)) == sent
    answer = pb.AggregatorFrame(goodbye=pb.Goodbye(reason="TrainingEnded"))
    assert frames.aggregator_frame(frames.serialise(answer)) == answer
