"""Names, addresses and paths of a bare lab: all of them follow from the lab's name, its edges and its
directory.

Why it exists: what `up` makes, `down` must find without being told, also after `up` was killed in its
middle. So
nothing is named by chance, and everything that this machine's kernel holds for a lab begins with `prefix`.
Labs do not meet: each has a network of its own, with the same addresses in each.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from pathlib import Path

from simulations.lab import port

# The wide area network: what stands for the internet between hub and edges.
WAN = ipaddress.ip_network("172.30.0.0/24")
WAN_GATEWAY = "172.30.0.1"
HUB_ADDRESS = "172.30.0.10"
_FIRST_ROUTER = 21

# Behind every router, the same: clusters that never see each other need no plan of addresses between them.
LAN = ipaddress.ip_network("192.168.50.0/24")
LAN_ROUTER = "192.168.50.1"
LAN_NODE = "192.168.50.2"

PODS = "10.244.0.0/24"
SERVICES = "10.96.0.0/24"
API_SERVICE = "10.96.0.1"
API_PORT = 6443
POD_BRIDGE = "cni0"

# The environment variable by which `down` knows a lab's processes, whatever became of its records.
MARK = "HANSE_LAB_OF"


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One cluster's place on this machine."""

    lab: str
    name: str
    number: int  # 0 is the hub
    directory: Path

    @property
    def is_hub(self) -> bool:
        return self.number == 0

    @property
    def netns(self) -> str:
        return f"{prefix(self.lab)}{self.name}"

    @property
    def router(self) -> str:
        """The name of the router's network namespace; an edge has one."""
        return f"{prefix(self.lab)}{self.name}.router"

    @property
    def wan_address(self) -> str:
        """What others on the wide area network see of this cluster."""
        return HUB_ADDRESS if self.is_hub else str(WAN[_FIRST_ROUTER + self.number - 1])

    @property
    def node_address(self) -> str:
        return HUB_ADDRESS if self.is_hub else LAN_NODE

    @property
    def uplink(self) -> str:
        """The WAN bridge's port to this cluster; a name of an interface has at most 15 characters."""
        return "to-hub" if self.is_hub else f"to-{self.number}"

    @property
    def cgroup(self) -> str:
        return f"/{cgroup_root(self.lab)}/{self.name}"

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def node(self) -> Path:
        """The node's own file system, as far as it is not the machine's programs."""
        return self.directory / "node"

    @property
    def config(self) -> Path:
        return self.directory / "config"

    @property
    def logs(self) -> Path:
        return self.directory / "logs"

    @property
    def imports(self) -> Path:
        """Where images wait that containerd is about to read."""
        return self.directory / "imports"

    @property
    def programs_file(self) -> Path:
        """Where the node's first process says what became of each program."""
        return self.directory / "programs.json"


@dataclasses.dataclass(frozen=True)
class Layout:
    """A lab's place on this machine."""

    plan: port.Plan
    directory: Path

    @property
    def wan(self) -> str:
        return f"{prefix(self.plan.name)}wan"

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        return tuple(
            Cluster(self.plan.name, name, number, self.directory / "clusters" / name)
            for number, name in enumerate(self.plan.clusters)
        )

    @property
    def edges(self) -> tuple[Cluster, ...]:
        return self.clusters[1:]

    @property
    def programs(self) -> Path:
        """Copies of the lab's own little programs: a lab goes on when the checkout it came from moves."""
        return self.directory / "programs"

    def cluster(self, name: str) -> Cluster:
        """Raises: port.LabError for a name that this lab does not have."""
        for cluster in self.clusters:
            if cluster.name == name:
                return cluster
        known = " ".join(self.plan.clusters)
        raise port.LabError(f"lab {self.plan.name} has no cluster {name}; it has {known}")

    def edge(self, name: str) -> Cluster:
        """Raises: port.LabError for a name that is not an edge of this lab."""
        cluster = self.cluster(name)
        if cluster.is_hub:
            raise port.LabError(f"{name} is the hub; links are those of edges: {' '.join(self.plan.edges)}")
        return cluster

    @property
    def namespaces(self) -> tuple[str, ...]:
        routers = (edge.router for edge in self.edges)
        return (self.wan, *(cluster.netns for cluster in self.clusters), *routers)


def prefix(lab: str) -> str:
    """What every network namespace of this lab begins with; names have no dots, so no two labs share one."""
    return f"hanse-lab.{lab}."


def cgroup_root(lab: str) -> str:
    """The one control group, in each hierarchy, that all of a lab's are in."""
    return f"hanse-lab.{lab}"
