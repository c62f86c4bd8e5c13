"""From an EdgeDataset in an S3 bucket to what brings its objects to where clients mount them, and to the
sentences about that.

A client may reach its hub and nothing else, so it never sees the bucket: a workload of its own, which alone
has the owner's Secret and a way to the storage, fetches the objects into a claim. The claim's name stands for
all that was asked for: a change makes another claim, and one that is marked as fetched has what the data set
says. Pure. This module refuses to know how claims and workloads are made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import json
import pathlib
import re
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from federation.api import dataset as api
from federation.api import meta
from federation.runtime import port

OBJECTS = "objects"
"""The directory of a claim that clients see; it is there once all of it is."""

FETCHED_ANNOTATION = "hanse.dev/fetched"
"""On a claim whose objects are all there: how many, and their bytes, as JSON."""

CLAIM_LABELS: Mapping[str, str] = {
    "app.kubernetes.io/name": "hanse",
    "app.kubernetes.io/component": "dataset",
    "app.kubernetes.io/managed-by": "hanse",
}
"""On every claim that the agent makes, and on no other."""

FETCH_LABELS: Mapping[str, str] = {**CLAIM_LABELS, "app.kubernetes.io/component": "dataset-fetch"}
"""On what fetches; a NetworkPolicy of the owner's may select it."""

DATASET_LABEL = "hanse.dev/edge-dataset"

CLAIM = pathlib.PurePosixPath("/hanse/claim")
SECRET = pathlib.PurePosixPath("/hanse/secret")

RESOURCES = port.Resources(
    requests={"cpu": "100m", "memory": "128Mi"}, limits={"cpu": "1", "memory": "512Mi"}
)
"""Objects go to disk in pieces, so how large they are does not matter here."""

_ANY_CLASS = "volume.beta.kubernetes.io/storage-class"


class NotFetchable(Exception):
    """The objects cannot be fetched from there; the text is a sentence for people."""


@dataclasses.dataclass(frozen=True, slots=True)
class Fetch:
    """What one data set wants fetched; `name` is the claim's and the workload's."""

    name: str
    dataset: str
    object_name: str
    object_uid: str
    volume: api.S3Volume

    @property
    def endpoint(self) -> str:
        """The storage's URL."""
        return (self.volume.endpoint or f"https://s3.{self.volume.region}.amazonaws.com").rstrip("/")

    @property
    def host(self) -> str:
        """The storage's name or IP address."""
        return urllib.parse.urlsplit(self.endpoint).hostname or ""

    @property
    def port(self) -> int:
        """The storage's port. Raises: NotFetchable."""
        parts = urllib.parse.urlsplit(self.endpoint)
        try:
            number = parts.port
        except ValueError:
            raise NotFetchable(
                f"data set {self.dataset} lies at {self.endpoint}, which has no valid port; correct "
                "spec.volume.s3.endpoint"
            ) from None
        return number or (443 if parts.scheme == "https" else 80)


def of(dataset: api.EdgeDataset) -> Fetch | None:
    """Return what a data set wants fetched; None if it lies elsewhere."""
    volume = dataset.spec.volume.s3
    if volume is None:
        return None
    uid = dataset.metadata.uid or ""
    asked = json.dumps([uid, volume.manifest()], sort_keys=True)
    digest = hashlib.sha256(asked.encode()).hexdigest()[:10]
    readable = dataset.spec.name[:40].strip("-")
    return Fetch(f"dataset-{readable}-{digest}", dataset.spec.name, dataset.name, uid, volume)


def mount_source(fetch: Fetch) -> dict[str, Any]:
    """Return the volume that a client mounts."""
    return {"persistentVolumeClaim": {"claimName": fetch.name, "readOnly": True}}


def claim(fetch: Fetch, namespace: str) -> dict[str, Any]:
    """Return the claim; the cluster removes it with its EdgeDataset."""
    of_class = (
        {"storageClassName": fetch.volume.storage_class_name} if fetch.volume.storage_class_name else {}
    )
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": fetch.name,
            "namespace": namespace,
            "labels": {**CLAIM_LABELS, DATASET_LABEL: fetch.object_name},
            "ownerReferences": [
                {
                    "apiVersion": meta.API_VERSION,
                    "kind": "EdgeDataset",
                    "name": fetch.object_name,
                    "uid": fetch.object_uid,
                    "controller": True,
                }
            ],
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": fetch.volume.size_limit}},
            **of_class,
        },
    }


def workload(
    fetch: Fetch, namespace: str, image: str, ips: Sequence[str], node_selector: Mapping[str, str]
) -> port.Workload:
    """Return what fetches: the storage's addresses are its only way out, and it needs no name server.

    Raises: NotFetchable.
    """
    if not image:
        raise NotFetchable("the agent does not know its own image; set HANSE_AGENT_IMAGE in its Deployment")
    doors = tuple(port.Destination(ip, fetch.port) for ip in ips)
    if refusal := next(filter(None, map(_why_closed, doors)), ""):
        raise NotFetchable(f"data set {fetch.dataset} lies at {fetch.endpoint}, and {refusal}")
    volume = fetch.volume
    secret = volume.secret_name
    mounts = [port.Mount(CLAIM, {"persistentVolumeClaim": {"claimName": fetch.name}}, read_only=False)]
    if secret is not None:
        mounts.append(port.Mount(SECRET, {"secret": {"secretName": secret, "defaultMode": 0o440}}))
    return port.Workload(
        name=fetch.name,
        # -P: modules come from where they are installed, not from the working directory
        argv=(
            *("python3", "-P", "-m", "edge_agent.fetch"),
            *("--url", volume.url, "--endpoint", fetch.endpoint, "--region", volume.region),
            *("--at-most-bytes", str(int(meta.quantity(volume.size_limit))), "--to", str(CLAIM)),
            *(("--secret", str(SECRET)) if secret is not None else ()),
        ),
        directory=pathlib.PurePosixPath("/tmp"),  # noqa: S108 - a volume of the pod's own
        environment={"PYTHONUNBUFFERED": "1", "HANSE_PROCESS": "fetch"},
        resources=RESOURCES,
        image=image,
        pod=port.Pod(
            namespace=namespace,
            labels={**FETCH_LABELS, DATASET_LABEL: fetch.object_name},
            mounts=tuple(mounts),
            egress=doors,
            host_names={} if _is_address(fetch.host) else {fetch.host: ips[0]},
            # Where clients run: a volume of one node must be theirs.
            node_selector=dict(node_selector),
        ),
    )


