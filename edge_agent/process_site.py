"""The edge of a simulation: clients are processes, the owner's objects files, all on the agent's own disk.

This module refuses to know Kubernetes.
"""

from __future__ import annotations

import asyncio
import pathlib
import secrets
from collections.abc import Callable, Mapping, Sequence

from edge_agent import assignments, bundles, offers, policy, resources, sites, tails, workloads
from edge_agent.client import config as client_config
from federation.runtime import port, processes


class ProcessSite:
    """A site (see `sites.Site`) of local processes."""

    def __init__(
        self,
        *,
        cluster: str,
        places: workloads.Places,
        runtime: port.Runtime,
        directory: resources.Directory,
        log_directory: pathlib.Path,
        python: str,
        environment: Mapping[str, str],
        log_level: client_config.LogLevel,
    ) -> None:
        """Keep the wiring; `log_directory` is where the runtime writes NAME.log."""
        self._cluster = cluster
        self._places = places
        self._runtime = runtime
        self._directory = directory
        self._log_directory = log_directory
        self._python = python
        self._environment = environment
        self._log_level = log_level
        self._tails: dict[str, tails.Tail] = {}
        self._shelf = bundles.Unpacked(places.bundles)

    @property
    def runtime(self) -> port.Runtime:
        """Local processes."""
        return self._runtime

    @property
    def shelf(self) -> bundles.Shelf:
        """Unpacked apps: clients read them from the agent's disk."""
        return self._shelf

    @property
    def default_image(self) -> str:
        """Processes need none."""
        return ""

    async def declared(self) -> resources.Resources:
        """Return what the files declare now."""
        return await asyncio.to_thread(self._directory.read)

    async def found(self) -> tuple[sites.Found, ...]:
        """Return none: processes end with the agent that started them."""
        return ()

    def credentials(self, assignment: assignments.Assignment) -> pathlib.Path:
        """Return where the client itself reads them."""
        return self._places.client_credentials(assignment)

    async def hand_over_credentials(self, assignment: assignments.Assignment) -> None:
        """Do nothing: the client reads the same files."""

    async def workload(
        self, hub: str, assignment: assignments.Assignment, allowed: policy.Allowed, offer: offers.Offer
    ) -> port.Workload:
        """Place the data, and return the client's workload (see `sites.Site.workload`)."""
        location = await asyncio.to_thread(offers.place, offer, self._places.data)
        state_key = await asyncio.to_thread(_key_in, self._places.state_key(assignment))
        return workloads.client(
            assignment,
            allowed,
            cluster=self._cluster,
            places=self._places,
            node_config=offers.node_config(offer, location),
            state_key=state_key,
            python=self._python,
            environment=self._environment,
            log_level=self._log_level,
        )

    async def show_use(self, in_use: Mapping[str, Sequence[str]]) -> None:
        """Do nothing: files have no status."""

    def follow_log(self, name: str) -> None:
        """Begin at the log's end of now."""
        self._tails[name] = tails.Tail(self._log_directory / f"{name}.log")

    async def new_lines(self, name: str) -> list[str]:
        """Return the whole lines since the last call."""
        tail = self._tails.get(name)
        return await asyncio.to_thread(tail.read_new) if tail is not None else []

    async def forget(self, assignment: assignments.Assignment) -> None:
        """Remove the client's directory with its keys and state."""
        self._tails.pop(workloads.name_of(assignment.uid, assignment.name), None)
        await asyncio.to_thread(processes.remove_tree, self._places.client(assignment))

    async def tidy(self, is_wanted: Callable[[str], bool]) -> None:
        """Remove the directories of clients that ended with an earlier agent."""
        names = await asyncio.to_thread(self._places.client_names)
        for name in names:
            if not is_wanted(name):
                await asyncio.to_thread(processes.remove_tree, self._places.clients / name)


def _key_in(path: pathlib.Path) -> bytes:
    """Return the key that an earlier start of the client was given, or a new one, which opens nothing old."""
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        key = b""
    return key if len(key) == workloads.STATE_KEY_BYTES else secrets.token_bytes(workloads.STATE_KEY_BYTES)
