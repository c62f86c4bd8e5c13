"""The port behind which workloads run: local processes in a simulation, Kubernetes Jobs in a cluster.

Coordinator and edge agent say what should run and hear what became of it. This module refuses to know
how: it has no processes, no pods, no clock. An implementation joins by passing
tests/contract/test_runtime.py.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

MAXIMUM_NAME_LENGTH = 63
"""A workload's name becomes a Job's name and a label's value; both end at 63 characters."""

MAXIMUM_BLOB_BYTES = 24 * 1024 * 1024
"""A blob lies in the cluster's own database, in parts below 1 MiB; what is larger belongs into an image."""

TERMINATION_LOG = pathlib.PurePosixPath("/dev/termination-log")
"""Where a container leaves its `last_words` for `Exited`; local processes have no such place."""

LOG_TAIL_LINES = 20
"""So many last lines travel with `Exited`: a Python traceback's end and what led to it."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]*")


def last_words(reason: str, message: str) -> str:
    """Return what a workload leaves in its TERMINATION_LOG to say why it ended: `Exited` has both again."""
    return json.dumps({"reason": reason, "message": message})


class RuntimeFailure(Exception):
    """What a runtime could not do; the base of this boundary's errors."""


class InvalidWorkload(RuntimeFailure):
    """The workload's description breaks a rule of the port."""


class WorkloadExists(RuntimeFailure):
    """A workload of this name runs already."""

    def __init__(self, name: str) -> None:
        """Name the workload."""
        super().__init__(f"workload {name}: one of this name runs already, stop it first")
        self.name = name


class WorkloadNotStarted(RuntimeFailure):
    """The workload could not be started; nothing of it runs."""

    def __init__(self, name: str, cause: str) -> None:
        """Name the workload and say why."""
        super().__init__(f"workload {name}: not started: {cause}")
        self.name = name
        self.cause = cause


class RuntimeAway(RuntimeFailure):
    """What runs the workloads did not answer: this one is not started, or not yet; to be started again."""


