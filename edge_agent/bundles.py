"""Fetching an app by its digest: over the agent's own channel, going on after a cut, checked before use.

Clients that share a disk with the agent read the unpacked app; clients in pods are handed the archive. This
module refuses to know whether the app may run; policy approved the digest that is asked for here.
"""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import tempfile
from typing import Protocol

import grpc.aio

from federation.api import reasons
from federation.apps import bundle, errors
from federation.runtime import port, processes
from federation.trust import credentials
from federation.wire import denials, hanse_pb2, hanse_pb2_grpc

SILENCE_SECONDS = 20.0
"""A hub that sends nothing for so long is treated as away."""

TRIES = 3
"""Cuts that are gone on from within one fetch; more is the lifecycle's backoff."""


class BundleNotFetched(Exception):
    """The app is not here; `may_retry` says whether asking again can help."""

    def __init__(self, reason: reasons.ClusterReason, message: str, *, may_retry: bool) -> None:
        """Keep reason, sentence and hope."""
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.may_retry = may_retry


class Shelf(Protocol):
    """Where fetched apps are kept, by digest."""

    def holds(self, digest: str) -> bool:
        """Return whether this app is here."""
        ...

    def put(self, digest: str, data: bytes) -> None:
        """Keep an app whose digest was checked.

        Raises: federation.apps.errors.AppError, BundleNotFetched, OSError.
        """
        ...


class Unpacked:
    """Apps as directories, for clients that can read the agent's disk."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Keep the place; it is made when needed."""
        self._directory = directory

    def path(self, digest: str) -> pathlib.Path:
        """Return the unpacked app's directory."""
        return self._directory / digest.removeprefix("sha256:")

    def holds(self, digest: str) -> bool:
        """Return whether this app is unpacked here."""
        return self.path(digest).is_dir()

    def put(self, digest: str, data: bytes) -> None:
        """Unpack beside the place and move there, so that a half app is never seen."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=self._directory))
        try:
            bundle.unpack(data, fresh)
            if not self.holds(digest):
                fresh.rename(self.path(digest))
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


class Archives:
    """Apps as the archives that came, for clients that are handed one and unpack it themselves."""

    def __init__(self, directory: pathlib.Path, maximum_bytes: int = port.MAXIMUM_BLOB_BYTES) -> None:
        """Keep the place; larger apps than `maximum_bytes` cannot be handed on."""
        self._directory = directory
        self._maximum_bytes = maximum_bytes

    def read(self, digest: str) -> bytes:
        """Return the archive. Raises: OSError."""
        return self._path(digest).read_bytes()

    def holds(self, digest: str) -> bool:
        """Return whether this app is here."""
        return self._path(digest).is_file()

    def put(self, digest: str, data: bytes) -> None:
        """Keep the archive, once it is sure that a client can unpack it."""
        if len(data) > self._maximum_bytes:
            raise BundleNotFetched(
                reasons.ClusterReason.APP_TOO_LARGE,
                f"the app {digest} has {len(data) / 2**20:.1f} MiB, and on Kubernetes an app may have "
                f"{self._maximum_bytes // 2**20} MiB; put large files into the client's image",
                may_retry=False,
            )
        bundle.read(data)
        processes.make_private_directory(self._directory)
        processes.write_private_file(self._path(digest), data)

    def _path(self, digest: str) -> pathlib.Path:
        return self._directory / digest.removeprefix("sha256:")


async def fetch(channel: credentials.ReloadingChannel, digest: str, shelf: Shelf) -> None:
    """Have the app with this digest on the shelf; done already is done.

    Raises: BundleNotFetched.
    """
    if await asyncio.to_thread(shelf.holds, digest):
        return
    data = await _download(channel, digest)
    try:
        await asyncio.to_thread(_put, data, digest, shelf)
    except errors.AppError as error:
        raise BundleNotFetched(
            reasons.ClusterReason.APP_NOT_LOADABLE,
            f"the app {digest} cannot be unpacked: {error}; pack it again and apply the training",
            may_retry=False,
        ) from error
    except OSError as error:
        raise BundleNotFetched(
            reasons.ClusterReason.STORAGE_FULL,
            f"the app {digest} cannot be stored: {error}; make room on the agent's disk",
            may_retry=True,
        ) from error


async def _download(channel: credentials.ReloadingChannel, digest: str) -> bytes:
    received = bytearray()
    failures = 0
    while True:
        try:
            async with channel.use() as open_channel:
                stub = hanse_pb2_grpc.ControlStub(open_channel)
                call = stub.FetchBundle(hanse_pb2.FetchBundleRequest(digest=digest, offset=len(received)))
                try:
                    while True:
                        async with asyncio.timeout(SILENCE_SECONDS):
                            chunk = await call.read()
                        if chunk is grpc.aio.EOF:
                            return bytes(received)
                        received += chunk.data
                        if len(received) > bundle.MAXIMUM_ARCHIVE_BYTES:
                            raise BundleNotFetched(
                                reasons.ClusterReason.DIGEST_MISMATCH,
                                f"the hub sends too many bytes for app {digest}; ask its operator",
                                may_retry=False,
                            )
                finally:
                    call.cancel()
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            denial = denials.from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else None
            failures += 1
            if denial is not None:
                raise BundleNotFetched(
                    reasons.ClusterReason.CREDENTIALS_REFUSED,
                    f"the hub does not hand out app {digest}: {denial.message}",
                    may_retry=True,
                ) from error
            if failures >= TRIES:
                raise BundleNotFetched(
                    reasons.ClusterReason.LINK_LOST,
                    f"the hub was lost while app {digest} came",
                    may_retry=True,
                ) from error


def _put(data: bytes, digest: str, shelf: Shelf) -> None:
    got = bundle.digest(data)
    if got != digest:
        raise BundleNotFetched(
            reasons.ClusterReason.DIGEST_MISMATCH,
            f"the app that came is {got}, and {digest} was allowed; ask the hub's operator",
            may_retry=False,
        )
    shelf.put(digest, data)
