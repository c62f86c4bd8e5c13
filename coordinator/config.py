"""What a coordinator is told at its start: one JSON file, read once.

This module refuses to know what is done with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from coordinator.issuing import tokens
from federation.api import model_urls
from federation.trust import identity

Pattern = Annotated[str, pydantic.Field(min_length=1, max_length=1024)]
Seconds = Annotated[float, pydantic.Field(gt=0, le=10 * 365 * 86_400)]


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class JoinToken(_Model):
    """A join token as the hub keeps it: never the secret, only its SHA-256 (hex)."""

    token_id: Annotated[str, pydantic.Field(pattern=r"^[a-z2-7]{8}$")]
    secret_sha256: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$", repr=False)]
    expires_at: pydantic.AwareDatetime
    cluster: str = ""
    approves: bool = False

    def record(self) -> tokens.TokenRecord:
        """Return it as issuing knows it."""
        return tokens.TokenRecord(
            self.token_id, self.secret_sha256, self.expires_at, self.cluster, self.approves
        )

    @classmethod
    def of(cls, record: tokens.TokenRecord) -> JoinToken:
        """Return the configuration of a fresh token's record."""
        return cls(
            token_id=record.token_id,
            secret_sha256=record.secret_sha256,
            expires_at=record.expires_at,
            cluster=record.cluster,
            approves=record.approves,
        )


class CertificateLifetimes(_Model):
    """How long certificates are good, in seconds; they are renewed at two thirds."""

    coordinator_seconds: Seconds = 30 * 86_400
    cluster_seconds: Seconds = 7 * 86_400
    aggregator_seconds: Seconds = 86_400
    client_seconds: Seconds = 86_400


GUARDED_ACCOUNT = "hanse-coordinator"
GUARDED_NAMESPACE = "hanse-system"
"""Where manifests/hub/base installs the coordinator, and what its admission policies compare with."""


class KubernetesConfig(_Model):
    """How a hub is set up whose resources are in a Kubernetes API server and whose aggregators are pods."""

    namespace: str = ""
    """The hub's own; empty: POD_NAMESPACE, else hanse-system. A pod elsewhere has to say it: `unguarded`."""
    pod_name: str = ""
    """Who stands for election; empty: POD_NAME, else the host's name."""
    pod_ip: str = ""
    """Where this pod is reached inside the cluster; empty: POD_IP."""
    kubeconfig: Path | None = None
    """Empty in a pod: the service account's."""

    aggregator_image: str = ""
    """What aggregators of trainings run that name no image; empty: HANSE_AGGREGATOR_IMAGE."""
    aggregator_images: Annotated[tuple[Pattern, ...], pydantic.Field(max_length=64)] = ()
    """Patterns of the images that trainings may name for their aggregators besides; `*` stands for any text,
    as in registry.example/apps/*@sha256:*. Empty: HANSE_AGGREGATOR_IMAGES, with commas between; else none."""
    client_image: str = ""
    """What clients of trainings run that name no image; empty: HANSE_CLIENT_IMAGE."""
    control_service: str = "hanse-coordinator"
    """The Service by which aggregators find whoever leads; without it, this pod's own address."""

    door_directory: Path | None = Path("/run/hanse/door")
    """Shared with Envoy; null for a hub without a door, whose listeners edges dial themselves."""
    door_listen: str = "0.0.0.0:8443"
    health_listen: str = "0.0.0.0:8081"

    ca_secret: str = "hanse-ca"  # noqa: S105
    create_ca: bool = True
    """Make the CA if it is not there; false where cert-manager makes it."""

    models_claim: str = "hanse-models"
    """The claim in each training's namespace that holds the models of trainings that name no store."""
    models_size: str = "10Gi"
    models_class: str = ""
    """The claim's storage class; empty: the cluster's default."""

    lease: str = "hanse-coordinator"
    lease_seconds: Seconds = 15.0
    renew_seconds: Seconds = 10.0
    retry_seconds: Seconds = 2.0

    def unguarded(self, environment: Mapping[str, str]) -> str:
        """Say why a pod in this environment is not to start: nothing bounds what it may write; or nothing.

        The admission policies of manifests/hub/base know the coordinator by its account and namespace. An
        overlay that changes either would lose them without a word, and everybody's Secrets would be open to
        it.
        """
        account = environment.get("POD_SERVICE_ACCOUNT") or GUARDED_ACCOUNT
        if account != GUARDED_ACCOUNT:
            return (
                f"this coordinator has the service account {account}, and the admission policies that keep "
                f"it from others' Secrets are for {GUARDED_ACCOUNT}; leave its name as it is: no "
                "namePrefix, no nameSuffix"
            )
        where = environment.get("POD_NAMESPACE") or GUARDED_NAMESPACE
        if where in (GUARDED_NAMESPACE, self.namespace):
            return ""
        return (
            f"this coordinator runs in namespace {where}, and the admission policies that keep it from "
            f"others' Secrets are for {GUARDED_NAMESPACE}; install it there, or write {where} into "
            "manifests/hub/base/admission.yaml and, to say that this is done, into kubernetes.namespace of "
            "its configuration"
        )

    def completed(self, environment: Mapping[str, str], host_name: str) -> KubernetesConfig:
        """Return it with what a pod learns from its environment."""
        wanted = {
            "namespace": self.namespace or environment.get("POD_NAMESPACE") or GUARDED_NAMESPACE,
            "pod_name": self.pod_name or environment.get("POD_NAME") or host_name,
            "pod_ip": self.pod_ip or environment.get("POD_IP") or "127.0.0.1",
            "aggregator_image": self.aggregator_image or environment.get("HANSE_AGGREGATOR_IMAGE", ""),
            "aggregator_images": self.aggregator_images
            or tuple(
                pattern.strip()
                for pattern in environment.get("HANSE_AGGREGATOR_IMAGES", "").split(",")
                if pattern.strip()
            ),
            "client_image": self.client_image or environment.get("HANSE_CLIENT_IMAGE", ""),
        }
        return self.model_copy(update=wanted)


