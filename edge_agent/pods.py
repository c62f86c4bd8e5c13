"""From an allowed assignment to the client's workload where clients are pods.

Pure. The pod sees its data read-only, its own identity, its app packed, a place to write to that goes with
it, and no way out but the aggregator's address. This module refuses to know how a workload becomes a Job.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent import assignments, offers, policy, rules, workloads
from edge_agent.client import config
from federation.runtime import port
from federation.wire import addresses

CONFIG_DIRECTORY = pathlib.PurePosixPath("/hanse/config")
CREDENTIALS = pathlib.PurePosixPath("/hanse/credentials")
APP = pathlib.PurePosixPath("/hanse/app")
STATE = pathlib.PurePosixPath("/hanse/state")
SCRATCH = pathlib.PurePosixPath("/tmp")  # noqa: S108

ASSIGNMENT_ANNOTATION = "hanse.dev/assignment"
"""On a client's objects: what it was started for, so that another agent can take it over."""

LABELS: Mapping[str, str] = {
    "app.kubernetes.io/name": "hanse",
    "app.kubernetes.io/component": "client",
    "app.kubernetes.io/managed-by": "hanse",
}
"""What all clients have, and nothing else."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for all clients of one agent."""

    cluster: str
    namespace: str
    default_image: str
    log_level: config.LogLevel = "INFO"
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    closed_addresses: tuple[str, ...] = ()
    scratch_size: str = "10Gi"
    hub_host: str = ""
    """The host with which the owner joined, the only one that clients may dial; empty for any."""


@dataclasses.dataclass(frozen=True, slots=True)
class Brought:
    """What the agent brings for one client: its identity's files, its app's archive (None: in the image),
    the addresses behind its aggregator's name, the volume of its state (None: the pod's own), and the key
    of what it keeps there.
    """

    credentials: Mapping[str, bytes]
    bundle: bytes | None
    doors: tuple[port.Destination, ...]
    state_key: bytes = dataclasses.field(repr=False)
    state: Mapping[str, Any] | None = None


def client(
    hub: str,
    assignment: assignments.Assignment,
    allowed: policy.Allowed,
    offer: offers.Offer,
    brought: Brought,
    settings: Settings,
) -> port.Workload:
    """Return the workload that takes part in the assignment's training.

    Raises: offers.DatasetUnavailable; pydantic.ValidationError if run_config holds anything but scalars.
    """
    if offer.mount is None:
        raise offers.DatasetUnavailable(offer.unavailable or f"data set {offer.name} has no volume")
    client_config = config.ClientConfig(
        cluster=settings.cluster,
        dataset=assignment.dataset,
        training_namespace=assignment.namespace,
        training_name=assignment.name,
        training_uid=assignment.uid,
        aggregator_address=target(brought.doors),
        aggregator_server_name=assignment.aggregator_server_name,
        credential_directory=pathlib.Path(CREDENTIALS),
        app_bundle=pathlib.Path(APP) if brought.bundle is not None else None,
        app_digest=assignment.app_digest if brought.bundle is not None else "",
        client_app=assignment.client_app,
        run_config=json.loads(assignment.run_config),
        node_config=offers.node_config(offer, pathlib.Path(offer.mount.path)),
        state_directory=pathlib.Path(STATE),
        state_key_file=pathlib.Path(CONFIG_DIRECTORY / workloads.STATE_KEY_NAME),
        closed_addresses=settings.closed_addresses,
        termination_log=pathlib.Path(port.TERMINATION_LOG),
        log_level=settings.log_level,
    )
    scratch = {"emptyDir": {"sizeLimit": settings.scratch_size}}
    return port.Workload(
        name=workloads.name_of(assignment.uid, assignment.name),
        # -P: modules come from where they are installed, not from the working directory
        argv=(
            *("python3", "-P", "-m", "edge_agent.client"),
            *("--config", str(CONFIG_DIRECTORY / workloads.CONFIG_NAME)),
        ),
        directory=CONFIG_DIRECTORY,
        environment={
            "PYTHONUNBUFFERED": "1",
            "HANSE_PROCESS": f"{settings.cluster}.client",
            "HOME": str(STATE),
        },
        files={
            workloads.CONFIG_NAME: client_config.model_dump_json(indent=1).encode(),
            workloads.STATE_KEY_NAME: brought.state_key,
        },
        resources=resources(assignment, allowed),
        image=assignment.image or settings.default_image,
        pod=port.Pod(
            namespace=settings.namespace,
            labels={**LABELS, **labels_of(assignment)},
            annotations={ASSIGNMENT_ANNOTATION: assignments.to_text(hub, assignment)},
            mounts=(
                offer.mount,
                port.Mount(STATE, brought.state or scratch, read_only=False),
                port.Mount(SCRATCH, scratch, read_only=False),
            ),
            secret_directories={CREDENTIALS: dict(brought.credentials)},
            blobs={APP: brought.bundle} if brought.bundle is not None else {},
            egress=brought.doors,
            node_selector=dict(settings.node_selector),
            restarts_in_place=assignment.maximum_restarts,
        ),
    )


