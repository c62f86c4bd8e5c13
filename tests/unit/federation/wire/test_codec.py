"""The byte stream of a message: its laws, its limits and its errors."""

import contextlib
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import codec, limits
from federation.wire import hanse_pb2 as pb
from federation.wire.digests import digest


def outgoing(
    arrays: list[bytes], blob: bytes | None = None, message_id: str = "m-1"
) -> codec.OutgoingMessage:
    header = pb.MessageHeader(message_id=message_id, message_type="train", has_content=True)
    entries = header.records.add(name="model").arrays.entries
    for index, data in enumerate(arrays):
        entries.add(name=f"layer-{index}", digest=digest(data), length_bytes=len(data))
    sources = {digest(data): data for data in arrays}
    if blob is not None:
        value = header.records.add(name="config").config.entries.add(name="blob").value
        value.list.items.add().blob.CopyFrom(pb.ArrayEntry(digest=digest(blob), length_bytes=len(blob)))
        sources[digest(blob)] = blob
    return codec.OutgoingMessage(header, sources)


def stream(message: codec.OutgoingMessage, held: codec.Held = (), **options: int) -> bytes:
    return b"".join(message.chunks(held, **options))


def decode(pieces: list[bytes], held: codec.Held = ()) -> tuple[pb.MessageHeader, dict[bytes, bytes]]:
    decoder = codec.MessageDecoder(held=held)
    arrays: dict[bytes, bytearray] = {}
    headers = []
    for piece in pieces:
        for event in decoder.feed(piece):
            match event:
                case codec.ArrayBytes(name, offset, data):
                    assert offset == len(arrays.setdefault(name, bytearray()))
                    arrays[name] += data
                case codec.ArrayReceived(name):
                    arrays.setdefault(name, bytearray())
                case codec.MessageReceived(header):
                    headers.append(header)
    decoder.close()
    assert len(headers) == 1
    return headers[0], {name: bytes(data) for name, data in arrays.items()}


def consume(decoder: codec.MessageDecoder, data: Iterable[bytes]) -> list[codec.Event]:
    """Feed everything, then close; an error never follows a message."""
    events: list[codec.Event] = []
    try:
        for piece in data:
            events += decoder.feed(piece)
        decoder.close()
    except codec.WireError:
        assert not any(isinstance(event, codec.MessageReceived) for event in events)
        raise
    return events


array_lists = st.lists(st.binary(max_size=60), max_size=6)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


