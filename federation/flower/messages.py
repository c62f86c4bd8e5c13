"""Flower messages as headers and arrays, and back, whole.

Everything that an app can put into a Message survives: names and their order, array bytes as they lie,
integers of 64 bits, NaN, infinities, typed and empty lists, long bytes, errors, metadata. The array
bytes are never looked into and never serialised again. How messages travel is not known here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message

from federation.flower import arrays as flower_arrays
from federation.wire import codec, digests
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits

BLOB_SERIALIZATION = "bytes"
"""The serialisation of a long bytes value that travels as an array does."""

_INT64_MIN, _INT64_MAX, _UINT64_MAX = -(2**63), 2**63 - 1, 2**64 - 1

ArrayOf: TypeAlias = Callable[[pb.ArrayEntry], Array]


class MessageNotRepresentable(ValueError):
    """An app made a message that the wire cannot carry; Flower's own wire could not either."""

    def __init__(self, where: str, why: str) -> None:
        """Say which value of which record it is, and what is wrong with it."""
        super().__init__(f"{where} cannot be sent: {why}")
        self.where, self.why = where, why


def digest_of(array: Array) -> bytes:
    """Return the digest of the array's serialised bytes, its name on the wire.

    The digest is kept with the array for as long as `array.data` is the same object, so a model that is
    sent to many clients is hashed once.
    """
    if isinstance(array, flower_arrays.SpooledArray) and (digest := array.spooled_digest) is not None:
        return digest
    data = array.data
    known = array.__dict__.get(flower_arrays.KEPT_DIGEST)
    if known is not None and known[0] is data:
        return cast(bytes, known[1])
    digest = digests.digest(data)
    array.__dict__[flower_arrays.KEPT_DIGEST] = (data, digest)
    return digest


def to_wire(message: Message, message_id: str | None = None) -> codec.OutgoingMessage:
    """Return the message as header and arrays.

    message_id: the id to send it under, where the app's message has none of its own yet.
    Later changes to the app's message or its arrays do not change what is sent.
    Raises: MessageNotRepresentable(where, why) for integers beyond 64 bits, text that is not Unicode.
    """
    metadata = message.metadata
    arrays: dict[bytes, codec.Buffer | codec.ByteSource] = {}
    try:
        header = pb.MessageHeader(
            message_id=metadata.message_id if message_id is None else message_id,
            reply_to_message_id=metadata.reply_to_message_id,
            run_id=metadata.run_id,
            source_node_id=metadata.src_node_id,
            destination_node_id=metadata.dst_node_id,
            group_id=metadata.group_id,
            message_type=metadata.message_type,
            created_at=metadata.created_at,
            ttl_seconds=metadata.ttl,
            source_task_id=metadata.src_task_id,
            destination_task_id=metadata.dst_task_id,
            has_content=message.has_content(),
        )
        if message.has_error():
            error = message.error
            header.error.CopyFrom(
                pb.MessageError(code=error.code, reason=error.reason, has_reason=error.reason is not None)
            )
    except (TypeError, ValueError) as error:
        raise MessageNotRepresentable("the message's metadata", str(error)) from error
    if message.has_content():
        _content_to_wire(message.content, header, arrays)
    return codec.OutgoingMessage(header, arrays)


def content_to_wire(content: RecordDict) -> codec.OutgoingMessage:
    """Return records that are no message, such as an app's state, as header and arrays.

    Raises: MessageNotRepresentable(where, why) as `to_wire`.
    """
    header, arrays = pb.MessageHeader(has_content=True), dict[bytes, codec.Buffer | codec.ByteSource]()
    _content_to_wire(content, header, arrays)
    return codec.OutgoingMessage(header, arrays)


def _content_to_wire(
    content: RecordDict, header: pb.MessageHeader, arrays: dict[bytes, codec.Buffer | codec.ByteSource]
) -> None:
    for name, record in content.items():
        _record_to_wire(name, record, header.records.add(), arrays)


def _record_to_wire(
    name: str,
    record: ArrayRecord | MetricRecord | ConfigRecord,
    into: pb.Record,
    arrays: dict[bytes, codec.Buffer | codec.ByteSource],
) -> None:
    where = f"record {name!r}"
    try:
        into.name = name
        if isinstance(record, ArrayRecord):
            into.arrays.SetInParent()
            for key, array in record.items():
                where = f"array {key!r} of record {name!r}"
                into.arrays.entries.append(_array_to_wire(key, array, arrays))
            return
        values = into.metrics if isinstance(record, MetricRecord) else into.config
        values.SetInParent()
        for key, value in record.items():
            where = f"value {key!r} of record {name!r}"
            entry = values.entries.add(name=key)
            if isinstance(value, list):
                _list_to_wire(value, entry.value.list, arrays)
            else:
                _scalar_to_wire(value, entry.value, arrays)
    except (TypeError, ValueError) as error:
        raise MessageNotRepresentable(where, str(error)) from error


def _array_to_wire(
    key: str, array: Array, arrays: dict[bytes, codec.Buffer | codec.ByteSource]
) -> pb.ArrayEntry:
    digest = digest_of(array)
    source = flower_arrays.bytes_of(array)
    arrays.setdefault(digest, source)
    return pb.ArrayEntry(
        name=key,
        dtype=array.dtype,
        shape=array.shape,
        serialization=array.stype,
        digest=digest,
        length_bytes=len(source),
    )


