"""Local processes behind the runtime port: what a simulation uses where a cluster has Jobs.

Each workload gets a process group of its own, a private directory, a log file, an environment cut down to
a short list, and a lifeline: its stdin is a pipe whose other end stays here, so that it ends when this
process ends in whatever way. This module refuses to know what the programs do.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence

from federation.runtime import failpoints, port

INHERITED_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    failpoints.VARIABLE,
    "HANSE_SNAPSHOT_RULE",  # for tests: coordinator/aggregator/compaction.py
)
"""What a program needs to start and to compute as its parent would. Tokens and cloud keys stay out."""

LOG_TAIL_BYTES = 64 * 1024
"""At most so much of a log's end is read for its last lines, however long the log or a line is."""


@dataclasses.dataclass(slots=True)
class _Running:
    process: asyncio.subprocess.Process
    lifeline: int
    watcher: asyncio.Task[None] | None = None


class Processes:
    """The runtime port over local processes (see `port.Runtime`).

    Logs go to `logs_directory`/NAME.log, standard output and error together, appended at a restart.
    """

    def __init__(
        self,
        logs_directory: pathlib.Path,
        *,
        environment: Mapping[str, str] | None = None,
        inherited: Sequence[str] = INHERITED_ENVIRONMENT,
    ) -> None:
        """Keep where logs go; `environment` is what `inherited` picks from, by default this process's own."""
        source = os.environ if environment is None else environment
        self._logs_directory = logs_directory
        self._environment = {name: source[name] for name in inherited if name in source}
        self._running: dict[str, _Running] = {}
        self._starting: set[str] = set()
        self._events: asyncio.Queue[port.WorkloadEvent | None] = asyncio.Queue()
        self._closed = False

    @property
    def durable(self) -> bool:
        """Processes end with the process that started them."""
        return False

    async def start(self, workload: port.Workload) -> None:
        """Start `workload` as a process (see `port.Runtime.start`)."""
        self._check_open(workload)
        if workload.name in self._running or workload.name in self._starting:
            raise port.WorkloadExists(workload.name)
        self._starting.add(workload.name)
        try:
            running = await self._spawn(workload)
        except (OSError, ValueError) as error:
            raise port.WorkloadNotStarted(workload.name, str(error)) from error
        finally:
            self._starting.discard(workload.name)
        self._running[workload.name] = running
        self._events.put_nowait(port.Started(workload.name, str(running.process.pid)))
        running.watcher = asyncio.create_task(self._watch(workload.name, running))
        try:
            self._check_open(workload)  # close() may have come while the process was being made
        except port.RuntimeClosed:
            await self.stop(workload.name, 0)
            raise

    async def stop(self, name: str, grace_seconds: float) -> None:
        """Send SIGTERM to the process group, SIGKILL after `grace_seconds` (see `port.Runtime.stop`)."""
        running = self._running.get(name)
        if running is None or running.watcher is None:
            return
        _signal_group(running.process.pid, signal.SIGTERM)
        done, _ = await asyncio.wait({running.watcher}, timeout=grace_seconds)
        if not done:
            _signal_group(running.process.pid, signal.SIGKILL)
            await asyncio.wait({running.watcher})

    async def list(self) -> tuple[port.RunningWorkload, ...]:
        """Return what runs now, by name; the handle is the process id."""
        return tuple(
            port.RunningWorkload(name, str(running.process.pid))
            for name, running in sorted(self._running.items())
        )

    async def events(self) -> AsyncIterator[port.WorkloadEvent]:
        """Yield what happened, in order, until the runtime is closed."""
        while True:
            event = await self._events.get()
            if event is None:
                self._events.put_nowait(None)  # a later reader ends too
                return
            yield event

    async def refresh(self, name: str, directory: pathlib.PurePath, files: Mapping[str, bytes]) -> None:
        """Do nothing: processes read files where whoever renews them has written them."""

    async def close(self, grace_seconds: float) -> None:
        """End every process and wait until each is gone."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(self.stop(name, grace_seconds) for name in sorted(self._running)))
        self._events.put_nowait(None)

    def log_path(self, name: str) -> pathlib.Path:
        """Return where the workload's output goes."""
        return self._logs_directory / f"{name}.log"

    def _check_open(self, workload: port.Workload) -> None:
        if self._closed:
            raise port.RuntimeClosed(f"workload {workload.name}: the runtime is closed")

    async def _spawn(self, workload: port.Workload) -> _Running:
        log = await asyncio.to_thread(self._prepare, workload)
        child_end, lifeline = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *workload.argv,
                stdin=child_end,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=workload.directory,
                env={**self._environment, **workload.environment},
                start_new_session=True,
            )
        except BaseException:
            os.close(lifeline)
            raise
        finally:
            os.close(child_end)
            os.close(log)
        return _Running(process, lifeline)

    def _prepare(self, workload: port.Workload) -> int:
        directory = pathlib.Path(workload.directory)
        make_private_directory(directory)
        for name, content in workload.files.items():
            write_private_file(directory / name, content)
        make_private_directory(self._logs_directory)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self.log_path(workload.name), flags, 0o600)

    async def _watch(self, name: str, running: _Running) -> None:
        status = await running.process.wait()
        # The leader is gone; a child that it left behind still holds the group and goes with it. An empty
        # group is no error, and its number cannot have been given away within this moment.
        _signal_group(running.process.pid, signal.SIGKILL)
        os.close(running.lifeline)
        tail = await asyncio.to_thread(read_tail, self.log_path(name), port.LOG_TAIL_LINES)
        self._running.pop(name, None)
        if status < 0:
            self._events.put_nowait(port.Exited(name, None, _signal_name(-status), tail))
        else:
            self._events.put_nowait(port.Exited(name, status, None, tail))


def make_private_directory(path: pathlib.Path) -> None:
    """Make `path` and what is missing above it, readable by this user only; an existing one is narrowed."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def remove_tree(path: pathlib.Path) -> None:
    """Remove `path` and all below it, also from directories without write permission; it need not be there.

    Links are removed, never followed.
    """
    for parent, names, _ in os.walk(path):
        for place in (pathlib.Path(parent), *(pathlib.Path(parent, name) for name in names)):
            if not place.is_symlink():
                with contextlib.suppress(OSError):
                    place.chmod(0o700)
    shutil.rmtree(path, ignore_errors=True)


def write_private_file(path: pathlib.Path, content: bytes) -> None:
    """Write `content` so that no other user could read it at any moment and no half file is ever seen."""
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    partial.replace(path)


def read_tail(path: pathlib.Path, lines: int) -> tuple[str, ...]:
    """Return the file's last `lines` lines, reading at most LOG_TAIL_BYTES; none if it is missing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL_BYTES))
            content = file.read(LOG_TAIL_BYTES)
    except FileNotFoundError:
        return ()
    return tuple(content.decode("utf-8", "replace").splitlines()[-lines:])


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"
