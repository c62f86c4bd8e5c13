"""Is this update acceptable? The checks that stand between a client's reply and the aggregate.

A poisoned update (NaN, wrong shape or type, oversized, absurd norm) is refused and named. The module exists
so that the rule is the same wherever a reply comes from, and can be judged in two steps: `check_header`
before any array byte has arrived, so that a reply of 10 GB costs nothing, then `check_npy_header` as soon as
an array begins, and `check_values` over blocks, so that a whole update is never held in memory. It refuses to
know files, channels and Flower: arrays are described, and values come as blocks.

What a client says of its arrays is a claim until check_npy_header has compared it with the bytes.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from coordinator.aggregation import events
from federation.api.reasons import UpdateViolation

Array = npt.NDArray[Any]
Block = tuple[Array, Array | None]

EXAMPLES_KEY = "num-examples"
NUMPY_SERIALIZATION = "numpy.ndarray"
# numpy's own limit for a header that is parsed with literal_eval, and the 12 bytes before it.
NPY_PREFIX_BYTES = 10_000 + 12
# 8 MiB of float64: large enough that Python's share of the time vanishes, small beside any model.
_BLOCK_ELEMENTS = 1 << 20
# Array names are the client's words; a sentence in status stays a sentence.
_MAXIMUM_MESSAGE = 400


class Structure(enum.StrEnum):
    """What a Train reply's arrays must look like: those that were sent, or anything finite."""

    AS_SENT = "AsSent"
    ANY = "Any"


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of spec.updateChecks.

    maximum_update_bytes: of all array bytes of one reply. maximum_examples: of one reply's example count.
    maximum_norm: of received - sent, L2; None: unbounded.
    """

    maximum_update_bytes: int
    maximum_examples: int
    maximum_norm: float | None = None
    structure: Structure = Structure.AS_SENT


@dataclasses.dataclass(frozen=True, slots=True)
class ArrayDescription:
    """One array as a message's header describes it: dtype as numpy writes it, shape in elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    length_bytes: int = 0
    serialization: str = NUMPY_SERIALIZATION


# Record name -> its arrays, both in the message's order.
Description = Mapping[str, Sequence[ArrayDescription]]


def check_header(
    kind: events.Kind,
    sent: Description,
    received: Description,
    metrics: Mapping[str, object],
    limits: Limits,
) -> events.Refused | None:
    """Check what a reply's header says, before any of its arrays has arrived.

    Shapes: AsSent holds for replies to Train messages that carried exactly one non-empty ArrayRecord with
    floating arrays in it. The reply's record may have another name, and further records beside it are free;
    names, dtypes and shapes of its arrays must be those sent, in any order. An array sent as uint8 (an opaque
    model, such as XGBoost's) may change its shape.
    Units: metrics are the values of all MetricRecords by key; only the example count is judged.
    Errors: a Refused with the first violation: size, example count, then structure.
    """
    total = sum(entry.length_bytes for entries in received.values() for entry in entries)
    if total > limits.maximum_update_bytes:
        return _refused(
            UpdateViolation.TOO_LARGE,
            f"the reply has {total} bytes of arrays, at most {limits.maximum_update_bytes} are allowed"
            " (spec.updateChecks.maximumUpdateBytes)",
        )
    if problem := _check_examples(metrics, limits):
        return problem
    for entries in received.values():
        for entry in entries:
            if problem := _check_claim(entry):
                return problem
    if kind is not events.Kind.TRAIN:
        return None
    if problem := _check_metrics(metrics):
        return problem
    if not any(sent.values()):
        return None
    if not any(received.values()):
        return _refused(
            UpdateViolation.MISSING_ARRAY,
            f"the reply has no arrays, {sum(map(len, sent.values()))} were sent; return the trained arrays",
        )
    if limits.structure is Structure.ANY or (model := sent_model(sent)) is None:
        return None
    return _check_structure(sent[model], received[reply_record(model, sent, received)])


def sent_model(sent: Description) -> str | None:
    """Return the name of the record that AsSent is about, or None if the message carried no such record."""
    full = [name for name, entries in sent.items() if entries]
    if len(full) == 1 and any(_is_floating(entry) for entry in sent[full[0]]):
        return full[0]
    return None


def reply_record(model: str, sent: Description, received: Description) -> str:
    """Return the name of the reply's record that answers the sent one.

    That of the same name; otherwise the first with the same array names; otherwise the first that is not
    empty.
    """
    if received.get(model):
        return model
    wanted = {entry.name for entry in sent[model]}
    full = [name for name, entries in received.items() if entries]
    return next((name for name in full if {entry.name for entry in received[name]} == wanted), full[0])


