"""A federation on a lab's clusters: the hub installed, every edge joined, each owner's objects in place.

Why it exists: `hanse simulate --on` and the tests on clusters begin alike. Everything is done by the commands
that README gives to hub operators and edge owners. This module refuses to know trainings.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

import manifests as packaged
from simulations.clusters import commands
from simulations.lab import port as labs
from simulations.local.errors import SimulationFailed

DOOR_PORT = 30443
"""The NodePort of the door in the lab's overlay."""

HUB_NAMESPACE = "hanse-system"
EDGE_NAMESPACE = "hanse"
REGISTRY = "localhost/hanse"
READY_SECONDS = 180

Say = Callable[[str], None]


class Federation:
    """A lab as a federation; the lab is somebody else's to bring up and take down."""

    def __init__(self, lab: labs.Lab, kubectl: Path, say: Say) -> None:
        """Take a lab that is up, and a kubectl that fits it."""
        self._lab = lab
        self._kubectl = kubectl
        self._say = say

    @property
    def door(self) -> str:
        """Where edges reach the hub: host:port."""
        return f"{self._lab.hub_address}:{DOOR_PORT}"

    async def kubectl(self, cluster: str, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl on a cluster. Raises: SimulationFailed."""
        argv = (str(self._kubectl), *arguments)
        title = f"kubectl {' '.join(arguments[:3])} on {cluster}"
        return await commands.run(argv, self._lab.kubeconfig(cluster), stdin=stdin, title=title)

    async def hanse(self, cluster: str, *arguments: str) -> str:
        """Run hanse on a cluster. Raises: SimulationFailed."""
        return await commands.hanse(*arguments, kubeconfig=self._lab.kubeconfig(cluster))

    async def apply(self, cluster: str, objects: Sequence[dict[str, Any]]) -> None:
        """Apply objects on a cluster, in order. Raises: SimulationFailed."""
        text = yaml.safe_dump_all(objects, sort_keys=False)
        await self.kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    async def install_hub(self) -> None:
        """Install the coordinator and wait until the door opens. Raises: SimulationFailed."""
        self._say("installing the coordinator on the hub")
        overlay = Path(packaged.__file__).parent / "hub" / "lab"
        await self.kubectl(labs.HUB, "apply", "--server-side", "--force-conflicts", "-k", str(overlay))
        rollout = ("rollout", "status", "deployment/hanse-coordinator", "-n", HUB_NAMESPACE)
        await self.kubectl(labs.HUB, *rollout, f"--timeout={READY_SECONDS}s")
        await self._leader()

    async def _leader(self) -> None:
        """Wait until one of the replicas leads: tokens can be made then."""
        selector = ("get", "pods", "-n", HUB_NAMESPACE, "-l", "hanse.dev/leader=true", "-o", "name")
        deadline = time.monotonic() + READY_SECONDS
        while not (await self.kubectl(labs.HUB, *selector)).strip():
            if time.monotonic() > deadline:
                raise SimulationFailed(
                    "no coordinator leads the hub; see its log with "
                    f"kubectl logs -n {HUB_NAMESPACE} deployment/hanse-coordinator"
                )
            await asyncio.sleep(0.5)

    async def renew(self, edges: Sequence[str]) -> None:
        """Have edges that joined before, and with them the hub, run the images that were loaded since.

        Images of a lab keep their names, so nothing restarts by itself. Raises: SimulationFailed.
        """
        if not edges:
            return
        self._say("restarting what runs with the images of this checkout")
        hub = (labs.HUB, HUB_NAMESPACE, "deployment/hanse-coordinator")
        places = [hub, *((edge, EDGE_NAMESPACE, "deployment/hanse-agent") for edge in edges)]
        for cluster, namespace, deployment in places:
            await self.kubectl(cluster, "rollout", "restart", deployment, "-n", namespace)
        for cluster, namespace, deployment in places:
            timeout = f"--timeout={READY_SECONDS}s"
            await self.kubectl(cluster, "rollout", "status", deployment, "-n", namespace, timeout)
        await self._leader()

    async def join(self, edge: str, *, approve: bool = True) -> None:
        """Make a token on the hub and join with it on the edge, as the two operators do."""
        flags = ("--approve",) if approve else ()
        made = await self.hanse(
            labs.HUB, "token", "create", "--cluster", edge, "--hub", self.door, *flags, "-o", "json"
        )
        token = json.loads(made)
        arguments = ("--token", token["token"], "--ca-hash", token["caHash"], "--name", edge)
        await self.hanse(edge, "join", self.door, *arguments, "--registry", REGISTRY, "--apply")
        self._say(f"{edge} joined")

    async def join_all(self, edges: Sequence[str]) -> None:
        """Join every edge, all at once."""
        self._say(f"joining {len(edges)} edges")
        await asyncio.gather(*(self.join(edge) for edge in edges))

    async def has_agent(self, edge: str) -> bool:
        """Whether this edge has joined before."""
        found = await self.kubectl(
            edge, "get", "deployment", "hanse-agent", "-n", EDGE_NAMESPACE, "--ignore-not-found", "-o", "name"
        )
        return bool(found.strip())
