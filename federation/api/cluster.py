"""EdgeCluster: a member of the federation as the hub's operator sees it.

It refuses to know how a member proves who it is (federation/trust) and what its owner allows (policy.py).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from federation.api import meta
from federation.api.meta import Change, Doc, Model


class Acceptance(StrEnum):
    """What the hub's operator decided on a member."""

    PENDING = "Pending"
    ACCEPTED = "Accepted"
    EXPELLED = "Expelled"


class EdgeClusterSpec(Model):
    """What the hub's operator says of a member."""

    acceptance: Annotated[
        Acceptance,
        Doc(
            "says whether the cluster may take part; Expelled revokes its certificate and cuts its "
            "streams at once.",
            Change.ANY_TIME,
        ),
    ] = Acceptance.PENDING
    labels: Annotated[
        meta.Labels,
        Doc("are what trainings select by; they win over what the edge says of itself.", Change.ANY_TIME),
    ] = Field(default_factory=dict)
    maximum_trainings: Annotated[
        int,
        Field(ge=0, le=1000),
        Doc("is the most trainings that run on the cluster at once.", Change.ANY_TIME),
    ] = 10


class ClusterDataset(Model):
    """A data set that the cluster offers."""

    name: Annotated[meta.DnsLabel, Doc("is the name that trainings ask for.", Change.BY_HUB)]
    examples: Annotated[
        meta.BigCount | None, Doc("is the number of examples, if the owner declares it.", Change.BY_HUB)
    ] = None
    labels: Annotated[meta.Labels, Doc("are the owner's.", Change.BY_HUB)] = Field(default_factory=dict)
    schema_digest: Annotated[
        meta.Digest | None,
        Doc("is the digest of the data's schema, if the owner declares it.", Change.BY_HUB),
    ] = None


class AgentStatus(Model):
    """The agent that is or was connected."""

    version: Annotated[meta.Word, Doc("is the agent's release.", Change.BY_HUB)]
    protocol: Annotated[meta.Count | None, Doc("is the protocol version agreed on.", Change.BY_HUB)] = None


class CertificateStatus(Model):
    """The certificate in force."""

    sha256: Annotated[meta.Sha256, Doc("is the certificate's fingerprint.", Change.BY_HUB)]
    expires_at: Annotated[datetime, Doc("is when the certificate expires.", Change.BY_HUB)]


class TrainingReference(Model):
    """A training that runs on the cluster."""

    namespace: Annotated[meta.DnsLabel, Doc("is the training's namespace.", Change.BY_HUB)]
    name: Annotated[meta.DnsLabel, Doc("is the training's name.", Change.BY_HUB)]


class EdgeClusterSummary(Model):
    """What print columns show, since a column can show one field only."""

    datasets: Annotated[meta.ShortText | None, Doc("is the data sets' names.", Change.BY_HUB)] = None
    trainings: Annotated[
        Annotated[str, Field(max_length=32)] | None,
        Doc("is the running trainings, of the most allowed, like 2/10.", Change.BY_HUB),
    ] = None


class EdgeClusterStatus(Model):
    """What the hub knows of a member; the hub is the only writer."""

    observed_generation: Annotated[
        meta.BigCount | None, Doc("is the metadata.generation that the status speaks of.", Change.BY_HUB)
    ] = None
    conditions: Annotated[meta.Conditions, meta.CONDITIONS] = ()
    datasets: Annotated[
        tuple[ClusterDataset, ...],
        Field(max_length=256),
        meta.keyed("are the data sets that the cluster offers.", Change.BY_HUB, "name"),
    ] = ()
    agent_labels: Annotated[meta.Labels, Doc("are what the edge says of itself.", Change.BY_HUB)] = Field(
        default_factory=dict
    )
    agent: Annotated[AgentStatus | None, Doc("is the agent that is or was connected.", Change.BY_HUB)] = None
    certificate: Annotated[CertificateStatus | None, Doc("is the certificate in force.", Change.BY_HUB)] = (
        None
    )
    joined_at: Annotated[datetime | None, Doc("is when the cluster enrolled.", Change.BY_HUB)] = None
    last_heartbeat_at: Annotated[datetime | None, Doc("is when the agent was last heard.", Change.BY_HUB)] = (
        None
    )
    trainings: Annotated[
        tuple[TrainingReference, ...],
        Field(max_length=1000),
        meta.keyed("are the trainings that run on the cluster.", Change.BY_HUB, "namespace", "name"),
    ] = ()
    summary: Annotated[EdgeClusterSummary | None, Doc("is what print columns show.", Change.BY_HUB)] = None


class EdgeCluster(meta.Resource):
    """EdgeCluster is a member of the federation: what its hub decided on it and knows of it."""

    INFO = meta.ResourceInfo(
        kind="EdgeCluster",
        plural="edgeclusters",
        short_names=("edge",),
        namespaced=False,
        columns=(
            meta.Column("Accepted", ".spec.acceptance"),
            meta.Column("Connected", '.status.conditions[?(@.type=="Connected")].status'),
            meta.Column("Datasets", ".status.summary.datasets"),
            meta.Column("Trainings", ".status.summary.trainings"),
            meta.Column("Version", ".status.agent.version"),
            meta.Column("Cert-Expires", ".status.certificate.expiresAt"),
            meta.Column("Age", ".metadata.creationTimestamp", type="date"),
        ),
    )

    kind: Literal["EdgeCluster"] = "EdgeCluster"
    spec: Annotated[EdgeClusterSpec, Doc("is what the hub's operator decided.", Change.ANY_TIME)] = (
        EdgeClusterSpec()
    )
    status: Annotated[EdgeClusterStatus | None, Doc("is what the hub knows of it.", Change.BY_HUB)] = None

    @property
    def selection_labels(self) -> dict[str, str]:
        """What selectors look at: what the edge says of itself, and the operator's labels over it."""
        return {**(self.status.agent_labels if self.status else {}), **self.spec.labels}