def labels_of(assignment: assignments.Assignment) -> dict[str, str]:
    """Return which training and data set an object is for."""
    return {
        "hanse.dev/training": assignment.name,
        "hanse.dev/training-namespace": assignment.namespace,
        "hanse.dev/dataset": assignment.dataset,
    }


def resources(assignment: assignments.Assignment, allowed: policy.Allowed) -> port.Resources:
    """Return what the client asks for and may use.

    Kubernetes wants the limit of a GPU to be what is asked for, and no request above its limit. A ceiling
    of GPUs is no wish for one.
    """
    gpu = rules.GPU_RESOURCE
    limits = dict(allowed.limits)
    if gpu not in assignment.requests and gpu not in assignment.limits:
        limits.pop(gpu, None)
    for name, amount in assignment.requests.items():
        if "/" in name:
            limits[name] = amount
    return port.Resources(requests=dict(assignment.requests), limits=limits)


def target(doors: Sequence[port.Destination]) -> str:
    """Return what gRPC dials to reach one of these addresses without a name server.

    Raises: ValueError when there is none.
    """
    if not doors:
        raise ValueError("an aggregator has no address")
    places = [addresses.join(door.ip, door.port) for door in doors]
    if len(places) == 1:
        return places[0]
    return f"ipv{'6' if ':' in doors[0].ip else '4'}:" + ",".join(places)


def closed_addresses(environment: Mapping[str, str], resolv_conf: str) -> tuple[str, ...]:
    """Return what a client must find closed: the cluster's API server and its name servers, by IP address."""
    found = []
    host, number = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if host and number:
        found.append(addresses.join(host, number))
        for line in resolv_conf.splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                found.append(addresses.join(words[1], 53))
    return tuple(found)


def why_not_dialled(address: str, settings: Settings) -> str:
    """Return why a client may not be given this aggregator's address; empty if it may.

    The address opens the client's network policy, and the hub says it. The owner knows one host, his hub's;
    a hub that names another one would lead an app of its choice to whatever is beside the data.
    """
    host = address.rpartition(":")[0].strip("[]").lower()
    if settings.hub_host and host != settings.hub_host.strip("[]").lower():
        return (
            f"the hub sends clients to {address}, and clients of {settings.cluster} may dial "
            f"{settings.hub_host} only, with which it joined; ask the hub's operator to lead aggregators "
            "through the hub's door"
        )
    return ""


def why_closed(doors: Sequence[port.Destination], settings: Settings) -> str:
    """Return why none of these may be opened to a client; empty if they may.

    A name is resolved here, and whoever owns the name may let it mean anything.
    """
    for door in doors:
        ip = ipaddress.ip_address(door.ip)
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            return f"the aggregator's address is {door.ip}, and no hub has such a one; ask the hub's operator"
        if addresses.join(door.ip, door.port) in settings.closed_addresses:
            return (
                f"the aggregator's address is {addresses.join(door.ip, door.port)}, which must be closed to "
                "clients; ask the hub's operator where its name leads"
            )
    return ""
