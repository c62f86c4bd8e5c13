"""Tests for bringing objects to a disk, where no storage is needed to see what happens."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.fetch import disk, storage


class Bucket(storage.Bucket):
    """One whose objects are said, and that fails as its disk does."""

    def __init__(self, *objects: storage.Object, error: OSError | None = None) -> None:
        self.listed = list(objects)
        self.error = error

    def objects(self) -> list[storage.Object]:
        return self.listed

    def pieces(self, wanted: storage.Object) -> Iterator[bytes]:
        if self.error is not None:
            raise self.error
        yield b"x" * wanted.size


def test_more_than_the_claim_has_room_for_is_not_begun(tmp_path: Path) -> None:
    """The size is known before the first byte."""
    bucket = Bucket(storage.Object("a", "a", 2**60, "t"))
    with pytest.raises(storage.NotFetched, match=r"full: it has room for .* are needed; raise") as full:
        disk.bring(lambda: bucket, tmp_path, 2**62)
    assert full.value.reason == "ClaimFull"
    assert list((tmp_path / "incoming").iterdir()) == []


DISKS = {
    "full meanwhile": (errno.ENOSPC, "ClaimFull", "raise spec.volume.s3.sizeLimit"),
    "over a quota": (errno.EDQUOT, "ClaimFull", "raise spec.volume.s3.sizeLimit"),
    "somebody else's": (errno.EACCES, "ClaimNotWritable", "choose a StorageClass"),
    "broken": (errno.EIO, "DiskFailed", "Input/output error; check it"),
}


@pytest.mark.parametrize("case", DISKS)
def test_a_disk_that_fails_is_one_sentence(case: str, tmp_path: Path) -> None:
    """With the next step; what is whole stays for the next run, and clients see nothing."""
    number, want_reason, want = DISKS[case]
    bucket = Bucket(storage.Object("a", "a", 3, "t"), error=OSError(number, "said"))
    with pytest.raises(storage.NotFetched) as failed:
        disk.bring(lambda: bucket, tmp_path, 10)
    assert failed.value.reason == want_reason
    assert want in str(failed.value)
    assert not (tmp_path / "objects").exists()


def test_what_was_removed_from_the_bucket_goes_with_its_directory(tmp_path: Path) -> None:
    """An earlier run left a file where a directory is wanted now, and a directory where a file is."""
    incoming = tmp_path / "incoming"
    (incoming / "b").mkdir(parents=True)
    (incoming / "b" / "c").write_text("old")
    (incoming / "a").write_text("old")
    bucket = Bucket(storage.Object("a/x", "a/x", 1, "t"), storage.Object("b", "b", 2, "t"))
    assert disk.bring(lambda: bucket, tmp_path, 10) == disk.Summary(2, 3)
    objects = tmp_path / "objects"
    assert {str(path.relative_to(objects)) for path in objects.rglob("*")} == {"a", "a/x", "b"}
