"""The frames of Exchange.Session as gRPC carries them, with the array bytes copied once on each side.

Why it exists: nearly all bytes of a session lie in chunks. protobuf copies a chunk four times on its way out
and once more on its way in; made and read here, its bytes are copied into the frame, and read where gRPC put
them. All other frames are protobuf's. What a chunk belongs to is not known here.
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias, TypeVar

from federation.wire import codec
from federation.wire import hanse_pb2 as pb


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A TransferChunk whose bytes are a view of where they lie; nobody may change them."""

    offset: int
    data: codec.Buffer


_Frame = TypeVar("_Frame", pb.ClientFrame, pb.AggregatorFrame)
Outgoing: TypeAlias = Chunk | pb.ClientFrame | pb.AggregatorFrame


def serialise(frame: Outgoing) -> bytes:
    """Return the bytes of a frame."""
    if isinstance(frame, Chunk):
        return chunk_frame(frame.offset, frame.data)
    serialised: bytes = frame.SerializeToString()
    return serialised


def client_frame(data: bytes) -> pb.ClientFrame | Chunk:
    """Read a frame of a client; raises protobuf's DecodeError for what is none."""
    return _frame(data, pb.ClientFrame)


def aggregator_frame(data: bytes) -> pb.AggregatorFrame | Chunk:
    """Read a frame of an aggregator; raises protobuf's DecodeError for what is none."""
    return _frame(data, pb.AggregatorFrame)


def _frame(data: bytes, kind: type[_Frame]) -> _Frame | Chunk:
    chunk = read_chunk(data)
    if chunk is not None:
        return chunk
    frame = kind.FromString(data)
    return Chunk(frame.chunk.offset, frame.chunk.data) if frame.WhichOneof("body") == "chunk" else frame


def chunk_frame(offset: int, data: codec.Buffer) -> bytes:
    """Return the bytes of a ClientFrame or AggregatorFrame that holds this chunk.

    Law: they are the bytes that protobuf makes of the frame.
    """
    inner = b"\x12" + _varint(len(data))  # TransferChunk.data is field 2
    if offset:
        inner = b"\x08" + _varint(offset) + inner  # TransferChunk.offset is field 1
    return b"".join(
        (b"\x1a", _varint(len(inner) + len(data)), inner, data)
    )  # chunk is field 3 of both frames


def read_chunk(frame: bytes) -> Chunk | None:
    """Return the chunk in a frame that looks as chunk_frame makes it, or None: protobuf has to judge it.

    Law: for every chunk, read_chunk(chunk_frame(offset, data)) is that chunk; what protobuf reads as anything
    else is never read as a chunk, and never as another one.
    """
    if frame[:1] != b"\x1a":
        return None
    length, at = _read_varint(frame, 1)
    if length is None or at + length != len(frame):
        return None
    offset: int | None = 0
    if frame[at : at + 1] == b"\x08":
        offset, at = _read_varint(frame, at + 1)
    if offset is None or frame[at : at + 1] != b"\x12":
        return None
    length, at = _read_varint(frame, at + 1)
    if length is None or at + length != len(frame):
        return None
    return Chunk(offset, memoryview(frame)[at:])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: bytes, at: int) -> tuple[int | None, int]:
    """Return the number at `at` and where the next thing is; None for what 63 bits do not hold."""
    value = 0
    for index in range(9):
        if at + index >= len(data):
            return None, at
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    return None, at
