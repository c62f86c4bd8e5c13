"""The tables of docs/permissions.md, and what RBAC manifests grant, in one form to be compared."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "permissions.md"

Grants = frozenset[tuple[str, str, str]]
"""(API group, resource or resource/subresource, verb)."""


def documented(table: str) -> Grants:
    """Return what the page's table after the comment `<!-- TABLE -->` says."""
    _, _, rest = PAGE.read_text().partition(f"<!-- {table} -->\n")
    found = set()
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            break
        resources, verbs, why = (cell.strip() for cell in line.strip("|").split("|"))
        assert why
        group, colon, names = resources.partition(": ")
        if not colon:
            group, names = "", resources
        found |= {(group, name, verb) for name in re.split(r", ", names) for verb in re.split(r", ", verbs)}
    assert found, f"no table {table}"
    return frozenset(found)


def granted(role: Mapping[str, Any]) -> Grants:
    """Return what a Role or ClusterRole grants."""
    return frozenset(
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def by_kind_and_name(manifests: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Return manifests by kind and name."""
    return {(m["kind"], m["metadata"]["name"]): m for m in manifests}
