"""Flower messages on the wire: whole, unchanged, hashed once."""

import math
import struct
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from hypothesis import given
from hypothesis import strategies as st

from federation.flower import messages
from federation.wire import codec, digests, limits
from federation.wire import hanse_pb2 as pb


def metadata(**fields: Any) -> Metadata:
    standard: dict[str, Any] = dict(
        run_id=7, message_id="m-1", src_node_id=1, dst_node_id=2**64 - 1, reply_to_message_id="",
        group_id="3", created_at=1_700_000_000.25, ttl=3600.5, message_type="train",
    )  # fmt: skip
    return Metadata(**(standard | fields))


def round_trip(message: Message) -> Message:
    """Send a message through bytes, as to another process."""
    sent = messages.to_wire(message)
    decoder = codec.MessageDecoder()
    arrays: dict[bytes, bytearray] = {}
    headers = []
    for chunk in sent.chunks(chunk_bytes=1000):
        for event in decoder.feed(chunk):
            match event:
                case codec.ArrayBytes(digest, _, data):
                    arrays.setdefault(digest, bytearray()).extend(data)
                case codec.MessageReceived(header):
                    headers.append(header)

    def array_of(entry: pb.ArrayEntry) -> Array:
        data = bytes(arrays.get(entry.digest, b""))
        assert len(data) == entry.length_bytes
        return Array(entry.dtype, tuple(entry.shape), entry.serialization, data)

    return messages.to_flower(headers[0], array_of)


def exact(value: Any) -> Any:
    """Return the value with its type, and floats as their bits: NaN equals itself, -0.0 is not 0.0."""
    if isinstance(value, list):
        return [exact(item) for item in value]
    return type(value), struct.pack(">d", value) if isinstance(value, float) else value


def described(content: RecordDict) -> list[Any]:
    whole: list[Any] = []
    for name, record in content.items():
        values: list[Any]
        if isinstance(record, ArrayRecord):
            values = [(key, a.dtype, a.shape, a.stype, a.data) for key, a in record.items()]
        else:
            values = [(key, exact(value)) for key, value in record.items()]
        whole.append((name, type(record), values))
    return whole


def contents(content: RecordDict) -> list[Any]:
    return described(round_trip(make_message(metadata(), content=content)).content)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
integers = st.integers(-(2**63), 2**64 - 1)
floats = st.floats(allow_nan=True, allow_infinity=True)
byte_strings = st.binary(max_size=50) | st.just(bytes(limits.BLOB_BYTES)) | st.just(b"\x01" * 40_000)
metric_values = integers | floats | st.lists(integers) | st.lists(floats)
config_values = (
    metric_values
    | st.booleans()
    | names
    | byte_strings
    | st.lists(st.booleans())
    | st.lists(names)
    | st.lists(byte_strings, max_size=3)
    | st.lists(st.booleans() | integers).filter(lambda items: not items or type(items[0]) is int)
)
dtypes = st.sampled_from(["<f2", "<f4", "<f8", "i1", "<i8", "?", "<c8", ">f4", "u1"])


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    dtype = np.dtype(draw(dtypes))
    count = math.prod(shape)
    seed = draw(st.integers(0, 2**16))
    values = np.random.default_rng(seed).integers(0, 2, count * dtype.itemsize, dtype=np.uint8)
    ndarray = np.frombuffer(values.tobytes(), dtype=dtype, count=count).reshape(shape)
    return Array(np.asfortranarray(ndarray) if draw(st.booleans()) else ndarray)


foreign = st.builds(Array, names, st.just(()), names, st.binary(max_size=20))
array_records = st.dictionaries(names, arrays() | foreign, max_size=4).map(ArrayRecord)
metric_records = st.dictionaries(names, metric_values, max_size=4).map(MetricRecord)
config_records = st.dictionaries(names, config_values, max_size=4).map(ConfigRecord)
record_dicts = st.dictionaries(names, array_records | metric_records | config_records, max_size=5).map(
    RecordDict
)


