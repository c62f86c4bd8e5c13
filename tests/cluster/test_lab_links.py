"""The lab's network is what Hanse is made for: edges reach the hub, nobody reaches an edge, links fail."""

from __future__ import annotations

import subprocess

import pytest

from simulations.lab import port
from simulations.lab.bare import layout, network, provider
from tests.cluster import labs

# Longer than a first packet that is lost and sent again.
SECONDS = "4"


@pytest.fixture
def bare(lab: labs.TestLab) -> provider.Bare:
    if not isinstance(lab.lab, provider.Bare):
        pytest.skip("it looks into the bare provider's network namespaces")
    return lab.lab


def dials(namespace: str, address: str, port_number: int) -> bool:
    """Whether a TCP connection from this network namespace is accepted."""
    script = f"exec 3<>/dev/tcp/{address}/{port_number}"
    command = network.inside(namespace, "timeout", SECONDS, "bash", "-c", script)
    return subprocess.run(command.argv, capture_output=True).returncode == 0


def places(bare: provider.Bare) -> tuple[layout.Cluster, layout.Cluster, layout.Cluster]:
    return bare.node("hub").cluster, bare.node("edge-1").cluster, bare.node("edge-2").cluster


def test_an_edge_reaches_the_hub_and_the_hub_no_edge(bare: provider.Bare) -> None:
    """The API servers listen on all addresses of their nodes; only the hub's is reached from elsewhere."""
    hub, edge, other = places(bare)
    assert dials(edge.netns, bare.hub_address, labs.HUB_API)
    assert dials(edge.netns, edge.node_address, labs.HUB_API), "the edge's own API server listens"
    assert not dials(hub.netns, edge.wan_address, labs.HUB_API)
    assert not dials(other.netns, edge.wan_address, labs.HUB_API), "nor does another edge"


def test_not_even_a_route_leads_the_hub_into_an_edge(bare: provider.Bare) -> None:
    """Who knows the edge's inner addresses and routes them to its router gets no further."""
    hub, edge, _ = places(bare)
    route = ("route", "{}", str(layout.LAN), "via", edge.wan_address)
    subprocess.run(["ip", "-n", hub.netns, *(part.format("add") for part in route)], check=True)
    try:
        assert not dials(hub.netns, edge.node_address, labs.HUB_API)
    finally:
        subprocess.run(["ip", "-n", hub.netns, *(part.format("del") for part in route)], check=True)


def test_a_cut_link_is_cut_both_ways_and_restored(bare: provider.Bare) -> None:
    """The cluster behind the cut runs on; afterwards everything is as before."""
    hub, edge, other = places(bare)
    bare.cut("edge-1")
    try:
        assert not dials(edge.netns, bare.hub_address, labs.HUB_API)
        assert dials(other.netns, bare.hub_address, labs.HUB_API), "the other edge keeps its link"
        states = {each.name: (each.link, each.ready) for each in status(bare).clusters}
        assert (states["edge-1"], states["edge-2"]) == (("cut", True), ("open", True))
    finally:
        bare.restore("edge-1")
    assert dials(edge.netns, bare.hub_address, labs.HUB_API)
    assert not dials(hub.netns, edge.wan_address, labs.HUB_API)


def test_a_limited_link_says_so_and_is_restored(bare: provider.Bare) -> None:
    """Status names the limit; `restore` removes it."""
    bare.limit("edge-2", 8)
    try:
        assert (
            next(each.link for each in status(bare).clusters if each.name == "edge-2")
            == "limited to 8 Mbit/s"
        )
    finally:
        bare.restore("edge-2")
    assert next(each.link for each in status(bare).clusters if each.name == "edge-2") == "open"


def test_a_forwarded_port_leads_into_a_cluster(bare: provider.Bare) -> None:
    """The same port every time; behind it, the address as the node reaches it."""
    first = bare.forward("edge-1", bare.hub_address, labs.HUB_API)
    assert bare.forward("edge-1", bare.hub_address, labs.HUB_API) == first
    asked = ["curl", "-sk", f"https://127.0.0.1:{first}/readyz"]
    assert subprocess.run(asked, capture_output=True, text=True).stdout == "ok"


def status(bare: provider.Bare) -> port.LabStatus:
    found = bare.status()
    assert found is not None
    return found
