"""A small disk that can be filled and emptied: a tmpfs, which root may mount."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """One disk; what a test puts there beside `filler` is its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Take all the room that there is."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (2**20, 4096, 1):
                with contextlib.suppress(_NoRoom):
                    while True:
                        _write(file.fileno(), size)

    def make_room(self) -> None:
        """Give it back."""
        self._filler.unlink()


class _NoRoom(Exception):
    pass


def _write(descriptor: int, size: int) -> None:
    try:
        os.write(descriptor, bytes(size))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _NoRoom from error


@contextlib.contextmanager
def mounted(place: Path, megabytes: int) -> Iterator[Disk]:
    """Mount one below `place`; skips the test where that is not possible."""
    path = place / "disk"
    path.mkdir()
    if os.geteuid() != 0:
        pytest.skip("no small disk to fill: mounting one needs root")
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no small disk to fill: {done.stderr.strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