class CoordinatorConfig(_Model):
    """The configuration of `python -m coordinator --config FILE`."""

    trust_domain: Annotated[str, pydantic.AfterValidator(identity.check_trust_domain)] = "hanse.local"
    hub: str = ""
    """The hub's name as edges' policies match it; empty: the trust domain."""

    enrollment_listen: str = "127.0.0.1:0"
    """Where edges join: TLS with a server certificate only. Port 0 takes a free one."""
    control_listen: str = "127.0.0.1:0"
    """Where members and aggregators call: mutual TLS."""
    aggregator_listen: str = "127.0.0.1:0"
    """Where each aggregator listens for its clients."""
    advertised_host: str = ""
    """What edges are told to dial, with the real port; empty: the listening host."""

    state_directory: Path
    """The CA, credentials, bundles, logs and aggregators' directories; readable by this user only."""
    resources: tuple[Path, ...] = ()
    """Manifests, or directories of them, that the store in memory starts with: trainings and clusters."""
    join_tokens: tuple[JoinToken, ...] = ()
    kubernetes: KubernetesConfig | None = None
    """For a hub on Kubernetes; it takes resources and join tokens from there, and from nowhere else."""
    certificate_lifetimes: CertificateLifetimes = CertificateLifetimes()

    model_store: str = ""
    """The fsspec URL for trainings that name none; empty: `models` in the state directory."""
    finished_trainings_kept: Annotated[int, pydantic.Field(ge=0)] | None = None
    """So many trainings that have ended stay in each namespace, the latest; older ones are deleted, their
    models excepted. Left out: all stay, but for those whose ttlSecondsAfterFinished is over."""
    publish_changes: bool = False
    """Write changes of resources, Events and trainings' log lines to standard output, as JSON lines."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    heartbeat_interval_seconds: Seconds = 10.0
    link_grace_seconds: Annotated[float, pydantic.Field(ge=0)] = 300.0
    """So long a lost edge is waited for: a cut of two minutes, and finding the hub again, costs none."""
    start_grace_seconds: Annotated[float, pydantic.Field(ge=0)] = 10.0
    """So long accepted members that have not connected or answered are waited for once there are enough."""
    stop_grace_seconds: Annotated[float, pydantic.Field(ge=0)] = 10.0

    @pydantic.field_validator("model_store")
    @classmethod
    def _can_be_a_store(cls, url: str) -> str:
        if refused := model_urls.refusal(url):
            raise ValueError(refused)
        return url

    @pydantic.model_validator(mode="after")
    def _one_world(self) -> CoordinatorConfig:
        if self.kubernetes is not None and (self.resources or self.join_tokens):
            raise ValueError("resources and join_tokens are for a hub without kubernetes; leave them out")
        return self


class Endpoints(_Model):
    """What `endpoints.json` in the state directory says once both listeners are up."""

    trust_domain: str
    enrollment_address: str
    control_address: str
    control_server_name: str
    ca_pin: str
    ready_at: datetime


def lifetime(seconds: float) -> timedelta:
    """Return seconds as a timedelta."""
    return timedelta(seconds=seconds)
