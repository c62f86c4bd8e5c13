"""Processes of the peers: started in groups of their own, ended with everything that they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from simulations.bench.hanse import BenchError

_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.1


class Group:
    """Some processes that begin and end together; use it as a context."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        """Logs go to `directory`, one for each process."""
        self._directory = directory
        self._environment = dict(environment)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for process in self._processes.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
            deadline = time.monotonic() + _GRACE_SECONDS
            for process in self._processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start a process; what it says goes to NAME.log."""
        with (self._directory / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command,
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        """What a process has said so far."""
        return (self._directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def wait_until(
        self, condition: Callable[[], bool], what: str, timeout_seconds: float, *, may_end: Sequence[str] = ()
    ) -> None:
        """Wait until the condition holds.

        Raises: BenchError after the timeout, or when a process ends that must not.
        """
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            for name, process in self._processes.items():
                code = process.poll()
                if code is not None and (code or name not in may_end) and not condition():
                    last = self.said(name).strip().splitlines()[-1:] or [""]
                    raise BenchError(f"{what}: {name} ended with {code}: {last[0]}")
            if time.monotonic() > deadline:
                raise BenchError(f"{what}: not within {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)
