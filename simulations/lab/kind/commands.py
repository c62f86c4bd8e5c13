"""What a lab of kind runs and writes: commands and files as data. Pure.

Why it exists: kind needs Docker and a registry for its node image, which not every machine has; what it would
do can be read and tested without either. It refuses to run anything.

Each cluster has a Docker network of its own, and Docker lets no packet from one into another. The hub
publishes its one door at its network's gateway, an address of the machine itself; edges reach it there,
through Docker's proxy, as they would reach a hub on the internet. Nothing of an edge is published but its API
server, on the machine's 127.0.0.1, where the hub is not.

    edge-1 ── network ──┐                              ┌── network ── hub
    edge-2 ── network ──┤ machine: GATEWAY:30443 ──────┤   NodePort 30443
                        └── no way back ───────────────┘
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from simulations.lab import port

DOOR = 30443
"""The NodePort of the hub's door, as manifests/hub/lab has it."""

NODE_IMAGES: Mapping[str, str] = {
    "1.36": "kindest/node:v1.36.1@sha256:3489c7674813ba5d8b1a9977baea8a6e553784dab7b84759d1014dbd78f7ebd5",
    "1.35": "kindest/node:v1.35.0@sha256:452d707d4862f52530247495d180205e029056831160e22870e37e3f6c1ac31f",
}
"""As kind 0.32 and 0.31 were released with. Its network enforces NetworkPolicies."""

LABEL = "hanse.dev/lab"
_NETWORK_VARIABLE = "KIND_EXPERIMENTAL_DOCKER_NETWORK"
_LONGEST = 50  # kind refuses longer names, since a node's name is a host name
_MARK = "hanse-lab-cut"
_DEVICE = "eth0"

Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A program to run, and what its environment has more than ours."""

    argv: Argv
    environment: tuple[tuple[str, str], ...] = ()
    may_fail: bool = False
    """Whether it undoes something that may not be there."""


def cluster_name(lab: str, cluster: str) -> str:
    """The name in kind of a cluster, which is also its Docker network's."""
    name = f"hanse-{lab}-{cluster}"
    if len(name) <= _LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: _LONGEST - 9].rstrip('-')}-{digest}"


def node_name(lab: str, cluster: str) -> str:
    """The Docker container of the cluster's one node."""
    return f"{cluster_name(lab, cluster)}-control-plane"


def node_image(kubernetes: str) -> str:
    """The node image of a Kubernetes minor.

    Raises: port.LabError.
    """
    try:
        return NODE_IMAGES[kubernetes]
    except KeyError:
        raise port.LabError(
            f"kind has no node image for Kubernetes {kubernetes} here; choose {' or '.join(NODE_IMAGES)}"
        ) from None


def cluster_config(cluster: str, gateway: str) -> str:
    """The configuration of one cluster; only the hub publishes something, at its network's gateway."""
    node: dict[str, Any] = {"role": "control-plane"}
    if cluster == port.HUB:
        node["extraPortMappings"] = [
            {"containerPort": DOOR, "hostPort": DOOR, "listenAddress": gateway, "protocol": "TCP"}
        ]
    config = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {
            "apiServerAddress": "127.0.0.1",
            # The same in every cluster, as clusters of different owners have them.
            "podSubnet": "10.244.0.0/24",
            "serviceSubnet": "10.96.0.0/16",
        },
        "nodes": [node],
    }
    return yaml.safe_dump(config, sort_keys=False)


# --- up and down ----------------------------------------------------------------------


def networks(lab: str) -> Command:
    """List the names of the lab's networks."""
    return Command(("docker", "network", "ls", "--filter", f"label={LABEL}={lab}", "--format", "{{.Name}}"))


def make_network(lab: str, cluster: str) -> Command:
    """A bridge of the cluster's own, with NAT to the outside."""
    return Command(
        (
            "docker", "network", "create", "--driver", "bridge", "--label", f"{LABEL}={lab}",
            "--opt", "com.docker.network.bridge.enable_ip_masquerade=true", cluster_name(lab, cluster),
        )
    )  # fmt: skip


def inspect_network(lab: str, cluster: str) -> Command:
    """Describe the cluster's network."""
    return Command(("docker", "network", "inspect", cluster_name(lab, cluster)))


def gateway(inspected: str) -> str:
    """The machine's own IPv4 address in an inspected network.

    Raises: port.LabFailed when it has none.
    """
    for network in json.loads(inspected):
        for pool in network.get("IPAM", {}).get("Config") or ():
            found = str(pool.get("Gateway", "")).partition("/")[0]
            if re.fullmatch(r"[0-9.]+", found):
                return found
    raise port.LabFailed("Docker's network has no IPv4 gateway; look at `docker network inspect`")


def clusters() -> Command:
    """List kind's clusters."""
    return Command(("kind", "get", "clusters"))


def create(lab: str, cluster: str, kubernetes: str, config: Path, kubeconfig: Path) -> Command:
    """Make a cluster in its network, and wait until its node is ready."""
    name = cluster_name(lab, cluster)
    return Command(
        (
            "kind", "create", "cluster", "--name", name, "--image", node_image(kubernetes),
            "--config", str(config), "--kubeconfig", str(kubeconfig), "--wait", "180s",
        ),
        environment=((_NETWORK_VARIABLE, name),),
    )  # fmt: skip


