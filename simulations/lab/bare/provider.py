"""The bare provider: brings a lab up out of this machine's namespaces, and takes every trace of it down
again.

Order of things: the record is written before anything is made, and every name follows from it. `down` does
not trust the record: it looks for the lab's mark and names on the machine.
"""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import json
import os
import platform
import shutil
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from simulations.lab import port, programs, state
from simulations.lab.bare import busybox, components, layout, network, node, system
from simulations.lab.together import together

INOTIFY_INSTANCES = 13
"""What one node holds: its kubelet seven, the API server three, containerd two, kube-proxy one."""

_NEEDED = ("ip", "tc", "nsenter", "unshare", "tee", "umount")


def missing() -> str:
    """Why this machine cannot run a bare lab, in one sentence; empty when it can."""
    if platform.system() != "Linux":
        return f"a bare lab needs Linux, and this is {platform.system()}"
    if os.geteuid():
        return "a bare lab needs root, for it makes namespaces, control groups and mounts: run it with sudo"
    lacking = [tool for tool in _NEEDED if shutil.which(tool) is None]
    if lacking:
        return f"a bare lab needs {', '.join(lacking)}: install the packages iproute2 and util-linux"
    if not any(system.hierarchies()):
        return f"a bare lab needs control groups, and {system.CGROUPS} has none"
    return ""


