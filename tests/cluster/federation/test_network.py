"""What a hostile app reaches from its pod: on an edge the hub's door, on the hub the coordinator.

The app tries when it is imported, which is as early as its code runs, and when it works. Before that the
client has looked by itself whether what must be closed is closed. Each place is tried from a pod too that no
policy selects: a place that is closed to everybody would prove nothing.
"""

from __future__ import annotations

import contextlib
import json

import pytest

from simulations.lab.bare import layout, provider
from tests.cluster.federation import probes, trainings
from tests.cluster.federation.trainings import HUB, Clusters, eventually
from tests.process import federations

pytestmark = pytest.mark.cluster

OUTSIDE_PORT = 8080
DOOR, COORDINATOR = "the hub's door", "the coordinator"


@pytest.fixture(scope="module")
def bare(clusters: Clusters) -> provider.Bare:
    if not isinstance(clusters.lab, provider.Bare):
        pytest.skip("it looks into the bare provider's network namespaces")
    return clusters.lab


def client_app(places: dict[str, str]) -> str:
    """An app that tries at its import and when it trains, and trains for as long as it is let."""
    return probes.code(places) + (
        "\nprobe('import')\n"
        + federations.CLIENT_APP.replace(
            "values = {name: array.numpy()",
            "probe('training'); time.sleep(600)\n    values = {name: array.numpy()",
            1,
        )
    )


def server_app(places: dict[str, str]) -> str:
    """The same for the aggregator's pod."""
    text = federations.SERVER_APP.replace("    start = {", "    probe('training')\n    start = {", 1)
    return probes.code(places) + "\nprobe('import')\n" + text


def log_of(clusters: Clusters, cluster: str, namespace: str, name: str) -> str:
    """The log of a training's one pod here, once it has tried everything."""

    def log() -> str:
        text = clusters.kubectl(
            cluster, "logs", "-n", namespace, "-l", f"hanse.dev/training={name}", "--tail=-1", check=False
        )
        return text if len(probes.probed(text)) == 2 else ""

    return str(eventually(log, f"what {name} reached on {cluster}"))


def test_an_app_reaches_the_door_and_nothing_else(clusters: Clusters, bare: provider.Bare) -> None:
    """From its first moment on: no Kubernetes API, kubelet, name server, neighbour, edge, hub or outside."""
    name = "hostile-app"
    edge, other = clusters.edges[:2]
    here, there = bare.node(edge).cluster, bare.node(other).cluster
    hub_address, hub_port = clusters.door.split(":")
    wan = layout.prefix(bare.name) + "wan"
    with contextlib.ExitStack() as stack:
        stack.enter_context(probes.listening(here.netns, here.node_address, 53))
        stack.enter_context(probes.listening(wan, layout.WAN_GATEWAY, OUTSIDE_PORT))
        neighbour = stack.enter_context(probes.neighbour(clusters, edge))
        agent = clusters.get(edge, "pods", "hanse", "-l", "app.kubernetes.io/component=agent")[0]
        must_open_to_anybody = {
            "API by its Service": f"tcp {layout.API_SERVICE} 443",
            "API by its node": f"tcp {here.node_address} {layout.API_PORT}",
            "kubelet": f"tcp {here.node_address} 10250",
            "name server": f"tcp {here.node_address} 53",
            "neighbour": f"tcp {neighbour} {probes.NEIGHBOUR_PORT}",
            "API of the hub": f"tcp {hub_address} {layout.API_PORT}",
            "kubelet of the hub": f"tcp {hub_address} 10250",
            "outside": f"tcp {layout.WAN_GATEWAY} {OUTSIDE_PORT}",
            DOOR: f"tcp {hub_address} {hub_port}",
        }
        # By UDP the lab lets not even anybody's pod out, so this shows less there than elsewhere.
        places = {
            **must_open_to_anybody,
            **probes.node_ports("the hub", hub_address),
            **probes.node_ports("the node", here.node_address),
            **probes.node_ports("another edge", there.wan_address),
            "name server by UDP": f"udp {here.node_address} 53",
            "outside by UDP": f"udp {layout.WAN_GATEWAY} {OUTSIDE_PORT}",
            "the agent": f"tcp {agent['status']['podIP']} 8080",
            "router": f"tcp {layout.LAN_ROUTER} 22",
        }
        assert set(probes.opened_to_anybody(clusters, edge, places)) >= must_open_to_anybody.keys()
        clusters.offer(edge, name)
        clusters.train(name, client_app=client_app(places), clusters={"minimum": 1})
        try:
            log = log_of(clusters, edge, "hanse", name)
        finally:
            clusters.kubectl(HUB, "delete", "ft", name, "-n", trainings.NAMESPACE, "--timeout=60s")
    assert probes.probed(log) == {"import": [DOOR], "training": [DOOR]}
    assert "network is restricted" in log, "the client looked by itself"
    assert log.index("network is restricted") < log.index("PROBED"), "before it loaded the app"
    assert "network is not restricted yet" not in log