def delete(name: str, kubeconfig: Path) -> Command:
    """Remove a cluster by kind's name of it."""
    return Command(("kind", "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)))


def remove_network(name: str) -> Command:
    """Remove a network by its name."""
    return Command(("docker", "network", "rm", name))


def of_lab(lab: str, names: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Those of kind's clusters that are this lab's: each has a network of its name with the lab's label."""
    return sorted(set(names) & {*ours, cluster_name(lab, port.HUB)})


# --- what is there ----------------------------------------------------------------------


def get_node(lab: str, cluster: str) -> Command:
    """Ask the cluster's API server for its node, from inside the node."""
    return _inside(lab, cluster, "kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "nodes",
                   "--output", "json", "--request-timeout", "5s")  # fmt: skip


def node_state(listed: str) -> tuple[str, str]:
    """The kubelet's version and what is wrong with the node; the latter is empty when it is ready."""
    nodes = json.loads(listed).get("items", [])
    if not nodes:
        return "", "the cluster has no node"
    status = nodes[0]["status"]
    version = str(status["nodeInfo"]["kubeletVersion"])
    for condition in status.get("conditions", ()):
        if condition["type"] == "Ready":
            return version, "" if condition["status"] == "True" else str(
                condition.get("message", "not ready")
            )
    return version, "the node has not said yet whether it is ready"


def show_link(lab: str, cluster: str) -> tuple[Command, Command]:
    """The firewall rules and the queue that `link_state` reads."""
    return (
        _inside(lab, cluster, "iptables", "-S", "FORWARD"),
        _inside(lab, cluster, "tc", "qdisc", "show", "dev", _DEVICE, "root"),
    )


def link_state(rules: str, queue: str) -> str:
    """`open`, `cut`, or `limited to N Mbit/s`."""
    if _MARK in rules:
        return "cut"
    limited = re.search(r"\btbf\b.*\brate (\d+(?:\.\d+)?)([KMG]?)bit", queue)
    if limited:
        mbit = float(limited[1]) * {"": 1e-6, "K": 1e-3, "M": 1.0, "G": 1e3}[limited[2]]
        return f"limited to {mbit:g} Mbit/s"
    return "open"


# --- links ----------------------------------------------------------------------


def cut(lab: str, cluster: str, hub: str) -> list[Command]:
    """Drop what pods send out and get back, and what the node itself exchanges with the hub.

    The way from this machine to the API server stays: it is not the edge's link.
    """
    mended = _uncut(lab, cluster, hub)  # so that a second cut adds no second rule
    return mended + [_inside(lab, cluster, "iptables", "-I", *rule) for rule in _rules(hub)]


def limit(lab: str, cluster: str, mbit: float) -> list[Command]:
    """Both ways: a bucket for what leaves the node, a limit on what is taken in."""
    rate = f"{max(1, round(mbit * 1000))}kbit"
    return [
        _inside(lab, cluster, "tc", "qdisc", "replace", "dev", _DEVICE, "root", "tbf", "rate", rate,
                "burst", "32kb", "latency", "200ms"),
        _failing(_inside(lab, cluster, "tc", "qdisc", "del", "dev", _DEVICE, "ingress")),
        _inside(lab, cluster, "tc", "qdisc", "add", "dev", _DEVICE, "handle", "ffff:", "ingress"),
        _inside(lab, cluster, "tc", "filter", "add", "dev", _DEVICE, "parent", "ffff:", "protocol", "ip",
                "prio", "1", "u32", "match", "u32", "0", "0", "police", "rate", rate, "burst", "64k", "drop"),
    ]  # fmt: skip


def restore(lab: str, cluster: str, hub: str) -> list[Command]:
    """The whole link, whatever was done to it."""
    return [
        *_uncut(lab, cluster, hub),
        _failing(_inside(lab, cluster, "tc", "qdisc", "del", "dev", _DEVICE, "root")),
        _failing(_inside(lab, cluster, "tc", "qdisc", "del", "dev", _DEVICE, "ingress")),
    ]


def _rules(hub: str) -> tuple[Argv, ...]:
    mark = ("-m", "comment", "--comment", _MARK, "-j", "DROP")
    return (
        ("FORWARD", "-o", _DEVICE, *mark),
        ("FORWARD", "-i", _DEVICE, *mark),
        ("OUTPUT", "-d", hub, "-p", "tcp", "--dport", str(DOOR), *mark),
    )


def _uncut(lab: str, cluster: str, hub: str) -> list[Command]:
    return [_failing(_inside(lab, cluster, "iptables", "-D", *rule)) for rule in _rules(hub)]


# --- what is brought in ----------------------------------------------------------------------


def load(lab: str, cluster: str, archives: Sequence[Path]) -> Command:
    """Import image archives into the node."""
    return Command(
        ("kind", "load", "image-archive", *map(str, archives), "--name", cluster_name(lab, cluster))
    )


def place(lab: str, cluster: str, source: Path, path: str) -> list[Command]:
    """Copy a file, or a directory's content, to `path` on the node, readable by every user there."""
    target = str(Path("/", path))
    content = f"{source}/." if source.is_dir() else str(source)
    return [
        _inside(lab, cluster, "mkdir", "-p", target if source.is_dir() else str(Path(target).parent)),
        Command(("docker", "cp", content, f"{node_name(lab, cluster)}:{target}")),
        _inside(lab, cluster, "chmod", "-R", "a+rX,go-w", target),
    ]


def relay(lab: str, cluster: str, address: str, target: int) -> Argv:
    """Connect standard input and output with address:port as the node reaches it; the node has bash."""
    script = 'exec 3<>"/dev/tcp/$0/$1" || exit 1; { cat <&3; kill $$; } & cat >&3; wait'
    return ("docker", "exec", "-i", node_name(lab, cluster), "bash", "-c", script, address, str(target))


def _inside(lab: str, cluster: str, *argv: str) -> Command:
    return Command(("docker", "exec", node_name(lab, cluster), *argv))


def _failing(command: Command) -> Command:
    return Command(command.argv, command.environment, may_fail=True)
