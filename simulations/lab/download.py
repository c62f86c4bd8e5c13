"""Fetch a file of an official release, and accept it only with the right checksum.

Why it exists: a host that cannot be reached must cost seconds and one line, since the next source is a build
that works without it. It refuses to know what is downloaded.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

from simulations.lab.releases import Download

TIMEOUT_SECONDS = 5.0
"""For connecting and for each read; official hosts answer in a tenth of that."""
_CHUNK_BYTES = 1 << 20


class DownloadFailed(Exception):
    """The file is not to be had or is not the right one; the text says which and why, without a full stop."""

    def __init__(self, text: str, *, unreachable: bool = False) -> None:
        """`unreachable`: nothing else of this host needs to be tried."""
        super().__init__(text)
        self.unreachable = unreachable


def host(download: Download) -> str:
    """The host's name, as messages show it."""
    return urllib.parse.urlsplit(download.url).hostname or download.url


def fetch(download: Download, path: Path) -> None:
    """Write the program of this download to `path`.

    Raises: DownloadFailed; `path` may then hold anything and is the caller's to remove.
    """
    archive = path.with_name(path.name + ".archive") if download.member else path
    try:
        want = download.pinned or _published(download)
        digest = hashlib.new(want.partition(":")[0])
        with _open(download.url) as answer, archive.open("wb") as file:
            while chunk := answer.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
        got = f"{digest.name}:{digest.hexdigest()}"
        if got != want:
            raise DownloadFailed(f"{download.url} has the wrong checksum: want {want}, got {got}")
        if download.member:
            extract(archive, download.member, path)
    except (OSError, http.client.HTTPException) as error:
        raise DownloadFailed(f"{download.url} broke off: {error}") from error
    finally:
        if download.member:
            archive.unlink(missing_ok=True)


def extract(archive: Path, member: str, path: Path) -> None:
    """Write one file of a tar archive to `path`.

    Raises: DownloadFailed when the archive has no such file.
    """
    try:
        with tarfile.open(archive) as tar:
            content = tar.extractfile(member)
            if content is None:
                raise KeyError(member)
            with path.open("wb") as file:
                shutil.copyfileobj(content, file, _CHUNK_BYTES)
    except (KeyError, tarfile.TarError) as error:
        raise DownloadFailed(f"{archive.name} holds no {member}") from error


def parse_checksum(text: str) -> str:
    """The SHA-256 or SHA-512 at the start of a published checksum file, as `sha256:…`.

    Raises: DownloadFailed when the text does not start with one.
    """
    word = text.split(maxsplit=1)[0].lower() if text.split() else ""
    kind = {64: "sha256", 128: "sha512"}.get(len(word))
    if kind is None or set(word) - set("0123456789abcdef"):
        raise DownloadFailed("the published checksum is not a checksum")
    return f"{kind}:{word}"


def _published(download: Download) -> str:
    if not download.published:
        raise DownloadFailed(f"no checksum is known for {download.url}")
    with _open(download.url + download.published) as answer:
        return parse_checksum(answer.read(4096).decode("ascii", errors="replace"))


def _open(url: str) -> IO[bytes]:
    assert url.startswith(("https://", "http://127.0.0.1:"))
    try:
        answer: IO[bytes] = urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS)  # noqa: S310 - asserted above
    except urllib.error.HTTPError as error:
        error.close()
        raise DownloadFailed(f"{url} answers {error.code} {error.reason}") from error
    except OSError as error:
        where = urllib.parse.urlsplit(url).hostname
        raise DownloadFailed(f"{where} cannot be reached", unreachable=True) from error
    return answer
