"""The bucket that a data set lies in: what is in it, and its bytes.

What the storage or the library says may quote keys, so every refusal leaves this module as a sentence of
ours. It refuses to know where the bytes go.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import pathlib
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from federation import object_stores

PIECE_BYTES = 8 * 1024 * 1024
"""A request carries so much at most; so a large object needs no request that lasts for hours."""
PATIENCE_SECONDS = 30.0
"""How long one request is tried again; the whole is tried again by the agent, with an answer in between."""
CONNECT_SECONDS = 10.0
MAXIMUM_OBJECTS = 500_000
"""Their names are held in memory; whoever has more has archives of them."""
MAXIMUM_NAME_BYTES = 255
"""Of one part of a path, on every usual file system."""


class NotFetched(Exception):
    """The objects were not fetched; `reason` is one CamelCase word, the text a sentence for people."""

    def __init__(self, reason: str, message: str) -> None:
        """Keep both."""
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the objects are; `secret` is a directory of a Secret's files, None for an open bucket."""

    url: str
    endpoint: str
    region: str
    secret: pathlib.Path | None = None

    @property
    def bucket(self) -> str:
        return urllib.parse.urlsplit(self.url).netloc

    @property
    def prefix(self) -> str:
        return self.url.removeprefix(f"s3://{self.bucket}").strip("/")


@dataclasses.dataclass(frozen=True, slots=True)
class Object:
    """One object as listed: its key, the file that it becomes, its size and its tag."""

    key: str
    file: str
    size: int
    tag: str


class Bucket:
    """The objects below one place. Every method raises NotFetched."""

    def __init__(self, place: Place) -> None:
        """Read the Secret; nothing is asked yet."""
        import obstore.store  # an extra of its own: hanse[s3]

        self._place = place
        with self._translated():
            given = {} if place.secret is None else _keys(place.secret)
            given[object_stores.REGIONS[0]] = place.region
            opened = object_stores.options(given, place.endpoint, PATIENCE_SECONDS)
            opened["client_options"] |= {
                "timeout": dt.timedelta(seconds=object_stores.REQUEST_SECONDS),
                "connect_timeout": dt.timedelta(seconds=CONNECT_SECONDS),
            }
            if place.secret is None:
                opened["config"]["aws_skip_signature"] = "true"
            self._store: Any = obstore.store.S3Store(place.bucket, **opened)

    def objects(self) -> list[Object]:
        """Return what is there, in order of key."""
        with self._translated():
            found = self._below() or self._itself()
        if not found:
            raise NotFetched(
                "NothingThere",
                "there is no object below it; correct spec.volume.s3.url, or put the data there",
            )
        _check_names(found)
        return sorted(found, key=lambda one: one.key)

    def pieces(self, wanted: Object) -> Iterator[bytes]:
        """Yield an object's bytes, of the version that was listed."""
        import obstore

        for start in range(0, wanted.size, PIECE_BYTES):
            end = min(start + PIECE_BYTES, wanted.size)
            options: Any = {"range": (start, end)} | ({"if_match": wanted.tag} if wanted.tag else {})
            with self._translated():
                piece = obstore.get(self._store, wanted.key, options=options).bytes()
            if len(piece) != end - start:
                raise _changed()
            yield bytes(piece)

    def _below(self) -> list[Object]:
        import obstore

        prefix = self._place.prefix
        found: list[Object] = []
        for page in obstore.list(self._store, prefix or None):
            for one in page:
                below = one["path"].removeprefix(prefix).lstrip("/")
                if one["size"] == 0 and (not below or one["path"].endswith("/")):
                    continue  # what some tools put where a directory would be
                found.append(Object(one["path"], _file_name(below), one["size"], one["e_tag"] or ""))
            if len(found) > MAXIMUM_OBJECTS:
                raise NotFetched(
                    "TooManyObjects",
                    f"there are more than {MAXIMUM_OBJECTS} objects; put them into archives, or name "
                    "fewer by the prefix",
                )
        return found

    def _itself(self) -> list[Object]:
        """A prefix may be one object's whole key."""
        import obstore

        prefix = self._place.prefix
        if not prefix:
            return []
        try:
            one = obstore.head(self._store, prefix)
        except FileNotFoundError:
            return []
        return [Object(one["path"], _file_name(prefix.rpartition("/")[2]), one["size"], one["e_tag"] or "")]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what the storage refuses, or the library, whose own words may quote keys."""
        from obstore import exceptions

        try:
            yield
        except object_stores.Incomplete as error:
            raise NotFetched("SecretIncomplete", f"{error}; correct {object_stores.DATA.secret}") from None
        except (exceptions.PreconditionError, FileNotFoundError) as error:
            if "NoSuchBucket" not in str(error):
                raise _changed() from None
            raise self._refused(str(error)) from None
        except exceptions.InvalidPathError:
            raise NotFetched(
                "NameNotUsable",
                "the name of an object has two slashes in a row, or . or .. as a part; rename it, or leave "
                "it out by the prefix",
            ) from None
        except exceptions.BaseError as error:
            raise self._refused(str(error)) from None

    def _refused(self, said: str) -> NotFetched:
        place = self._place
        if place.secret is None and "403 Forbidden" in said:
            return NotFetched(
                "StorageRefused",
                f"{place.endpoint} does not let everyone read bucket {place.bucket}; put "
                f"{object_stores.KEY_ID} and {object_stores.KEY} into a Secret, and name it in "
                "spec.volume.s3.secretName",
            )
        sentence = object_stores.sentence(said, place.bucket, place.endpoint, object_stores.DATA)
        return NotFetched("StorageRefused", sentence)


def _keys(directory: pathlib.Path) -> dict[str, str]:
    files = {name: directory / name for name in object_stores.KNOWN}
    given = object_stores.texts({name: file.read_bytes() for name, file in files.items() if file.is_file()})
    # What the owner's manifest says counts: the way out leads there and nowhere else.
    return {
        name: text
        for name, text in given.items()
        if name not in (object_stores.ENDPOINT, *object_stores.REGIONS)
    }


def _file_name(below: str) -> str:
    parts = below.split("/")
    if any(
        part in ("", ".", "..") or "\0" in part or len(part.encode()) > MAXIMUM_NAME_BYTES for part in parts
    ):
        raise NotFetched(
            "NameNotUsable",
            f"the name of object {below[:100]!r} cannot be a file's; rename it, or leave it out by "
            "the prefix",
        )
    return below


def _check_names(found: Sequence[Object]) -> None:
    directories = {
        file[:at] for file in (one.file for one in found) for at, letter in enumerate(file) if letter == "/"
    }
    for one in found:
        if one.file in directories:
            raise NotFetched(
                "NameNotUsable",
                f"object {one.file[:100]!r} has others below it, and a file cannot be a directory; rename it",
            )


def _changed() -> NotFetched:
    return NotFetched("ObjectsChanged", "the objects changed while they were being fetched")
