"""The model store: where finished models lie, one directory for each kept round.

A store is a URL that fsspec understands: ``file:///...``, ``s3://`` through obstore, and others where their
packages are installed; ``federation/api/model_urls.py`` says which are refused. Under it lies
``NAMESPACE/NAME/ROUND/`` with the files of one model: ``model.safetensors`` and its card, ``card.json``. A
round counts as saved once its card is there. This module refuses to know what a model is.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import secrets
import shutil
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import fsspec
import fsspec.core

from federation import durable, object_stores
from federation.api import model_urls

CARD = "card.json"
MODEL = "model.safetensors"
COPY_CHUNK_BYTES = 4 * 1024 * 1024

OPTIONS = "options.json"
"""Of a Secret for a store other than S3: what the store's fsspec class is called with."""
CHECK_SECONDS = 20.0
"""How long the check before the first round waits for a store that does not answer."""
OTHERS_CHECK_SECONDS = 90.0
"""The same for stores that are neither S3 nor local; some of their classes have no patience that ends."""
SLOWEST_BYTES_PER_SECOND = 250_000
"""A model that goes to one of those more slowly counts as not stored."""

_PACKAGES = {"s3": "obstore", "smb": "smbprotocol"}
"""Those that are not named as what is imported of them."""
_ROUND = re.compile(r"(0|[1-9][0-9]{0,8})\Z")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


class BlobError(Exception):
    """The model store could not do what was asked."""


class InvalidStoreError(BlobError):
    """The store's URL is not one that can be used on this machine."""

    def __init__(self, url: str, why: str) -> None:
        """Name the URL and what is wrong with it."""
        super().__init__(f"model store {model_urls.bare(url)}: {why}")
        self.url = url


class PackageMissing(InvalidStoreError):
    """The store's scheme needs a package that is not installed on this machine."""

    def __init__(self, url: str, package: str) -> None:
        """Name the URL and the package."""
        why = f"{package} is not installed where this runs; use an image that has it, or another store"
        super().__init__(url, why)
        self.package = package


class StoreFailed(BlobError):
    """The store did not do what was asked; the text says why, and has nothing of the credentials."""

    def __init__(self, url: str, why: str) -> None:
        """Name the URL and what is wrong."""
        super().__init__(f"model store {url}: {why}")
        self.url = url


@dataclasses.dataclass(frozen=True)
class Key:
    """What opens a store beside its URL.

    files: a Secret's keys and values. endpoint: of an S3-compatible store, if it is not Amazon's.
    """

    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict, repr=False)
    endpoint: str = ""


NO_KEY = Key()


def key_from(directory: pathlib.Path, endpoint: str = "") -> Key:
    """Read a mounted Secret. Raises: OSError."""
    files = (file for file in sorted(directory.iterdir()) if not file.name.startswith("."))
    return Key({file.name: file.read_bytes() for file in files if file.is_file()}, endpoint)


def training_url(store_url: str, namespace: str, name: str) -> str:
    """Return where the models of one training lie."""
    return f"{store_url.rstrip('/')}/{namespace}/{name}"


def round_url(store_url: str, namespace: str, name: str, round_number: int) -> str:
    """Return where the model of one round lies."""
    return f"{training_url(store_url, namespace, name)}/{round_number}"


def save(url: str, files: Mapping[str, bytes | pathlib.Path], key: Key = NO_KEY) -> str:
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
        StoreFailed: a store elsewhere does not take it.
        OSError: the disk is full, or does not let us write; a file cannot be read.
    """
    for name in files:
        if not _FILE.match(name):
            raise BlobError(f"{name!r} is not a plain file name")
    if CARD not in files:
        raise BlobError(f"a model needs its {CARD}")
    put = functools.partial(_put, url, files, key)
    if _has_patience(url):
        put()
    else:
        size = sum(len(each) if isinstance(each, bytes) else each.stat().st_size for each in files.values())
        _within(OTHERS_CHECK_SECONDS + size / SLOWEST_BYTES_PER_SECOND, url, put)
    return url


def _put(url: str, files: Mapping[str, bytes | pathlib.Path], key: Key) -> None:
    filesystem, path = _open(url, key)
    if _is_local(filesystem):
        _save_local(pathlib.Path(path), files)
        return
    with _translated(url, key):
        filesystem.makedirs(path, exist_ok=True)  # nothing is asked of a bucket, which has no directories
    for name in sorted(files, key=lambda name: (name == CARD, name)):
        content = files[name]
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(content.open("rb")) if isinstance(content, pathlib.Path) else None
            stack.enter_context(_translated(url, key))
            target = stack.enter_context(filesystem.open(f"{path}/{name}", "wb"))
            _copy(source or content, target)


def check(url: str, key: Key = NO_KEY) -> None:
    """Make sure that a training's models (``training_url``) can be stored, as far as one can know before.

    Of a local directory only that the next thing above it that exists may be written to; elsewhere an object
    is written, listed and removed again; directories that were made for it stay. Raises: InvalidStoreError,
    StoreFailed.
    """
    if _has_patience(url):
        _check(url, key)
    else:
        _within(OTHERS_CHECK_SECONDS, url, functools.partial(_check, url, key))


def _has_patience(url: str) -> bool:
    """Whether each of a store's requests ends by itself, sooner or later."""
    return url.startswith(("file://", "s3://"))


