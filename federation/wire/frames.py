"""The frames of Exchange.Session as gRPC carries them, with the array bytes copied once on each side.

Why it exists: nearly all bytes of a session lie in chunks. protobuf copies a chunk four times on its way out
and once more on its way in; made and read here, its bytes are copied into the message, and read where gRPC
put them. All other frames are protobuf's. Frames that leave together travel in one message: each message
costs both sides as much as 100 KB of bytes do. What a chunk belongs to is not known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TypeAlias, TypeVar

from google.protobuf import message as protobuf_message

from federation.wire import codec
from federation.wire import hanse_pb2 as pb

MAXIMUM_TOGETHER = 16
"""Frames of one message. More would keep an event loop from everybody else."""

_FRAMES = 0x0A  # field 1 of ClientFrames and AggregatorFrames, with its length before it


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A TransferChunk whose bytes are a view of where they lie; nobody may change them."""

    offset: int
    data: codec.Buffer


_Frame = TypeVar("_Frame", pb.ClientFrame, pb.AggregatorFrame)
Outgoing: TypeAlias = Chunk | pb.ClientFrame | pb.AggregatorFrame


def serialise(together: Outgoing | Sequence[Outgoing]) -> bytes:
    """Return the bytes of a message that holds these frames, or this one.

    Law: they are the bytes that protobuf makes of ClientFrames or AggregatorFrames.
    """
    parts: list[codec.Buffer] = []
    for frame in together if isinstance(together, Sequence) else (together,):
        if isinstance(frame, Chunk):
            parts += _chunk_frame(frame)
        else:
            serialised: bytes = frame.SerializeToString()
            parts += (bytes((_FRAMES,)), _varint(len(serialised)), serialised)
    return b"".join(parts)


def client_frames(data: bytes) -> list[pb.ClientFrame | Chunk]:
    """Read a client's message; raises protobuf's DecodeError for what is none, or has too many frames."""
    return list(_frames(data, pb.ClientFrame))


def aggregator_frames(data: bytes) -> list[pb.AggregatorFrame | Chunk]:
    """Read an aggregator's message; raises as client_frames does."""
    return list(_frames(data, pb.AggregatorFrame))


def _frames(data: bytes, kind: type[_Frame]) -> Iterator[_Frame | Chunk]:
    for part in _parts(data):
        chunk = _read_chunk(part)
        if chunk is not None:
            yield chunk
            continue
        frame = kind.FromString(bytes(part))
        is_chunk = frame.WhichOneof("body") == "chunk"
        yield Chunk(frame.chunk.offset, frame.chunk.data) if is_chunk else frame


def _parts(data: bytes) -> list[memoryview]:
    """Where the frames of a message lie. Frames are all that it may hold, so that they can be counted."""
    view, at, found = memoryview(data), 0, list[memoryview]()
    while at < len(view):
        length, start = _read_varint(view, at + 1)
        if view[at] != _FRAMES or length is None or start + length > len(view):
            raise protobuf_message.DecodeError(f"no frame at byte {at}")
        if len(found) == MAXIMUM_TOGETHER:
            raise protobuf_message.DecodeError(f"more than {MAXIMUM_TOGETHER} frames together")
        at = start + length
        found.append(view[start:at])
    if not found:
        raise protobuf_message.DecodeError("a message without frames")
    return found


def _chunk_frame(chunk: Chunk) -> tuple[codec.Buffer, ...]:
    """The bytes of a frame that holds a chunk, in parts, as protobuf would put it into a message."""
    inner = b"\x12" + _varint(len(chunk.data))  # TransferChunk.data is field 2
    if chunk.offset:
        inner = b"\x08" + _varint(chunk.offset) + inner  # TransferChunk.offset is field 1
    length = len(inner) + len(chunk.data)
    frame = b"\x1a" + _varint(length)  # chunk is field 3 of both frames
    return bytes((_FRAMES,)) + _varint(len(frame) + length), frame, inner, chunk.data


def _read_chunk(frame: memoryview) -> Chunk | None:
    """Return the chunk in a frame that looks as _chunk_frame makes it, or None: protobuf has to judge it.

    Law: what protobuf reads as anything else is never read as a chunk, and never as another one.
    """
    if bytes(frame[:1]) != b"\x1a":
        return None
    length, at = _read_varint(frame, 1)
    if length is None or at + length != len(frame):
        return None
    offset: int | None = 0
    if bytes(frame[at : at + 1]) == b"\x08":
        offset, at = _read_varint(frame, at + 1)
    if offset is None or bytes(frame[at : at + 1]) != b"\x12":
        return None
    length, at = _read_varint(frame, at + 1)
    if length is None or at + length != len(frame):
        return None
    return Chunk(offset, frame[at:])


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varint(data: memoryview, at: int) -> tuple[int | None, int]:
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
