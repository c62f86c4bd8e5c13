"""From an allowed assignment to the client workload: command, config file, directories.

This module refuses to know how a workload is run and whether it may be.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping

from edge_agent import assignments, policy
from edge_agent.client import config
from federation.runtime import port

CONFIG_NAME = "config.json"
STATE_KEY_NAME = "state.key"
"""The key of what a client keeps, beside its configuration: as private, and gone with it."""

STATE_KEY_BYTES = 32


@dataclasses.dataclass(frozen=True, slots=True)
class Places:
    """Where an agent keeps things; everything lies below its private state directory."""

    state_directory: pathlib.Path

    @property
    def identity(self) -> pathlib.Path:
        """The agent's own credentials."""
        return self.state_directory / "identity"

    @property
    def data(self) -> pathlib.Path:
        """Data sets that came as ConfigMaps."""
        return self.state_directory / "data"

    @property
    def logs(self) -> pathlib.Path:
        """The clients' output."""
        return self.state_directory / "logs"

    @property
    def bundles(self) -> pathlib.Path:
        """The apps that were fetched."""
        return self.state_directory / "bundles"

    @property
    def session_open(self) -> pathlib.Path:
        """There while the agent has a session with its hub; a readiness probe looks for it."""
        return self.state_directory / "session-open"

    def bundle(self, digest: str) -> pathlib.Path:
        """The unpacked app with this digest (sha256:HEX)."""
        return self.bundles / digest.removeprefix("sha256:")

    @property
    def clients(self) -> pathlib.Path:
        """A directory for each client, by its workload's name."""
        return self.state_directory / "clients"

    def client_names(self) -> list[str]:
        """Return the names of the workloads that have one."""
        return sorted(entry.name for entry in self.clients.iterdir()) if self.clients.exists() else []

    def client(self, assignment: assignments.Assignment) -> pathlib.Path:
        """All that belongs to one assignment's client and goes with it."""
        return self.clients / name_of(assignment.uid, assignment.name)

    def state_key(self, assignment: assignments.Assignment) -> pathlib.Path:
        """The key of what the client keeps on this disk."""
        return self.client(assignment) / STATE_KEY_NAME

    def client_credentials(self, assignment: assignments.Assignment) -> pathlib.Path:
        """The client's own identity."""
        return self.client(assignment) / "credentials"


def name_of(uid: str, training_name: str) -> str:
    """Return the workload's name: readable, at most 63 characters, and as unique as the uid."""
    readable = re.sub(r"[^a-z0-9]+", "-", training_name.lower())[:40].strip("-")
    return f"client-{readable}-{hashlib.sha256(uid.encode()).hexdigest()[:10]}"


def client(
    assignment: assignments.Assignment,
    allowed: policy.Allowed,
    *,
    cluster: str,
    places: Places,
    node_config: Mapping[str, config.Scalar],
    state_key: bytes,
    python: str,
    environment: Mapping[str, str],
    log_level: config.LogLevel,
) -> port.Workload:
    """Return the workload that takes part in the assignment's training.

    state_key: the same at each start of this client. python: the interpreter's path.
    environment: what the client sees besides the runtime's allow-list.
    Raises: pydantic.ValidationError if run_config holds anything but scalars.
    """
    directory = places.client(assignment)
    client_config = config.ClientConfig(
        cluster=cluster,
        dataset=assignment.dataset,
        training_namespace=assignment.namespace,
        training_name=assignment.name,
        training_uid=assignment.uid,
        aggregator_address=assignment.aggregator_address,
        aggregator_server_name=assignment.aggregator_server_name,
        credential_directory=places.client_credentials(assignment),
        app_directory=places.bundle(assignment.app_digest) if assignment.from_bundle else None,
        client_app=assignment.client_app,
        run_config=json.loads(assignment.run_config),
        node_config=dict(node_config),
        state_directory=directory / "state",
        state_key_file=directory / STATE_KEY_NAME,
        log_level=log_level,
    )
    return port.Workload(
        name=name_of(assignment.uid, assignment.name),
        # -P: modules come from where they are installed, not from the working directory
        argv=(python, "-P", "-m", "edge_agent.client", "--config", str(directory / CONFIG_NAME)),
        directory=directory,
        environment={"PYTHONUNBUFFERED": "1", "HANSE_PROCESS": f"{cluster}.client", **environment},
        files={CONFIG_NAME: client_config.model_dump_json(indent=1).encode(), STATE_KEY_NAME: state_key},
        resources=port.Resources(requests=assignment.requests, limits=allowed.limits),
        image=assignment.image,
    )
