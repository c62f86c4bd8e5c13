"""The network of a bare lab, as commands: a wide area network, the hub on it, each edge behind a router.

Why it exists: the plan is data, so that a test can read it and a person can type it. It refuses to run
anything.

    hub ── wan bridge ── router (NAT, lets nothing in) ── edge
                    └─── router ── edge

The router is a namespace apart from the node: NAT, cuts and limits do not mix with the rules that kube-proxy
and the network policies make, and the hub cannot dial an edge, as at a hospital.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from simulations.lab.bare import layout

# What a node's link is called inside the node, and a router's two sides.
NODE_LINK = "eth0"
ROUTER_WAN = "wan0"
ROUTER_LAN = "lan0"
_WAN_BRIDGE = "wan"


@dataclasses.dataclass(frozen=True)
class Command:
    """One command; `standard_input` is what it reads."""

    argv: tuple[str, ...]
    standard_input: str = ""


def inside(namespace: str, *argv: str, standard_input: str = "") -> Command:
    """The same command, in this network namespace."""
    return Command(("nsenter", f"--net=/run/netns/{namespace}", *argv), standard_input)


def build(lab: layout.Layout, nft: str) -> Iterator[Command]:
    """Make the namespaces, the links and the routers' rules; nothing of this lab's network exists before."""
    for namespace in lab.namespaces:
        yield Command(("ip", "netns", "add", namespace))
    yield _batch(
        lab.wan,
        "link set lo up",
        f"link add {_WAN_BRIDGE} type bridge",
        f"addr add {layout.WAN_GATEWAY}/{layout.WAN.prefixlen} dev {_WAN_BRIDGE}",
        f"link set {_WAN_BRIDGE} up",
    )
    for cluster in lab.clusters:
        yield from _node(lab, cluster) if cluster.is_hub else _edge(lab, cluster, nft)


def _node(lab: layout.Layout, hub: layout.Cluster) -> Iterator[Command]:
    yield _batch(
        lab.wan,
        f"link add {hub.uplink} type veth peer name {NODE_LINK} netns {hub.netns}",
        f"link set {hub.uplink} master {_WAN_BRIDGE} up",
    )
    yield _batch(
        hub.netns,
        "link set lo up",
        f"addr add {hub.wan_address}/{layout.WAN.prefixlen} dev {NODE_LINK}",
        f"link set {NODE_LINK} up",
        f"route add default via {layout.WAN_GATEWAY}",
    )


def _edge(lab: layout.Layout, edge: layout.Cluster, nft: str) -> Iterator[Command]:
    yield _batch(
        lab.wan,
        f"link add {edge.uplink} type veth peer name {ROUTER_WAN} netns {edge.router}",
        f"link set {edge.uplink} master {_WAN_BRIDGE} up",
    )
    yield inside(edge.router, "tee", "/proc/sys/net/ipv4/ip_forward", standard_input="1")
    # The rules come before the link: at no moment may the hub dial an edge.
    yield inside(edge.router, nft, "-f", "-", standard_input=router_rules())
    yield _batch(
        edge.router,
        "link set lo up",
        f"link add {ROUTER_LAN} type veth peer name {NODE_LINK} netns {edge.netns}",
        f"addr add {layout.LAN_ROUTER}/{layout.LAN.prefixlen} dev {ROUTER_LAN}",
        f"link set {ROUTER_LAN} up",
        f"addr add {edge.wan_address}/{layout.WAN.prefixlen} dev {ROUTER_WAN}",
        f"link set {ROUTER_WAN} up",
        f"route add default via {layout.WAN_GATEWAY}",
    )
    yield _batch(
        edge.netns,
        "link set lo up",
        f"addr add {layout.LAN_NODE}/{layout.LAN.prefixlen} dev {NODE_LINK}",
        f"link set {NODE_LINK} up",
        f"route add default via {layout.LAN_ROUTER}",
    )


def router_rules() -> str:
    """Out: everybody, as the router. In: answers only."""
    refuse = f'iifname "{ROUTER_WAN}" ct state != {{ established, related }} drop'
    return "\n".join(
        (
            "table ip router {",
            f"  chain input {{ type filter hook input priority 0; {refuse}; }}",
            f"  chain forward {{ type filter hook forward priority 0; {refuse}; }}",
            "  chain postrouting { type nat hook postrouting priority 100; "
            f'oifname "{ROUTER_WAN}" masquerade; }}',
            "}",
            "",
        )
    )


def cut(lab: layout.Layout, edge: layout.Cluster) -> tuple[Command, ...]:
    """At the bridge, not at the router: an interface that goes down takes its routes along."""
    return (_batch(lab.wan, f"link set {edge.uplink} down"),)


def limit(lab: layout.Layout, edge: layout.Cluster, mbit: float) -> tuple[Command, ...]:
    """Both ways: what leaves the router is the edge's upload, what leaves the bridge's port its download."""
    rate = f"{max(1, round(mbit * 1000))}kbit"
    # A bucket smaller than a packet passes nothing; 200 ms is how long a packet may wait before it is
    # dropped.
    bucket = ("tbf", "rate", rate, "burst", "32kb", "latency", "200ms")
    return (
        inside(edge.router, "tc", "qdisc", "replace", "dev", ROUTER_WAN, "root", *bucket),
        inside(lab.wan, "tc", "qdisc", "replace", "dev", edge.uplink, "root", *bucket),
    )


def restore(lab: layout.Layout, edge: layout.Cluster) -> tuple[Command, ...]:
    """The link up and without a limit, whatever was done to it."""
    return (
        _batch(lab.wan, f"link set {edge.uplink} up"),
        # `replace` first, for `del` fails where there is nothing to remove.
        *limit(lab, edge, 1000),
        inside(edge.router, "tc", "qdisc", "del", "dev", ROUTER_WAN, "root"),
        inside(lab.wan, "tc", "qdisc", "del", "dev", edge.uplink, "root"),
    )


def show(lab: layout.Layout, edge: layout.Cluster) -> tuple[Command, ...]:
    """The link's state and limit, as `link_state` reads them."""
    return (
        Command(("ip", "-n", lab.wan, "-json", "link", "show", "dev", edge.uplink)),
        inside(lab.wan, "tc", "-json", "qdisc", "show", "dev", edge.uplink),
    )


def link_state(links: list[dict[str, object]], queues: list[dict[str, object]]) -> str:
    """`open`, `cut`, or `limited to N Mbit/s`, from what `ip` and `tc` say of the bridge's port."""
    flags = links[0].get("flags", []) if links else []
    if not isinstance(flags, list) or "UP" not in flags:
        return "cut"
    for queue in queues:
        options = queue.get("options")
        if queue.get("kind") == "tbf" and isinstance(options, dict):
            return f"limited to {options['rate'] * 8 / 1e6:g} Mbit/s"
    return "open"


def _batch(namespace: str, *lines: str) -> Command:
    return Command(("ip", "-n", namespace, "-batch", "-"), "\n".join(lines) + "\n")
