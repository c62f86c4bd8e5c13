"""What a workload becomes in a cluster: a Job, and what its pod needs and may do.

The Job is created suspended. Everything else belongs to it through ownerReferences and is created before the
Job may make its pod, the NetworkPolicy first: so no pod ever runs without its policy, and deleting the Job
leaves nothing, whatever moment its maker died at. This module is pure: no API server, no clock.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import ipaddress
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from federation.runtime import pod_states, port

Object = dict[str, Any]

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "hanse"
WORKLOAD_LABEL = "hanse.dev/workload"
OWNER_LABEL = "hanse.dev/runtime"
"""Whose workload it is: a hub and an edge may share a cluster and must not tidy up after each other."""

CONTAINER = "main"

USER = 65532
"""The numeric user and group of Hanse's images; Pod Security `restricted` wants it above 0 and said."""

GRACE_SECONDS = 10
"""A container that was asked to end has so long; what must not be lost is written as it happens."""

THREADS = "OMP_NUM_THREADS"
"""With how many threads to compute: torch, OpenBLAS and MKL all look there; an app may say otherwise."""

BLOB_PART_BYTES = 720 * 1024
"""A ConfigMap holds at most 1 MiB, and as base64 in a request a part stays below that too."""


def selector(owner: str) -> str:
    """Return the label selector of every object of an owner's workloads."""
    return f"{MANAGED_BY}={MANAGER},{OWNER_LABEL}={owner}"


def owned(workload: port.Workload, owner: str) -> port.Workload:
    """Return the workload with its owner's label on every object."""
    labels = {**workload.pod.labels, OWNER_LABEL: owner}
    return dataclasses.replace(workload, pod=dataclasses.replace(workload.pod, labels=labels))


def labels_of(workload: port.Workload) -> dict[str, str]:
    """Return the labels of every object of a workload."""
    return {**workload.pod.labels, MANAGED_BY: MANAGER, WORKLOAD_LABEL: workload.name}


def job(workload: port.Workload) -> Object:
    """Return the Job, suspended; `resume` lets it make its pod."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(workload, workload.name),
        "spec": {
            "suspend": True,
            "backoffLimit": 0,
            "parallelism": 1,
            "completions": 1,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": labels_of(workload), "annotations": _pod_annotations(workload)},
                "spec": _pod_spec(workload),
            },
        },
    }


def resume() -> Object:
    """Return the merge patch that lets a Job make its pod."""
    return {"spec": {"suspend": False}}


def belongings(workload: port.Workload, job_uid: str) -> list[Object]:
    """Return what must be there before the pod, in the order to create it, owned by the Job."""
    objects = [_network_policy(workload)]
    if workload.files:
        objects.append(_secret(workload, files_name(workload.name), workload.files))
    for directory, files in workload.pod.secret_directories.items():
        objects.append(_secret(workload, secret_name(workload.name, directory), files))
    for directory, content in workload.pod.blobs.items():
        objects.extend(_blob(workload, directory, content))
    owner = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": workload.name,
        "uid": job_uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    for one in objects:
        one["metadata"]["ownerReferences"] = [owner]
    return objects


def workload_name(obj: Mapping[str, Any]) -> str:
    """Return which workload an object belongs to; empty if it does not say."""
    return str((obj["metadata"].get("labels") or {}).get(WORKLOAD_LABEL) or "")


def owner_of(obj: Mapping[str, Any]) -> str:
    """Return whose workload an object belongs to; empty if it is none of ours."""
    return str((obj["metadata"].get("labels") or {}).get(OWNER_LABEL) or "")


def test_of_owner(owner: str) -> list[Object]:
    """Return the JSON patch that changes nothing and is refused for another owner's object."""
    path = f"/metadata/labels/{OWNER_LABEL.replace('~', '~0').replace('/', '~1')}"
    return [{"op": "test", "path": path, "value": owner}]


def never_began(job: Mapping[str, Any]) -> bool:
    """Whether a Job was made and never let go: its maker died before all that belongs to it was there."""
    return bool(job["spec"].get("suspend")) and not (job.get("status") or {}).get("startTime")