def _scalar_to_wire(
    value: object, into: pb.Value, arrays: dict[bytes, codec.Buffer | codec.ByteSource]
) -> None:
    if isinstance(value, bool):
        into.boolean = value
    elif isinstance(value, int):
        if _INT64_MIN <= value <= _INT64_MAX:
            into.integer = value
        else:
            into.large_integer = value
    elif isinstance(value, float):
        into.real = value
    elif isinstance(value, str):
        into.text = value
    elif isinstance(value, bytes):
        if len(value) < wire_limits.BLOB_BYTES:
            into.data = value
        else:
            digest = digests.digest(value)
            arrays.setdefault(digest, value)
            into.blob.CopyFrom(
                pb.ArrayEntry(serialization=BLOB_SERIALIZATION, digest=digest, length_bytes=len(value))
            )
    else:
        raise TypeError(f"values of type {type(value).__name__} have no place in a record")


def _list_to_wire(
    values: list[Any], into: pb.ValueList, arrays: dict[bytes, codec.Buffer | codec.ByteSource]
) -> None:
    into.SetInParent()
    if not values:
        return
    kinds = {type(value) for value in values}
    if kinds == {float}:
        into.reals.extend(values)
    elif kinds == {int} and min(values) >= _INT64_MIN and max(values) <= _INT64_MAX:
        into.integers.extend(values)
    elif kinds == {int} and min(values) >= 0:
        into.large_integers.extend(values)
    elif kinds == {bool}:
        into.booleans.extend(values)
    elif kinds == {str}:
        into.texts.extend(values)
    elif kinds == {bytes} and all(len(value) < wire_limits.BLOB_BYTES for value in values):
        into.data.extend(values)
    else:
        for value in values:
            _scalar_to_wire(value, into.items.add(), arrays)


def to_flower(header: pb.MessageHeader, array_of: ArrayOf) -> Message:
    """Build the Flower message that a header describes.

    array_of: gives the Array for an entry of the header; its bytes, dtype, shape and serialisation are
        the entry's. It is asked for long bytes values too, whose serialisation is BLOB_SERIALIZATION.
    Raises: codec.HeaderInvalid for what no Flower message can be, such as an unknown message type.
    """
    try:
        metadata = Metadata(
            run_id=header.run_id,
            message_id=header.message_id,
            src_node_id=header.source_node_id,
            dst_node_id=header.destination_node_id,
            reply_to_message_id=header.reply_to_message_id,
            group_id=header.group_id,
            created_at=header.created_at,
            ttl=header.ttl_seconds,
            message_type=header.message_type,
            src_task_id=header.source_task_id if header.HasField("source_task_id") else None,
            dst_task_id=header.destination_task_id if header.HasField("destination_task_id") else None,
        )
    except ValueError as error:
        raise codec.HeaderInvalid(str(error)) from error
    if header.HasField("error"):
        reason = header.error.reason if header.error.has_reason else None
        return make_message(metadata, error=Error(header.error.code, reason))
    message = make_message(metadata, content=content_of(header, array_of))
    if not header.has_content:
        message.content = None  # type: ignore[assignment]  # the constructor wants one of the two; the setter does not
    return message


def content_of(header: pb.MessageHeader, array_of: ArrayOf) -> RecordDict:
    """Build the records that a header describes; `array_of` and what is raised are those of `to_flower`."""
    content = RecordDict()
    for record in header.records:
        if record.name in content:
            raise codec.HeaderInvalid(f"two records are named {record.name!r}")
        content[record.name] = _record_of(record, array_of)
    return content


def _record_of(record: pb.Record, array_of: ArrayOf) -> ArrayRecord | MetricRecord | ConfigRecord:
    kind = record.WhichOneof("kind")
    if kind == "arrays":
        built = ArrayRecord()
        for entry in record.arrays.entries:
            if entry.name in built:
                raise codec.HeaderInvalid(f"record {record.name!r} has two arrays named {entry.name!r}")
            built[entry.name] = array_of(entry)  # one by one: the constructor would read every array's bytes
        return built
    try:
        if kind == "metrics":
            return MetricRecord(_values_of(record.metrics, array_of), keep_input=False)
        if kind == "config":
            return ConfigRecord(_values_of(record.config, array_of), keep_input=False)
    except TypeError as error:
        raise codec.HeaderInvalid(f"record {record.name!r}: {error}") from error
    raise codec.HeaderInvalid(f"record {record.name!r} is of an unknown kind")


def _values_of(values: pb.Values, array_of: ArrayOf) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for entry in values.entries:
        if entry.name in built:
            raise codec.HeaderInvalid(f"a record has two values named {entry.name!r}")
        built[entry.name] = _value_of(entry.value, array_of)
    return built


def _value_of(value: pb.Value, array_of: ArrayOf) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "list":
        items = value.list
        for packed in (
            items.reals, items.integers, items.large_integers, items.booleans, items.texts, items.data
        ):  # fmt: skip
            if packed:
                return list(packed)
        if any(item.HasField("list") for item in items.items):
            raise codec.HeaderInvalid("a list lies in a list")
        return [_value_of(item, array_of) for item in items.items]
    if kind == "blob":
        return array_of(value.blob).data
    if kind is None:
        raise codec.HeaderInvalid("a value is of an unknown kind")
    return getattr(value, kind)


def remember_digest(array: Array, digest: bytes) -> None:
    """Keep a digest that is known to be that of `array.data`, so that it need not be computed."""
    array.__dict__[flower_arrays.KEPT_DIGEST] = (array.data, digest)
