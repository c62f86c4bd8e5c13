"""A bundle that comes to a pod in parts is the bundle that was approved, or none."""

import pathlib

import pytest

from federation.apps import bundle, errors


def test_parts_are_joined_in_the_order_of_their_names(tmp_path: pathlib.Path) -> None:
    """What a volume has beside them, such as its own links, does not count."""
    (tmp_path / "part-001").write_bytes(b"world")
    (tmp_path / "part-000").write_bytes(b"hello ")
    (tmp_path / "..data").symlink_to(tmp_path)
    assert bundle.read_file(tmp_path, bundle.digest(b"hello world")) == b"hello world"


def test_another_digest_is_refused(tmp_path: pathlib.Path) -> None:
    """A part that is missing or was changed ends the start with both digests."""
    file = tmp_path / "app.fab"
    file.write_bytes(b"hello")
    with pytest.raises(errors.InvalidBundle, match="want sha256:00"):
        bundle.read_file(file, "sha256:" + "00" * 32)
