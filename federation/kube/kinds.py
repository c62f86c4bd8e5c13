"""The kinds of objects that Hanse touches, and where the API server keeps them.

A table, so that nothing has to be discovered before the first request. This module refuses to know what the
kinds mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from federation.api import meta, resources


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One kind: its API group (empty for the core), version, name, plural, and whether it has a namespace."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the path on the API server; of all namespaces if `namespace` is None or empty."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if self.namespaced and namespace else ""
        rest = "".join(f"/{quote(part, safe='')}" for part in (name, subresource) if part)
        return f"{root}{place}/{self.plural}{rest}"


def _known() -> Iterator[Kind]:
    for kind, plural, namespaced in (
        ("ConfigMap", "configmaps", True),
        ("Endpoints", "endpoints", True),
        ("Event", "events", True),
        ("Namespace", "namespaces", False),
        ("Node", "nodes", False),
        ("PersistentVolume", "persistentvolumes", False),
        ("PersistentVolumeClaim", "persistentvolumeclaims", True),
        ("Pod", "pods", True),
        ("ResourceQuota", "resourcequotas", True),
        ("Secret", "secrets", True),
        ("Service", "services", True),
        ("ServiceAccount", "serviceaccounts", True),
    ):
        yield Kind("", "v1", kind, plural, namespaced)
    for group, version, kind, plural, namespaced in (
        ("apps", "v1", "DaemonSet", "daemonsets", True),
        ("apps", "v1", "Deployment", "deployments", True),
        ("apps", "v1", "ReplicaSet", "replicasets", True),
        ("apps", "v1", "StatefulSet", "statefulsets", True),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False),
        ("authorization.k8s.io", "v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", True),
        ("authorization.k8s.io", "v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", False),
        ("authorization.k8s.io", "v1", "SelfSubjectRulesReview", "selfsubjectrulesreviews", False),
        ("authorization.k8s.io", "v1", "SubjectAccessReview", "subjectaccessreviews", False),
        ("batch", "v1", "CronJob", "cronjobs", True),
        ("batch", "v1", "Job", "jobs", True),
        ("coordination.k8s.io", "v1", "Lease", "leases", True),
        ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", True),
        ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", True),
        ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", True),
        ("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", False),
        ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", False),
        ("rbac.authorization.k8s.io", "v1", "Role", "roles", True),
        ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", True),
        ("storage.k8s.io", "v1", "StorageClass", "storageclasses", False),
    ):
        yield Kind(group, version, kind, plural, namespaced)
    for resource in resources.KINDS.values():
        info = resource.INFO
        yield Kind(meta.GROUP, meta.VERSION, info.kind, info.plural, info.namespaced)


KNOWN: Mapping[str, Kind] = {kind.kind: kind for kind in _known()}


def known(kind: str, api_version: str = "") -> Kind | None:
    """Return a kind of the table by its name, and of that version if one is given; None if it lacks it."""
    found = KNOWN.get(kind)
    return found if found is not None and api_version in ("", found.api_version) else None


def from_discovery(api_version: str, listing: Mapping[str, Any]) -> Iterator[Kind]:
    """Yield the kinds that an API server's `APIResourceList` names, without subresources."""
    group, _, version = api_version.rpartition("/")
    for entry in listing.get("resources") or ():
        if "/" not in entry["name"]:
            yield Kind(group, version, entry["kind"], entry["name"], bool(entry["namespaced"]))
