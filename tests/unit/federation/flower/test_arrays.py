"""Arrays that lie in a file are Flower arrays like any other."""

import concurrent.futures
import copy
import gc
import io
import os
import pathlib
import pickle
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message.message import make_message
from flwr.compat.common import recorddict_compat
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, Krum
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given
from hypothesis import strategies as st

from federation.flower import arrays, messages
from federation.wire import digests


@pytest.fixture
def spool(tmp_path: pathlib.Path) -> arrays.SpoolFile:
    return arrays.SpoolFile(tmp_path)


def spooled(spool: arrays.SpoolFile, array: Array) -> arrays.SpooledArray:
    region = spool.allocate(len(array.data))
    region.write(0, array.data)
    digest = digests.digest(array.data)
    return arrays.SpooledArray(array.dtype, array.shape, array.stype, region, digest)


def structured() -> np.ndarray[Any, Any]:
    return np.zeros(3, dtype=[("a", "<i4"), ("b", "<f8", (2,))])


NDARRAYS = [
    pytest.param(np.arange(12, dtype="<f4").reshape(3, 4), id="f4"),
    pytest.param(np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)), id="fortran order"),
    pytest.param(np.array(2.5), id="0-d"),
    pytest.param(np.zeros((0, 4), "f2"), id="empty"),
    pytest.param(np.array([True, False]), id="bool"),
    pytest.param(np.array([1 + 2j], "c8"), id="complex"),
    pytest.param(np.arange(5, dtype=">i8"), id="big-endian"),
    pytest.param(np.array(["ab", "c"]), id="text"),
    pytest.param(np.array(["2020-01-01"], "M8[D]"), id="dates"),
    pytest.param(structured(), id="structured"),
    pytest.param(np.zeros(2, dtype=[(f"field{i:04}", "i1") for i in range(300)]), id="header above 4 KiB"),
    pytest.param(np.zeros(3, "S0"), id="items without bytes"),
]


@pytest.mark.parametrize("ndarray", NDARRAYS)
def test_numpy_gives_what_flower_gives(spool: arrays.SpoolFile, ndarray: np.ndarray[Any, Any]) -> None:
    """Values, dtype, shape, memory order and writability are those of an ordinary Array."""
    plain = Array(ndarray)
    got, want = spooled(spool, plain).numpy(), plain.numpy()
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    assert got.tobytes() == want.tobytes()
    assert got.flags.writeable == want.flags.writeable
    assert got.flags.f_contiguous == want.flags.f_contiguous


@given(st.binary(max_size=300), st.booleans())
def test_bytes_that_are_no_npy_file_end_as_flower_ends(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, plausible: bool
) -> None:
    """What a peer claims to be an array raises exactly what an ordinary Array raises."""
    spool = arrays.SpoolFile(tmp_path_factory.getbasetemp())
    plain = Array("f4", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00" + data if plausible else data)
    try:
        want: object = plain.numpy()
    except Exception as error:
        with pytest.raises(type(error)):
            spooled(spool, plain).numpy()
    else:
        np.testing.assert_array_equal(spooled(spool, plain).numpy(), want)  # type: ignore[arg-type]


def npy(header: str, payload: bytes = b"") -> bytes:
    padded = header.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + payload


def test_a_header_that_claims_too_much_is_refused(spool: arrays.SpoolFile) -> None:
    """A small file that claims a huge array is an error, and so is one that holds pickled objects."""
    huge = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000,)}", bytes(8))
    with pytest.raises(ValueError):
        spooled(spool, Array("float64", (10**9,), "numpy.ndarray", huge)).numpy()
    objects = npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle.dumps([1]))
    with pytest.raises(ValueError, match="allow_pickle"):
        spooled(spool, Array("object", (1,), "numpy.ndarray", objects)).numpy()


def test_other_serialisations_are_not_numpy_s(spool: arrays.SpoolFile) -> None:
    """As for every Array, numpy() wants the .npy format."""
    with pytest.raises(TypeError, match="Unsupported serialization"):
        spooled(spool, Array("f4", (1,), "custom", b"abc")).numpy()


def test_numpy_takes_the_memory_of_one_array(spool: arrays.SpoolFile) -> None:
    """The serialised bytes are never in memory beside the array."""
    size = 8_000_000
    array = spooled(spool, Array(np.ones(size, "u1")))
    gc.collect()
    tracemalloc.start()
    try:
        ndarray = array.numpy()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ndarray.nbytes == size
    assert peak < 1.1 * size


