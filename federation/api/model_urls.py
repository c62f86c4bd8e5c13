"""Which URLs a model store may have: any storage that fsspec knows, with nothing in it that opens it.

The rules of the resource (training.py) and the look of whoever opens a store are made from the same table.
This module refuses to know how a store is opened, and which packages are installed.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

PATTERN: Final = r"^[a-z][a-z0-9+.-]*://.+$"
WORDS: Final = "a URL such as pvc://models, s3://BUCKET/PREFIX or sftp://HOST/DIRECTORY"

NO_STORES: Final = (
    # views of other stores
    "asyncwrapper", "blockcache", "cached", "dir", "filecache", "generic", "libarchive", "reference",
    "simplecache", "tar", "zip",
    # gone with the process
    "asynclocal", "dask", "local", "memory", "pyscript",
    # to be read only
    "data", "dvc", "gist", "git", "github", "http", "https",
)  # fmt: skip
"""Schemes that fsspec knows, and under which no model is kept."""


class Refusal(NamedTuple):
    """What is said of a URL that has `pattern` and not `unless`; both mean the same to CEL and to Python."""

    pattern: str
    why: str
    unless: str = ""


REFUSALS: Final = (
    Refusal("::", "URLs that are chained with :: are refused; name the one place where models are to lie"),
    Refusal(
        f"^({'|'.join(NO_STORES)})://",
        "a cache, an archive, memory, a code host or the web keeps no models; name a store such as "
        "pvc://CLAIM or s3://BUCKET/PREFIX",
        unless="::",
    ),
    Refusal(
        "^[^/]*//[^/]*@|[?]",
        "a user, a password or a query in the URL is seen by all who may read it; put what opens the store "
        "into a Secret, and its name into spec.model.credentials",
        unless="^abfss?://[^/:@?]+@[^/:@?]+(/[^?]*)?$",  # the container stands before the @
    ),
)


def refusal(url: str) -> str:
    """Why this URL cannot be a store's, with the way out; empty if nothing is said against it."""
    for pattern, why, unless in REFUSALS:
        if re.search(pattern, url) and not (unless and re.search(unless, url)):
            return why
    return ""


def rule(refused: Refusal) -> str:
    """The same as CEL, of an object that may have the URL in its field `store`."""
    alone = f"!has(self.store) || !self.store.matches('{refused.pattern}')"
    return f"{alone} || self.store.matches('{refused.unless}')" if refused.unless else alone


def bare(url: str) -> str:
    """The URL without what may open the store, for messages."""
    return re.sub(r"^([^/]*//)[^/]*@", r"\1", url.partition("?")[0])