class RuntimeClosed(RuntimeFailure):
    """The runtime was closed; it starts nothing more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Resources:
    """What a workload asks for and may use, as Kubernetes quantities by resource name.

    Local processes record them and enforce nothing.
    """

    requests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Mount:
    """A volume that a container sees. `source` is a Kubernetes volume source without a name, such as
    {"configMap": {"name": "zurich-heart-disease"}}; `sub_path` the directory of it that is seen, empty for
    all.
    """

    path: pathlib.PurePath
    source: Mapping[str, Any]
    read_only: bool = True
    sub_path: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Destination:
    """An address that a container may connect to: one IP address and one TCP port."""

    ip: str
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class PodDestination:
    """Pods that a container may connect to, whatever their addresses become: those of a namespace with these
    labels, at one TCP port. Also what a Service leads to, since policies look behind its address.
    """

    namespace: str
    labels: Mapping[str, str]
    port: int


@dataclasses.dataclass(frozen=True, slots=True)
class Pod:
    """What only a container runtime needs to know of a workload.

    namespace:           where its objects live.
    labels, annotations: put on every object of it.
    mounts:              volumes besides `files`, `secret_directories` and `blobs`.
    secret_directories:  directories of small files, each a Secret, mounted read-only; `refresh` changes them.
    blobs:               bytes of any size up to MAXIMUM_BLOB_BYTES, mounted as a directory of parts at that
                         path; joined in the order of their names the parts are the bytes.
    egress:              all that it may connect to; None leaves it unrestricted.
    ingress_port:        the one port that others in the cluster may connect to; None for none.
    host_names:          names that it must resolve without DNS, with their addresses.
    service_account:     empty for one that may do nothing; no token is mounted either way.
    node_selector:       which nodes it may run on.
    restarts_in_place:   how often a program that somebody killed (SIGKILL) starts again in the same pod, with
                         what its volumes hold; one that ran out of memory or ended by itself does not.
    """

    namespace: str = "default"
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    annotations: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    secret_directories: Mapping[pathlib.PurePath, Mapping[str, bytes]] = dataclasses.field(
        default_factory=dict
    )
    blobs: Mapping[pathlib.PurePath, bytes] = dataclasses.field(default_factory=dict)
    egress: tuple[Destination | PodDestination, ...] | None = None
    ingress_port: int | None = None
    host_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    service_account: str = ""
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    restarts_in_place: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Workload:
    """One thing to run to its end.

    name:         unique in its runtime; lower-case letters, digits and dashes, at most 63.
    argv:         the program and its arguments; relative file names are looked up in `directory`.
    environment:  what the program sees besides the runtime's own short allow-list.
    files:        plain file names and their bytes, written into `directory`, readable by the workload only.
    directory:    absolute; private to this workload, and its working directory.
    image:        what a container runtime would run; local processes ignore it.
    pod:          what only a container runtime needs; local processes ignore it. In a container `files` are
                  mounted at `directory`, read-only; places to write to are among `pod.mounts`.

    Raises: InvalidWorkload when a field breaks these rules.
    """

    name: str
    argv: tuple[str, ...]
    directory: pathlib.PurePath
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    resources: Resources = dataclasses.field(default_factory=Resources)
    image: str = ""
    pod: Pod = dataclasses.field(default_factory=Pod)

    def __post_init__(self) -> None:
        """Check the rules that every runtime relies on."""
        if len(self.name) > MAXIMUM_NAME_LENGTH or not _NAME.fullmatch(self.name):
            raise InvalidWorkload(
                f"workload {self.name!r}: want 1 to {MAXIMUM_NAME_LENGTH} of a-z, 0-9 and -"
            )
        if not self.argv:
            raise InvalidWorkload(f"workload {self.name}: argv is empty")
        if not self.directory.is_absolute():
            raise InvalidWorkload(f"workload {self.name}: directory {self.directory} is not absolute")
        for file_name in self.files:
            if not _FILE_NAME.fullmatch(file_name):
                raise InvalidWorkload(f"workload {self.name}: {file_name!r} is not a plain file name")


@dataclasses.dataclass(frozen=True, slots=True)
class RunningWorkload:
    """One workload that runs now; `handle` is the runtime's own name for it (a process id, a pod's name)."""

    name: str
    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class Started:
    """The workload runs."""

    name: str
    handle: str


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
    """The workload was accepted and cannot run yet: no node has room, its image does not come.

    reason:  CamelCase: Unschedulable, ImageNotPulled, VolumeNotMounted, NotAdmitted.
    message: one sentence for people, with the next step.
    """

    name: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class Exited:
    """The workload ended, and nothing of it is left.

    exit_code: its exit status, or None when a signal ended it.
    signal:    the signal's name (SIGKILL), or None.
    log_tail:  the last lines of its output, at most LOG_TAIL_LINES.
    reason:    CamelCase, why it ended if that is more than its exit status says: OutOfMemory, Evicted,
               NodeLost, or what the workload itself left as its last words; else empty.
    message:   one sentence for people, with the next step; empty without a reason.
    last_words: all that the workload left as its last words, as it left them; at most 4096 bytes.
    disrupted: whether what runs it ended it (a drained node, say, or somebody who deleted its pod), without
               being asked to by `stop` and without any fault of the workload.
    """

    name: str
    exit_code: int | None
    signal: str | None
    log_tail: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""
    last_words: str = ""
    disrupted: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.exit_code == 0


WorkloadEvent = Started | Waiting | Exited


class Runtime(Protocol):
    """Where workloads run.

    Laws: every `Started` is followed by exactly one `Exited` of that name before another `Started` of it;
    `Waiting` comes only before `Started` or `Exited`; after `stop` returns, or after `Exited`, nothing of the
    workload is left, its own children included; after `close`, `events` ends, and of a runtime that is not
    `durable` nothing that it started is left.

    A durable runtime's workloads outlive the process that started them. When its `events` begin, what already
    runs is told as `Started`, and `start` of a name that runs raises WorkloadExists: the caller takes it over
    then.
    """

    @property
    def durable(self) -> bool:
        """Whether workloads go on when this process ends."""
        ...

    async def start(self, workload: Workload) -> None:
        """Start `workload`.

        Raises: WorkloadExists, WorkloadNotStarted, RuntimeAway, RuntimeClosed.
        """
        ...

    async def stop(self, name: str, grace_seconds: float) -> None:
        """Ask the workload to end, end it by force after `grace_seconds`, return when it is gone.

        A name that does not run is no error: the wish is already true.
        """
        ...

    async def list(self) -> tuple[RunningWorkload, ...]:
        """Return what runs now, by name."""
        ...

    def events(self) -> AsyncIterator[WorkloadEvent]:
        """Yield what happened, in order, from the first start on; one reader at a time.

        What was not read yet is kept for the reader; at most two events wait for each start.
        """
        ...

    async def refresh(self, name: str, directory: pathlib.PurePath, files: Mapping[str, bytes]) -> None:
        """Replace the files of one of a running workload's `secret_directories`; it sees them within minutes.

        A name that does not run is no error.
        """
        ...

    async def close(self, grace_seconds: float) -> None:
        """Stop watching; if not `durable`, end everything that runs here."""
        ...
