"""Tests for the certificates of an agent's clients: a hub that is away, a disk that fails."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from edge_agent import assignments, backoff, client_credentials, facts, sites
from federation.trust import identity as identities
from federation.wire import hanse_pb2
from tests.fakes import certificates as fakes
from tests.unit.edge_agent import test_credentials

ASSIGNMENT = assignments.Assignment("u1", "cardiology", "hospitals", "heart-disease", "")
CLIENT = identities.ClientIdentity(
    fakes.TRUST_DOMAIN, "zurich", "cardiology", "hospitals", "heart-disease"
)  # fmt: skip


class Edge:
    """A place for one client's certificate, and a hub that answers when `answers` says so."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.authority = fakes.Authority()
        self.clock = test_credentials.Clock(
            self.authority.now + dt.timedelta(minutes=41), dt.timedelta(minutes=5)
        )
        self.issued = 0
        self.failed: list[dt.datetime] = []
        self.hand_over_fails: list[Exception] = []
        self.handed_over, self.hub_is_away = asyncio.Event(), asyncio.Event()
        nothing: Any = None
        self.renewals = client_credentials.ClientCredentials(
            cluster="zurich",
            trust_domain=fakes.TRUST_DOMAIN,
            channel=nothing,
            site=self,  # type: ignore[arg-type]
            rng=random.Random(1),
            now=self.clock,
        )
        self.renewals._issuer = lambda assignment: self.issue  # type: ignore[method-assign]

    def credentials(self, assignment: assignments.Assignment) -> pathlib.Path:
        return self.path

    async def hand_over_credentials(self, assignment: assignments.Assignment) -> None:
        if self.hand_over_fails:
            raise self.hand_over_fails.pop()
        self.handed_over.set()

    async def issue(self, csr_pem: bytes) -> hanse_pb2.CertificateReply:
        if self.issued and self.clock.time < self.authority.now + dt.timedelta(hours=4):
            self.failed.append(self.clock.time)
            self.hub_is_away.set()
            raise test_credentials.failure()
        self.issued += 1
        return test_credentials.sign(self.authority, csr_pem, CLIENT, self.authority.now)


@pytest.fixture
def edge(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Edge]:
    monkeypatch.setattr(backoff, "LONGEST_SECONDS", 0.01)
    made = Edge(tmp_path)
    with contextlib.closing(made.renewals):
        yield made


async def test_a_hub_that_was_away_for_longer_than_a_certificate_is_good(edge: Edge) -> None:
    """It certifies the client when it is back, and the client gets what it certified."""
    assert await edge.renewals.request(ASSIGNMENT) == facts.CertificateIssued("u1")
    await asyncio.wait_for(edge.handed_over.wait(), 60)
    assert sum(when > edge.authority.now + dt.timedelta(hours=1) for when in edge.failed) > 3
    assert edge.issued == 2


@pytest.mark.parametrize("how", [sites.SiteFailure("cannot be read"), OSError("not handed over")])
async def test_what_cannot_be_handed_over_is_tried_again(edge: Edge, how: Exception) -> None:
    """As long as the client is wanted."""
    edge.hand_over_fails = [how]
    assert await edge.renewals.request(ASSIGNMENT) == facts.CertificateIssued("u1")
    await asyncio.wait_for(edge.handed_over.wait(), 60)
    assert edge.issued == 3


async def test_who_is_not_wanted_any_more_is_not_asked_for(edge: Edge) -> None:
    """A renewal that waits for its hub ends with the assignment."""
    await edge.renewals.request(ASSIGNMENT)
    await asyncio.wait_for(edge.hub_is_away.wait(), 60)
    renewal = edge.renewals._renewals["u1"]
    edge.renewals.end("u1")
    await asyncio.wait({renewal})
    assert renewal.cancelled()
    assert not edge.handed_over.is_set()
