"""The first process of a cluster's node: builds the node's file system, starts its programs, keeps them
running.

Why it exists: a node needs a process that is PID 1 of its own namespaces, so that killing one process ends
the node
with all its pods, mounts and namespaces. It refuses to know of Kubernetes: it runs the plan that it is
handed.

It is started in fresh mount, pid, uts and ipc namespaces, inside the cluster's network namespace:
    python -I -S init.py PLAN.json
Standard library only; the plan comes from `components.init_plan`.

Signs that a program can wait for: `tcp:HOST:PORT` answers, `unix:PATH` accepts, `https:HOST:PORT/PATH` says
200, `done:NAME` has ended well.
"""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 1, 32, 4096, 16384, 1 << 18, 1 << 20
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

# Of the machine the node sees its programs and settings, read-only, and the kernel's devices. All else is
# its own.
PROGRAMS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc")
KERNEL = ("dev", "sys")
OWN = {
    "var/lib": 0o755,
    "var/lib/etcd": 0o700,
    "var/log": 0o755,
    "var/tmp": 0o1777,
    "tmp": 0o1777,
    "root": 0o700,
}
EMPTY = ("srv", "mnt", "opt", "home", "run", "proc")

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Become the node, and keep its programs running until killed."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    enter(Path(plan["root"]), plan["visible"])
    socket.sethostname(plan["hostname"])
    for name, value in plan["sysctls"].items():
        Path("/proc/sys", name).write_text(value, encoding="utf-8")
    for directory in plan["directories"]:
        Path(directory).mkdir(parents=True, exist_ok=True)
    for source, target in plan["copies"]:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    Supervisor(plan).run()


# --- the node's file system ---------------------------------------------------------------------------------


def enter(root: Path, visible: list[list[Any]]) -> None:
    """Make `root` this process's `/`, with the machine's programs in it; nothing is written outside."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    root.mkdir(parents=True, exist_ok=True)
    bind(root, root)
    for name in PROGRAMS:
        source = Path("/", name)
        if source.is_symlink():
            link = root / name
            if not link.is_symlink():
                link.symlink_to(source.readlink())
        elif source.is_dir():
            bind(source, root / name, recursive=True, writable=False)
    for name in KERNEL:
        bind(Path("/", name), root / name, recursive=True)
    for name, mode in OWN.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    for name in EMPTY:
        (root / name).mkdir(exist_ok=True)
    mount("proc", str(root / "proc"), "proc")
    mount("tmpfs", str(root / "run"), "tmpfs", data="mode=755")
    (root / "run/lock").mkdir()
    for name in ("run", "lock"):
        link = root / "var" / name
        if not link.is_symlink():
            link.symlink_to("/run" if name == "run" else "/run/lock")
    for path, writable in visible:
        if Path(path).parts[1] not in PROGRAMS:
            bind(Path(path), Path(f"{root}{path}"), writable=writable)
    os.chdir(root)
    if _libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"."):
        raise _error("pivot_root")
    # With it go the copies of every other mount of the machine, other labs' namespaces among them.
    if _libc.umount2(b".", MNT_DETACH):
        raise _error("umount")
    os.chdir("/")
    mount("none", "/", flags=MS_REC | MS_SHARED)  # the kubelet hands mounts on to containers


def bind(source: Path, target: Path, *, recursive: bool = False, writable: bool = True) -> None:
    """Show a directory in a second place."""
    target.mkdir(parents=True, exist_ok=True)
    mount(str(source), str(target), flags=MS_BIND | (MS_REC if recursive else 0))
    if not writable:
        mount("none", str(target), flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def mount(source: str, target: str, kind: str = "none", *, flags: int = 0, data: str = "") -> None:
    """Ask the kernel for a mount. Raises: OSError."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()):
        raise _error(f"mount {source} on {target}")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


# --- the node's programs ------------------------------------------------------------------------------------


class Running:
    """One program of the plan, and what became of it."""

    def __init__(self, program: dict[str, Any]) -> None:
        self.name: str = program["name"]
        self.program = program
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "waiting"
        self.exit: int | None = None
        self.starts = 0
        self.started_at = 0.0
        self.not_before = 0.0
        self.pause = 0.0


class Supervisor:
    """Starts programs when their signs are there, again when they end, and reaps what is left to PID 1."""

    POLL_SECONDS = 0.15
    LONGEST_PAUSE_SECONDS = 4.0
    STEADY_SECONDS = 20.0  # who ran so long starts again at once

    def __init__(self, plan: dict[str, Any]) -> None:
        self._programs = [Running(program) for program in plan["programs"]]
        self._environment = {**plan["environment"], **plan["mark"]}
        self._logs = Path(plan["logs"])
        self._report = Path(plan["report"])
        self._said = ""

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, lambda *_: None)  # so that it interrupts the sleep below
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        while True:
            self._reap()
            seen: dict[str, bool] = {}
            for running in self._programs:
                if running.process is None and running.state != "done":
                    self._start_when_ready(running, seen)
            self._say()
            signal.sigtimedwait([], self.POLL_SECONDS)

    def _start_when_ready(self, running: Running, seen: dict[str, bool]) -> None:
        if time.monotonic() < running.not_before:
            return
        for sign in running.program["after"]:
            if sign not in seen:
                seen[sign] = self._there(sign)
            if not seen[sign]:
                return
        with (self._logs / f"{running.name}.log").open("ab") as log:
            running.process = subprocess.Popen(
                running.program["argv"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**self._environment, **running.program["environment"]},
                start_new_session=True,
            )
        running.state = "running"
        running.starts += 1
        running.started_at = time.monotonic()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for running in self._programs:
                if running.process is not None and running.process.pid == pid:
                    self._ended(running, os.waitstatus_to_exitcode(status))

    def _ended(self, running: Running, code: int) -> None:
        assert running.process is not None
        running.process.returncode = code  # it was waited for here, behind the object's back
        running.process = None
        running.exit = code
        now = time.monotonic()
        if running.program["once"] and code == 0:
            running.state = "done"
            return
        running.state = "ended"
        steady = now - running.started_at > self.STEADY_SECONDS
        running.pause = 0.3 if steady else min(max(0.3, running.pause * 2), self.LONGEST_PAUSE_SECONDS)
        running.not_before = now + running.pause

    def _there(self, sign: str) -> bool:
        kind, _, rest = sign.partition(":")
        if kind == "done":
            return any(running.name == rest and running.state == "done" for running in self._programs)
        try:
            if kind == "unix":
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(1)
                    client.connect(rest)
                return True
            address, _, path = rest.partition("/")
            host, _, number = address.rpartition(":")
            if kind == "tcp":
                socket.create_connection((host, int(number)), timeout=1).close()
                return True
            return says_ok(host, int(number), f"/{path}")
        except (OSError, http.client.HTTPException):
            return False

    def _say(self) -> None:
        """Write down what became of each program, when it changed."""
        report = json.dumps(
            {
                running.name: {
                    "state": running.state,
                    "starts": running.starts,
                    "exit": running.exit,
                    "pid": running.process.pid if running.process else None,
                }
                for running in self._programs
            }
        )
        if report != self._said:
            part = self._report.with_suffix(".part")
            part.write_text(report, encoding="utf-8")
            part.replace(self._report)
            self._said = report


def says_ok(host: str, port: int, path: str) -> bool:
    """Whether this address of the node's own API server says 200; nobody else can listen there."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=2, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    finally:
        connection.close()


if __name__ == "__main__":
    main()
