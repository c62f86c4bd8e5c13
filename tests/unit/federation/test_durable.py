"""What is asked of a disk before anybody waits for it."""

import pathlib

from federation import durable


def test_beginning_a_sync_changes_nothing(tmp_path: pathlib.Path) -> None:
    """It asks the disk to begin, also for bytes that are not there, and promises nothing."""
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    with file.open("rb") as opened:
        durable.begin(opened.fileno(), 0, 3)
        durable.begin(opened.fileno(), 1 << 40, 1 << 30)
    durable.begin(-1, 0, 1)
    assert file.read_bytes() == b"abc"