def is_ours(found: Mapping[str, Any]) -> bool:
    """Whether a claim is one that the agent made."""
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in CLAIM_LABELS.items())


def fetched(found: Mapping[str, Any]) -> str:
    """Return what a claim's mark says, in words for people; empty if it has none."""
    text = (found["metadata"].get("annotations") or {}).get(FETCHED_ANNOTATION)
    if text is None:
        return ""
    return f"{counted(text) or 'all objects'} fetched; clients mount them read-only"


def counted(words: str) -> str:
    """Return what was fetched, from the program's last words or the mark that is made of them."""
    try:
        said = json.loads(words)
        objects, size = int(said["objects"]), int(said["bytes"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
    return f"{objects} {'object' if objects == 1 else 'objects'} ({readable_bytes(size)})"


def mark(words: str) -> str:
    """Return the mark of a claim, from the program's last words."""
    try:
        said = json.loads(words)
        return json.dumps({"objects": int(said["objects"]), "bytes": int(said["bytes"])})
    except (ValueError, TypeError, KeyError, RecursionError):
        return "{}"


def readable_bytes(size: int) -> str:
    """Return a size as people write it: 12.5 MiB."""
    amount, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{size} bytes" if unit == "bytes" else f"{amount:.1f} {unit}"


# --- what the owner reads


def being_fetched(fetch: Fetch) -> str:
    """Say that clients wait."""
    return (
        f"data set {fetch.dataset} is being fetched from {fetch.volume.url}; clients wait until all is here"
    )


def held(fetch: Fetch, why: str) -> str:
    """Say what the fetch waits for; `why` is a runtime's sentence."""
    return f"data set {fetch.dataset} waits to be fetched from {fetch.volume.url}: {why}"


def failed(fetch: Fetch, why: str) -> str:
    """Say why a fetch failed, and that it goes on."""
    return (
        f"data set {fetch.dataset} cannot be fetched from {fetch.volume.url}: {why.rstrip('.')}; it is tried "
        "again every few minutes, and at once when the EdgeDataset changes"
    )


def why_ended(exited: port.Exited) -> str:
    """Say why what fetches ended without having fetched."""
    if exited.message:
        return exited.message
    how = f"exit code {exited.exit_code}" if exited.signal is None else exited.signal
    return f"what fetches ended with {how}; the agent's log has its last lines"


def not_claimed(fetch: Fetch, why: str) -> str:
    """Say that the cluster does not take the claim; `why` is the API server's sentence."""
    return f"data set {fetch.dataset} cannot be fetched: {why.rstrip('.')}; correct spec.volume.s3.sizeLimit"


def not_allowed(fetch: Fetch, why: str) -> str:
    """Say that the agent may not do what fetching needs, or not so much of it; `why` is the API server's."""
    return (
        f"data set {fetch.dataset} cannot be fetched: {why.rstrip('.')}; have a quota raised, or apply the "
        "manifests of this version of the agent"
    )


def claim_trouble(fetch: Fetch, found: Mapping[str, Any]) -> str:
    """Say why a claim will not do; empty if it may."""
    metadata, status = found["metadata"], found.get("status") or {}
    title = _title(fetch)
    if not is_ours(found):
        return f"{title}, and there is one of that name that the agent did not make; delete or rename it"
    if metadata.get("deletionTimestamp"):
        return f"{title}, which is being deleted; it is made anew once no pod mounts it"
    if status.get("phase") == "Lost":
        return f"{title}, which has lost its volume; delete the claim, and the objects are fetched anew"
    if status.get("phase") == "Bound":
        return ""
    has_class = (found.get("spec") or {}).get("storageClassName") is not None
    if not has_class and _ANY_CLASS not in (metadata.get("annotations") or {}):
        return (
            f"{title}, and this cluster has no default StorageClass; name one in "
            "spec.volume.s3.storageClassName"
        )
    return ""


def no_volume(fetch: Fetch, found: Mapping[str, Any], warning: str) -> str:
    """Say why a claim has no volume, from the cluster's last warning about it; empty if it has one."""
    if not warning or (found.get("status") or {}).get("phase") == "Bound":
        return ""
    said = re.sub(r"\s+", " ", warning)[:300].rstrip(". ")
    return f"{_title(fetch)}, which gets no volume: {said}; check spec.volume.s3.storageClassName"


def not_resolved(fetch: Fetch) -> str:
    """Say that the storage's name leads nowhere."""
    return (
        f"data set {fetch.dataset} lies at {fetch.endpoint}, and the name {fetch.host} cannot be resolved; "
        "correct spec.volume.s3.endpoint, write an IP address there, or let NetworkPolicy hanse-agent reach "
        "the name server"
    )


def _title(fetch: Fetch) -> str:
    return f"data set {fetch.dataset} is fetched into claim {fetch.name}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _why_closed(door: port.Destination) -> str:
    ip = ipaddress.ip_address(door.ip)
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_loopback:
        return f"no storage has the address {door.ip}; correct spec.volume.s3.endpoint"
    return ""