def _check(url: str, key: Key) -> None:
    filesystem, path = _open(url, key, CHECK_SECONDS)
    if _is_local(filesystem):
        above = next(place for place in (pathlib.Path(path), *pathlib.Path(path).parents) if place.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise StoreFailed(url, f"{above} may not be written to; change its owner or its permissions")
        return
    probe = f"{path}/.probe-{secrets.token_hex(4)}"
    with _translated(url, key):
        filesystem.makedirs(path, exist_ok=True)
        filesystem.pipe_file(probe, b"Hanse looks whether it may write here.")
        filesystem.ls(path, detail=False)
        filesystem.rm_file(probe)


_left_alone: dict[str, threading.Thread] = {}
"""The thread that asked something of a store last, by URL."""


def _within(seconds: float, url: str, work: Callable[[], None]) -> None:
    """Do it in a thread, left alone when it takes longer. Raises: StoreFailed, and what the work raises.

    While one is left alone none is added to it, however often a store that says nothing is tried.
    """
    why = f"no answer within {seconds:.0f} s; check its address, and that the network lets it through"
    if (before := _left_alone.get(url)) is not None:
        before.join(seconds)
        if before.is_alive():
            raise StoreFailed(url, why)
    done: concurrent.futures.Future[None] = concurrent.futures.Future()

    def run() -> None:
        try:
            work()
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)

    thread = _left_alone[url] = threading.Thread(target=run, name="model-store", daemon=True)
    thread.start()
    try:
        done.result(seconds)
    except TimeoutError:
        raise StoreFailed(url, why) from None


def list_rounds(url: str, key: Key = NO_KEY) -> list[int]:
    """Return the saved rounds of a training (``training_url``), oldest first; none if nothing was saved yet.

    Raises: InvalidStoreError, StoreFailed.
    """
    filesystem, path = _open(url, key)
    with _translated(url, key):
        if not filesystem.isdir(path):
            return []
        listed = filesystem.ls(path, detail=False)
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in listed)
        rounds = sorted(int(name) for name in names if _ROUND.match(name))
        return [number for number in rounds if filesystem.exists(f"{path}/{number}/{CARD}")]


def read(url: str, name: str, key: Key = NO_KEY) -> bytes:
    """Return one whole file of a saved model.

    Raises: InvalidStoreError, StoreFailed, FileNotFoundError, OSError.
    """
    filesystem, path = _open(url, key)
    with _translated(url, key):
        data: bytes = filesystem.cat_file(f"{path}/{name}")
        return data


def fetch(url: str, name: str, to: pathlib.Path, key: Key = NO_KEY) -> None:
    """Copy one file of a saved model to this disk, in chunks.

    Raises: InvalidStoreError, StoreFailed, FileNotFoundError, OSError.
    """
    filesystem, path = _open(url, key, CHECK_SECONDS)
    with to.open("wb") as sink, _translated(url, key):
        size = int(filesystem.info(f"{path}/{name}")["size"])
        for start in range(0, size, COPY_CHUNK_BYTES):
            end = min(start + COPY_CHUNK_BYTES, size)
            sink.write(filesystem.cat_file(f"{path}/{name}", start=start, end=end))


def prune(url: str, keep_rounds: int, key: Key = NO_KEY, *, latest: int | None = None) -> list[int]:
    """Remove all but the newest ``keep_rounds`` rounds of a training (``training_url``); return those
    removed.

    The card goes first, so that a half-removed round does not count. The newest round is never removed.
    latest: the round that is the newest; higher ones are of an earlier training of this name, and stay.

    Raises: InvalidStoreError, StoreFailed, OSError.
    """
    filesystem, path = _open(url, key)
    rounds = [number for number in list_rounds(url, key) if latest is None or number <= latest]
    surplus = rounds[: -max(keep_rounds, 1)]
    with _translated(url, key):
        for number in surplus:
            filesystem.rm_file(f"{path}/{number}/{CARD}")
            filesystem.rm(f"{path}/{number}", recursive=True)
    return surplus


