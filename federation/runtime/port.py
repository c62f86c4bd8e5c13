"""The port behind which workloads run: local processes in a simulation, Kubernetes Jobs in a cluster.

Coordinator and edge agent say what should run and hear what became of it. This module refuses to know
how: it has no processes, no pods, no clock. An implementation joins by passing
tests/contract/test_runtime.py.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import AsyncIterator, Mapping
from typing import Protocol

MAXIMUM_NAME_LENGTH = 63
"""A workload's name becomes a Job's name and a label's value; both end at 63 characters."""

LOG_TAIL_LINES = 20
"""So many last lines travel with `Exited`: a Python traceback's end and what led to it."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]*")


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
class Workload:
    """One thing to run to its end.

    name:         unique in its runtime; lower-case letters, digits and dashes, at most 63.
    argv:         the program and its arguments; relative file names are looked up in `directory`.
    environment:  what the program sees besides the runtime's own short allow-list.
    files:        plain file names and their bytes, written into `directory`, readable by the workload only.
    directory:    absolute; private to this workload, and its working directory.
    image:        what a container runtime would run; local processes ignore it.

    Raises: InvalidWorkload when a field breaks these rules.
    """

    name: str
    argv: tuple[str, ...]
    directory: pathlib.PurePath
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    resources: Resources = dataclasses.field(default_factory=Resources)
    image: str = ""

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
class Exited:
    """The workload ended, and nothing of it is left.

    exit_code: its exit status, or None when a signal ended it.
    signal:    the signal's name (SIGKILL), or None.
    log_tail:  the last lines of its output, at most LOG_TAIL_LINES.
    """

    name: str
    exit_code: int | None
    signal: str | None
    log_tail: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.exit_code == 0


WorkloadEvent = Started | Exited


class Runtime(Protocol):
    """Where workloads run.

    Laws: every `Started` is followed by exactly one `Exited` of that name before another `Started` of it;
    after `stop` returns, or after `Exited`, nothing of the workload is left, its own children included;
    after `close` nothing that this runtime started is left, and `events` ends.
    """

    async def start(self, workload: Workload) -> None:
        """Start `workload`.

        Raises: WorkloadExists, WorkloadNotStarted, RuntimeClosed.
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

    async def close(self, grace_seconds: float) -> None:
        """End everything that runs here."""
        ...
