"""What a lab is, whoever provides it: a hub and edges on one machine, the edges behind NAT.

Why it exists: `hanse lab`, `hanse simulate --on` and the tests on clusters speak this, and do not know
whether
the clusters are namespaces of this machine (`bare`) or containers of Docker (`kind`). It refuses to know of
Hanse: a lab is clusters and links, and whoever brings one up installs what they like.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Protocol

HUB = "hub"
MOST_EDGES = 32
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,28}[a-z0-9])?")


class LabError(Exception):
    """Something is wrong with the request or the machine; the message says what to do about it."""


class LabFailed(Exception):
    """The lab itself could not do it: a program ended, a cluster did not become ready."""


class Provider(StrEnum):
    BARE = "bare"
    KIND = "kind"


class Phase(StrEnum):
    """What the state directory says of a lab."""

    STARTING = "starting"  # `up` is at work, or was ended in its middle
    UP = "up"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which lab is wanted. Names are DNS labels; `edges` are in the order of their routers' addresses."""

    name: str
    edges: tuple[str, ...]
    kubernetes: str  # a minor version, such as 1.36

    def __post_init__(self) -> None:
        for name in (self.name, *self.edges):
            if not _NAME.fullmatch(name):
                raise LabError(
                    f"{name!r} cannot name a lab or an edge: at most 30 lower-case letters, digits and "
                    "dashes, beginning with a letter"
                )
        if HUB in self.edges or len(set(self.edges)) != len(self.edges):
            raise LabError(
                f"the edges need names of their own, and none may be {HUB!r}: {' '.join(self.edges)}"
            )
        if len(self.edges) > MOST_EDGES:
            raise LabError(f"a lab has at most {MOST_EDGES} edges")

    @property
    def clusters(self) -> tuple[str, ...]:
        return (HUB, *self.edges)


def numbered(edges: int) -> tuple[str, ...]:
    """The names of so many edges that nobody has named."""
    return tuple(f"edge-{number}" for number in range(1, edges + 1))


@dataclasses.dataclass(frozen=True)
class ClusterStatus:
    """One cluster as it is now. `link` is empty for the hub; `problem` is empty when all is well."""

    name: str
    ready: bool
    version: str
    link: str
    kubeconfig: Path
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class LabStatus:
    name: str
    provider: Provider
    phase: Phase
    directory: Path
    hub_address: str  # where edges reach the hub
    clusters: tuple[ClusterStatus, ...]

    @property
    def ready(self) -> bool:
        return self.phase is Phase.UP and all(cluster.ready for cluster in self.clusters)


# Called with a cluster's name (or the lab's) and what is being done, from any thread.
Progress = Callable[[str, str], None]


class Lab(Protocol):
    """One lab, by name. Methods block; several may run in threads at once unless they say otherwise."""

    @property
    def provider(self) -> Provider: ...

    @property
    def hub_address(self) -> str:
        """The hub's one address as edges see it, without a port."""
        ...

    def up(self, plan: Plan, progress: Progress) -> None:
        """Bring the lab up, or what of it is not up; return when every node is ready.

        Raises: LabError when the machine cannot; LabFailed when a cluster does not become ready.
        """
        ...

    def status(self) -> LabStatus | None:
        """The lab as it is now; None when there is none of this name."""
        ...

    def down(self, progress: Progress) -> bool:
        """Remove the lab and everything it made, whatever state it is in. False: there was nothing."""
        ...

    def kubeconfig(self, cluster: str) -> Path:
        """A file with which kubectl reaches this cluster's API server as its administrator."""
        ...

    def cut(self, edge: str) -> None:
        """Cut this edge's link to the outside; connections stall. `restore` undoes it."""
        ...

    def limit(self, edge: str, mbit: float) -> None:
        """Let this edge send, and receive, at most so many megabits per second."""
        ...

    def restore(self, edge: str) -> None:
        """Give this edge its whole link back."""
        ...

    def load(self, archives: Sequence[Path], clusters: Sequence[str]) -> None:
        """Import image archives (docker or OCI layout, tar) into these clusters' nodes.

        Pods name such an image as the archive does, with imagePullPolicy Never or IfNotPresent.
        """
        ...

    def place(self, cluster: str, source: Path, path: str) -> None:
        """Copy a file, or a directory, to `path` on this cluster's node, readable by every user there."""
        ...

    def forward(self, cluster: str, address: str, port: int) -> int:
        """A port on this machine's 127.0.0.1 that leads to address:port as this cluster's node reaches it."""
        ...
