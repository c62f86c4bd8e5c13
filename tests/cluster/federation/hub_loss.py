"""A hub that is lost with all that it had, and put back from what its operator had saved.

Saved are etcd's data, Kubernetes' own credentials, and the volumes. Everything else of the hub's node goes:
its processes, containers, images, and what the kubelet knew.
"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from simulations.clusters import engine
from simulations.lab import images, state
from simulations.lab.bare import files, provider
from tests.cluster import conftest as cluster
from tests.cluster.federation.trainings import HUB, Clusters, eventually

ETCD = "var/lib/etcd"


class Hub:
    """The hub's node, from the machine that it is on."""

    def __init__(self, clusters: Clusters, backup: Path) -> None:
        """Nothing is done yet; `backup` is where etcd's data will be kept."""
        assert isinstance(clusters.lab, provider.Bare)
        self._lab = clusters.lab
        self._node = clusters.lab.node(HUB)
        self._root = self._node.cluster.node
        self._backup = backup

    def save(self) -> None:
        """Copy etcd's data while etcd stands still: what a snapshot of its disk would have."""
        etcd = str(self._node.programs()["etcd"]["pid"])
        self._node.run("kill", "-STOP", etcd)
        try:
            shutil.copytree(self._root / ETCD, self._backup)
        finally:
            self._node.run("kill", "-CONT", etcd)

    def lose(self) -> None:
        """End everything that runs there, and remove all that it had written but the volumes."""
        pid = self._node.first_process()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: self._node.problem() == "the node is off", "end of the hub's node")
        volumes = Path(f"{self._root}{files.VOLUMES}")
        assert any(volumes.iterdir())
        for left in (self._root / "var/lib", self._root / "var/log"):
            shutil.rmtree(left)

    def put_back(self) -> None:
        """Start a hub on what was saved, and bring Hanse's images to it, as a registry would."""
        shutil.copytree(self._backup, self._root / ETCD)
        record = state.State(self._lab.name).read()
        assert record is not None
        self._lab.up(record[0], cluster.say)
        archive = images.together(images.build(engine.TARGETS, lambda text: cluster.say("images", text)))
        self._lab.load([archive], [HUB])
