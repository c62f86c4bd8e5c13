"""Fetching an app by its digest: over the agent's own channel, going on after a cut, checked before use.

This module refuses to know whether the app may run; policy approved the digest that is asked for here.
"""

from __future__ import annotations

import asyncio
import pathlib
import shutil
import tempfile

import grpc.aio

from federation.api import reasons
from federation.apps import bundle, errors
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


async def fetch(channel: credentials.ReloadingChannel, digest: str, target: pathlib.Path) -> None:
    """Have the app with this digest unpacked at `target`; done already is done.

    Raises: BundleNotFetched.
    """
    if await asyncio.to_thread(target.is_dir):
        return
    data = await _download(channel, digest)
    try:
        await asyncio.to_thread(_unpack, data, digest, target)
    except errors.AppError as error:
        raise BundleNotFetched(
            reasons.ClusterReason.APP_NOT_LOADABLE,
            f"the app {digest} cannot be unpacked: {error}; pack it again and apply the training",
            may_retry=False,
        ) from error
    except OSError as error:
        raise BundleNotFetched(
            reasons.ClusterReason.STORAGE_FULL,
            f"the app {digest} cannot be stored: {error}; make room at {target.parent}",
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
                        chunk = await asyncio.wait_for(call.read(), SILENCE_SECONDS)
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


def _unpack(data: bytes, digest: str, target: pathlib.Path) -> None:
    got = bundle.digest(data)
    if got != digest:
        raise BundleNotFetched(
            reasons.ClusterReason.DIGEST_MISMATCH,
            f"the app that came is {got}, and {digest} was allowed; ask the hub's operator",
            may_retry=False,
        )
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        bundle.unpack(data, fresh)
        if not target.is_dir():
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
