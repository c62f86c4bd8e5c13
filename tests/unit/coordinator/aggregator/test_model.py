"""The two files that a training leaves."""

import json
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import Array, ArrayRecord

from coordinator.aggregator import model
from federation.flower import arrays as flower_arrays

VALUES = {
    "zero-d": np.array(1.5, np.float64),
    "empty": np.zeros((0, 3), np.float32),
    "fortran": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
    "big-endian": np.arange(3, dtype=">f4"),
    "half": np.array([1, 2, 65504], np.float16),
    "bool": np.array([[True, False]]),
    "bytes": np.arange(5, dtype=np.uint8),
    "int64": np.array([-(2**63), 2**63 - 1]),
    "strided": np.arange(10, dtype=np.float64)[::2],
}


def record(names: list[str]) -> ArrayRecord:
    return ArrayRecord({name: Array(VALUES[name]) for name in names})


def test_every_array_comes_back_as_it_was(tmp_path: Path) -> None:
    """0-d, empty, in Fortran's order, of every element type: name, shape, type and values are kept."""
    digest = model.write(record(list(VALUES)), tmp_path / "m.safetensors")
    read = safetensors.numpy.load_file(tmp_path / "m.safetensors")
    assert read.keys() == VALUES.keys()
    for name, want in VALUES.items():
        assert (read[name].dtype, read[name].shape) == (want.dtype.newbyteorder("="), want.shape), name
        assert np.array_equal(read[name], want), name
    assert digest == model.sha256_of(tmp_path / "m.safetensors")


def test_the_file_depends_on_names_and_values_only(tmp_path: Path) -> None:
    """Not on the order of names, and not on whether the bytes lie in memory or in a file."""
    digests = {
        model.write(record(names), tmp_path / f"{index}")
        for index, names in enumerate([list(VALUES), list(reversed(VALUES)), sorted(VALUES)])
    }
    spooled = record(list(VALUES))
    file = flower_arrays.SpoolFile(tmp_path)
    for array in spooled.values():
        flower_arrays.move_to_file(array, file, b"d" * 32)
    digests.add(model.write(spooled, tmp_path / "spooled"))
    assert len(digests) == 1
    assert digests != {model.write(record(["half"]), tmp_path / "other")}


def test_an_array_in_another_serialisation_is_named() -> None:
    """An opaque model cannot be stored as safetensors, and the error says which format it has."""
    with pytest.raises(ValueError, match=r"json.*only numpy.ndarray"):
        model.values(Array("", (), "json", b"{}"))


def test_equal_cards_are_equal_files() -> None:
    """Sorted keys; mappings and sequences as JSON."""
    fields = {
        "training": "demo/h", "round": 3, "app_digest": "sha256:0", "dataset": "heart", "sha256": "ab",
        "metrics": [{"round": 1, "phase": "Train", "values": {"loss": None}}],
    }  # fmt: skip
    one = model.Card(examples={"a": 1, "b": 2}, arrays=model.describe(record(["half"])), **fields)
    two = model.Card(examples={"b": 2, "a": 1}, arrays=model.describe(record(["half"])), **fields)
    assert one.to_json() == two.to_json()
    read = json.loads(one.to_json())
    assert read["examples"] == {"a": 1, "b": 2}
    assert read["arrays"] == {"half": {"shape": [3], "dtype": "float16"}}


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ({"w": np.ones(3), "n": np.array([1, 2])}, None),
        ({"w": np.zeros((0, 2)), "s": np.array(1.0), "raw": np.arange(4, dtype=np.uint8)}, None),
        ({"ok": np.ones(3), "w": np.array([1.0, np.inf])}, "w"),
        ({"w": np.asfortranarray([[1.0, 2.0], [np.nan, 3.0]])}, "w"),
        ({"half": np.array([70000.0]).astype(np.float32), "w": np.array([np.inf], np.float16)}, "w"),
    ],
)
def test_not_finite(values: dict[str, np.ndarray], want: str | None) -> None:
    """The first floating array with NaN or an infinity is named."""
    assert model.not_finite(ArrayRecord({name: Array(value) for name, value in values.items()})) == want