@given(record_dicts)
def test_any_content_survives_whole(content: RecordDict) -> None:
    """Names, order, types, bits of floats and bytes of arrays are what they were."""
    assert contents(content) == described(content)


def test_what_apps_are_known_to_send_survives() -> None:
    """The list of things that other hosts have lost."""
    content = RecordDict(
        {
            "z": ArrayRecord(
                {dtype: Array(np.ones((2, 3), dtype)) for dtype in ("f2", "f4", "f8", "i1", "i8", "?")}
                | {
                    "scalar": Array(np.array(1.5)),
                    "empty": Array(np.zeros((0, 4))),
                    "none": Array("", (), "x", b""),
                }
            ),
            "a": ArrayRecord(),
            "m": MetricRecord(
                {"nan": math.nan, "inf": -math.inf, "big": 2**64 - 1, "small": -(2**63), "zero": -0.0}
            ),
            "m2": MetricRecord(
                {"empty": [], "bigs": [2**64 - 1, 0], "both": [2**64 - 1, -1], "nans": [math.nan]}
            ),
            "c": ConfigRecord(
                {"b": True, "bs": [True, False], "s": "ünïcode", "raw": b"\x00\xff", "raws": [b"", b"x"]}
            ),
            "c2": ConfigRecord(
                {"long": bytes(100_000), "longs": [bytes(20_000), b"short"], "mixed": [1, True]}
            ),
            "": ConfigRecord(),
        }
    )
    assert contents(content) == described(content)


def test_an_empty_content_is_not_no_content() -> None:
    """An empty RecordDict arrives as one; a message without content arrives without."""
    empty = round_trip(make_message(metadata(), content=RecordDict()))
    assert empty.has_content()
    assert len(empty.content) == 0
    message = make_message(metadata(), content=RecordDict())
    message.content = None  # type: ignore[assignment]
    without = round_trip(message)
    assert not without.has_content()
    assert not without.has_error()


@pytest.mark.parametrize("reason", [None, "", "ValueError: bad data\nline 2"])
@pytest.mark.parametrize("code", [0, 2, 2**31, -1])
def test_errors_survive(code: int, reason: str | None) -> None:
    """An error keeps its code, and an empty reason is not the absence of one."""
    message = round_trip(make_message(metadata(), error=Error(code, reason)))
    assert message.has_error()
    assert not message.has_content()
    assert message.error == Error(code, reason)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"src_node_id": 2**64 - 1, "dst_node_id": 1, "run_id": 2**64 - 1, "reply_to_message_id": "m-0"},
        {"group_id": "", "ttl": 0.0, "message_type": "query.my_action"},
        {"message_type": "get_parameters"},
        {"message_type": "reconnect"},
        {"message_type": "system"},
        {"src_task_id": 0, "dst_task_id": 5},
        {"created_at": 0.1 + 0.2},
    ],
)
def test_metadata_survives(fields: dict[str, Any]) -> None:
    """All metadata arrive as they were, message id included."""
    message = make_message(metadata(**fields), content=RecordDict())
    assert round_trip(message).metadata == message.metadata


def test_a_message_may_be_sent_under_an_id_of_ours() -> None:
    """A new message has no id of its own yet."""
    sent = messages.to_wire(make_message(metadata(message_id=""), content=RecordDict()), message_id="m-9")
    assert sent.header.message_id == "m-9"


def test_array_bytes_pass_untouched() -> None:
    """What is sent is the very object that lies in the array, and one array in many places travels once."""
    array = Array(np.arange(1000.0))
    content = RecordDict({"a": ArrayRecord(), "b": ArrayRecord()})
    content["a"]["x"] = content["a"]["y"] = content["b"]["z"] = array  # type: ignore[index]
    sent = messages.to_wire(make_message(metadata(), content=content))
    assert list(sent.arrays.values()) == [array.data]
    assert next(iter(sent.arrays.values())) is array.data