@given(array_lists, st.lists(st.integers(min_value=0), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_message(arrays: list[bytes], cuts: list[int]) -> None:
    """However the stream is cut, header and arrays are those that were sent."""
    message = outgoing(arrays, blob=b"blob")
    header, got = decode(cut(stream(message), cuts))
    assert header == message.header
    assert got == {digest(data): data for data in [*arrays, b"blob"]}


@given(array_lists, st.integers(min_value=0), st.integers(min_value=1, max_value=255), st.booleans())
def test_any_changed_byte_gives_a_typed_error(
    arrays: list[bytes], place: int, change: int, hold: bool
) -> None:
    """One changed byte anywhere: a WireError, and no message."""
    held = {digest(arrays[0])} if hold and arrays else set()
    data = bytearray(stream(outgoing(arrays), held))
    data[place % len(data)] ^= change
    decoder = codec.MessageDecoder(held=held)
    with pytest.raises(codec.WireError):
        consume(decoder, [data[index : index + 1] for index in range(len(data))])
    with pytest.raises(codec.DecoderUnusable):
        decoder.feed(b"more")


def test_every_changed_byte_of_one_message_is_found() -> None:
    """No byte of preamble, header and arrays is left uncovered."""
    whole = stream(outgoing([b"abc", b"", b"defgh"]))
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 0x01
        decoder = codec.MessageDecoder()
        with pytest.raises(codec.WireError):
            consume(decoder, [data])


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_never_make_a_message(data: bytes, plausible: bool) -> None:
    """Whatever comes, the decoder answers with a WireError."""
    decoder = codec.MessageDecoder()
    with pytest.raises(codec.WireError):
        consume(decoder, [codec.MAGIC + data if plausible else data])


@given(st.binary(max_size=200))
def test_random_headers_with_a_right_checksum_give_typed_errors_or_a_header(body: bytes) -> None:
    """A checksum proves nothing about the sender's sense: only WireErrors may come of it."""
    preamble = codec.MAGIC + len(body).to_bytes(4, "big") + digest(body)
    decoder = codec.MessageDecoder()
    with contextlib.suppress(codec.WireError):
        consume(decoder, [preamble + body])


@given(array_lists, st.integers(min_value=0), st.integers(min_value=1, max_value=40))
def test_the_stream_from_any_offset_is_a_suffix(arrays: list[bytes], place: int, chunk_bytes: int) -> None:
    """An upload that goes on where it stopped sends what is missing, in chunks of the size asked for."""
    message = outgoing(arrays)
    whole = stream(message)
    offset = place % (len(whole) + 1)
    chunks = list(message.chunks(offset=offset, chunk_bytes=chunk_bytes))
    assert b"".join(chunks) == whole[offset:]
    assert message.total_bytes() == len(whole)
    assert all(len(chunk) == chunk_bytes for chunk in chunks[:-1])


@given(array_lists, st.sets(st.integers(min_value=0, max_value=5)))
def test_held_arrays_are_not_sent(arrays: list[bytes], held_places: set[int]) -> None:
    """A receiver gets the arrays that it lacks, each once, and the whole header."""
    held = {digest(data) for index, data in enumerate(arrays) if index in held_places}
    message = outgoing(arrays)
    data = stream(message, held)
    header, got = decode([data], held.__contains__)
    assert len(data) == message.total_bytes(held)
    assert got.keys() == {digest(item) for item in arrays} - held
    del header.omitted[:]
    assert header == message.header


def test_large_arrays_are_sent_as_views() -> None:
    """A chunk within one array is the array's own memory."""
    data = bytes(1000)
    chunk = list(outgoing([data]).chunks(chunk_bytes=300))[2]
    assert isinstance(chunk, memoryview)
    assert chunk.obj is data


def test_sources_are_read_a_run_at_a_time() -> None:
    """Bytes that lie elsewhere are asked for chunk by chunk."""
    data = bytes(range(256)) * 4

    class Source:
        longest = 0

        def __len__(self) -> int:
            return len(data)

        def read(self, position: int, length: int) -> bytes:
            self.longest = max(self.longest, length)
            return data[position : position + length]

    plain = outgoing([data])
    source = Source()
    message = codec.OutgoingMessage(plain.header, {digest(data): source})
    assert stream(message, chunk_bytes=100) == stream(plain)
    assert source.longest == 100


def test_array_bytes_go_to_sinks() -> None:
    """With a sink factory the bytes go to the sinks, and events say only what is whole."""
    arrays = [b"first", b"second"]
    got: dict[str, bytearray] = {}
    decoder = codec.MessageDecoder(sink_factory=lambda entry: got.setdefault(entry.name, bytearray()).extend)
    events = [event for piece in cut(stream(outgoing(arrays)), [150, 160]) for event in decoder.feed(piece)]
    assert {name: bytes(data) for name, data in got.items()} == {"layer-0": b"first", "layer-1": b"second"}
    assert [type(event).__name__ for event in events] == [
        "HeaderReceived", "ArrayReceived", "ArrayReceived", "MessageReceived"
    ]  # fmt: skip


def framed(header: pb.MessageHeader) -> bytes:
    body = header.SerializeToString()
    return codec.MAGIC + len(body).to_bytes(4, "big") + digest(body) + body


def header_with(*entries: pb.ArrayEntry, **fields: object) -> pb.MessageHeader:
    header = pb.MessageHeader(message_id="m-1", **fields)
    header.records.add(name="model").arrays.entries.extend(entries)
    return header


def entry(length: int = 3, of: bytes = digest(b"abc"), name: str = "w") -> pb.ArrayEntry:
    return pb.ArrayEntry(name=name, digest=of, length_bytes=length)


SMALL = limits.MessageLimits(header_bytes=1000, arrays=2, array_bytes=100, message_bytes=300)


@pytest.mark.parametrize(
    "data, want_error",
    [
        pytest.param(b"HTTP/1.1 200 OK" + bytes(40), codec.BadMagic, id="another protocol"),
        pytest.param(
            codec.MAGIC + b"\xff" * 4 + bytes(32), codec.HeaderTooLarge, id="header above the limit"
        ),
        pytest.param(
            codec.MAGIC + bytes(4) + bytes(32), codec.HeaderCorrupted, id="empty header, wrong checksum"
        ),
        pytest.param(
            codec.MAGIC + (1).to_bytes(4, "big") + digest(b"\xff") + b"\xff",
            codec.HeaderInvalid,
            id="not protobuf",
        ),
        pytest.param(
            framed(header_with(entry(), entry(), entry())), codec.TooManyArrays, id="too many arrays"
        ),
        pytest.param(framed(header_with(entry(10 * 1024**3))), codec.ArrayTooLarge, id="10 GB array"),
        pytest.param(
            framed(header_with(entry(90), entry(90, digest(b"x")))),
            codec.MessageTooLarge,
            id="arrays together",
        ),
        pytest.param(framed(header_with(entry(of=b"short"))), codec.HeaderInvalid, id="short digest"),
        pytest.param(
            framed(header_with(entry(3), entry(4))), codec.HeaderInvalid, id="two lengths for a digest"
        ),
        pytest.param(
            framed(header_with(entry(), omitted=[digest(b"abc")])),
            codec.UnknownHeldArray,
            id="not held here",
        ),
        pytest.param(
            framed(header_with(omitted=[digest(b"abc")])),
            codec.HeaderInvalid,
            id="omits a foreign array",
        ),
        pytest.param(
            framed(header_with(has_content=True, error=pb.MessageError(code=1))),
            codec.HeaderInvalid,
            id="both",
        ),
        pytest.param(framed(header_with(entry())) + b"xyz", codec.ArrayCorrupted, id="wrong array bytes"),
        pytest.param(framed(header_with(entry())) + b"abcd", codec.TrailingBytes, id="a byte too many"),
        pytest.param(framed(header_with(entry())) + b"ab", codec.Truncated, id="a byte too few"),
        pytest.param(b"", codec.Truncated, id="nothing"),
    ],
)
def test_typed_errors(data: bytes, want_error: type[codec.WireError]) -> None:
    """Each way to break a message has its own error."""
    decoder = codec.MessageDecoder(SMALL)
    with pytest.raises(want_error):
        consume(decoder, [data])


def test_a_corrupted_array_is_named() -> None:
    """The error says which array, which digest was wanted and which one came."""
    decoder = codec.MessageDecoder()
    with pytest.raises(codec.ArrayCorrupted) as caught:
        decoder.feed(framed(header_with(entry(name="conv1.weight"))) + b"xyz")
    assert (caught.value.name, caught.value.want, caught.value.got) == (
        "conv1.weight", digest(b"abc"), digest(b"xyz")
    )  # fmt: skip


def test_a_message_without_its_arrays_is_not_made() -> None:
    """An array that the header names must be there, with the length that it says."""
    header = header_with(entry())
    with pytest.raises(ValueError, match="no bytes for array 'w'"):
        codec.OutgoingMessage(header, {})
    with pytest.raises(ValueError, match="has 4 bytes, its header says 3"):
        codec.OutgoingMessage(header, {digest(b"abc"): b"abcd"})


@pytest.mark.parametrize("options", [{"offset": -1}, {"offset": 10_000}, {"chunk_bytes": 0}])
def test_impossible_offsets_are_refused(options: dict[str, int]) -> None:
    """An offset outside of the stream is the caller's mistake."""
    with pytest.raises(ValueError):
        outgoing([b"abc"]).chunks(**options)
