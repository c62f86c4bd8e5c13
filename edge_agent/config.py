"""What an edge agent is told at its start: one JSON file, and on Kubernetes a few words of its environment.

This module refuses to know what is done with it.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Annotated, Literal

import pydantic

from edge_agent.client import config as client_config

DEFAULT_NAMESPACE = "hanse"


class KubernetesConfig(pydantic.BaseModel):
    """What an agent needs besides in a cluster."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    namespace: str = ""
    """The one namespace of owner's objects and clients; empty: POD_NAMESPACE, else hanse."""
    client_image: str = ""
    """The image of clients whose training names none; empty: HANSE_CLIENT_IMAGE."""
    pod: str = ""
    """This agent's own pod, on which `hanse leave` puts its mark; empty: POD_NAME."""
    agent_image: str = ""
    """This agent's own image, which also fetches data sets out of buckets; empty: HANSE_AGENT_IMAGE."""
    node_selector: dict[str, str] = pydantic.Field(default_factory=dict)
    """The nodes that clients may run on; empty for all."""
    closed_addresses: tuple[str, ...] = ()
    """HOST:PORT of more addresses that a client must find closed before it touches data, by IP address."""
    scratch_size: str = "10Gi"
    """Of each of a client's two directories for writing; a node ends a pod that takes more of its disk."""
    client_state: Literal["claim", "pod"] = "claim"
    """Where a client keeps its app's state and finished work: on a PersistentVolumeClaim for each training,
    or in its pod, whose end then is the end of it.
    """
    client_state_class: str = ""
    """The claims' storage class; empty: the cluster's default."""
    kubeconfig: pathlib.Path | None = None
    """How to reach the cluster; None inside it."""


class AgentConfig(pydantic.BaseModel):
    """What an edge agent is told at its start."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    cluster: str
    """The name under which this edge is a member."""
    enrollment_address: str
    """host:port of the hub's enrollment listener; of its one door, where it has one."""
    token_file: pathlib.Path
    """Holds the one-time join token; read only to join."""
    ca_pin: str = ""
    """sha256:HEX of the hub's CA key."""
    ca_pin_file: pathlib.Path | None = None
    """Holds the same, where `ca_pin` is empty."""
    trust_domain: str | None = None
    """None: the one that the hub's CA certificate names."""
    resource_directory: pathlib.Path | None = None
    """The owner's EdgeDataset, EdgePolicy and ConfigMap manifests; on Kubernetes they are its objects."""
    state_directory: pathlib.Path
    """Keys, apps, data from ConfigMaps, logs; made private (0700)."""
    labels: dict[str, str] = pydantic.Field(default_factory=dict)
    log_level: Annotated[client_config.LogLevel, pydantic.BeforeValidator(lambda text: str(text).upper())] = (
        "INFO"
    )
    stop_grace_seconds: Annotated[float, pydantic.Field(ge=0, le=600)] = 5.0
    """A client may take so long to end when asked."""
    kubernetes: KubernetesConfig | None = None
    """Given, clients run as pods; None, as processes."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> AgentConfig:
        if not self.ca_pin and self.ca_pin_file is None:
            raise ValueError("give ca_pin or ca_pin_file, the hash of the hub's CA key")
        if (self.resource_directory is None) == (self.kubernetes is None):
            raise ValueError("give either resource_directory, for local processes, or kubernetes")
        return self

    def pin(self) -> str:
        """Return the pin. Raises: OSError."""
        if self.ca_pin or self.ca_pin_file is None:
            return self.ca_pin
        return self.ca_pin_file.read_text().strip()


def in_pod(config: KubernetesConfig, environment: Mapping[str, str]) -> KubernetesConfig:
    """Return the configuration with what its empty fields leave to the pod's environment."""
    return config.model_copy(
        update={
            "namespace": config.namespace or environment.get("POD_NAMESPACE") or DEFAULT_NAMESPACE,
            "pod": config.pod or environment.get("POD_NAME", ""),
            "agent_image": config.agent_image or environment.get("HANSE_AGENT_IMAGE", ""),
            "client_image": config.client_image or environment.get("HANSE_CLIENT_IMAGE", ""),
        }
    )
