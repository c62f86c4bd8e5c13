"""The model store: where finished models lie, one directory for each kept round.

A store is a URL that fsspec understands (``file:///...`` now, ``s3://`` and others where their packages are
installed). Under it lies ``NAMESPACE/NAME/ROUND/`` with the files of one model: ``model.safetensors`` and its
card, ``card.json``. A round counts as saved once its card is there. This module refuses to know what a model
is.
"""

import os
import pathlib
import re
import shutil
import urllib.parse
from collections.abc import Mapping
from typing import Any

import fsspec
import fsspec.core

CARD = "card.json"
MODEL = "model.safetensors"
COPY_CHUNK_BYTES = 4 * 1024 * 1024

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_ROUND = re.compile(r"(0|[1-9][0-9]{0,8})\Z")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class BlobError(Exception):
    """The model store could not do what was asked."""


class InvalidStoreError(BlobError):
    """The store's URL is not one that can be used on this machine."""

    def __init__(self, url: str, why: str) -> None:
        """Name the URL and what is wrong with it."""
        super().__init__(f"model store {url}: {why}")
        self.url = url


def training_url(store_url: str, namespace: str, name: str) -> str:
    """Return where the models of one training lie."""
    return f"{store_url.rstrip('/')}/{namespace}/{name}"


def round_url(store_url: str, namespace: str, name: str, round_number: int) -> str:
    """Return where the model of one round lies."""
    return f"{training_url(store_url, namespace, name)}/{round_number}"


def save(url: str, files: Mapping[str, bytes | pathlib.Path]) -> str:
    """Write the files of one model so that a reader sees all of them or none, and return the URL.

    On a local file system they are written beside the target, flushed to disk and renamed over it; elsewhere
    the card is written last, because only rounds with a card count. Saving the same URL again replaces what
    was there.

    Args:
        url: a directory that ``round_url`` named. files: by plain file name; ``card.json`` must be one of
        them. A path is copied in chunks, not read whole.

    Raises:
        InvalidStoreError: the URL cannot be used.
        BlobError: a file name is not plain, or the card is missing.
        OSError: the disk is full, or the store does not let us write.
    """
    for name in files:
        if not _FILE.match(name):
            raise BlobError(f"{name!r} is not a plain file name")
    if CARD not in files:
        raise BlobError(f"a model needs its {CARD}")
    filesystem, path = _open(url)
    if _is_local(filesystem):
        _save_local(pathlib.Path(path), files)
    else:
        for name in sorted(files, key=lambda name: (name == CARD, name)):
            with filesystem.open(f"{path}/{name}", "wb") as target:
                _copy(files[name], target)
    return url


def check(store_url: str) -> None:
    """Make sure that a store can be opened here; nothing is read or written. Raises: InvalidStoreError."""
    _open(store_url)


def list_rounds(url: str) -> list[int]:
    """Return the saved rounds of a training (``training_url``), oldest first; none if nothing was saved yet.

    Raises: InvalidStoreError.
    """
    filesystem, path = _open(url)
    if not filesystem.isdir(path):
        return []
    names = (
        str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in filesystem.ls(path, detail=False, refresh=True)
    )
    rounds = sorted(int(name) for name in names if _ROUND.match(name))
    return [number for number in rounds if filesystem.exists(f"{path}/{number}/{CARD}")]


def read(url: str, name: str) -> bytes:
    """Return one whole file of a saved model. Raises: InvalidStoreError, FileNotFoundError, OSError."""
    filesystem, path = _open(url)
    data: bytes = filesystem.cat_file(f"{path}/{name}")
    return data


def prune(url: str, keep_rounds: int) -> list[int]:
    """Remove all but the newest ``keep_rounds`` rounds of a training (``training_url``); return those
    removed.

    The card goes first, so that a half-removed round does not count. The newest round is never removed.

    Raises: InvalidStoreError, OSError.
    """
    filesystem, path = _open(url)
    surplus = list_rounds(url)[: -max(keep_rounds, 1)]
    for number in surplus:
        filesystem.rm_file(f"{path}/{number}/{CARD}")
        filesystem.rm(f"{path}/{number}", recursive=True)
    return surplus


def _open(url: str) -> tuple[Any, str]:
    parts = urllib.parse.urlsplit(url)
    if not parts.scheme:
        raise InvalidStoreError(url, "write it as a URL, for example file:///var/lib/hanse/models")
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise InvalidStoreError(
            url, "a file URL has three slashes and an absolute path: file:///var/lib/hanse/models"
        )
    try:
        filesystem, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        package = _PACKAGES.get(parts.scheme, f"the fsspec package for {parts.scheme}://")
        why = f"{package} is not installed where this runs; use an image that has it, or another store"
        raise InvalidStoreError(url, why) from error
    except ValueError as error:
        raise InvalidStoreError(url, str(error)) from error
    return filesystem, str(path).rstrip("/")


def _is_local(filesystem: Any) -> bool:
    protocol = filesystem.protocol
    return "file" in ((protocol,) if isinstance(protocol, str) else protocol)


def _save_local(target: pathlib.Path, files: Mapping[str, bytes | pathlib.Path]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir()
    try:
        for name, content in files.items():
            with (fresh / name).open("wb") as file:
                _copy(content, file)
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(content: bytes | pathlib.Path, target: Any) -> None:
    if isinstance(content, pathlib.Path):
        with content.open("rb") as source:
            shutil.copyfileobj(source, target, COPY_CHUNK_BYTES)
    else:
        target.write(content)