def test_it_equals_the_ordinary_array(spool: arrays.SpoolFile) -> None:
    """Equality looks at what an array holds, from either side."""
    plain = Array(np.arange(4.0))
    array = spooled(spool, plain)
    assert array == plain
    assert plain == array
    assert array == spooled(spool, plain)
    assert array != Array(np.arange(5.0))
    assert array != spooled(spool, Array(np.arange(5.0)))
    assert array != Array("float32", plain.shape, plain.stype, plain.data)
    assert array != "text"


def test_its_serialised_forms_are_flower_s(spool: arrays.SpoolFile) -> None:
    """Object ids, deflated forms and descendants are those of an ordinary Array."""
    plain = Array(np.arange(1000.0))
    array = spooled(spool, plain)
    assert array.object_id == plain.object_id
    assert array.deflate() == plain.deflate()
    assert get_all_nested_objects(array).keys() == get_all_nested_objects(plain).keys()
    inflated = Array.inflate(array.deflate(), array.children)
    assert inflated == plain
    assert repr(array) == repr(plain)


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy])
def test_copies_share_the_file(spool: arrays.SpoolFile, copier: Any) -> None:
    """A copy is equal and independent, and no bytes are copied."""
    array = spooled(spool, Array(np.arange(4.0)))
    copied = copier(array)
    assert copied == array
    assert copied.region is array.region
    copied.data = b"other"
    assert array.region is not None
    assert array != copied


def test_a_pickled_array_is_an_ordinary_one(spool: arrays.SpoolFile) -> None:
    """It carries its bytes to where the file is not."""
    plain = Array(np.arange(4.0))
    loaded = pickle.loads(pickle.dumps(spooled(spool, plain)))
    assert type(loaded) is Array
    assert loaded == plain


def test_setting_data_makes_an_ordinary_array(spool: arrays.SpoolFile) -> None:
    """A mod that replaces an array's bytes is obeyed, and the digest follows."""
    array = spooled(spool, Array(np.arange(4.0)))
    other = Array(np.arange(3.0))
    assert messages.digest_of(array) == digests.digest(array.data)
    array.data, array.shape = other.data, other.shape
    assert array == other
    assert array.region is None
    assert messages.digest_of(array) == digests.digest(other.data)
    assert array.object_id == other.object_id
    assert arrays.bytes_of(array) is other.data
    np.testing.assert_array_equal(array.numpy(), np.arange(3.0))
    assert copy.copy(array) == other


