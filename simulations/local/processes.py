"""Starting and ending the processes of a simulation, and reading what they say.

Why it exists: the coordinator and each edge agent are children of the command; what they start hangs on
them by lifelines. Ending them in any way, Ctrl-C and SIGKILL included, ends everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from federation.runtime import failpoints

_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "SSL_CERT_FILE",
    failpoints.VARIABLE,
    "HANSE_SNAPSHOT_RULE",  # for tests: coordinator/aggregator/compaction.py
)  # fmt: skip
"""What children see of the user's environment. Settings of numerical libraries follow by prefix."""

_PASSED_ON_PREFIXES = ("OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "CUDA_", "NVIDIA_")


@dataclass
class Child:
    """One process that the simulation started itself."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def log_tail(self, lines: int = 12) -> list[str]:
        """The last lines of its log."""
        try:
            return self.log.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            return []

    def kill_group(self) -> None:
        """End it and everything in its process group at once, as a machine that loses power would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    async def stop(self, grace_seconds: float) -> None:
        """Ask it to end, and end it after the grace."""
        if not self.running:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(grace_seconds):
                await self.process.wait()
        except TimeoutError:
            self.kill_group()
            await self.process.wait()


def environment(name: str) -> dict[str, str]:
    """The environment of a child: a short list of the user's variables and the child's name."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key in _PASSED_ON or key.startswith(_PASSED_ON_PREFIXES)
    }
    return kept | {"HANSE_PROCESS": name, "FLWR_TELEMETRY_ENABLED": "0", "PYTHONUNBUFFERED": "1"}


async def start(
    name: str,
    module: str,
    config: Path,
    logs: Path,
    *,
    read_stdout: bool = False,
    extra: Mapping[str, str] | None = None,
) -> Child:
    """Start `python -m module --config config` in a process group of its own, with a lifeline as its stdin.

    Its standard error (and its standard output, unless that is to be read) goes to `logs/<name>.log`.

    extra: variables of its environment beside the usual ones.
    """
    log = logs / f"{name}.log"
    with log.open("ab") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            "--config",
            str(config),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE if read_stdout else stream,
            stderr=stream,
            env={**environment(name), **_import_path(), **(extra or {})},
            start_new_session=True,
            limit=16 * 1024 * 1024,
        )
    return Child(name, process, log)


_JANITOR = "; ".join(
    (
        "if read -r word; then exit 0; fi",
        "seconds=0",
        'remove() { chmod -R u+rwX -- "$1"; rm -rf -- "$1"; }',
        'while [ "$seconds" -lt 8 ]; do remove "$1"; sleep 1; seconds=$((seconds + 1)); done',
        'remove "$1"',
    )
)
"""Removes a directory when its standard input ends without a word. Processes that lose their lifeline may
write for some more seconds, so it removes again what comes back."""


@dataclass
class Janitor:
    """A shell that removes a directory of keys if this process dies without having done so."""

    process: asyncio.subprocess.Process

    @classmethod
    async def watch(cls, directory: Path) -> Janitor:
        """Begin to watch over a directory, out of reach of the terminal's Ctrl-C."""
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _JANITOR,
            "hanse-janitor",
            str(directory),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={key: value for key, value in environment("").items() if key != "HANSE_PROCESS"},
            start_new_session=True,
        )
        return cls(process)

    async def dismiss(self) -> None:
        """Send it home: the directory is gone already."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self.process.communicate(b"done\n")


def _import_path() -> Mapping[str, str]:
    """Children find the same packages as this process, from a checkout as well as installed."""
    root = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH", "")
    return {"PYTHONPATH": os.pathsep.join(part for part in (root, known) if part)}
