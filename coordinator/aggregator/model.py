"""From a strategy's arrays to the two files that a training leaves: the model and its card.

Why it exists: Flower hands the final arrays to the ServerApp and forgets them. A user wants a file that any
framework opens (safetensors) and a card that says where it came from. It knows no store and no channel.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
from flwr.app import Array, ArrayRecord

from federation.flower import arrays as flower_arrays

MODEL_FILE = "model.safetensors"
CARD_FILE = "card.json"
_HASH_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Card:
    """What a model's card says; field names are the JSON's keys.

    Units: examples are those that a cluster reported for the last round it took part in.
    """

    training: str
    round: int
    app_digest: str
    dataset: str
    examples: Mapping[str, int]
    metrics: Sequence[Mapping[str, Any]]
    sha256: str
    arrays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hanse_version: str = ""

    def to_json(self) -> bytes:
        """The card as indented JSON with sorted keys, so that equal cards are equal files."""
        return (json.dumps(self.__dict__, indent=2, sort_keys=True, default=dict) + "\n").encode()


def write(arrays: ArrayRecord, path: Path) -> str:
    """Write the arrays as safetensors and return the file's SHA-256 in hexadecimal.

    Shapes: names, shapes and element types are kept; the order of names does not change the file.
    Errors: ValueError for an array that is not in numpy's format; OSError if the disk refuses.
    """
    tensors = {name: _plain(values(array)) for name, array in sorted(arrays.items())}
    try:
        safetensors.numpy.save_file(tensors, path)
    except safetensors.SafetensorError as error:  # it tells the disk's error in words only
        number = _DISK_ERROR.search(str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error), str(path)) from error
    return sha256_of(path)


_DISK_ERROR = re.compile(r"\(os error (\d+)\)")


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same values in C's order and native byte order: safetensors writes the bytes as they lie."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes in hexadecimal, read block by block."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def values(array: Array) -> npt.NDArray[Any]:
    """An array's values without a second copy of its bytes where the layout allows it.

    `Array.numpy()` copies; the serialised form is a short header followed by the values as they lie.
    Errors: ValueError for a serialisation other than numpy's.
    """
    if array.stype != "numpy.ndarray":
        raise ValueError(f"an array serialised as {array.stype} cannot be stored, only numpy.ndarray can")
    data: object = array.data  # typed as bytes, and whatever the app put there
    if not isinstance(data, bytes):
        return array.numpy()
    stream = io.BytesIO(data[:_NPY_HEADER_BOUND])
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        return array.numpy()
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if fortran_order or dtype.hasobject:
        return array.numpy()
    return np.frombuffer(data, dtype=dtype, offset=stream.tell()).reshape(shape)


_NPY_HEADER_BOUND = 65536 + 16
"""Version 1.0 of the .npy format gives its header length in two bytes."""


def not_finite(arrays: ArrayRecord) -> str | None:
    """The name of the first floating array that holds NaN or an infinity, or None."""
    for name, array in arrays.items():
        if array.stype != "numpy.ndarray" or not len(flower_arrays.bytes_of(array)):
            continue
        held = values(array)
        if held.dtype.kind in "fc" and not all(
            np.isfinite(block).all()
            for block in np.array_split(held.reshape(-1), held.nbytes // _BLOCK_BYTES + 1)
        ):
            return name
    return None


_BLOCK_BYTES = 4 * 1024 * 1024


def describe(arrays: ArrayRecord) -> dict[str, dict[str, Any]]:
    """Name, shape and element type of each array, for the card."""
    return {name: {"shape": list(array.shape), "dtype": array.dtype} for name, array in arrays.items()}
