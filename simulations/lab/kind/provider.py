"""The kind provider: runs the commands of `commands` and keeps the record of what it has made.

Why it exists: people who have Docker need no root and no bare machine for a lab. It refuses to decide what a
lab looks like; that is `commands`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from simulations.lab import port, state
from simulations.lab.kind import commands
from simulations.lab.kind.commands import Command
from simulations.lab.together import together

_ASK_SECONDS = 20.0


def missing() -> str:
    """Why this machine cannot run a lab of kind, in one sentence; empty when it can."""
    for tool in ("docker", "kind"):
        if shutil.which(tool) is None:
            return f"a lab of kind needs the program {tool}, and it is not in PATH"
    try:
        done = subprocess.run(
            ["docker", "info", "--format", "{{.ServerVersion}}"],
            capture_output=True, text=True, timeout=_ASK_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "a lab of kind needs Docker, and its daemon does not answer"
    if done.returncode != 0 or not done.stdout.strip():
        return (
            "a lab of kind needs Docker, and its daemon cannot be reached: start it, or join the group docker"
        )
    return ""


def run(command: Command) -> str:
    """Run a command; its standard output.

    Raises: port.LabFailed with the program's last words.
    """
    try:
        done = subprocess.run(
            command.argv, capture_output=True, text=True, stdin=subprocess.DEVNULL,
            env={**os.environ, **dict(command.environment)},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise port.LabError(missing()) from error
    if done.returncode != 0 and not command.may_fail:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        what = " ".join(command.argv[:4])
        raise port.LabFailed(f"`{what} …` failed: {said[-1] if said else f'status {done.returncode}'}")
    return done.stdout


class Kind:
    """One lab of the kind provider; see `port.Lab`."""

    provider = port.Provider.KIND

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self._state = state.State(name, directory)
        self.name = name
        self._forwards: dict[tuple[str, str, int], int] = {}

    @property
    def hub_address(self) -> str:
        return commands.gateway(run(commands.inspect_network(self.name, port.HUB)))

    # --- up and down ----------------------------------------------------------------------------------------

    def up(self, plan: port.Plan, progress: port.Progress) -> None:
        if problem := missing():
            raise port.LabError(problem)
        commands.node_image(plan.kubernetes)
        with self._state.locked():
            if self._state.check(plan, port.Provider.KIND) is not port.Phase.UP:
                self._remove(progress)  # what an `up` that was ended in its middle has left
                self._state.write(plan, port.Provider.KIND, port.Phase.STARTING)
            there = run(commands.clusters()).split()
            lacking = [each for each in plan.clusters if self._kind_name(each) not in there]
            self._create(plan, lacking, progress)
            self._state.write(plan, port.Provider.KIND, port.Phase.UP)

    def _create(self, plan: port.Plan, lacking: Sequence[str], progress: port.Progress) -> None:
        networks = run(commands.networks(self.name)).split()
        for cluster in plan.clusters:
            if self._kind_name(cluster) not in networks:
                run(commands.make_network(self.name, cluster))
        hub = self.hub_address

        def create(cluster: str) -> None:
            progress(cluster, "starting")
            config = self._state.directory / f"kind-{cluster}.yaml"
            config.write_text(commands.cluster_config(cluster, hub), encoding="utf-8")
            run(commands.create(self.name, cluster, plan.kubernetes, config, self._kubeconfig(cluster)))
            self._kubeconfig(cluster).chmod(0o600)
            progress(cluster, "ready")

        together(create, lacking)

    def down(self, progress: port.Progress) -> bool:
        if problem := missing():
            raise port.LabError(problem)
        with self._state.locked():
            return self._remove(progress)

    def _remove(self, progress: port.Progress) -> bool:
        networks = run(commands.networks(self.name)).split()
        there = commands.of_lab(self.name, run(commands.clusters()).split(), networks)

        def delete(name: str) -> None:
            progress(self.name, f"removing {name}")
            run(commands.delete(name, self._state.directory / "kubeconfig-removed"))

        together(delete, there)
        for name in networks:
            run(commands.remove_network(name))
        return self._state.remove() or bool(there or networks)

    # --- what is there --------------------------------------------------------------------------------------

    def status(self) -> port.LabStatus | None:
        found = self._state.read()
        if found is None:
            return None
        plan, _, phase = found
        try:
            hub = self.hub_address
        except port.LabFailed:
            hub = ""
        each = together(self._status, plan.clusters)
        return port.LabStatus(self.name, port.Provider.KIND, phase, self._state.directory, hub, tuple(each))

    def _status(self, cluster: str) -> port.ClusterStatus:
        version = link = ""
        try:
            version, problem = commands.node_state(run(commands.get_node(self.name, cluster)))
            if cluster != port.HUB:
                link = commands.link_state(*(run(each) for each in commands.show_link(self.name, cluster)))
        except port.LabFailed as failure:
            problem = str(failure)
            link = "" if cluster == port.HUB else "missing"
        return port.ClusterStatus(cluster, not problem, version, link, self._kubeconfig(cluster), problem)

    def kubeconfig(self, cluster: str) -> Path:
        path = self._kubeconfig(self._there(cluster))
        if not path.exists():
            raise port.LabError(f"cluster {cluster} of lab {self.name} is not up; see `hanse lab status`")
        return path

    # --- links ----------------------------------------------------------------------------------------------

    def cut(self, edge: str) -> None:
        for command in commands.cut(self.name, self._edge(edge), self.hub_address):
            run(command)

    def limit(self, edge: str, mbit: float) -> None:
        for command in commands.limit(self.name, self._edge(edge), mbit):
            run(command)

    def restore(self, edge: str) -> None:
        for command in commands.restore(self.name, self._edge(edge), self.hub_address):
            run(command)

    # --- what is brought in ---------------------------------------------------------------------------------

    def load(self, archives: Sequence[Path], clusters: Sequence[str]) -> None:
        names = [self._there(cluster) for cluster in clusters]
        together(lambda cluster: run(commands.load(self.name, cluster, archives)), names)

    def place(self, cluster: str, source: Path, path: str) -> None:
        for command in commands.place(self.name, self._there(cluster), source, path):
            run(command)

    def forward(self, cluster: str, address: str, port: int) -> int:
        """As `port.Lab` says; the port is there as long as this process."""
        key = (self._there(cluster), address, port)
        if key not in self._forwards:
            self._forwards[key] = _listen(commands.relay(self.name, *key))
        return self._forwards[key]

    # --- names ----------------------------------------------------------------------------------------------

    def _kind_name(self, cluster: str) -> str:
        return commands.cluster_name(self.name, cluster)

    def _kubeconfig(self, cluster: str) -> Path:
        return self._state.directory / f"kubeconfig-{cluster}"

    def _there(self, cluster: str) -> str:
        found = self._state.read()
        if found is None:
            raise port.LabError(f"there is no lab {self.name}; bring one up with `hanse lab up`")
        if cluster not in found[0].clusters:
            raise port.LabError(
                f"lab {self.name} has no cluster {cluster}; it has {' '.join(found[0].clusters)}"
            )
        return cluster

    def _edge(self, edge: str) -> str:
        if edge == port.HUB:
            raise port.LabError("the hub has no link to cut or to limit; name an edge")
        return self._there(edge)


def _listen(relay: Sequence[str]) -> int:
    """A port on 127.0.0.1; each connection to it gets a `relay` of its own."""
    listener = socket.create_server(("127.0.0.1", 0))

    def connect(connection: socket.socket) -> None:
        with connection:
            end = connection.fileno()
            subprocess.run(relay, stdin=end, stdout=end, stderr=subprocess.DEVNULL)

    def serve() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=connect, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    found: int = listener.getsockname()[1]
    return found
