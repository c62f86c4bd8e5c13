"""What each image is: its layers, its user, its first command. Pure data.

Why it exists: two ways lead to the images, manifests/images/Dockerfile where there is Docker and `build`
where there is not, and a test holds both to this page. It refuses to know how a layer is made.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

USER = 65532
"""Nobody's number on any usual system; Kubernetes wants a number to see that it is not root."""
HOME = "/tmp"  # noqa: S108 - the one place that a pod with a read-only root may write to
REGISTRY = "localhost/hanse"


class Layer(enum.StrEnum):
    """The parts that images are made of, lowest first."""

    BASE = "base"  # Python and the libraries that it needs, from Debian packages
    DEPENDENCIES = "dependencies"  # requirements/base.txt
    STORES = "stores"  # what requirements/s3.txt has more
    ENVOY = "envoy"
    TORCH = "torch"  # what requirements/torch.txt has more
    SOURCE = "source"  # Hanse itself: the last, as it changes most


ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": HOME,
    "LANG": "C.UTF-8",
    "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt",
    "PYTHONUNBUFFERED": "1",  # a pod's last words must not stay in a buffer
    "PYTHONDONTWRITEBYTECODE": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One image."""

    name: str
    layers: tuple[Layer, ...]
    entrypoint: tuple[str, ...]
    title: str


_COMMON = (Layer.BASE, Layer.DEPENDENCIES)

TARGETS: Mapping[str, Target] = {
    target.name: target
    for target in (
        Target(
            "coordinator",
            (*_COMMON, Layer.STORES, Layer.ENVOY, Layer.SOURCE),
            ("python3", "-P", "-m", "coordinator"),
            "Hanse's coordinator, its aggregators and its door",
        ),
        Target(
            "edge-agent",
            (*_COMMON, Layer.STORES, Layer.SOURCE),
            ("python3", "-P", "-m", "edge_agent"),
            "Hanse's agent on an edge cluster",
        ),
        Target(
            "client",
            (*_COMMON, Layer.SOURCE),
            ("python3", "-P", "-m", "edge_agent.client"),
            "Runs one client of a federated training",
        ),
        Target(
            "client-torch",
            (*_COMMON, Layer.TORCH, Layer.SOURCE),
            ("python3", "-P", "-m", "edge_agent.client"),
            "Runs one client of a federated training, with PyTorch",
        ),
        Target(
            "aggregator-torch",
            (*_COMMON, Layer.STORES, Layer.TORCH, Layer.SOURCE),
            ("python3", "-P", "-m", "coordinator.aggregator"),
            "Runs the aggregator of one federated training, with PyTorch",
        ),
    )
}

DEFAULT = ("coordinator", "edge-agent", "client")
"""What `build` makes when nobody says more: torch is large, and only some trainings need it."""

WITH_TORCH = ("client-torch", "aggregator-torch")
"""What a training's client and aggregator run whose app needs torch."""


def reference(target: Target, version: str) -> str:
    """The image's name with its tag, as pods name it in a lab."""
    return f"{REGISTRY}/{target.name}:{version}"
