"""Where a training's model goes on Kubernetes: a claim of its namespace, or an object store.

This module refuses to know claims that exist, and what an aggregator does with a store.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any, Final

MOUNT: Final = "/var/lib/hanse/models"
"""Where an aggregator finds the claim for models."""

JOURNALS: Final = ".journals"
"""The directory of a claim in which aggregators keep their journals, each under its training's uid."""

_CLAIM = re.compile(r"pvc://([a-z0-9]([-a-z0-9.]*[a-z0-9])?)((?:/[A-Za-z0-9][A-Za-z0-9._-]*)*)/?")


class UnusableStore(ValueError):
    """A store that a hub on Kubernetes cannot use; the text says what to write instead."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelStore:
    """url: what the aggregator opens. name: what status calls it. claim: what is mounted at MOUNT, if any.
    made: whether the hub makes that claim. secret: what opens an object store, if it needs that.
    address: IP address and port of S3-compatible storage, if the manifest gives them.
    """

    url: str
    name: str
    claim: str = ""
    made: bool = False
    secret: str = ""
    address: tuple[str, int] | None = None


def choose(spec: Mapping[str, Any], default_claim: str, default_url: str = "") -> ModelStore:
    """Return the store of a FederatedTraining's spec.

    default_claim, default_url: of the hub, for trainings that name none; the URL counts first.
    Raises: UnusableStore.
    """
    model = spec.get("model") or {}
    wanted = str(model.get("store") or default_url)
    secret = str((model.get("credentials") or {}).get("secretName") or "")
    if not wanted:
        return ModelStore(f"file://{MOUNT}", f"pvc://{default_claim}", default_claim, made=True)
    if wanted.startswith("pvc://"):
        found = _CLAIM.fullmatch(wanted)
        if found is None:
            raise UnusableStore(
                f"spec.model.store {wanted}: want pvc://CLAIM or pvc://CLAIM/DIRECTORY with letters, digits, "
                "'.', '_' and '-'"
            )
        claim, prefix = found[1], found[3]
        made = claim == default_claim
        return ModelStore(f"file://{MOUNT}{prefix}", f"pvc://{claim}{prefix}", claim, made)
    if wanted.startswith("file://"):
        raise UnusableStore(
            f"spec.model.store {wanted}: file:// is for simulations; use pvc://CLAIM or an object store"
        )
    url, endpoint = wanted.rstrip("/"), str(model.get("endpoint") or "")
    led_there = endpoint and url.startswith("s3://")  # nobody else looks at it
    return ModelStore(url, url, secret=secret, address=_address(endpoint) if led_there else None)


def _address(endpoint: str) -> tuple[str, int] | None:
    """IP address and port of a URL; None for a name, whose addresses may change."""
    try:
        parts = urllib.parse.urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UnusableStore(
            f"spec.model.endpoint {endpoint}: want a URL like https://10.0.0.5:9000 ({error})"
        ) from error
    try:
        return str(ipaddress.ip_address(host)), port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
