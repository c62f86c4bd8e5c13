"""Making what is on a disk outlive the loss of power.

Why it exists: a file that is written and synced may still lack its name after a crash, which is its
directory's to keep. When that matters is for the callers to say.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2


def sync(path: pathlib.Path) -> None:
    """Return when a file's bytes, or the names in a directory, are on the disk. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_directory(path: pathlib.Path, mode: int = 0o777) -> None:
    """Make a directory, unless it is there, and those above it that lack; its name is on the disk then.

    mode: of this one; the others have what is usual. Raises: OSError.
    """
    if not path.parent.exists():
        make_directory(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    sync(path.parent)


def begin(descriptor: int, offset: int, length: int) -> None:
    """Have a run of a file's bytes be on its way to the disk, so that a sync that follows waits less long.

    It promises nothing: only a sync does. Elsewhere than on Linux it does nothing.
    """
    if _sync_file_range is not None:
        _sync_file_range(
            descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE)
        )


def _find() -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError, TypeError):
        return None
    return found


_sync_file_range = _find()
