"""Making what is on a disk outlive the loss of power.

Why it exists: a file that is written and synced may still lack its name after a crash, which is its
directory's to keep. When that matters is for the callers to say.
"""

from __future__ import annotations

import os
import pathlib


def sync(path: pathlib.Path) -> None:
    """Return when a file's bytes, or the names in a directory, are on the disk. Raises: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
