"""The manifests of an edge agent: what manifests/edge/base makes, and the invitation of one hub.

Why it exists: an edge's owner joins with one command, without a checkout of Hanse and without kustomize. The
base is read from the package `manifests`, so there is one text of it. Pure but for reading that package's
files. This module refuses to know clusters and who applies what.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import importlib.resources
import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any, Final

import yaml

from federation.api import crds, dataset, meta, policy
from federation.trust import bundle

Manifest = dict[str, Any]

NAMESPACE: Final = "hanse"
AGENT: Final = "hanse-agent"
DOOR_POLICY: Final = "hanse-agent-door"
"""Opens the agent's way to the hub that it is invited to."""
INVITATION_SECRET: Final = "hanse-join"  # noqa: S105  # a name
"""Holds the join token; good for one join, and of no use afterwards."""
CONFIGURATION: Final = "hanse-agent"
IDENTITY_SECRET: Final = "hanse-agent-identity"  # noqa: S105  # a name
"""Made by the agent when it has joined: its key and certificate."""
MANAGED: Final = {"app.kubernetes.io/managed-by": "hanse"}
"""On everything that the agent itself makes."""

TOKEN_FILE: Final = "/etc/hanse/join/token"  # noqa: S105  # a path
STATE_DIRECTORY: Final = "/var/lib/hanse/state"

