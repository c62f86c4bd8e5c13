"""`hanse simulate` as a subprocess in a place of its own, and what it leaves there.

Every run has a temporary directory (TMPDIR) that nothing else has. All processes of the run inherit it, so it
finds them, whoever their parent is by then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 120.0
"""No run of these tests takes half as long on two busy cores; one that does hangs."""

GONE_SECONDS = 60.0
"""How long processes may take to end after the command was killed and could end nothing itself."""


class Run:
    """One `hanse ...` command, started; its output goes to files below its place."""

    def __init__(self, place: Path, *arguments: object, environment: dict[str, str] | None = None) -> None:
        """Start it. `place` is an existing empty directory: the working directory, with tmp/ as TMPDIR."""
        self.place = place
        self.temporary = place / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.arguments = [str(argument) for argument in arguments]
        self.listened: set[int] = set()
        self.addresses: set[str] = set()
        with (place / "stdout").open("wb") as out, (place / "stderr").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "coordinator.cli.main", *self.arguments],
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "TMPDIR": str(self.temporary), "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
                | (environment or {}),
                start_new_session=True,
            )

    # -- while it runs -----------------------------------------------------------------------------

    def until(self, happened: Callable[[], object], what: str, seconds: float = LIMIT_SECONDS) -> None:
        """Wait until `happened` is true; the run must not end before."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"the run ended before {what}\n{self.told()}"
            assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{self.told()}"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone, as `kill` does."""
        self.process.send_signal(number)

    def wait(self, seconds: float = LIMIT_SECONDS) -> int:
        """The exit code; a run that does not end is killed and fails the test."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"the run hangs\n{self.told()}") from None

    def end(self) -> None:
        """Kill whatever is left of it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- what it said ------------------------------------------------------------------------------

    @property
    def stdout(self) -> str:
        return (self.place / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.place / "stderr").read_text()

    @property
    def report(self) -> dict[str, Any]:
        """The one object of `-o json`."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    def cluster(self, name: str) -> dict[str, Any]:
        """What the report says of one edge."""
        return next(entry for entry in self.report["clusters"] if entry["name"] == name)

    def told(self) -> str:
        """Everything that helps to understand a failed test."""
        parts = [
            f"hanse {' '.join(self.arguments)}",
            "--- stdout",
            self.stdout[-4000:],
            "--- stderr",
            self.stderr[-4000:],
        ]
        for log in sorted(self.place.rglob("*.log")):
            parts += [f"--- {log.name}", log.read_text(errors="replace")[-1500:]]
        return "\n".join(parts)

    # -- what it is, and what it left --------------------------------------------------------------

    def processes(self) -> dict[int, list[str]]:
        """The living processes of the run, but for the command itself: their arguments, by process id."""
        tag = f"TMPDIR={self.temporary}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            with contextlib.suppress(OSError):
                if tag in (entry / "environ").read_bytes().split(b"\0") and not _is_zombie(entry):
                    arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    found[int(entry.name)] = arguments
        return found

    def listening(self) -> set[int]:
        """The TCP ports on which processes of the run listen now; they are remembered for `left_behind`."""
        inodes = set()
        for pid in (*self.processes(), self.process.pid):
            with contextlib.suppress(OSError):
                for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        inodes.add(str(descriptor.readlink()))
        found = {(port, address) for port, inode, address in _listeners() if f"socket:[{inode}]" in inodes}
        self.listened |= {port for port, _ in found}
        self.addresses |= {address for _, address in found}
        return {port for port, _ in found}

    def left_behind(self) -> list[str]:
        """Processes, sockets and temporary files that are still there."""
        left = [f"process {pid}: {' '.join(arguments)}" for pid, arguments in self.processes().items()]
        open_ports = {port for port, _, _ in _listeners()}
        left += [f"port {port} is listened on" for port in sorted(self.listened & open_ports)]
        with contextlib.suppress(FileNotFoundError):  # what goes while one looks is not left
            left += [f"file {path}" for path in self.temporary.rglob("*")]
        return left

    def assert_nothing_left(self, seconds: float = 0.0, *, files: bool = True) -> None:
        """Fail if anything of the run is left after at most so many seconds."""
        deadline = time.monotonic() + seconds
        while left := [line for line in self.left_behind() if files or not line.startswith("file ")]:
            assert time.monotonic() < deadline, "left behind:\n" + "\n".join(left)
            time.sleep(0.05)

    def key_files(self) -> Iterator[Path]:
        """Every private key below the run's place, whatever it is called."""
        for path in self.place.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and b"PRIVATE KEY" in path.read_bytes():
                    yield path


def simulate(
    place: Path,
    *arguments: object,
    seconds: float = LIMIT_SECONDS,
    environment: dict[str, str] | None = None,
) -> Run:
    """Run `hanse simulate ... -o json` to its end."""
    run = Run(place, "simulate", *arguments, "-o", "json", environment=environment)
    try:
        run.wait(seconds)
    finally:
        run.end()
    return run


def mode(path: Path) -> int:
    """The permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


def _is_zombie(entry: Path) -> bool:
    return (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _listeners() -> Iterator[tuple[int, int, str]]:
    """Port, inode and address (as the kernel writes it) of every listening TCP socket of this machine."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    address, _, port = fields[1].rpartition(":")
                    yield int(port, 16), int(fields[9]), address
