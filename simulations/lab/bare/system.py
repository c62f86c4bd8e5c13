"""What a bare lab asks of this machine: commands, processes, network namespaces, control groups. Thin, and
as root.

It decides nothing: plans come from `network` and `components`, and names from `layout`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from simulations.lab import port
from simulations.lab.bare import layout, network

NETNS = Path("/run/netns")
CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_GONE_SECONDS = 20.0


def on_a_disk(path: Path) -> bool:
    """Whether a path is on a disk, rather than on a file system that has no device."""
    return os.major(path.stat().st_dev) != 0


def run(command: network.Command, environment: Mapping[str, str] | None = None) -> str:
    """Run it and return what it printed.

    Raises: port.LabFailed with what it said.
    """
    try:
        done = subprocess.run(
            command.argv,
            input=command.standard_input,
            capture_output=True,
            text=True,
            check=False,
            env=None if environment is None else {**os.environ, **environment},
        )
    except OSError as error:
        raise port.LabFailed(f"{command.argv[0]} does not start: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise port.LabFailed(f"{' '.join(command.argv)} failed: {said[-1] if said else done.returncode}")
    return done.stdout


def spawn(argv: Sequence[str], *, log: Path, mark: str) -> int:
    """Start a process that outlives this one, known by `mark`; return its id."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={**os.environ, layout.MARK: mark},
        )
    # It is not ours to wait for: it goes on when this program ends.
    process.returncode = 0
    return process.pid


# --- processes ----------------------------------------------------------------------------------------------


def processes(lab: str, namespaces: Iterable[str]) -> set[int]:
    """This lab's processes: those with its mark, and whatever else is in its network namespaces."""
    inside = {inode for name in namespaces if (inode := _inode(NETNS / name)) is not None}
    wanted = f"{layout.MARK}={lab}".encode()
    found = set()
    for entry in _PROC.iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if _inode(entry / "ns/net") in inside or wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.add(int(entry.name))
    return found


def pids() -> list[int]:
    """Every process of this machine."""
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()]


def arguments(pid: int) -> list[bytes]:
    """The process's arguments; none when it is gone, or dead and not waited for."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Whether it runs."""
    return bool(arguments(pid))


def first_processes() -> Iterator[int]:
    """Processes that are PID 1 of a namespace of their own."""
    for pid in pids():
        with contextlib.suppress(OSError):
            status = (_PROC / str(pid) / "status").read_text()
            inner = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
            if len(inner) > 1 and inner[-1] == "1":
                yield pid


def kill_all(lab: str, namespaces: Sequence[str]) -> int:
    """End this lab's processes and wait until they are gone; return how many there were.

    Raises: port.LabFailed when one does not end.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _GONE_SECONDS
    while left := processes(lab, namespaces):
        if time.monotonic() > deadline:
            raise port.LabFailed(
                f"these processes of lab {lab} do not end: {' '.join(map(str, sorted(left)))}"
            )
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        killed |= left
        _reap(left)
        time.sleep(0.02)
    return len(killed)


def _reap(pids: Iterable[int]) -> None:
    """Wait for those that this very process had started."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def inotify_room(wanted: int) -> int:
    """How many inotify instances this user may make yet, counted up to `wanted`.

    They are made, and closed again: the kernel counts them for each user and shows the count nowhere.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    made: list[int] = []
    try:
        while len(made) < wanted and (descriptor := libc.inotify_init1(os.O_CLOEXEC)) >= 0:
            made.append(descriptor)
    finally:
        for descriptor in made:
            os.close(descriptor)
    return len(made)


def inotify_limit() -> int:
    """How many inotify instances a user may have."""
    return int((_PROC / "sys/fs/inotify/max_user_instances").read_text())


# --- network namespaces -------------------------------------------------------------------------------------


def namespaces(lab: str) -> list[str]:
    """This lab's network namespaces that there are, whether a plan knows of them or not."""
    if not NETNS.is_dir():
        return []
    return sorted(path.name for path in NETNS.iterdir() if path.name.startswith(layout.prefix(lab)))


def remove_namespaces(lab: str) -> int:
    """Remove them; links and rules in them go along."""
    found = namespaces(lab)
    for name in found:
        run(network.Command(("ip", "netns", "del", name)))
    # `ip netns` makes a mount of the directory when it is first used; nobody needs it once it is empty.
    if found and not any(NETNS.iterdir()):
        subprocess.run(["umount", str(NETNS)], capture_output=True, check=False)
        with contextlib.suppress(OSError):
            NETNS.rmdir()
    return len(found)


# --- control groups -----------------------------------------------------------------------------------------


def hierarchies() -> Iterator[Path]:
    """The roots of the control groups' hierarchies: one of version 2, or one for each controller.

    With one for each controller there may be one of version 2 beside them, without controllers: container
    runtimes make groups there as well.
    """
    if (CGROUPS / "cgroup.controllers").exists():
        yield CGROUPS
        return
    for path in sorted(CGROUPS.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield path


def make_cgroups(cluster: layout.Cluster) -> None:
    """The cluster's control group in every hierarchy; the kubelet wants to find it."""
    for root in hierarchies():
        directory = root
        if (root / "cgroup.controllers").exists():
            _delegate(directory)
        for name in cluster.cgroup.strip("/").split("/"):
            directory = directory / name
            directory.mkdir(exist_ok=True)
            if (root / "cgroup.controllers").exists():
                _delegate(directory)
            elif (directory / "cpuset.cpus").exists():
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (directory / setting).write_text((directory.parent / setting).read_text())
                (directory / "cgroup.clone_children").write_text("1")


def _delegate(directory: Path) -> None:
    for controller in (directory / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):  # one that does not exist per group, such as rdma in places
            (directory / "cgroup.subtree_control").write_text(f"+{controller}")


def remove_cgroups(path: str) -> int:
    """Remove this group, and those in it, from every hierarchy; return how many hierarchies had it."""
    count = 0
    for root in hierarchies():
        top = root / path.strip("/")
        if not top.is_dir():
            continue
        count += 1
        deadline = time.monotonic() + _GONE_SECONDS
        while top.is_dir():
            for directory, _, _ in os.walk(top, topdown=False):
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    # A process that was killed leaves its group a moment later.
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY) or time.monotonic() > deadline:
                        raise port.LabFailed(f"the control group {directory} cannot be removed") from error
            time.sleep(0.02)
    return count


def mounts_below(directory: Path) -> list[str]:
    """Mount points below this directory, as this process sees them."""
    prefix = f"{directory}/"
    found = [line.split()[4] for line in (_PROC / "self/mountinfo").read_text().splitlines()]
    return [path for path in found if path.startswith(prefix)]
