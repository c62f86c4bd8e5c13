"""One process at a time writes a journal.

Why it exists: a node that is cut off goes on with its aggregator while the hub starts another; two that wrote
one journal would leave none. The lock is a POSIX one on a file of its own: it goes with its process, however
that ends, and what an app forks does not have it. On NFS the server keeps it for as long as it hears of the
node (version 4: its lease, 90 seconds as a rule): a node that was cut off for longer has lost it, and what it
writes later is not kept out. On file systems that keep no locks between nodes, only one node is guarded.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

LOCK = "lock"


class Held(Exception):
    """Another process has the journal; the message is a part of a sentence."""


def hold(directory: Path) -> int:
    """Take a journal for this process; returns a descriptor to be closed. Raises: Held, OSError."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise Held(f"{directory}: another aggregator of this training writes its journal") from error
        raise
    return descriptor


def empty(directory: Path) -> None:
    """Remove what a journal has, but not while another process writes it. Raises: Held, OSError."""
    with held(directory):
        clear(directory)


@contextlib.contextmanager
def held(directory: Path) -> Iterator[None]:
    """Have a journal for this process for as long as that takes. Raises: Held, OSError."""
    descriptor = hold(directory)
    try:
        yield
    finally:
        os.close(descriptor)


def clear(directory: Path) -> None:
    """Remove what a journal has, but for the lock, which this process holds. Raises: OSError."""
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()
