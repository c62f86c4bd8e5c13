"""Running the commands that a person would type: `kubectl` and `hanse`, against one cluster.

Why it exists: a simulation on clusters proves what README says only if it does what README says. So nothing
is installed, joined or fetched through a back door. This module refuses to know which commands are needed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from simulations.local.errors import SimulationFailed

SAID_LINES = 3


async def run(
    argv: Sequence[str],
    kubeconfig: Path,
    *,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    title: str = "",
) -> str:
    """Run a command against the cluster of a kubeconfig to its end, and return what it printed.

    title: what people should read instead of the command, if it fails.
    Raises: SimulationFailed with the command's last words. A cancelled command is ended.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {}), "KUBECONFIG": str(kubeconfig)},
        start_new_session=True,  # Ctrl-C is for the simulation, which ends its commands itself
    )
    try:
        out, error = await process.communicate(None if stdin is None else stdin.encode())
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if process.returncode:
        said = (
            error.decode(errors="replace").strip().splitlines() or out.decode(errors="replace").splitlines()
        )
        last = "; ".join(line.strip() for line in said[-SAID_LINES:]) or f"exit status {process.returncode}"
        raise SimulationFailed(f"{title or ' '.join(argv[:3])}: {last}")
    return out.decode(errors="replace")


async def hanse(*arguments: str, kubeconfig: Path, title: str = "") -> str:
    """Run `hanse` as this Python has it (see `run`)."""
    argv = (sys.executable, "-m", "coordinator.cli.main", *arguments)
    return await run(argv, kubeconfig, title=title or f"hanse {' '.join(arguments[:2])}")
