"""Manifests that a bench or a drill writes for itself, as a person would write them for `hanse simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

_API = "hanse.dev/v1alpha1"


def resource(
    kind: str, name: str, namespace: str | None, spec: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a resource of ours; without a namespace or a spec where those are None."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    made: dict[str, Any] = {"apiVersion": _API, "kind": kind, "metadata": metadata}
    return made | ({"spec": spec} if spec is not None else {})


def write(path: Path, documents: Sequence[dict[str, Any]]) -> None:
    """Write resources into one file."""
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False), encoding="utf-8")
