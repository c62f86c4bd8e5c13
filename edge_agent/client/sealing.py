"""Files that only the holder of a key can read, and that show by themselves whether they are whole.

Why it exists: what a client keeps on an edge's disk holds model updates and whatever its app remembers of the
data. A file is sealed a chunk at a time, so that one of any size costs the memory of a chunk.

    FORMAT (8 bytes) · salt (32) · chunk 0 · chunk 1 · ... · last chunk

Each chunk is AES-256-GCM with a tag of 16 bytes. The file's own key is HKDF-SHA256 of the key and the random
salt, so no two files share one; a chunk's nonce is its number and whether it is the last, so none is used
twice under a file's key, and a file that was cut at a chunk's end, or whose chunks were moved, is as
unreadable as one with a changed byte. The file's name goes into every tag: a file in the place of another is
no file. An earlier file put back under its own name is not recognised.

What the bytes mean is not known here, nor when they must be safe from a loss of power.
Source: the STREAM construction, Hoang et al. 2015, eprint 2015/189; the form is Tink's AES-GCM-HKDF.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

from cryptography import exceptions
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import aead
from cryptography.hazmat.primitives.kdf import hkdf

from federation.wire import codec

FORMAT: Final = b"HANSEKP\x01"
"""The last byte is the format's version."""

KEY_BYTES: Final = 32
CHUNK_BYTES: Final = 256 * 1024
"""Of plain text. It stays in a core's cache between encrypting and writing: a quarter faster than 1 MiB."""

_SALT_BYTES: Final = 32
_TAG_BYTES: Final = 16


class NotReadable(Exception):
    """The file is torn, was changed, is of another version, or was sealed with another key or name."""


def write(file: BinaryIO, key: bytes, name: str, chunks: Iterable[codec.Buffer]) -> None:
    """Seal what `chunks` yields, each CHUNK_BYTES long but the last, into an empty unbuffered file.

    Raises: OSError.
    """
    salt = os.urandom(_SALT_BYTES)
    cipher, label = _cipher(key, salt), _label(name)
    _write(file, FORMAT + salt)
    waiting: codec.Buffer = b""
    number = 0
    for chunk in chunks:
        if len(waiting):
            _write(file, cipher.encrypt(_nonce(number, last=False), waiting, label))
            number += 1
        waiting = chunk
    _write(file, cipher.encrypt(_nonce(number, last=True), waiting, label))


def read(path: pathlib.Path, key: bytes, name: str) -> Iterator[bytes]:
    """Yield a sealed file's bytes, a chunk at a time; each was verified, the whole only when all have come.

    Raises: NotReadable, OSError.
    """
    with path.open("rb") as file:
        head = file.read(len(FORMAT) + _SALT_BYTES)
        if len(head) < len(FORMAT) + _SALT_BYTES or not head.startswith(FORMAT):
            raise NotReadable(f"{name} does not begin as a file of this version does")
        cipher, label = _cipher(key, head[len(FORMAT) :]), _label(name)
        number = 0
        sealed = file.read(CHUNK_BYTES + _TAG_BYTES)
        while True:
            after = file.read(CHUNK_BYTES + _TAG_BYTES)
            try:
                yield cipher.decrypt(_nonce(number, last=not after), sealed, label)
            except exceptions.InvalidTag as error:
                raise NotReadable(f"{name} is torn, was changed, or is another key's") from error
            if not after:
                return
            sealed, number = after, number + 1


def _cipher(key: bytes, salt: bytes) -> aead.AESGCM:
    derive = hkdf.HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=b"hanse kept file")
    return aead.AESGCM(derive.derive(key))


def _label(name: str) -> bytes:
    return FORMAT + name.encode()


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[file.write(view) :]
