"""What the hub asks of this cluster, as values: one Assignment for each training, read from the wire once.

This module refuses to know whether an assignment may run (policy) or does (lifecycle).
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping

import pydantic

from federation.wire import hanse_pb2

DEFAULT_MAXIMUM_RESTARTS = 3

# gRPC would dial unix:PATH and other schemes too, here, beside the data.
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9.-]{1,253}):[0-9]{1,5}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class InvalidAssignment(Exception):
    """The hub sent an assignment that this agent cannot use."""


@dataclasses.dataclass(frozen=True, slots=True)
class Assignment:
    """One training that this cluster is asked to take part in.

    app_digest:   sha256:HEX of the bundle; the wire's digest for an installed app, which may be empty.
    client_app:   module:attribute of an installed app, None when the app is a bundle.
    run_config:   JSON object text, as it came.
    privacy:      JSON object text, as it came.
    resting:      the training is suspended: no client runs, and what it keeps stays.
    generation:   of the training's spec; it grows when the training is suspended, and when it goes on.
    """

    uid: str
    namespace: str
    name: str
    dataset: str
    app_digest: str
    client_app: str | None = None
    aggregator_address: str = ""
    aggregator_server_name: str = ""
    run_config: str = "{}"
    privacy: str = "{}"
    image: str = ""
    strategy: str = ""
    rounds: int = 0
    limits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    requests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    maximum_restarts: int = DEFAULT_MAXIMUM_RESTARTS
    resting: bool = False
    generation: int = 0

    @property
    def from_bundle(self) -> bool:
        """Whether the app has to be fetched."""
        return self.client_app is None

    @property
    def proven_digest(self) -> str:
        """The digest that the app's bytes must have; empty for an installed app, whatever the hub says."""
        return self.app_digest if self.from_bundle else ""

    @property
    def training(self) -> str:
        """NAMESPACE/NAME, as people write it."""
        return f"{self.namespace}/{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class _Note:
    hub: str
    assignment: Assignment


_NOTE = pydantic.TypeAdapter(_Note)


def to_text(hub: str, assignment: Assignment) -> str:
    """Return what `from_text` reads: a note beside a workload, for the agent that finds it running."""
    return json.dumps({"hub": hub, "assignment": dataclasses.asdict(assignment)}, sort_keys=True)


def from_text(text: str) -> tuple[str, Assignment]:
    """Return the hub's name and the assignment that `to_text` wrote down.

    Raises: InvalidAssignment.
    """
    try:
        note = _NOTE.validate_json(text)
    except pydantic.ValidationError as error:
        raise InvalidAssignment(f"the note of an assignment cannot be read: {error}") from error
    return note.hub, note.assignment


def from_wire(message: hanse_pb2.Assignment, hub_address: str = "") -> Assignment:
    """Read one assignment; `hub_address` is where its aggregator is if the hub has one address for all.

    Raises: InvalidAssignment, naming the training and the field.
    """
    title = f"training {message.namespace}/{message.name}"
    for field in ("uid", "namespace", "name", "dataset"):
        if not getattr(message, field):
            raise InvalidAssignment(f"{title}: the hub sent no {field}")
    installed = message.app.WhichOneof("kind") == "installed"
    if not installed and not _DIGEST.fullmatch(message.app_digest):
        raise InvalidAssignment(
            f"{title}: app digest {message.app_digest[:100]!r} is not sha256: and 64 hexadecimal digits"
        )
    if message.aggregator_address and not _ADDRESS.fullmatch(message.aggregator_address):
        raise InvalidAssignment(f"{title}: {message.aggregator_address[:100]!r} is no host:port")
    for field, text in (("run_config_json", message.run_config_json), ("privacy_json", message.privacy_json)):
        try:
            if text and not isinstance(json.loads(text), dict):
                raise InvalidAssignment(f"{title}: {field} is no JSON object")
        except (ValueError, RecursionError) as error:
            raise InvalidAssignment(f"{title}: {field} is not JSON: {error}") from error
    return Assignment(
        uid=message.uid,
        namespace=message.namespace,
        name=message.name,
        dataset=message.dataset,
        app_digest=message.app_digest,
        client_app=message.app.installed.client_app if installed else None,
        aggregator_address=message.aggregator_address or (hub_address if message.same_address else ""),
        aggregator_server_name=message.aggregator_server_name,
        run_config=message.run_config_json or "{}",
        privacy=message.privacy_json or "{}",
        image=message.image,
        strategy=message.strategy,
        rounds=message.rounds,
        limits=dict(message.resource_limits),
        requests=dict(message.resource_requests),
        maximum_restarts=(
            message.maximum_restarts if message.HasField("maximum_restarts") else DEFAULT_MAXIMUM_RESTARTS
        ),
        resting=message.resting,
        generation=message.generation,
    )