@pytest.mark.parametrize("keep_input", [True, False])
def test_array_records_work_on_it(spool: arrays.SpoolFile, keep_input: bool) -> None:
    """Building, converting and counting go as with ordinary arrays."""
    plain = {"w": Array(np.arange(6.0).reshape(2, 3)), "b": Array(np.zeros(3, "f4"))}
    record = ArrayRecord()
    for name, array in plain.items():
        record[name] = spooled(spool, array)
    want = ArrayRecord(dict(plain))
    assert record == want
    assert record.count_bytes() == want.count_bytes()
    assert record.object_id == want.object_id
    assert ArrayRecord(dict(record.items()), keep_input=keep_input) == want
    got = record.to_numpy_ndarrays(keep_input=keep_input)
    for mine, theirs in zip(got, want.to_numpy_ndarrays(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert len(record) == (2 if keep_input else 0)


@pytest.mark.parametrize("keep_input", [True, False])
def test_legacy_conversions_work_on_it(spool: arrays.SpoolFile, keep_input: bool) -> None:
    """The older API gets the same tensors, and what it makes of them comes back the same."""
    plain = Array(np.arange(6.0))
    record = ArrayRecord()
    record["0"] = spooled(spool, plain)
    parameters = recorddict_compat.arrayrecord_to_parameters(record, keep_input=keep_input)
    assert parameters.tensors == [plain.data]
    assert len(record) == (1 if keep_input else 0)
    back = recorddict_compat.parameters_to_arrayrecord(parameters, keep_input=keep_input)
    np.testing.assert_array_equal(back["0"].numpy(), plain.numpy())


@pytest.mark.parametrize("strategy", [FedAvg, FedMedian, FedTrimmedAvg, Krum, Bulyan])
def test_strategies_make_the_same_of_it_to_the_last_bit(
    spool: arrays.SpoolFile, strategy: type[FedAvg]
) -> None:
    """What lies in a file is aggregated as if it lay in memory, and the file is not changed by it."""

    def replies(make: Callable[[Array], Array]) -> list[Message]:
        made = []
        for node in range(2, 9):
            content = RecordDict({"m": MetricRecord({"num-examples": node}), "a": ArrayRecord()})
            values = np.random.default_rng(node).standard_normal((3, 4)).astype("f4")
            content["a"]["w"] = make(Array(values))  # type: ignore[index,assignment]
            metadata = Metadata(1, f"m-{node}", node, 1, "", "", 0.0, 60.0, "train")
            made.append(make_message(metadata, content=content))
        return made

    want = strategy().aggregate_train(1, replies(lambda array: array))
    lying: list[Array] = []

    def lie(array: Array) -> Array:
        lying.append(spooled(spool, array))
        return lying[-1]

    assert strategy().aggregate_train(1, replies(lie)) == want
    again = iter(lying)
    assert strategy().aggregate_train(1, replies(lambda _: next(again))) == want
    assert want[0] is not None


@pytest.mark.torch
@pytest.mark.parametrize("keep_input", [True, False])
def test_torch_state_dicts_come_out_of_it(spool: arrays.SpoolFile, keep_input: bool) -> None:
    """A torch app gets its tensors, and may write to them."""
    torch = pytest.importorskip("torch")
    record = ArrayRecord()
    record["w"] = spooled(spool, Array(np.arange(6, dtype="f4")))
    state = record.to_torch_state_dict(keep_input=keep_input)
    state["w"] += 1
    assert torch.equal(state["w"], torch.arange(1, 7, dtype=torch.float32))


# --- the file ---------------------------------------------------------------------------------------


def test_the_file_has_no_name(tmp_path: pathlib.Path) -> None:
    """Nothing lies in the directory, not even while the file is in use."""
    spool = arrays.SpoolFile(tmp_path)
    spool.allocate(3).write(0, b"abc")
    assert list(tmp_path.iterdir()) == []


def test_the_file_has_no_name_where_the_system_makes_only_named_ones(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without O_TMPFILE the name is removed at once."""
    monkeypatch.delattr(os, "O_TMPFILE", raising=False)
    region = arrays.SpoolFile(tmp_path).allocate(3)
    region.write(0, b"abc")
    assert region.read(0, 3) == b"abc"
    assert list(tmp_path.iterdir()) == []


def test_the_file_closes_with_its_last_region(tmp_path: pathlib.Path) -> None:
    """An array keeps its file open; when it goes, the file is closed."""
    spool = arrays.SpoolFile(tmp_path)
    array = spooled(spool, Array(np.arange(3.0)))
    alive = weakref.ref(spool)
    fd = spool._fd
    del spool
    gc.collect()
    np.testing.assert_array_equal(array.numpy(), np.arange(3.0))
    del array
    gc.collect()
    assert alive() is None
    arrays.closer.flush()
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_closed_file_cannot_be_read(spool: arrays.SpoolFile) -> None:
    """After close, reading is an error and not another file's bytes."""
    region = spool.allocate(1)
    region.write(0, b"x")
    spool.close()
    spool.close()
    with pytest.raises(ValueError, match="closed"):
        region.read(0, 1)


@pytest.mark.parametrize("position, length", [(-1, 1), (0, 4), (3, 1), (4, 0)])
def test_a_region_ends_where_it_ends(spool: arrays.SpoolFile, position: int, length: int) -> None:
    """Neither reading nor writing goes beyond a region into its neighbour."""
    region = spool.allocate(3)
    spool.allocate(10)
    with pytest.raises(ValueError):
        region.read(position, length)
    with pytest.raises(ValueError):
        region.write(position, bytes(length))


def test_bytes_that_were_never_written_are_not_made_up(spool: arrays.SpoolFile) -> None:
    """A region at the end of the file that was not written is an error to read."""
    with pytest.raises(EOFError):
        spool.allocate(3).read(0, 3)
    with pytest.raises(EOFError):
        spool.allocate(3).read_into(0, memoryview(bytearray(3)))


def test_many_threads_read_and_write_at_once(spool: arrays.SpoolFile) -> None:
    """Every thread sees its own bytes."""

    def work(number: int) -> bool:
        data = bytes([number]) * 10_000
        region = spool.allocate(len(data))
        for start in range(0, len(data), 1000):
            region.write(start, data[start : start + 1000])
        return region.read(0, len(data)) == data

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))


def test_spooled_bytes_go_out_again_without_being_held(spool: arrays.SpoolFile) -> None:
    """A received array that is sent on is read from the file chunk by chunk."""
    array = spooled(spool, Array(np.arange(100.0)))
    source = arrays.bytes_of(array)
    assert isinstance(source, arrays.SpoolRegion)
    assert source.read(0, len(source)) == array.data
    assert io.BytesIO(source.read(0, 6)).read() == b"\x93NUMPY"
