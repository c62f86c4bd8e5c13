"""Sealed files: only the key's holder reads them, and nothing but a whole one is read."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.client import sealing

KEY = bytes(range(32))
TAG_BYTES = 16
HEAD_BYTES = len(sealing.FORMAT) + 32


def cut(data: bytes) -> list[bytes]:
    size = sealing.CHUNK_BYTES
    return [data[at : at + size] for at in range(0, len(data), size)]


def seal(path: Path, data: bytes, key: bytes = KEY, name: str = "reply-1") -> bytes:
    with path.open("wb", buffering=0) as file:
        sealing.write(file, key, name, cut(data))  # type: ignore[arg-type]
    return path.read_bytes()


def unseal(path: Path, key: bytes = KEY, name: str = "reply-1") -> bytes:
    return b"".join(sealing.read(path, key, name))


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "CHUNK_BYTES", 32)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 64, 65, 1000])
def test_what_was_sealed_is_read(tmp_path: Path, length: int) -> None:
    """Any length, whole chunks and none among them."""
    data = bytes(index % 251 for index in range(length))
    sealed = seal(tmp_path / "f", data)
    assert unseal(tmp_path / "f") == data
    assert length < 16 or data[:16] not in sealed


def test_two_files_with_the_same_content_share_nothing(tmp_path: Path) -> None:
    """Each has a key of its own, so that no nonce is used twice under one."""
    first, second = seal(tmp_path / "a", b"x" * 100), seal(tmp_path / "b", b"x" * 100)
    at = len(sealing.FORMAT)
    assert not {first[i : i + 8] for i in range(at, len(first))} & {
        second[i : i + 8] for i in range(at, len(second))
    }


def test_a_file_that_is_torn_anywhere_is_not_read(tmp_path: Path) -> None:
    """Cut at every byte, ends of chunks included."""
    whole = seal(tmp_path / "f", bytes(range(100)))
    for length in range(len(whole)):
        (tmp_path / "f").write_bytes(whole[:length])
        with pytest.raises(sealing.NotReadable):
            unseal(tmp_path / "f")


def test_a_changed_byte_is_not_read(tmp_path: Path) -> None:
    """Every byte counts: format, salt, text, tags."""
    whole = seal(tmp_path / "f", bytes(range(100)))
    for at in range(len(whole)):
        (tmp_path / "f").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(sealing.NotReadable):
            unseal(tmp_path / "f")


def test_moved_and_added_chunks_are_not_read(tmp_path: Path) -> None:
    """Chunks in another order, twice, or after the last one."""
    whole = seal(tmp_path / "f", bytes(range(96)))
    head, size = whole[:HEAD_BYTES], 32 + TAG_BYTES
    first, second, last = (whole[HEAD_BYTES + size * i : HEAD_BYTES + size * (i + 1)] for i in range(3))
    for chunks in ([second, first, last], [first, first, last], [first, second, last, last], [first, last]):
        (tmp_path / "f").write_bytes(head + b"".join(chunks))
        with pytest.raises(sealing.NotReadable):
            unseal(tmp_path / "f")


def test_another_key_or_name_reads_nothing(tmp_path: Path) -> None:
    """A file of another training, and one in the place of another."""
    seal(tmp_path / "f", b"model")
    with pytest.raises(sealing.NotReadable):
        unseal(tmp_path / "f", key=bytes(32))
    with pytest.raises(sealing.NotReadable):
        unseal(tmp_path / "f", name="reply-2")


@given(st.binary(max_size=300))
def test_what_nobody_sealed_is_not_read(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    """Whatever lies there, the reader says so and nothing else."""
    path = tmp_path_factory.mktemp("f") / "f"
    path.write_bytes(data)
    with pytest.raises(sealing.NotReadable):
        unseal(path)
    path.write_bytes(sealing.FORMAT + data)
    with pytest.raises(sealing.NotReadable):
        unseal(path)
