"""What a client process is told at its start: one file, written by the edge agent, read once.

It names places and identities only; tensors, keys and policies are not in it.
"""

from __future__ import annotations

import pathlib
from typing import Literal

import pydantic

Scalar = bool | int | float | str
"""What Flower's run config and node config may hold; the types are kept."""

LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]


class ClientConfig(pydantic.BaseModel):
    """The configuration of `python -m edge_agent.client --config FILE`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    cluster: str
    dataset: str
    training_namespace: str
    training_name: str
    training_uid: str

    aggregator_address: str
    """host:port of the training's Exchange service."""
    aggregator_server_name: str
    """The DNS name in the aggregator's certificate."""
    credential_directory: pathlib.Path
    """tls.crt, tls.key and ca.crt of this client's own identity; renewed in place by the agent."""

    app_directory: pathlib.Path | None = None
    """The unpacked bundle with its pyproject.toml; None when the app is installed or comes packed."""
    app_bundle: pathlib.Path | None = None
    """A directory of files that, joined in the order of their names, are the packed bundle."""
    app_digest: str = ""
    """sha256:HEX that the packed bundle must have."""
    client_app: str | None = None
    """module:attribute; None: read it from the bundle's pyproject.toml."""
    run_config: dict[str, Scalar] = pydantic.Field(default_factory=dict)
    """Overrides of the app's own config."""
    node_config: dict[str, Scalar] = pydantic.Field(default_factory=dict)
    """What the ClientApp finds in context.node_config."""

    state_directory: pathlib.Path
    """Kept over restarts of this client, gone with the training."""
    state_key_file: pathlib.Path | None = None
    """The key that seals what is kept there of the app's state and replies; None: nothing is."""
    closed_addresses: tuple[str, ...] = ()
    """HOST:PORT, by IP address, that must be closed before the app is loaded or data are touched."""
    termination_log: pathlib.Path | None = None
    """Where to leave the last words {"reason": …, "message": …} of an end that is not the app's."""
    log_level: LogLevel = "INFO"
