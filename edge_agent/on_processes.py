"""An agent of a simulation: clients are local processes that end with it, the owner's objects are files.

This module refuses to decide; it wires.
"""

from __future__ import annotations

import asyncio
import os
import pathlib
import sys

from edge_agent import config as configs
from edge_agent import membership, process_site, resources, workloads
from federation.runtime import processes, tasks


async def run(config: configs.AgentConfig, stop: asyncio.Event) -> None:
    """Run until `stop`, then end the clients.

    Raises: credentials.NotEnrolled; link.SentAway.
    """
    assert config.resource_directory is not None
    places = workloads.Places(config.state_directory.absolute())
    await asyncio.to_thread(processes.make_private_directory, places.state_directory)
    runtime = processes.Processes(places.logs)
    directory = resources.Directory(config.resource_directory)
    # The first reading takes as long as joining; the two may as well go on together.
    reading = asyncio.create_task(asyncio.to_thread(directory.read))
    site = process_site.ProcessSite(
        cluster=config.cluster,
        places=places,
        runtime=runtime,
        directory=directory,
        log_directory=places.logs,
        python=sys.executable,
        environment=_environment(),
        log_level=config.log_level,
    )
    try:
        # Its session ends before the clients do: that they end with their agent is no news of theirs.
        await tasks.together(_take_part(config, site, places, reading), stop.wait())
    finally:
        await runtime.close(config.stop_grace_seconds)
        await asyncio.to_thread(processes.remove_tree, places.data)  # copies of data do not stay


async def _take_part(
    config: configs.AgentConfig,
    site: process_site.ProcessSite,
    places: workloads.Places,
    reading: asyncio.Task[resources.Resources],
) -> None:
    try:
        await membership.take_part(config, site, places.identity)
    finally:
        await asyncio.wait({reading})


def _environment() -> dict[str, str]:
    """Let clients import the same Hanse as this process, installed or not."""
    root = str(pathlib.Path(__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
