"""What a fresh cluster is given: rights for the lab's own programs, a default class of storage. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulations.lab.bare import components

STORAGE_CLASS = "standard"
_RBAC = "rbac.authorization.k8s.io"


def initial() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object with the collection of the API that it is created in."""
    reads = ("get", "list", "watch")
    yield from _granted(
        "policy",
        [
            {"apiGroups": [""], "resources": ["pods", "nodes", "namespaces"], "verbs": [*reads]},
            {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": [*reads]},
        ],
    )
    yield from _granted("keeper", [{"apiGroups": [""], "resources": ["pods"], "verbs": [*reads]}])
    yield (
        "/apis/storage.k8s.io/v1/storageclasses",
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {
                "name": STORAGE_CLASS,
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            # The controller manager's own: a directory of the node, made for the claim and removed with it.
            "provisioner": "kubernetes.io/host-path",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "Immediate",
        },
    )


def _granted(component: str, rules: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    user = components.USERS[component].name
    metadata = {"name": user}
    yield (
        f"/apis/{_RBAC}/v1/clusterroles",
        {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": metadata, "rules": rules},
    )
    yield (
        f"/apis/{_RBAC}/v1/clusterrolebindings",
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": user},
            "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": user}],
        },
    )