def examples_of(metrics: Mapping[str, object]) -> int | None:
    """Return the example count of a reply that passed check_header, at least 1; None if it gives none."""
    value = metrics.get(EXAMPLES_KEY)
    return max(1, round(value)) if isinstance(value, int | float) else None


def check_npy_header(prefix: bytes, entry: ArrayDescription) -> events.Refused | None:
    """Check that an array's bytes begin with a .npy header that agrees with its description.

    prefix: the first NPY_PREFIX_BYTES bytes of the array, or all if it has fewer. Nothing is unpickled:
    dtypes that hold Python objects are refused. An array in another serialisation than numpy's is not looked
    into.
    """
    if entry.serialization != NUMPY_SERIALIZATION:
        return None
    stream = io.BytesIO(prefix)
    try:
        version = npy.read_magic(stream)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(stream)
    except (ValueError, KeyError, TypeError, SyntaxError, OverflowError, RecursionError) as error:
        return _refused(
            UpdateViolation.UNREADABLE,
            f"array {entry.name} does not begin with a .npy header: {error}",
            entry.name,
        )
    if dtype.hasobject:
        return _refused(
            UpdateViolation.UNREADABLE,
            f"array {entry.name} holds Python objects, which are never read",
            entry.name,
        )
    if not entry.dtype:
        return None
    if dtype != np.dtype(entry.dtype):
        return _refused(
            UpdateViolation.DTYPE_MISMATCH,
            f"array {entry.name} is said to be {entry.dtype}, its bytes are {dtype}",
            entry.name,
        )
    if tuple(shape) != entry.shape:
        return _refused(
            UpdateViolation.SHAPE_MISMATCH,
            f"array {entry.name} is said to have shape {_shape(entry.shape)}, its bytes have {_shape(shape)}",
            entry.name,
        )
    wanted = stream.tell() + math.prod(shape) * dtype.itemsize
    if entry.length_bytes != wanted:
        return _refused(
            UpdateViolation.UNREADABLE,
            f"array {entry.name} has {entry.length_bytes} bytes, its header calls for {wanted}",
            entry.name,
        )
    return None


def check_values(
    arrays: Iterable[tuple[str, Iterable[Block]]], metrics: Mapping[str, object], limits: Limits
) -> events.Accepted | events.Refused:
    """Check the values of a reply that passed check_header, block by block.

    arrays: name and blocks of each array of the reply; a block is the received values and those sent for the
    same elements, of one shape, or None where there is no counterpart (or no norm is asked for): they count
    as zero. `blocks` makes them. Give the arrays in the order of the sent message, so that the norm is the
    same to the last bit.
    Law: floating arrays are finite everywhere; the L2 norm, in float64, of received - sent over all floating
    arrays is at most limits.maximum_norm. Integers, booleans and opaque bytes count for neither.
    """
    squares: list[float] = []
    for name, values in arrays:
        position, square = 0, 0.0
        for received, before in values:
            if received.dtype.kind not in "fc":
                break
            finite = np.isfinite(received)
            if not finite.all():
                at = position + int(np.argmin(finite))
                value = received.reshape(-1)[at - position]
                return _refused(
                    UpdateViolation.NOT_FINITE,
                    f"array {name} is {value} at element {at}; every value must be finite",
                    name,
                )
            position += received.size
            if limits.maximum_norm is not None:
                square += _square(received, before)
        squares.append(square)
    if limits.maximum_norm is not None:
        norm = math.sqrt(math.fsum(squares)) if all(map(math.isfinite, squares)) else math.inf
        if not norm <= limits.maximum_norm:
            return _refused(
                UpdateViolation.NORM_EXCEEDED,
                f"the update's L2 norm is {norm:.6g}, at most {limits.maximum_norm:g} is allowed"
                " (spec.updateChecks.maximumNorm)",
            )
    return events.Accepted(examples_of(metrics))