_AGENT_PODS: Final = {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/component": "agent"}
_LABELS: Final = {**_AGENT_PODS, "app.kubernetes.io/part-of": "hanse"}
_KINDS: Final = (dataset.EdgeDataset, policy.EdgePolicy)
_IMAGE_NAMES: Final = re.compile(r"hanse/[a-z-]+")


class InvalidInvitation(ValueError):
    """What the edge's owner gave does not name a hub, a cluster or a CA; the text says what is wrong."""


class ClientState(enum.StrEnum):
    """Where clients keep their app's state and finished work."""

    CLAIM = "claim"
    POD = "pod"


@dataclasses.dataclass(frozen=True, slots=True)
class Invitation:
    """What an edge needs to join: where, as whom, with which token, and which CA to believe.

    hub: HOST:PORT of the hub's door. ca_hash: sha256:HEX of the hub's CA key. storage_class: of the claims
    for clients' state; empty for the cluster's default.
    Raises: InvalidInvitation.
    """

    hub: str
    token: str = dataclasses.field(repr=False)
    ca_hash: str
    cluster: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    client_state: ClientState = ClientState.CLAIM
    storage_class: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without asking the hub."""
        address(self.hub)
        try:
            bundle.check_pin(self.ca_hash)
        except bundle.InvalidPin as error:
            raise InvalidInvitation(f"--ca-hash: {error}") from error
        if len(self.cluster) > 63 or not re.fullmatch(meta.LABEL_PATTERN, self.cluster):
            raise InvalidInvitation(
                f"--name {self.cluster[:80]!r}: want 1 to 63 of a-z, 0-9 and -, beginning and ending with a "
                "letter or digit"
            )
        if self.storage_class and self.client_state is ClientState.POD:
            raise InvalidInvitation(
                f"--storage-class {self.storage_class[:80]}: with --client-state pod there are no claims; "
                "leave one of the two out"
            )
        for key, value in self.labels.items():
            if not re.fullmatch(meta.LABEL_KEY_PATTERN, key) or not re.fullmatch(
                meta.LABEL_VALUE_PATTERN, value
            ):
                raise InvalidInvitation(f"--label {key}={value}: not a label as Kubernetes has them")


def address(hub: str) -> tuple[str, int]:
    """Return host and port of HOST:PORT, or of [IPv6]:PORT. Raises: InvalidInvitation."""
    host, colon, port = hub.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise InvalidInvitation(f"HUB {hub[:80]!r}: want HOST:PORT, such as hub.example.org:443")
    return host, int(port)


def agent(
    invitation: Invitation, *, namespace: str = NAMESPACE, registry: str | None = None
) -> list[Manifest]:
    """Return everything of an agent, in the order in which it can be applied.

    registry: where the images are, with their path (localhost/hanse); None for the release's own.
    """
    base = [
        manifest
        for name in _resources()
        for manifest in yaml.safe_load_all(_text("edge", "base", name))
        if manifest is not None
    ]
    if namespace != NAMESPACE:
        base = [_moved(manifest, namespace) for manifest in base]
    base = [_with_images(manifest, _images(registry)) for manifest in base]
    definitions = [crds.definition(kind) for kind in _KINDS]
    # The pod waits for what it mounts: the invitation comes before it.
    return _ordered([*definitions, *base, *invitation_manifests(invitation, namespace=namespace)])


def invitation_manifests(invitation: Invitation, *, namespace: str = NAMESPACE) -> list[Manifest]:
    """Return what manifests/edge/base lacks: who the hub is, the way there, and the token."""
    configuration = {
        "cluster": invitation.cluster,
        "enrollment_address": invitation.hub,
        "ca_pin": bundle.check_pin(invitation.ca_hash),
        "token_file": TOKEN_FILE,
        "state_directory": STATE_DIRECTORY,
        "labels": dict(sorted(invitation.labels.items())),
        "kubernetes": _settings(invitation),
    }
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": DOOR_POLICY, "namespace": namespace, "labels": dict(_LABELS)},
            "spec": {
                "podSelector": {"matchLabels": dict(_AGENT_PODS)},
                "policyTypes": ["Egress"],
                "egress": _way_to(invitation.hub),
            },
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CONFIGURATION, "namespace": namespace, "labels": dict(_LABELS)},
            "data": {"config.json": json.dumps(configuration, indent=2) + "\n"},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": INVITATION_SECRET, "namespace": namespace, "labels": dict(_LABELS)},
            "type": "Opaque",
            "stringData": {"token": invitation.token},
        },
    ]


def _settings(invitation: Invitation) -> Manifest:
    settings: Manifest = {}
    if invitation.client_state is not ClientState.CLAIM:
        settings["client_state"] = str(invitation.client_state)
    if invitation.storage_class:
        settings["client_state_class"] = invitation.storage_class
    return settings


def to_yaml(manifests: list[Manifest]) -> str:
    """Return manifests as one YAML stream."""
    return "---\n".join(
        yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
        for manifest in manifests
    )


def client_images(registry: str | None = None) -> dict[str, str]:
    """Return the release's images by their short names, such as hanse/client."""
    return _images(registry)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


@functools.cache
def _text(*path: str) -> str:
    return importlib.resources.files("manifests").joinpath(*path).read_text(encoding="utf-8")


def _resources() -> list[str]:
    kustomization = yaml.safe_load(_text("edge", "base", "kustomization.yaml"))
    return [name for name in kustomization["resources"] if name.endswith(".yaml")]


def _images(registry: str | None) -> dict[str, str]:
    release = yaml.safe_load(_text("release", "kustomization.yaml"))
    return {entry["name"]: reference(entry, registry) for entry in release["images"]}


def reference(entry: Mapping[str, str], registry: str | None) -> str:
    """Return the image that an entry of a kustomization's `images` names, as kustomize puts it together.

    entry: name, newName, and newTag or digest, or both. registry: where it is instead of in newName.
    """
    name = entry["name"]
    where = entry.get("newName", name) if registry is None else f"{registry}/{name.partition('/')[2]}"
    tag, digest = entry.get("newTag"), entry.get("digest")
    return where + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")


def _with_images(node: Any, images: Mapping[str, str]) -> Any:
    """Put the release's images where the base says hanse/…: in `image`, and in the environment."""
    if isinstance(node, dict):
        return {key: _with_images(value, images) for key, value in node.items()}
    if isinstance(node, list):
        return [_with_images(value, images) for value in node]
    return images.get(node, node) if isinstance(node, str) and _IMAGE_NAMES.fullmatch(node) else node


def _moved(manifest: Manifest, namespace: str) -> Manifest:
    moved = json.loads(json.dumps(manifest))
    if moved["kind"] == "Namespace":
        moved["metadata"]["name"] = namespace
    if "namespace" in moved["metadata"]:
        moved["metadata"]["namespace"] = namespace
    for subject in moved.get("subjects", ()):
        subject["namespace"] = namespace
    return dict(moved)


def _way_to(hub: str) -> list[Manifest]:
    """Return the egress rules that lead to the hub; DNS is among them only where the hub has a name."""
    host, port = address(hub)
    door = {"ports": [{"protocol": "TCP", "port": port}]}
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return [door, {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]
    return [{"to": [{"ipBlock": {"cidr": f"{ip}/{ip.max_prefixlen}"}}], **door}]


_ORDER: Final = (
    "Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "Role", "RoleBinding",
    "NetworkPolicy", "ConfigMap", "Secret", "Deployment",
)  # fmt: skip


def _ordered(manifests: list[Manifest]) -> list[Manifest]:
    return sorted(manifests, key=lambda manifest: _ORDER.index(manifest["kind"]))
