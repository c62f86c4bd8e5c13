"""Tests for the edge in a cluster: what a client needs that is not there, or not now."""

from __future__ import annotations

import dataclasses
import pathlib
import socket
from typing import Any

import pytest

from edge_agent import kubernetes_site, pods, policy, resolving, sites, workloads
from tests.unit.edge_agent import test_pods


def site_at(path: pathlib.Path) -> kubernetes_site.KubernetesSite:
    """Return a site that gets as far as its name server: it has no API server and no runtime."""
    nothing: Any = None
    return kubernetes_site.KubernetesSite(
        nothing,
        runtime=nothing,
        owner=nothing,
        places=workloads.Places(path),
        settings=pods.Settings("zurich", "hanse", "client:1"),
        claims=None,
        stop_grace_seconds=1,
    )


@pytest.mark.parametrize(
    "answer",
    [
        socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        TimeoutError("timed out"),
    ],
    ids=["away", "unknown", "silent"],
)
async def test_a_name_without_an_answer_is_an_outage(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, answer: OSError
) -> None:
    """It is no failure of the client's: who asks tries again, with the sentence that says what to look at."""

    async def ask(host: str, port: int) -> tuple[str, ...]:
        raise answer

    monkeypatch.setattr(resolving, "ips", ask)
    with pytest.raises(sites.SiteAway) as told:
        await site_at(tmp_path).workload(
            "hub", test_pods.ASSIGNMENT, policy.Allowed("rule", {}), test_pods.OFFER
        )
    want = f"the aggregator's address hub.example:443 cannot be found: {answer}; check the edge's name server"
    assert str(told.value) == want


async def test_what_is_no_address_is_a_failure(tmp_path: pathlib.Path) -> None:
    """Waiting would not help."""
    wrong = dataclasses.replace(test_pods.ASSIGNMENT, aggregator_address="hub.example")
    with pytest.raises(sites.SiteFailure, match="no address of an aggregator") as told:
        await site_at(tmp_path).workload("hub", wrong, policy.Allowed("rule", {}), test_pods.OFFER)
    assert not isinstance(told.value, sites.SiteAway)
