"""The directory where the lab keeps what is costly to make, and the manners of sharing it.

Why it exists: several labs, test runs and image builds use one cache at once. Whoever makes something holds
the lock, makes it under a temporary name and renames it; so nobody ever sees a half-made file, and an
interrupted run leaves only a name that the next run removes. It refuses to know what is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

Progress = Callable[[str], None]
"""Gets one plain line at a time."""

PARTIAL = ".partial-"


def directory(environment: Mapping[str, str]) -> Path:
    """Where the lab's cache is: `$XDG_CACHE_HOME/hanse/lab`, or `~/.cache/hanse/lab`."""
    base = environment.get("XDG_CACHE_HOME") or str(
        Path(environment.get("HOME") or "~").expanduser() / ".cache"
    )
    return Path(base) / "hanse" / "lab"


@contextlib.contextmanager
def locked(root: Path, name: str, on_progress: Progress) -> Iterator[None]:
    """Hold the lock of this name; say once that one has to wait.

    The lock is the kernel's: it ends with the process, however that ends.
    """
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress(f"another process is preparing {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def new_file(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """A temporary name beside `path` that becomes `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory beside `path` that takes the place of `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
    partial.chmod(0o755)
    try:
        yield partial
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent))
            path.rename(old / "old")
            partial.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, in one step also when it is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and path.readlink() == target:
        return
    # Not a name that `sweep` knows: links are made without the lock.
    partial = path.with_name(f".link-{os.getpid()}-{path.name}")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target)
    partial.replace(path)


def sweep(root: Path) -> None:
    """Remove what interrupted runs left in `root`. The caller holds the lock."""
    for left in root.glob(f"{PARTIAL}*"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
