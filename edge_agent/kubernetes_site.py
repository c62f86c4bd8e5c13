"""The edge in a cluster: clients are pods, the owner's objects are the API server's, in one namespace.

This module refuses to decide, and to know how a workload becomes a Job.
"""

from __future__ import annotations

import asyncio
import pathlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_agent import (
    assignments,
    bundles,
    offers,
    pods,
    policy,
    resolving,
    resources,
    sites,
    state_claims,
    watching,
    workloads,
)
from federation.kube import client
from federation.runtime import port, processes
from federation.telemetry import logs
from federation.trust import directory
from federation.wire import addresses

_log = logs.get_logger(__name__)


class KubernetesSite:
    """A site (see `sites.Site`) in one namespace of a cluster."""

    def __init__(
        self,
        api: client.Client,
        *,
        runtime: port.Runtime,
        owner: watching.Owner,
        places: workloads.Places,
        settings: pods.Settings,
        claims: state_claims.StateClaims | None,
        stop_grace_seconds: float,
    ) -> None:
        """Keep the wiring; `places` is a disk that may be gone tomorrow. claims: None, and what clients keep
        goes with their pods.
        """
        self._api = api
        self._runtime = runtime
        self._owner = owner
        self._places = places
        self._settings = settings
        self._claims = claims
        self._stop_grace_seconds = stop_grace_seconds
        self._shelf = bundles.Archives(places.bundles)
        self._resolving = asyncio.Lock()

    @property
    def runtime(self) -> port.Runtime:
        """Jobs."""
        return self._runtime

    @property
    def shelf(self) -> bundles.Shelf:
        """Packed apps: a pod is handed the archive."""
        return self._shelf

    @property
    def default_image(self) -> str:
        """The image of a client whose training names none."""
        return self._settings.default_image

    async def declared(self) -> resources.Resources:
        """Return what the owner's objects declare now."""
        return await self._owner.declared()

    async def found(self) -> tuple[sites.Found, ...]:
        """Return the clients whose Jobs are there, by the note that each carries."""
        # Asked of the runtime first: what it says runs is also told to have ended, whenever that is.
        running = {one.name for one in await self._runtime.list()}
        labels = ",".join(f"{key}={value}" for key, value in pods.LABELS.items())
        jobs = await self._api.list("Job", self._settings.namespace, labels=labels)
        found = []
        for job in jobs.items:
            metadata = job["metadata"]
            if metadata["name"] not in running:
                continue
            note = (metadata.get("annotations") or {}).get(pods.ASSIGNMENT_ANNOTATION, "")
            try:
                hub, assignment = assignments.from_text(note)
                name = workloads.name_of(assignment.uid, assignment.name)
                if name != metadata["name"]:
                    raise assignments.InvalidAssignment(f"the note is one of {name}")
            except assignments.InvalidAssignment as error:
                _log.warning(
                    "client ended that cannot be taken over", name=metadata["name"], error=str(error)
                )
                await self._runtime.stop(metadata["name"], self._stop_grace_seconds)
                continue
            found.append(sites.Found(name, hub, assignment))
        return tuple(found)

    def credentials(self, assignment: assignments.Assignment) -> pathlib.Path:
        """Return where the agent writes what the client's Secret is made of."""
        return self._places.client_credentials(assignment)

    async def hand_over_credentials(self, assignment: assignments.Assignment) -> None:
        """Change the files that the client sees. Raises: OSError; SiteFailure."""
        name = workloads.name_of(assignment.uid, assignment.name)
        material = await self._material(assignment)
        try:
            await self._runtime.refresh(name, pods.CREDENTIALS, material.files)
        except port.RuntimeFailure as error:
            raise OSError(str(error)) from error

    async def workload(
        self, hub: str, assignment: assignments.Assignment, allowed: policy.Allowed, offer: offers.Offer
    ) -> port.Workload:
        """Return the client's workload (see `sites.Site.workload`)."""
        if not (assignment.image or self._settings.default_image):
            raise sites.SiteFailure(
                "the training names no client image and the edge has none of its own; set spec.client.image"
            )
        if refusal := pods.why_not_dialled(assignment.aggregator_address, self._settings):
            raise sites.SiteFailure(refusal)
        # One at a time: while no name server answers each holds one of the process's few threads for long.
        async with self._resolving:
            doors = await _addresses(assignment.aggregator_address)
        if refusal := pods.why_closed(doors, self._settings):
            raise sites.SiteFailure(refusal)
        material = await self._material(assignment)
        archive = (
            await asyncio.to_thread(self._shelf.read, assignment.app_digest)
            if assignment.from_bundle
            else None
        )
        state, state_key = await self._state(assignment)
        brought = pods.Brought(material.files, archive, doors, state_key, state)
        return pods.client(hub, assignment, allowed, offer, brought, self._settings)

    async def show_use(self, in_use: Mapping[str, Sequence[str]]) -> None:
        """Write it into the data sets' statuses, soon."""
        self._owner.use(in_use)

    def follow_log(self, name: str) -> None:
        """Follow none: what an app prints may be the owner's data, and `kubectl logs` shows it here."""

    async def new_lines(self, name: str) -> list[str]:
        """Tell none. A client that fails is another matter: its last lines go with its end."""
        return []

    async def forget(self, assignment: assignments.Assignment) -> None:
        """Remove the client's keys from this disk and what it kept; its other objects went when it ended."""
        name = workloads.name_of(assignment.uid, assignment.name)
        await asyncio.to_thread(processes.remove_tree, self._places.client(assignment))
        if self._claims is not None:
            await self._claims.remove(name)

    async def tidy(self, is_wanted: Callable[[str], bool]) -> None:
        """Remove claims that an earlier agent left; its Jobs were found."""
        if self._claims is not None:
            await self._claims.tidy(is_wanted)

    async def _state(self, assignment: assignments.Assignment) -> tuple[dict[str, Any] | None, bytes]:
        if self._claims is None:
            # A new pod begins with nothing kept: a key of its own is as good as the last one's.
            return None, secrets.token_bytes(workloads.STATE_KEY_BYTES)
        name = workloads.name_of(assignment.uid, assignment.name)
        return await self._claims.provide(name, pods.labels_of(assignment))

    async def _material(self, assignment: assignments.Assignment) -> directory.Material:
        try:
            return await asyncio.to_thread(directory.read, self.credentials(assignment))
        except directory.CredentialsUnusable as error:
            raise sites.SiteFailure(f"the client's certificate cannot be read: {error}") from error


async def _addresses(address: str) -> tuple[port.Destination, ...]:
    """Return what a client must be able to reach: it has no name server.

    Raises: sites.NameWithoutAnswer; SiteFailure for what is no address.
    """
    try:
        host, number = addresses.split(address)
        ips = await resolving.ips(host, number)
    except OSError as error:
        raise sites.NameWithoutAnswer(
            f"the aggregator's address {address} cannot be found: {error}; check the edge's name server"
        ) from error
    except ValueError as error:
        raise sites.SiteFailure(f"{address} is no address of an aggregator: {error}") from error
    return tuple(port.Destination(ip, number) for ip in ips)