def test_an_array_is_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is kept with the array, until its data are others."""
    hashed: list[int] = []
    digest = digests.digest

    def counting(data: bytes) -> bytes:
        hashed.append(len(data))
        return digest(data)

    monkeypatch.setattr(digests, "digest", counting)
    array = Array(np.arange(100.0))
    first = messages.digest_of(array)
    assert messages.digest_of(array) == first == digest(array.data)
    assert len(hashed) == 1
    array.data = b"other"
    assert messages.digest_of(array) == digest(b"other")
    assert len(hashed) == 2


def test_later_changes_by_the_app_do_not_change_what_is_sent() -> None:
    """An app may set its arrays anew while the message is still on its way."""
    array = Array(np.zeros(4))
    content = RecordDict({"a": ArrayRecord()})
    content["a"]["x"] = array  # type: ignore[index]
    want = array.data
    sent = messages.to_wire(make_message(metadata(), content=content))
    array.data = b"changed"
    assert list(sent.arrays.values()) == [want]


@pytest.mark.parametrize(
    "record, want",
    [
        (MetricRecord({"x": 2**64}), "value 'x' of record 'r'"),
        (MetricRecord({"x": [0, -(2**63) - 1]}), "value 'x' of record 'r'"),
        (ConfigRecord({"x": "\ud800"}), "value 'x' of record 'r'"),
        (ConfigRecord({"\ud800": 1}), "record 'r'"),
        (ArrayRecord({"x": Array("f4", (-1,), "numpy.ndarray", b"")}), "array 'x' of record 'r'"),
    ],
)
def test_what_cannot_be_sent_is_named(record: Any, want: str) -> None:
    """An app's mistake names the value."""
    with pytest.raises(messages.MessageNotRepresentable, match=want):
        messages.to_wire(make_message(metadata(), content=RecordDict({"r": record})))


TWICE = pb.NamedValue(name="x", value=pb.Value(integer=1))


def value_header(value: pb.Value, kind: str = "metrics") -> pb.MessageHeader:
    header = pb.MessageHeader(message_type="train", has_content=True)
    getattr(header.records.add(name="r"), kind).entries.add(name="x").value.CopyFrom(value)
    return header


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(pb.MessageHeader(message_type="dance", has_content=True), id="unknown type"),
        pytest.param(value_header(pb.Value(text="no number")), id="text among metrics"),
        pytest.param(value_header(pb.Value()), id="no value"),
        pytest.param(
            pb.MessageHeader(message_type="train", has_content=True, records=[pb.Record(name="r")]),
            id="no kind",
        ),
        pytest.param(
            pb.MessageHeader(
                message_type="train", has_content=True,
                records=[pb.Record(name="r", config=pb.Values()), pb.Record(name="r", config=pb.Values())],
            ),
            id="a name twice",
        ),
        pytest.param(
            value_header(pb.Value(list=pb.ValueList(items=[pb.Value(list=pb.ValueList())])), "config"),
            id="a list in a list",
        ),
        pytest.param(
            pb.MessageHeader(
                message_type="train",
                has_content=True,
                records=[pb.Record(name="r", arrays=pb.Arrays(entries=[pb.ArrayEntry(), pb.ArrayEntry()]))],
            ),
            id="an array twice",
        ),
        pytest.param(
            pb.MessageHeader(
                message_type="train",
                has_content=True,
                records=[pb.Record(name="r", metrics=pb.Values(entries=[TWICE, TWICE]))],
            ),
            id="a value twice",
        ),
        pytest.param(
            value_header(
                pb.Value(list=pb.ValueList(items=[pb.Value(integer=1), pb.Value(text="x")])), "config"
            ),
            id="a list of two types",
        ),
    ],
)  # fmt: skip
def test_headers_that_no_flower_message_can_have_are_refused(header: pb.MessageHeader) -> None:
    """A peer's nonsense is a typed error, not an accident deep inside."""
    with pytest.raises(codec.HeaderInvalid):
        messages.to_flower(header, lambda entry: Array("", (), "", b""))
