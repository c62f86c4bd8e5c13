"""Tests for renewing certificates: a clock of the test's own, a CA that really signs."""

import asyncio
import datetime as dt
import errno
import pathlib
import random

import grpc
import grpc.aio
import pytest

from coordinator.issuing import certificate_authority
from edge_agent import credentials
from federation.trust import credentials as trust
from federation.trust import identity as identities
from federation.wire import denials, hanse_pb2
from tests.fakes import certificates as fakes

ZURICH = identities.ClusterIdentity(fakes.TRUST_DOMAIN, "zurich")
BUDAPEST = identities.ClusterIdentity(fakes.TRUST_DOMAIN, "budapest")


class Clock:
    """Goes on by `step` at every look."""

    def __init__(self, start: dt.datetime, step: dt.timedelta = dt.timedelta(0)) -> None:
        self.time, self.step = start, step

    def __call__(self) -> dt.datetime:
        self.time += self.step
        return self.time


def sign(
    authority: fakes.Authority, csr_pem: bytes, identity: identities.Identity, now: dt.datetime
) -> hanse_pb2.CertificateReply:
    chain = certificate_authority.issue(
        authority.ca, csr_pem, identity, now=now, lifetime=dt.timedelta(hours=1), serial=77
    )
    assert isinstance(chain, bytes)
    return hanse_pb2.CertificateReply(chain_pem=chain, trust_bundle_pem=authority.bundle_pem)


def failure(denial: denials.Denial | None = None) -> grpc.aio.AioRpcError:
    if denial is None:
        return grpc.aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "away"
        )
    trailing = grpc.aio.Metadata(*denials.trailing_metadata(denial))
    return grpc.aio.AioRpcError(
        getattr(grpc.StatusCode, denial.status), grpc.aio.Metadata(), trailing, denial.message
    )


async def test_a_certificate_is_renewed_with_a_new_key(tmp_path: pathlib.Path) -> None:
    """Past two thirds of its life; failures on the way are tried again; the key changes with it."""
    authority = fakes.Authority()
    store = authority.client(ZURICH).directory(tmp_path)
    before = store.read()
    clock = Clock(authority.now + dt.timedelta(minutes=41), dt.timedelta(seconds=30))
    asked: list[bytes] = []
    done = asyncio.Event()

    async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
        asked.append(csr_pem)
        if len(asked) < 3:
            raise failure() if len(asked) == 1 else OSError(errno.ENOSPC, "No space left on device")
        asyncio.get_running_loop().call_soon(done.set)
        return sign(authority, csr_pem, ZURICH, clock.time)

    renewal = asyncio.create_task(
        credentials.keep_fresh(tmp_path, ZURICH, issue, rng=random.Random(1), now=clock)
    )
    async with asyncio.timeout(60):
        await done.wait()
        while store.read() == before:
            await asyncio.to_thread(store.stamp)
    renewal.cancel()
    await asyncio.gather(renewal, return_exceptions=True)
    after = store.read()
    assert after.key_pem != before.key_pem
    assert len(asked) == len(set(asked)) == 3


async def test_who_keeps_the_certificate_and_never_gets_to_it_holds_up_no_renewal(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again, and told when the certificate ends, as other failures are."""
    monkeypatch.setattr(credentials, "KEEP_SECONDS", 0.01)
    authority = fakes.Authority()
    authority.client(ZURICH).directory(tmp_path)
    clock = Clock(authority.now + dt.timedelta(minutes=41), dt.timedelta(minutes=5))

    async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
        return sign(authority, csr_pem, ZURICH, clock.time)

    async def keep() -> None:
        await asyncio.Event().wait()

    with pytest.raises(credentials.NotEnrolled, match="join again with a new token"):
        async with asyncio.timeout(60):
            await credentials.keep_fresh(tmp_path, ZURICH, issue, rng=random.Random(1), now=clock, keep=keep)


async def test_a_certificate_that_ends_first_is_told(tmp_path: pathlib.Path) -> None:
    """With the hub away to the end only joining again helps."""
    authority = fakes.Authority()
    authority.client(ZURICH).directory(tmp_path)
    clock = Clock(authority.now + dt.timedelta(minutes=41), dt.timedelta(minutes=5))

    async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
        raise failure()

    with pytest.raises(credentials.NotEnrolled, match="join again with a new token"):
        await credentials.keep_fresh(tmp_path, ZURICH, issue, rng=random.Random(1), now=clock)


async def test_what_another_identity_asks_for_is_renewed_after_its_end_too(tmp_path: pathlib.Path) -> None:
    """A hub that was away for longer than the certificate was good certifies it when it is back."""
    authority = fakes.Authority()
    store = authority.client(ZURICH).directory(tmp_path)
    before, end = store.read(), store.expires_at()
    clock = Clock(authority.now + dt.timedelta(minutes=41), dt.timedelta(minutes=5))
    tries: list[dt.datetime] = []
    done = asyncio.Event()

    async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
        tries.append(clock.time)
        if clock.time < end + dt.timedelta(hours=3):
            raise failure()
        return sign(authority, csr_pem, ZURICH, clock.time)

    async def keep() -> None:
        done.set()

    renewal = asyncio.create_task(
        credentials.keep_fresh(
            tmp_path, ZURICH, issue, rng=random.Random(1), now=clock, keep=keep, asked_by_itself=False
        )
    )
    async with asyncio.timeout(60):
        await asyncio.wait({renewal, asyncio.ensure_future(done.wait())}, return_when=asyncio.FIRST_COMPLETED)
    assert not renewal.done()
    renewal.cancel()
    await asyncio.gather(renewal, return_exceptions=True)
    assert sum(when > end for when in tries) > 3
    assert store.read() != before


async def test_a_final_denial_ends_the_renewal(tmp_path: pathlib.Path) -> None:
    """An expelled cluster does not ask again."""
    authority = fakes.Authority()
    authority.client(ZURICH).directory(tmp_path)
    clock = Clock(authority.now + dt.timedelta(minutes=41))
    asked: list[bytes] = []

    async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
        asked.append(csr_pem)
        raise failure(denials.denial(denials.Reason.EXPELLED, cluster="zurich"))

    with pytest.raises(credentials.NotEnrolled, match="expelled"):
        await credentials.keep_fresh(tmp_path, ZURICH, issue, rng=random.Random(1), now=clock)
    assert len(asked) == 1


async def test_a_certificate_for_somebody_else_is_not_taken(tmp_path: pathlib.Path) -> None:
    """What is in force stays in force."""
    authority = fakes.Authority()
    store = authority.client(ZURICH).directory(tmp_path)
    before = store.read()

    async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
        return sign(authority, csr_pem, BUDAPEST, authority.now)

    with pytest.raises(credentials.NotEnrolled, match=r"cluster/budapest, and .*cluster/zurich was asked"):
        await credentials.obtain(tmp_path, ZURICH, issue)
    assert trust.CredentialDirectory(tmp_path).read() == before
