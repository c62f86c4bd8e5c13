"""An update is refused for the right reason, by name, as early as it can be."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.aggregation import checks, events

LIMITS = checks.Limits(maximum_update_bytes=10_000_000, maximum_examples=1000, maximum_norm=10.0)
TRAIN = events.Kind.TRAIN


def npy_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def described(name: str, array: np.ndarray) -> checks.ArrayDescription:
    return checks.ArrayDescription(name, str(array.dtype), array.shape, len(npy_bytes(array)))


def record(**arrays: np.ndarray) -> dict[str, list[checks.ArrayDescription]]:
    return {"arrays": [described(name, array) for name, array in arrays.items()]}


W, B = np.zeros((3, 2), np.float32), np.zeros(2, np.float32)
SENT = record(w=W, b=B)


def reason_of(refused: object) -> str | None:
    return refused.reason if isinstance(refused, events.Refused) else None


@pytest.mark.parametrize(
    ("received", "want_reason", "want_array"),
    [
        (record(w=W, b=B), None, ""),
        (record(b=B, w=W), None, ""),
        ({"model": SENT["arrays"]}, None, ""),
        ({"extra": record(x=B)["arrays"], "model": SENT["arrays"]}, None, ""),
        (record(w=W), "MissingArray", "b"),
        ({}, "MissingArray", ""),
        ({"arrays": []}, "MissingArray", ""),
        (record(w=W, b=B, c=B), "UnexpectedArray", "c"),
        ({"arrays": [*SENT["arrays"], SENT["arrays"][0]]}, "UnexpectedArray", "w"),
        (record(w=W.T, b=B), "ShapeMismatch", "w"),
        (record(w=W.astype(np.float64), b=B), "DtypeMismatch", "w"),
    ],
)
def test_structure_of_a_train_reply_is_the_one_sent(received, want_reason, want_array):
    """Names, dtypes and shapes are those sent; the record's name and further records are free."""
    refused = checks.check_header(TRAIN, SENT, received, {}, LIMITS)
    assert reason_of(refused) == want_reason
    if refused is not None:
        assert refused.array == want_array
        assert want_array in refused.message


def test_structure_any_allows_other_arrays_but_not_none():
    """An app that returns something else than it got says so in the manifest."""
    limits = checks.Limits(10_000_000, 1000, structure=checks.Structure.ANY)
    assert checks.check_header(TRAIN, SENT, record(delta=W), {}, limits) is None
    assert reason_of(checks.check_header(TRAIN, SENT, {}, {}, limits)) == "MissingArray"


def test_opaque_models_may_grow():
    """Arrays sent as uint8, alone or beside floating ones, may change shape, not type."""
    tree, larger = np.zeros(10, np.uint8), np.zeros(99, np.uint8)
    assert checks.check_header(TRAIN, record(tree=tree), record(tree=larger), {}, LIMITS) is None
    assert checks.check_header(TRAIN, record(t=tree, w=W), record(t=larger, w=W), {}, LIMITS) is None
    wrong = checks.check_header(TRAIN, record(t=tree, w=W), record(t=larger.astype(np.int8), w=W), {}, LIMITS)
    assert reason_of(wrong) == "DtypeMismatch"


def test_replies_to_evaluate_and_query_are_free():
    """Only training returns what was sent."""
    for kind in (events.Kind.EVALUATE, events.Kind.QUERY):
        assert checks.check_header(kind, SENT, {}, {"loss": float("nan")}, LIMITS) is None


def test_several_records_sent_leave_the_structure_free():
    """With two records (control variates, say) the app alone knows what comes back."""
    sent = {"model": SENT["arrays"], "control": SENT["arrays"]}
    assert checks.check_header(TRAIN, sent, record(other=W), {}, LIMITS) is None


def test_ten_gigabytes_are_refused_at_the_header():
    """A claim is enough to refuse."""
    huge = {"arrays": [checks.ArrayDescription("w", "float32", (2_500_000_000,), 10_000_000_128)]}
    refused = checks.check_header(TRAIN, SENT, huge, {}, LIMITS)
    assert reason_of(refused) == "TooLarge"
    assert "10000000128 bytes" in refused.message


@pytest.mark.parametrize(
    "entry",
    [
        checks.ArrayDescription("w", "float32", (1 << 40, 1 << 40), 1000),
        checks.ArrayDescription("w", "float32", (3,), 1_000_000),
        checks.ArrayDescription("w", "object", (3,), 100),
        checks.ArrayDescription("w", "no-such-type", (3,), 100),
    ],
)
def test_claims_that_cannot_be_true_are_unreadable(entry):
    """Length, dtype and shape must agree before a byte is taken."""
    refused = checks.check_header(events.Kind.QUERY, {}, {"r": [entry]}, {}, LIMITS)
    assert reason_of(refused) == "Unreadable"
    assert refused.array == "w"


