"""A training whose app is a directory, as clusters take it: the packed app in a ConfigMap, pinned by digest.

Why it exists: in a directory of manifests the app lies beside its training, where a hub cannot read it. The
command that prints manifests and the simulation on clusters make the same objects of it, here. Pure: packing,
and applying, are for others.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from federation.apps import errors

if TYPE_CHECKING:
    from federation.apps import bundle

KEY = "app.fab"
MAXIMUM_BYTES = 1024 * 1024
"""What an API server takes as the data of a ConfigMap, before base64."""

Manifest = dict[str, Any]


def config_map(packed: bundle.Bundle, name: str, namespace: str = "") -> Manifest:
    """Return the ConfigMap of a packed app; its digest is an annotation, for people.

    Raises: errors.BundleTooLarge.
    """
    if len(packed.data) > MAXIMUM_BYTES:
        raise errors.BundleTooLarge(
            f"the packed app has {len(packed.data)} bytes, and a ConfigMap holds {MAXIMUM_BYTES}; "
            "put it into an image (spec.app.source.image)"
        )
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**metadata, "annotations": {"hanse.dev/app-digest": packed.digest}},
        "binaryData": {KEY: base64.b64encode(packed.data).decode("ascii")},
    }


def training(manifest: Mapping[str, Any], packed: bundle.Bundle) -> tuple[Manifest, Manifest]:
    """Return the app's ConfigMap, and the training that takes its app from there and from nowhere else.

    Raises: errors.BundleTooLarge.
    """
    changed: Manifest = copy.deepcopy(dict(manifest))
    changed.pop("status", None)
    metadata = changed["metadata"]
    metadata["namespace"] = metadata.get("namespace") or "default"
    app = config_map(packed, f"{metadata['name']}-app", metadata["namespace"])
    changed["spec"]["app"] |= {
        "source": {"configMap": {"name": app["metadata"]["name"], "key": KEY}},
        "digest": packed.digest,
    }
    return app, changed


def namespace(name: str) -> list[Manifest]:
    """Return the namespace that has to be there first; none for the one that every cluster has."""
    return (
        [] if name == "default" else [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}]
    )