def _open(url: str, key: Key, patience_seconds: float = object_stores.PATIENCE_SECONDS) -> tuple[Any, str]:
    scheme = _scheme(url)
    try:
        if scheme == "s3":
            return _open_bucket(url, key, patience_seconds)
        _find_class(url, scheme)
        # A fresh one each time: a connection that is kept may be dead by the next round.
        filesystem, path = fsspec.core.url_to_fs(url, skip_instance_cache=True, **_options(key))
    except BlobError:
        raise
    except object_stores.Incomplete as error:
        raise InvalidStoreError(url, _of_the_secret(str(error))) from error
    except ImportError as error:
        raise PackageMissing(url, _package(scheme, error)) from error
    except (TypeError, ValueError) as error:
        if key.files:  # the library may quote what it was given
            why = f"{OPTIONS} of the Secret is not what fsspec's class for {scheme}:// takes"
            raise InvalidStoreError(url, why) from None
        raise InvalidStoreError(url, str(error)) from error
    except Exception as error:  # some connect at once, each with errors of its own
        raise _failure(url, key, error) from None
    return filesystem, str(path).rstrip("/")


def _scheme(url: str) -> str:
    """The scheme of a URL that can be a store's. Raises: InvalidStoreError."""
    if refused := model_urls.refusal(url):
        raise InvalidStoreError(url, refused)
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise InvalidStoreError(url, str(error)) from error
    if not parts.scheme:
        raise InvalidStoreError(url, "write it as a URL, for example file:///var/lib/hanse/models")
    if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
        raise InvalidStoreError(
            url, "a file URL has three slashes and an absolute path: file:///var/lib/hanse/models"
        )
    if parts.scheme == "pvc":
        raise InvalidStoreError(url, "a claim is for clusters; here leave spec.model.store out")
    if parts.scheme == "s3" and not parts.netloc:
        raise InvalidStoreError(url, "name a bucket: s3://BUCKET/PREFIX")
    return parts.scheme


def _find_class(url: str, scheme: str) -> None:
    """Make sure that fsspec has a class for the scheme. Raises: InvalidStoreError, ImportError."""
    try:
        fsspec.get_filesystem_class(scheme)
    except ValueError:
        why = f"no package that is installed where this runs knows {scheme}://; correct it, or use an image"
        raise InvalidStoreError(url, f"{why} that has its fsspec package") from None


def _package(scheme: str, error: ImportError) -> str:
    """What to install, as far as that is known."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    found = (cause.name or "").partition(".")[0]
    return _PACKAGES.get(scheme) or found or f"the fsspec package for {scheme}://"


def _open_bucket(url: str, key: Key, patience_seconds: float) -> tuple[Any, str]:
    import obstore.fsspec  # an extra of its own: hanse[s3]

    opened = object_stores.options(_texts(key), key.endpoint, patience_seconds)
    return obstore.fsspec.FsspecStore("s3", **opened), url.removeprefix("s3://").rstrip("/")


def _options(key: Key) -> dict[str, Any]:
    if not key.files:
        return {}
    if OPTIONS not in key.files:
        raise object_stores.Incomplete(f"{OPTIONS} is missing")
    try:
        options = json.loads(key.files[OPTIONS])
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise object_stores.Incomplete(f"{OPTIONS} is not a JSON object")
    if "protocol" in options:  # it would count before the URL's scheme
        raise object_stores.Incomplete(f"{OPTIONS} has a protocol, which the store's URL says")
    return options


def _texts(key: Key) -> dict[str, str]:
    """What a Secret gives, or without one this process's environment."""
    if not key.files:
        return {name: os.environ[name] for name in object_stores.KNOWN if name in os.environ}
    return object_stores.texts(key.files)


def _of_the_secret(why: str) -> str:
    return f"{why}; correct the Secret that spec.model.credentials names"


@contextlib.contextmanager
def _translated(url: str, key: Key) -> Iterator[None]:
    """Say what goes wrong in a store elsewhere in one sentence; its own words may quote what opened it."""
    try:
        yield
    except BlobError:
        raise
    except Exception as error:
        missing = isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error)
        if missing or urllib.parse.urlsplit(url).scheme == "file":
            raise
        raise _failure(url, key, error) from None


def _failure(url: str, key: Key, error: Exception) -> StoreFailed:
    parts, said = urllib.parse.urlsplit(url), str(error)
    if parts.scheme == "s3":
        where = object_stores.endpoint_of(object_stores.options(_texts(key), key.endpoint))
        return StoreFailed(url, object_stores.sentence(said, parts.netloc, where, object_stores.MODELS))
    if key.files:
        why = f"{type(error).__name__}; check the store with its own tools and the same credentials"
        return StoreFailed(url, why)
    return StoreFailed(url, f"{type(error).__name__}: {' '.join(said.split())[:300]}")


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
    durable.sync(target.parent)


def _copy(content: bytes | pathlib.Path | IO[bytes], target: Any) -> None:
    if isinstance(content, bytes):
        target.write(content)
    elif isinstance(content, pathlib.Path):
        with content.open("rb") as source:
            shutil.copyfileobj(source, target, COPY_CHUNK_BYTES)
    else:
        shutil.copyfileobj(content, target, COPY_CHUNK_BYTES)