def too_few_instances(room: int, clusters: int, limit: int) -> str:
    """Why so many clusters do not get the inotify instances that they need; empty when they do.

    Without them a kubelet starts and then ends with `too many open files`, which says nothing to anybody.
    """
    wanted = INOTIFY_INSTANCES * clusters
    if room >= wanted:
        return ""
    enough = -(-(limit + wanted - room) // 128) * 128
    return (
        f"{clusters} clusters need {wanted} inotify instances, and this machine has {room} left of the "
        f"{limit} that a user may have: run `sysctl -w fs.inotify.max_user_instances={enough}`, take other "
        "labs down, or ask for fewer edges"
    )


class Bare:
    """One lab of the bare provider; see `port.Lab`."""

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self._state = state.State(name, directory)
        self.name = name

    provider = port.Provider.BARE
    hub_address = layout.HUB_ADDRESS

    # --- up -------------------------------------------------------------------------------------------------

    def up(self, plan: port.Plan, progress: port.Progress) -> None:
        if problem := missing():
            raise port.LabError(problem)
        with self._state.locked():
            self._up(plan, progress)

    def _up(self, plan: port.Plan, progress: port.Progress) -> None:
        phase = self._state.check(plan, port.Provider.BARE)
        if phase is not port.Phase.UP:
            if phase is None and (strange := system.namespaces(self.name)):
                raise port.LabError(
                    f"a lab {self.name} is up whose state is not in {self._state.directory} ({strange[0]} is "
                    "there); run `hanse lab down` to remove it, or take another --name"
                )
            self._remove(progress)  # what an `up` that was ended in its middle has left
        try:
            tools = programs.ensure(plan.kubernetes, lambda text: progress(self.name, text))
        except (programs.ProgramsMissing, ValueError) as error:
            raise port.LabError(str(error)) from error
        shell = busybox.read(lambda text: progress(self.name, text))
        lab = layout.Layout(plan, self._state.directory)
        nodes = [node.Node(lab, cluster) for cluster in lab.clusters]
        starting = sum(each.first_process() is None for each in nodes)
        room = system.inotify_room(INOTIFY_INSTANCES * starting)
        if problem := too_few_instances(room, starting, system.inotify_limit()):
            raise port.LabError(problem)
        # Before anything is made: `down` finds whatever this comes to.
        self._state.write(plan, port.Provider.BARE, phase or port.Phase.STARTING)
        self._network(lab, nodes, tools, progress)
        node.copy_programs(lab)
        now = dt.datetime.now(dt.UTC)
        where = components.Tools(tools.bin, tools.cni)
        seen = _visible(tools, lab)

        stop = threading.Event()

        def begin(each: node.Node) -> None:
            progress(each.cluster.name, "starting")
            each.write(where, seen, now)
            each.start()
            each.finish(shell, progress, stop)

        with concurrent.futures.ThreadPoolExecutor(max_workers=len(nodes)) as pool:
            try:
                for done in concurrent.futures.as_completed([pool.submit(begin, each) for each in nodes]):
                    done.result()
            except BaseException:  # Ctrl-C too: nobody waits for the others
                stop.set()
                raise
        self._state.write(plan, port.Provider.BARE, port.Phase.UP)

    def _network(
        self,
        lab: layout.Layout,
        nodes: Sequence[node.Node],
        tools: programs.Programs,
        progress: port.Progress,
    ) -> None:
        """Make the network, unless all of it is there; a part, as one killed by hand leaves, is not kept."""
        if set(system.namespaces(self.name)) == set(lab.namespaces):
            return
        progress(self.name, "making the network")
        system.kill_all(self.name, system.namespaces(self.name))
        system.remove_namespaces(self.name)
        for command in network.build(lab, str(tools.path("nft"))):
            system.run(command)

    # --- down -----------------------------------------------------------------------------------------------

    def down(self, progress: port.Progress) -> bool:
        if problem := missing():
            raise port.LabError(problem)
        with self._state.locked():
            return self._remove(progress)

    def _remove(self, progress: port.Progress) -> bool:
        names = system.namespaces(self.name)
        killed = system.kill_all(self.name, names)
        if killed:
            progress(self.name, f"ended {killed} processes")
        removed = system.remove_namespaces(self.name)
        groups = system.remove_cgroups(layout.cgroup_root(self.name))
        if left := system.mounts_below(self._state.directory):
            raise port.LabFailed(f"{left[0]} is still mounted; unmount it and run `hanse lab down` again")
        return self._state.remove() or bool(killed or removed or groups)

    # --- what is there --------------------------------------------------------------------------------------

    def _lab(self) -> layout.Layout:
        found = self._state.read()
        if found is None:
            raise port.LabError(f"there is no lab {self.name}; bring one up with `hanse lab up`")
        return layout.Layout(found[0], self._state.directory)

    def node(self, cluster: str) -> node.Node:
        """One cluster's node, for what only this provider can do: run commands on it, stop its programs."""
        lab = self._lab()
        return node.Node(lab, lab.cluster(cluster))

    def status(self) -> port.LabStatus | None:
        found = self._state.read()
        if found is None:
            return None
        lab = layout.Layout(found[0], self._state.directory)
        clusters = together(lambda cluster: self._status(lab, cluster), lab.clusters)
        return port.LabStatus(
            self.name, port.Provider.BARE, found[2], self._state.directory, self.hub_address, tuple(clusters)
        )

    def _status(self, lab: layout.Layout, cluster: layout.Cluster) -> port.ClusterStatus:
        there = node.Node(lab, cluster)
        problem = there.problem()
        version = "" if problem else there.client().version()
        link = "" if cluster.is_hub else _link(lab, cluster)
        return port.ClusterStatus(cluster.name, not problem, version, link, cluster.kubeconfig, problem)

    def kubeconfig(self, cluster: str) -> Path:
        path = self.node(cluster).cluster.kubeconfig
        if not path.exists():
            raise port.LabError(f"cluster {cluster} of lab {self.name} is not up; see `hanse lab status`")
        return path

    # --- links ----------------------------------------------------------------------------------------------

    def cut(self, edge: str) -> None:
        lab = self._lab()
        _run(network.cut(lab, lab.edge(edge)))

    def limit(self, edge: str, mbit: float) -> None:
        lab = self._lab()
        _run(network.limit(lab, lab.edge(edge), mbit))

    def restore(self, edge: str) -> None:
        lab = self._lab()
        _run(network.restore(lab, lab.edge(edge)))

    # --- what is brought in ---------------------------------------------------------------------------------

    def load(self, archives: Sequence[Path], clusters: Sequence[str]) -> None:
        def load(name: str) -> None:
            for archive in archives:
                self.node(name).load(archive)

        together(load, clusters)

    def place(self, cluster: str, source: Path, path: str) -> None:
        there = self.node(cluster).cluster
        target = Path(f"{there.node}{Path('/', path)}")
        if Path("/", path).parts[1] in (
            "bin",
            "dev",
            "etc",
            "lib",
            "lib64",
            "proc",
            "run",
            "sbin",
            "sys",
            "usr",
        ):
            raise port.LabError(
                f"a node has {path} from this machine, read-only; place files below /srv or /mnt"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, target)
        for each in (target, *target.rglob("*")) if source.is_dir() else (target,):
            each.chmod(0o755 if each.is_dir() else 0o644)

    def forward(self, cluster: str, address: str, port: int) -> int:
        return self.node(cluster).forward(port, address)


def _visible(tools: programs.Programs, lab: layout.Layout) -> tuple[Path, ...]:
    """The machine's directories that a node needs to see: where its programs, and this Python, really are."""
    found = {lab.programs, Path(sys.base_prefix).resolve(), tools.bin.parent.resolve()}
    for directory in (tools.bin, tools.cni):
        found |= {directory, *(path.resolve().parent for path in directory.iterdir())}
    # One that lies in another is visible with it.
    return tuple(sorted(path for path in found if not any(other in path.parents for other in found)))


def _link(lab: layout.Layout, edge: layout.Cluster) -> str:
    try:
        links, queues = (json.loads(system.run(command) or "[]") for command in network.show(lab, edge))
    except port.LabFailed:
        return "missing"
    return network.link_state(links, queues)


def _run(commands: Sequence[network.Command]) -> None:
    for command in commands:
        system.run(command)