@pytest.mark.parametrize("kind", list(events.Kind))
@pytest.mark.parametrize(
    ("value", "want"),
    [
        (1, True),
        (0.5, True),
        (1000, True),
        (0, False),
        (-3, False),
        (1001, False),
        (float("nan"), False),
        (float("inf"), False),
        (True, False),
        ("9", False),
        ([1], False),
        (2**64 - 1, False),
    ],
)
def test_example_count_is_a_number_above_zero_and_within_bounds(kind, value, want):
    """Whatever the message was, a false count would weigh falsely."""
    refused = checks.check_header(kind, {}, {}, {"num-examples": value}, LIMITS)
    assert reason_of(refused) == (None if want else "ExampleCountInvalid")


@pytest.mark.parametrize(
    ("data", "claim", "want"),
    [
        (npy_bytes(W), described("w", W), None),
        (npy_bytes(np.asfortranarray(W)), described("w", W), None),
        (npy_bytes(np.float64(3)), described("w", np.asarray(3.0)), None),
        (npy_bytes(W.T), described("w", W), "ShapeMismatch"),
        (npy_bytes(W.astype(np.int32)), described("w", W), "DtypeMismatch"),
        (npy_bytes(W.astype(">f4")), described("w", W), "DtypeMismatch"),
        (npy_bytes(np.array([{}], object)), described("w", W), "Unreadable"),
        (b"not an array", described("w", W), "Unreadable"),
        (b"\x93NUMPY\x03\x00", described("w", W), "Unreadable"),
        (npy_bytes(W)[:20], described("w", W), "Unreadable"),
        (b"", described("w", W), "Unreadable"),
        (npy_bytes(W), checks.ArrayDescription("w", "float32", (3, 2), 999), "Unreadable"),
    ],
)
def test_npy_header_agrees_with_the_claim(data, claim, want):
    """The bytes themselves have the dtype, shape and length that the header said, and no Python objects."""
    assert reason_of(checks.check_npy_header(data[: checks.NPY_PREFIX_BYTES], claim)) == want


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_no_prefix_raises(data, magic):
    """Law: whatever bytes come, the answer is a value."""
    prefix = b"\x93NUMPY\x01\x00" + data if magic else data
    assert reason_of(checks.check_npy_header(prefix, described("w", W))) is not None


def values(received, sent=None, size=4):
    return [(name, checks.blocks(array, (sent or {}).get(name), size)) for name, array in received.items()]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named_with_its_place(bad):
    """One NaN in a thousand is found, in whichever block it is."""
    w = np.zeros((10, 100), np.float32)
    w[7, 3] = bad
    refused = checks.check_values(values({"a": W, "w": w}), {}, LIMITS)
    assert reason_of(refused) == "NotFinite"
    assert refused.array == "w"
    assert "element 703" in refused.message


def test_integers_and_bytes_are_not_judged():
    """An opaque model is not a vector."""
    accepted = checks.check_values(
        values({"t": np.full(100, 255, np.uint8), "i": np.full(9, 10**12)}), {}, LIMITS
    )
    assert accepted == events.Accepted(None)


def test_norm_is_of_the_difference_to_what_was_sent():
    """A large model may be returned; a large step may not."""
    sent = {"w": np.full((20, 5), 1000.0)}
    near, far = {"w": sent["w"] + 0.5}, {"w": sent["w"] + 2}
    assert checks.check_values(values(near, sent), {"num-examples": 3.0}, LIMITS) == events.Accepted(3)
    refused = checks.check_values(values(far, sent), {}, LIMITS)
    assert reason_of(refused) == "NormExceeded"
    assert "20" in refused.message


def test_norm_that_overflows_is_exceeded():
    """1e300 squared is no number, and far too large."""
    assert reason_of(checks.check_values(values({"w": np.full(3, 1e300)}), {}, LIMITS)) == "NormExceeded"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 6), max_size=3),
    st.integers(1, 50),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_blocks_cover_every_element_once_with_its_counterpart(shape, size, fortran, rng):
    """Law: for any shape, block size and memory order, blocks hold each pair of values exactly once."""
    count = int(np.prod(shape))
    received = np.array([rng.randrange(1000) for _ in range(count)], float).reshape(shape)
    sent = np.asarray(received * 2, order="F" if fortran else "C")
    pairs = list(checks.blocks(received, sent, size))
    assert all(np.array_equal(before, after * 2) for after, before in pairs)
    assert sorted(v for after, _ in pairs for v in after.ravel()) == sorted(received.ravel())


def test_blocks_of_a_mapped_array_are_views():
    """Nothing is copied: a block reads only its own part."""
    array = np.zeros((1000, 100))
    assert all(np.shares_memory(array, block) for block, _ in checks.blocks(array, None, 1000))
