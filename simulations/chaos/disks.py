"""Disks so small that they can be filled, which nobody else sees and which go with this process.

They are mounted in a namespace of our own: whatever becomes of the harness, the machine has them no more
afterwards. That takes root; elsewhere there are none.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from pathlib import Path

_NEW_MOUNTS = 0x00020000
FILLER = "filler"

_BLOCK = bytes(64 * 1024)


def available() -> bool:
    """Take a mount namespace for this process and its children; return whether disks can be made in it."""
    if os.geteuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        return False
    return _run("mount", "--make-rprivate", "/")


def mount(directory: Path, size_bytes: int) -> None:
    """Put a disk of that size at a directory. Raises: OSError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0700", "tmpfs", str(directory)):
        raise OSError(f"{directory}: no disk could be mounted there")


def unmount(directory: Path) -> None:
    """Take it away, whoever still uses it."""
    _run("umount", "--lazy", str(directory))


def fill(directory: Path) -> None:
    """Leave no byte of room."""
    with contextlib.suppress(OSError), (directory / FILLER).open("ab", buffering=0) as file:
        for block in (_BLOCK, _BLOCK[:1]):
            with contextlib.suppress(OSError):
                while True:
                    file.write(block)


def make_room(directory: Path) -> None:
    """Take away what filled it."""
    (directory / FILLER).unlink(missing_ok=True)


def _run(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