def test_a_server_app_reaches_the_coordinator_and_nothing_else(
    clusters: Clusters, bare: provider.Bare
) -> None:
    """Not the Kubernetes API, the node, the coordinator's other listeners, another aggregator."""
    name, other = "hostile-server", "neighbour-training"
    edge = clusters.edges[0]
    address = clusters.door.split(":")[0]
    wan = layout.prefix(bare.name) + "wan"
    clusters.offer(edge, other, {"behaviour": "pause", "seconds": 600})
    clusters.train(other, clusters={"minimum": 1})
    clusters.in_round(other, 1)
    leader = clusters.get(HUB, "pods", "hanse-system", "-l", "hanse.dev/leader=true")[0]["status"]["podIP"]
    aggregator = clusters.get(HUB, "pods", trainings.NAMESPACE, "-l", f"hanse.dev/training={other}")[0]
    service = json.loads(
        clusters.kubectl(HUB, "get", "service", "hanse-coordinator", "-n", "hanse-system", "-o", "json")
    )["spec"]["clusterIP"]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(probes.listening(bare.node(HUB).cluster.netns, address, 53))
            stack.enter_context(probes.listening(wan, layout.WAN_GATEWAY, OUTSIDE_PORT))
            neighbour = stack.enter_context(probes.neighbour(clusters, HUB))
            must_open_to_anybody = {
                "API by its Service": f"tcp {layout.API_SERVICE} 443",
                "API by its node": f"tcp {address} {layout.API_PORT}",
                "kubelet": f"tcp {address} 10250",
                "name server": f"tcp {address} 53",
                "neighbour": f"tcp {neighbour} {probes.NEIGHBOUR_PORT}",
                "outside": f"tcp {layout.WAN_GATEWAY} {OUTSIDE_PORT}",
                "the door": f"tcp {leader} 8443",
                "another training's aggregator": f"tcp {aggregator['status']['podIP']} 7443",
            }
            places = {
                **must_open_to_anybody,
                **probes.node_ports("the node", address),
                "name server by UDP": f"udp {address} 53",
                "enrollment": f"tcp {leader} 8441",
                "health": f"tcp {leader} 8081",
                "metadata of a cloud": "tcp 169.254.169.254 80",
                COORDINATOR: f"tcp {service} 8442",
            }
            opened = set(probes.opened_to_anybody(clusters, HUB, places))
            assert opened >= must_open_to_anybody.keys()
            assert COORDINATOR not in opened, "only aggregators may dial it"
            clusters.offer(edge, name)
            clusters.train(name, server_app=server_app(places), clusters={"minimum": 1}, rounds=1)
            log = log_of(clusters, HUB, trainings.NAMESPACE, name)
    finally:
        for each in (name, other):
            clusters.kubectl(HUB, "delete", "ft", each, "-n", trainings.NAMESPACE, "--ignore-not-found")
    assert probes.probed(log) == {"import": [COORDINATOR], "training": [COORDINATOR]}
