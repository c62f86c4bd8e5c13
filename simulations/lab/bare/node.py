"""One cluster of a bare lab: writes what its node reads, starts it, and says how it is.

Thin: what is written comes from `files`, what is started from `components`, where from `layout`.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulations.lab import archive, port
from simulations.lab.bare import api, components, files, layout, network, objects, pki, system

_READY_SECONDS = 180.0
_POLL_SECONDS = 0.25
_FORWARD_SECONDS = 20.0
_INSIDE = Path(__file__).parent / "inside"
_PROGRAMS = ("init.py", "keeper.py", "forward.py")
_API_FORWARD = "api"
# A program that could not stay up so often will not; the last of these starts is about half a minute after
# the first.
_STARTS = 10


def copy_programs(lab: layout.Layout) -> None:
    """Put the lab's own programs where they stay as they are while it runs."""
    lab.programs.mkdir(parents=True, exist_ok=True)
    for name in _PROGRAMS:
        shutil.copyfile(_INSIDE / name, lab.programs / name)


def python() -> str:
    """The interpreter itself, not a virtual environment's link: its libraries are all that is needed."""
    return str(Path(sys.executable).resolve())


class Node:
    """One cluster, from outside."""

    def __init__(self, lab: layout.Layout, cluster: layout.Cluster) -> None:
        self.lab = lab
        self.cluster = cluster
        self.credentials = pki.Pki(cluster.directory / "pki")

    # --- coming up ------------------------------------------------------------------------------------------

    def write(self, tools: components.Tools, visible: tuple[Path, ...], now: dt.datetime) -> None:
        """Credentials, configuration and the first process's plan; credentials that are there stay."""
        cluster = self.cluster
        for directory in (cluster.config / "cni", cluster.logs, cluster.imports, cluster.node):
            directory.mkdir(parents=True, exist_ok=True)
        if not self.credentials.file("tokens.csv").exists():
            shutil.rmtree(self.credentials.directory, ignore_errors=True)
            pki.make(
                self.credentials.directory,
                users=components.users(cluster),
                addresses=("127.0.0.1", cluster.node_address, layout.API_SERVICE),
                names=("localhost", "kubernetes.default.svc", cluster.name),
                now=now,
            )
        server = f"https://{cluster.node_address}:{layout.API_PORT}"
        authority = self.credentials.read("ca.crt")
        for user in ("controller-manager", "scheduler", "proxy", "kubelet"):
            text = files.kubeconfig_with_token(server, authority, user, self.credentials.token(user))
            self._write(f"{user}.kubeconfig", text)
        on_a_disk = system.on_a_disk(cluster.node)
        self._write("kubelet.yaml", files.kubelet(cluster, self.credentials, on_a_disk=on_a_disk))
        self._write("proxy.yaml", files.kube_proxy(cluster.config / "proxy.kubeconfig"))
        runc = Path(tools.path("runc"))
        self._write("containerd.toml", files.containerd(cluster, runc=runc, cni=tools.cni))
        self._write("cni/10-pods.conflist", files.cni())
        self._write("guard.nft", files.guard())
        self._write("resolv.conf", "")
        keeper = files.keeper(cluster, self.credentials, nft=tools.path("nft"))
        self._write("keeper.json", json.dumps(keeper, indent=2))
        plan = components.init_plan(
            cluster,
            self.credentials,
            tools,
            python=python(),
            keeper=self.lab.programs / "keeper.py",
            visible=visible,
            mark=cluster.lab,
        )
        self._write("init.json", json.dumps(plan, indent=2))

    def start(self) -> None:
        """Start the node's first process, and the port to its API server, where they do not run."""
        cluster = self.cluster
        if not self.running():
            system.remove_cgroups(f"{cluster.cgroup}/kubepods")  # stale ones cost the kubelet seconds each
            system.make_cgroups(cluster)
            cluster.programs_file.unlink(missing_ok=True)
            system.spawn(
                (
                    "nsenter", f"--net={system.NETNS / cluster.netns}",
                    "unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child",
                    python(), "-I", "-S", str(self.lab.programs / "init.py"),
                    str(cluster.config / "init.json"),
                ),
                log=cluster.logs / "init.log",
                mark=cluster.lab,
            )  # fmt: skip
        listen = self.forward(layout.API_PORT, cluster.node_address, name=_API_FORWARD)
        text = files.kubeconfig_with_certificate(
            cluster.name, f"https://127.0.0.1:{listen}", self.credentials, pki.ADMINISTRATOR
        )
        cluster.kubeconfig.touch(mode=0o600)
        cluster.kubeconfig.write_text(text, encoding="utf-8")

    def finish(self, busybox: bytes, progress: port.Progress, stop: threading.Event) -> None:
        """Wait until pods can run, and give the cluster what it needs for that; give up when `stop` is set.

        Raises: port.LabFailed with the last problem, and where the logs are.
        """
        deadline = time.monotonic() + _READY_SECONDS
        self._wait_for_socket(deadline, stop)
        self._import("pause", lambda target: target.write_bytes(pause_image(busybox)))
        progress(self.cluster.name, "waiting for the API server")
        client = self.client()
        for collection, document in objects.initial():
            while True:
                try:
                    client.create(collection, document)
                    break
                except (OSError, port.LabFailed) as error:
                    self._wait(deadline, stop, str(error))
        progress(self.cluster.name, "waiting for the node")
        while problem := client.problem(self.cluster.name) or self._not_running():
            self._wait(deadline, stop, problem)
        progress(self.cluster.name, "ready")

    def _wait_for_socket(self, deadline: float, stop: threading.Event) -> None:
        while True:
            try:
                self.ctr("version")
                return
            except port.LabFailed as error:
                self._wait(deadline, stop, str(error))

    def _wait(self, deadline: float, stop: threading.Event, problem: str) -> None:
        """Wait a moment for the problem to go; raise it when that has no use."""
        hopeless = [name for name, program in self.programs().items() if program["starts"] >= _STARTS]
        if hopeless:
            raise self._failed(f"{hopeless[0]} does not stay up: {self._last_words(hopeless[0])}")
        if stop.wait(_POLL_SECONDS) or time.monotonic() > deadline:
            raise self._failed(problem)

    def _last_words(self, program: str) -> str:
        said = (self.cluster.logs / f"{program}.log").read_text(errors="replace").strip().splitlines()
        return said[-1][:300] if said else "it said nothing"

    def _failed(self, problem: str) -> port.LabFailed:
        return port.LabFailed(
            f"cluster {self.cluster.name} is not ready: {problem}; its logs are in {self.cluster.logs}"
        )

    def _write(self, name: str, text: str) -> None:
        path = self.cluster.config / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")

    # --- being up -------------------------------------------------------------------------------------------

    def client(self) -> api.Api:
        return api.Api(self.forwarded(_API_FORWARD), self.credentials)

    def first_process(self) -> int | None:
        """The id of the node's PID 1, as this machine counts; None when it does not run."""
        wanted = str(self.cluster.config / "init.json").encode()
        return next((pid for pid in system.first_processes() if wanted in system.arguments(pid)), None)

    def running(self) -> bool:
        return self.first_process() is not None

    def programs(self) -> dict[str, dict[str, Any]]:
        """What the node's first process says of its programs; nothing before it has said anything."""
        try:
            said: dict[str, dict[str, Any]] = json.loads(
                self.cluster.programs_file.read_text(encoding="utf-8")
            )
        except (OSError, ValueError):
            return {}
        return said

    def _not_running(self) -> str:
        """A program that should run and does not; empty when all do."""
        said = self.programs()
        if not said:
            return "the node's first process has said nothing yet"
        for name, program in said.items():
            if program["state"] not in ("running", "done"):
                return f"{name} is {program['state']}"
        return ""

    def problem(self) -> str:
        """Why pods cannot run here; empty when they can."""
        if not self.running():
            return "the node is off"
        try:
            return self.client().problem(self.cluster.name) or self._not_running()
        except OSError as error:
            return f"its credentials cannot be read: {error.strerror}"

    def enter(self, *argv: str) -> tuple[str, ...]:
        """The same command, on the node: in its file system, processes and network.

        Raises: port.LabFailed when the node is off.
        """
        pid = self.first_process()
        if pid is None:
            raise port.LabFailed(f"the node of {self.cluster.name} is off")
        options = ("--mount", "--pid", "--uts", "--ipc", "--net")
        return ("nsenter", f"--target={pid}", *options, *argv)

    def run(self, *argv: str) -> str:
        """Run a command on the node. Raises: port.LabFailed with what it said."""
        return system.run(network.Command(self.enter(*argv)))

    def ctr(self, *argv: str) -> str:
        tools = json.loads((self.cluster.config / "init.json").read_text(encoding="utf-8"))
        directory = tools["environment"]["PATH"].split(":")[0]
        return self.run(
            f"{directory}/ctr", f"--address={files.CONTAINERD_SOCKET}", "--namespace=k8s.io", *argv
        )

    def load(self, archive_path: Path) -> None:
        """Import an image archive. It is brought in first: a node sees little of this machine.

        A second name for the file does, where both lie on one file system; an archive may have gigabytes.
        """

        def bring(target: Path) -> None:
            try:
                os.link(archive_path.resolve(strict=True), target)
            except OSError:
                shutil.copyfile(archive_path, target)

        self._import(archive_path.name, bring)

    def _import(self, name: str, bring: Callable[[Path], object]) -> None:
        target = self.cluster.imports / f"{threading.get_ident()}-{name}"
        try:
            bring(target)
            self.ctr("images", "import", "--no-unpack=false", str(target))
        finally:
            target.unlink(missing_ok=True)

    # --- ports ----------------------------------------------------------------------------------------------

    def forward(self, target_port: int, address: str, *, name: str | None = None) -> int:
        """A port of this machine that leads to the address as the node reaches it; always the same."""
        name = name or f"{address}-{target_port}"
        file = self.cluster.directory / "forwards" / name
        argv = (
            python(), "-I", "-S", str(self.lab.programs / "forward.py"),
            str(system.NETNS / self.cluster.netns), address, str(target_port),
        )  # fmt: skip
        before = "0"
        with contextlib.suppress(FileNotFoundError):
            before = file.read_text(encoding="utf-8")
            if any(
                system.arguments(pid)[: len(argv)] == [part.encode() for part in argv]
                for pid in system.pids()
            ):
                return int(before)
        file.unlink(missing_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        log = self.cluster.logs / f"forward-{name}.log"
        pid = system.spawn((*argv, before, str(file)), log=log, mark=self.cluster.lab)
        deadline = time.monotonic() + _FORWARD_SECONDS
        while not file.exists():
            if time.monotonic() > deadline or not system.alive(pid):
                raise port.LabFailed(
                    f"no port leads to {address}:{target_port} of {self.cluster.name}; see {log}"
                )
            time.sleep(0.02)
        return self.forwarded(name)

    def forwarded(self, name: str) -> int:
        return int((self.cluster.directory / "forwards" / name).read_text(encoding="utf-8"))


def pause_image(busybox: bytes) -> bytes:
    """What holds a pod's namespaces: a process that sleeps."""
    forever = str(2**31 - 1)
    return archive.docker_archive(
        files.PAUSE_IMAGE, {"bin/busybox": busybox}, entrypoint=("/bin/busybox", "sleep", forever)
    )
