"""What an aggregator is told at its start: one file, written by the coordinator, read once.

It names one training, places and identities; what it must keep secret lies in the credential directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic


class InstalledApp(pydantic.BaseModel):
    """An app that is part of the image, by references `module:attribute`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    client_app: str
    server_app: str | None = None


class AggregatorConfig(pydantic.BaseModel):
    """The configuration of `python -m coordinator.aggregator --config FILE`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    namespace: str
    name: str
    uid: str
    spec: dict[str, Any]
    """The training's spec, validated and with its defaults, as in the manifest."""

    hub_address: str
    """host:port of the coordinator's control listener."""
    hub_server_name: str
    credential_directory: Path
    initial_credentials: Path | None = None
    """Where the first credentials lie if they cannot be renewed there: a Secret, mounted read-only."""
    trust_domain: str

    listen_address: str = "127.0.0.1:0"
    """Where clients connect; port 0 takes a free one."""
    advertised_host: str = ""
    """What clients are told to dial, with the real port; empty: the listening host, or if that is every one,
    the one that the hub is reached from."""

    app_bundle: Path | None = None
    """The app as a bundle, or a directory of its parts; None when it is installed."""
    installed_app: InstalledApp | None = None
    app_digest: str = ""

    work_directory: Path
    """Of this process: unpacked app, spool."""
    journal_directory: Path | None = None
    """Where the journal lies, which must outlive the process's pod; None: in the work directory."""
    expected_clusters: Annotated[int, pydantic.Field(ge=1)] = 1
    """How many clusters take part at the start; memory for their connections is divided by it."""
    model_store: str
    """An fsspec URL; the model goes to <store>/<namespace>/<name>/<round>/."""
    model_store_name: str = ""
    """What the store is called by those who read status; empty: its URL."""
    model_store_credentials: Path | None = None
    """A directory with a file for each environment variable that opens the store."""
    delivery_seconds: Annotated[float, pydantic.Field(gt=0)] = 30.0
    """How long the end of the training waits for the hub to hear of it."""
    termination_log: Path | None = None
    """Where the end of the training is left in writing before the hub is told, in case there is none."""
    link_grace_seconds: Annotated[float, pydantic.Field(ge=0)] = 30.0
    """How long a round waits for a cluster whose link was cut before it goes on without it."""
    start_deadline_seconds: Annotated[float, pydantic.Field(gt=0)] = 600.0
    """How long the start waits for a quorum of warm clients; images are pulled and apps imported
    meanwhile."""
    start_grace_seconds: Annotated[float, pydantic.Field(ge=0)] = 10.0
    """How long the start waits for the other clusters once the quorum is connected."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def read(cls, text: bytes) -> AggregatorConfig:
        """Read what a hub wrote, perhaps one of a later version than a training's own image.

        What it says besides is passed over; what of that an aggregator must know is for that hub to care for.
        """
        return cls.model_validate_json(text, extra="ignore")