def files_name(workload: str) -> str:
    """Return the name of the Secret with a workload's `files`."""
    return f"{workload}-files"


def secret_name(workload: str, directory: pathlib.PurePath) -> str:
    """Return the name of the Secret behind one of `secret_directories`; nobody need remember it."""
    return f"{workload}-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}"


def secret_data(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return a Secret's `data`."""
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


def _metadata(workload: port.Workload, name: str) -> Object:
    return {
        "name": name,
        "namespace": workload.pod.namespace,
        "labels": labels_of(workload),
        "annotations": dict(workload.pod.annotations),
    }


def _pod_annotations(workload: port.Workload) -> dict[str, str]:
    annotations = dict(workload.pod.annotations)
    if workload.pod.restarts_in_place:
        annotations[pod_states.RESTARTS_ANNOTATION] = str(workload.pod.restarts_in_place)
    return annotations


def _secret(workload: port.Workload, name: str, files: Mapping[str, bytes]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _metadata(workload, name),
        "type": "Opaque",
        "data": secret_data(files),
    }


def blob_name(workload: str, directory: pathlib.PurePath, part: int) -> str:
    """Return the name of the ConfigMap with a part, counted from 0, of what is mounted at a directory."""
    return f"{secret_name(workload, directory)}-{part:03}"


def blob_key(part: int) -> str:
    """Return under which key a part stands in its ConfigMap."""
    return f"part-{part:03}"


def _blob_parts(content: bytes) -> list[bytes]:
    return [content[at : at + BLOB_PART_BYTES] for at in range(0, max(len(content), 1), BLOB_PART_BYTES)]


def _blob(workload: port.Workload, directory: pathlib.PurePath, content: bytes) -> Iterator[Object]:
    if len(content) > port.MAXIMUM_BLOB_BYTES:
        size, most = len(content) / 2**20, port.MAXIMUM_BLOB_BYTES // 2**20
        raise port.WorkloadNotStarted(
            workload.name,
            f"{directory} has {size:.1f} MiB, and at most {most} MiB fit in the cluster's database; put what "
            "is larger into the image",
        )
    for number, part in enumerate(_blob_parts(content)):
        yield {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _metadata(workload, blob_name(workload.name, directory, number)),
            "immutable": True,
            "binaryData": {blob_key(number): base64.b64encode(part).decode()},
        }


def _network_policy(workload: port.Workload) -> Object:
    pod = workload.pod
    egress = [_anywhere()] if pod.egress is None else [_way_out(to) for to in pod.egress]
    ingress = [] if pod.ingress_port is None else [{"ports": [_tcp(pod.ingress_port)]}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(workload, workload.name),
        "spec": {
            "podSelector": {"matchLabels": {WORKLOAD_LABEL: workload.name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }


def _anywhere() -> Object:
    """Everywhere but where clouds hand a node's credentials to whoever asks."""
    return {
        "to": [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
            {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::/32"]}},
            {"namespaceSelector": {}},  # some networks take addresses of pods for no addresses
        ]
    }


def _way_out(to: port.Destination | port.PodDestination) -> Object:
    if isinstance(to, port.PodDestination):
        peer: Object = {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": to.namespace}},
            "podSelector": {"matchLabels": dict(to.labels)},
        }
    else:
        address = ipaddress.ip_address(to.ip)
        peer = {"ipBlock": {"cidr": f"{address}/{address.max_prefixlen}"}}
    return {"to": [peer], "ports": [_tcp(to.port)]}


def _tcp(number: int) -> Object:
    return {"protocol": "TCP", "port": number}


def _pod_spec(workload: port.Workload) -> Object:
    volumes, mounts = _volumes(workload)
    spec: Object = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": workload.image,
                "imagePullPolicy": "IfNotPresent",
                "command": list(workload.argv),
                "workingDir": str(workload.directory),
                "env": _environment(workload),
                "resources": {
                    "requests": dict(workload.resources.requests),
                    "limits": dict(workload.resources.limits),
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "terminationMessagePath": str(port.TERMINATION_LOG),
                "terminationMessagePolicy": "File",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }
    if workload.pod.restarts_in_place:
        # Beta and on by default from 1.35 on. Kubelet does not count; pod_states does.
        codes = {"operator": "In", "values": [pod_states.KILLED_EXIT_CODE]}
        spec["containers"][0]["restartPolicy"] = "Never"
        spec["containers"][0]["restartPolicyRules"] = [{"action": "Restart", "exitCodes": codes}]
    if workload.pod.service_account:
        spec["serviceAccountName"] = workload.pod.service_account
    if workload.pod.node_selector:
        spec["nodeSelector"] = dict(workload.pod.node_selector)
    if workload.pod.host_names:
        spec["hostAliases"] = _host_aliases(workload.pod.host_names)
    return spec


def _environment(workload: port.Workload) -> list[Object]:
    """The workload's own, after what only the cluster knows."""
    fields = {"POD_IP": "status.podIP", "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}
    found: list[Object] = [
        {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
        for name, path in fields.items()
        if name not in workload.environment
    ]
    if "cpu" in workload.resources.limits and THREADS not in workload.environment:
        # Math libraries count the node's processors. More threads than the limit feeds wait for each other.
        limit = {"resource": "limits.cpu", "divisor": "1"}  # a fraction of a processor is rounded up
        found.append({"name": THREADS, "valueFrom": {"resourceFieldRef": limit}})
    values = {"HOME": "/tmp", **workload.environment}  # noqa: S108 - a volume of the pod's own
    # $(NAME) would be replaced; $$ is how Kubernetes writes a dollar.
    found += [{"name": name, "value": value.replace("$(", "$$(")} for name, value in values.items()]
    return found


def _host_aliases(names: Mapping[str, str]) -> list[Object]:
    by_address: dict[str, list[str]] = {}
    for name, address in sorted(names.items()):
        by_address.setdefault(address, []).append(name)
    return [{"ip": address, "hostnames": listed} for address, listed in sorted(by_address.items())]


def _volumes(workload: port.Workload) -> tuple[list[Object], list[Object]]:
    volumes: list[Object] = []
    mounts: list[Object] = []

    def add(
        name: str, path: pathlib.PurePath, source: Mapping[str, Any], read_only: bool, sub_path: str = ""
    ) -> None:
        volumes.append({"name": name, **source})
        part = {"subPath": sub_path} if sub_path else {}
        mounts.append({"name": name, "mountPath": str(path), "readOnly": read_only, **part})

    pod = workload.pod
    paths = {mount.path for mount in pod.mounts} | {*pod.secret_directories, *pod.blobs}
    temporary = pathlib.PurePosixPath("/tmp")  # noqa: S108 - a volume of the pod's own
    if temporary not in paths:
        add("tmp", temporary, {"emptyDir": {}}, False)
    if workload.files:
        add("files", workload.directory, _secret_source(files_name(workload.name)), True)
    elif workload.directory not in {*paths, temporary}:
        add("work", workload.directory, {"emptyDir": {}}, False)
    for number, directory in enumerate(pod.secret_directories):
        add(f"secret-{number}", directory, _secret_source(secret_name(workload.name, directory)), True)
    for number, (directory, content) in enumerate(pod.blobs.items()):
        parts = range(len(_blob_parts(content)))
        sources = [{"configMap": {"name": blob_name(workload.name, directory, part)}} for part in parts]
        add(f"blob-{number}", directory, {"projected": {"sources": sources}}, True)
    for number, mount in enumerate(pod.mounts):
        add(f"mount-{number}", mount.path, _source(mount), mount.read_only, mount.sub_path)
    return volumes, mounts


def _secret_source(name: str) -> Object:
    # The group reads it too, which fsGroup makes the pod's own.
    return {"secret": {"secretName": name, "defaultMode": 0o440}}


def _source(mount: port.Mount) -> Object:
    """A read-only volume is read-only as a whole: else kubelet would give the owner's files to `fsGroup`."""
    source = {name: dict(value) for name, value in mount.source.items()}
    if mount.read_only:
        for name in source.keys() & {"persistentVolumeClaim", "csi", "nfs", "iscsi", "cephfs", "rbd"}:
            source[name]["readOnly"] = True
    return source