def blocks(
    received: Array, sent: Array | None = None, block_elements: int = _BLOCK_ELEMENTS
) -> Iterator[Block]:
    """Cut an array, and the one sent in its place, into views of about block_elements elements each.

    The arrays may be memory-mapped: only a block at a time is read. `sent` is ignored if it has another
    shape.
    """
    if sent is not None and sent.shape != received.shape:
        sent = None
    if received.ndim == 0:
        yield received.reshape(1), None if sent is None else sent.reshape(1)
        return
    if received.flags.c_contiguous and (sent is None or sent.flags.c_contiguous):
        received = received.reshape(-1)
        sent = None if sent is None else sent.reshape(-1)
    row = max(1, math.prod(received.shape[1:]))
    rows = max(1, block_elements // row)
    for start in range(0, received.shape[0], rows):
        yield received[start : start + rows], None if sent is None else sent[start : start + rows]


# -- Parts --------------------------------------------------------------------------------------


def _refused(violation: UpdateViolation, message: str, array: str = "") -> events.Refused:
    return events.Refused(violation.value, message[:_MAXIMUM_MESSAGE], array)


def _shape(shape: Iterable[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _dtype(entry: ArrayDescription) -> np.dtype[Any] | None:
    try:
        return np.dtype(entry.dtype)
    except (TypeError, ValueError, SyntaxError):
        return None


def _is_floating(entry: ArrayDescription) -> bool:
    dtype = _dtype(entry)
    return dtype is not None and dtype.kind in "fc"


def _check_claim(entry: ArrayDescription) -> events.Refused | None:
    """Check that a description can be true at all; Flower's older API gives no dtype and claims nothing."""
    if entry.serialization != NUMPY_SERIALIZATION or not entry.dtype:
        return None
    dtype = _dtype(entry)
    if dtype is None or dtype.hasobject:
        text = f"array {entry.name} is said to be {entry.dtype[:40]}, which is no type that can be read"
        return _refused(UpdateViolation.UNREADABLE, text, entry.name)
    data_bytes = math.prod(entry.shape) * dtype.itemsize
    if not data_bytes < entry.length_bytes <= data_bytes + NPY_PREFIX_BYTES:
        text = (
            f"array {entry.name} has {entry.length_bytes} bytes, which is no {entry.dtype} array of shape"
            f" {_shape(entry.shape)}"
        )
        return _refused(UpdateViolation.UNREADABLE, text, entry.name)
    return None


def _check_examples(metrics: Mapping[str, object], limits: Limits) -> events.Refused | None:
    if EXAMPLES_KEY not in metrics:
        return None
    value = metrics[EXAMPLES_KEY]
    if isinstance(value, bool) or not isinstance(value, int | float):
        problem = f"{EXAMPLES_KEY} is no number"
    elif (isinstance(value, float) and not math.isfinite(value)) or value <= 0:
        problem = f"{EXAMPLES_KEY} is {value}, it must be above 0 and finite"
    elif value > limits.maximum_examples:
        problem = (
            f"{EXAMPLES_KEY} is {value}, at most {limits.maximum_examples} are allowed"
            " (spec.updateChecks.maximumExamples)"
        )
    else:
        return None
    return _refused(UpdateViolation.EXAMPLE_COUNT_INVALID, problem)


def _check_metrics(metrics: Mapping[str, object]) -> events.Refused | None:
    """Check that a Train reply's metrics are finite: strategies weigh updates by them, and NaN spreads."""
    for name, value in metrics.items():
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                text = f"metric {name} is {number}; a train reply's metrics must be finite"
                return _refused(UpdateViolation.NOT_FINITE, text)
    return None


def _check_structure(
    sent: Sequence[ArrayDescription], received: Sequence[ArrayDescription]
) -> events.Refused | None:
    """Compare the arrays one by one, in the order sent."""
    repeated = [name for name, number in collections.Counter(e.name for e in received).items() if number > 1]
    if repeated:
        text = f"array {repeated[0]} is in the reply twice"
        return _refused(UpdateViolation.UNEXPECTED_ARRAY, text, repeated[0])
    by_name = {entry.name: entry for entry in received}
    for want in sent:
        got = by_name.pop(want.name, None)
        if got is None:
            text = f"array {want.name} was sent and is not in the reply; return every array, trained or not"
            return _refused(UpdateViolation.MISSING_ARRAY, text, want.name)
        if _dtype(got) != _dtype(want) or (_dtype(want) is None and got.dtype != want.dtype):
            text = f"array {want.name} was sent as {want.dtype} and came back as {got.dtype}"
            return _refused(UpdateViolation.DTYPE_MISMATCH, text, want.name)
        if got.shape != want.shape and _dtype(want) != np.dtype(np.uint8):
            sent_as, came_as = _shape(want.shape), _shape(got.shape)
            text = f"array {want.name} was sent with shape {sent_as} and came back as {came_as}"
            return _refused(UpdateViolation.SHAPE_MISMATCH, text, want.name)
    if by_name:
        extra = next(iter(by_name))
        text = f"array {extra} is in the reply and was not sent"
        return _refused(UpdateViolation.UNEXPECTED_ARRAY, text, extra)
    return None


def _square(received: Array, before: Array | None) -> float:
    """Return the sum of squares of received - before, in float64, in numpy's fixed pairwise order."""
    wide = np.complex128 if received.dtype.kind == "c" else np.float64
    with np.errstate(over="ignore", invalid="ignore"):
        difference = received.astype(wide)
        if before is not None:
            difference -= before
        return float(np.sum(np.square(np.abs(difference))))
