"""Where a lab keeps what it must not forget: one directory per lab, with a record that is written before
anything is made.

Why it exists: `down` must clean up after an `up` that was killed anywhere. It refuses to know what providers
make.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from simulations.lab import port

_RECORD = "lab.json"


def home(variables: Mapping[str, str] = os.environ) -> Path:
    """The directory of all labs of this user."""
    base = variables.get("XDG_STATE_HOME") or str(
        Path(variables.get("HOME") or "~").expanduser() / ".local/state"
    )
    return Path(base) / "hanse" / "lab"


class State:
    """One lab's directory."""

    def __init__(self, name: str, directory: Path | None = None) -> None:
        self.name = name
        self.directory = (directory or home()) / name

    def read(self) -> tuple[port.Plan, port.Provider, port.Phase] | None:
        """The record; None when there is none, or none that can be read."""
        try:
            record = json.loads((self.directory / _RECORD).read_text(encoding="utf-8"))
            plan = port.Plan(self.name, tuple(record["edges"]), record["kubernetes"])
            return plan, port.Provider(record["provider"]), port.Phase(record["phase"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def check(self, plan: port.Plan, provider: port.Provider) -> port.Phase | None:
        """Return the phase of the lab that is there; None for none.

        Raises: port.LabError if it is another provider's, or up with other edges or another Kubernetes.
        """
        found = self.read()
        if found is None:
            return None
        there, whose, phase = found
        if whose is not provider:
            raise port.LabError(
                f"lab {self.name} is of the provider {whose}; take it down first (`hanse lab down`)"
            )
        if phase is port.Phase.UP and there != plan:
            raise port.LabError(
                f"lab {self.name} is there with the edges {' '.join(there.edges)} and Kubernetes "
                f"{there.kubernetes}; take it down first (`hanse lab down`), or take another --name"
            )
        return phase

    def write(self, plan: port.Plan, provider: port.Provider, phase: port.Phase) -> None:
        record: dict[str, Any] = {
            "provider": provider,
            "phase": phase,
            "edges": list(plan.edges),
            "kubernetes": plan.kubernetes,
        }
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = self.directory / f"{_RECORD}.part"
        part.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        part.replace(self.directory / _RECORD)

    def remove(self) -> bool:
        """Forget the lab; False when there was nothing."""
        if not self.directory.exists():
            return False
        shutil.rmtree(self.directory)
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lab for `up` or `down`; the lock goes with the process that holds it.

        Raises: port.LabError when another process holds it.
        """
        parent = self.directory.parent
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = parent / f".{self.name}.lock"
        with file.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = file.exists() and file.stat().st_ino == os.fstat(handle.fileno()).st_ino
            except BlockingIOError:
                held = False
            if not held:
                raise port.LabError(f"another `hanse lab` works on lab {self.name}; wait until it has ended")
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
