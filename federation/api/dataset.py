"""EdgeDataset: a named data set of an edge, how a client reads it, and what the hub may know of it.

It refuses to know who may train on it (policy.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from federation.api import meta
from federation.api.meta import Change, Doc, Model

MOUNT_PATH_TEXT = "$(MOUNT_PATH)"  # in nodeConfig's strings, replaced by the real mount path at the edge

_NEXT = Change.NEXT_TRAINING


class PersistentVolumeClaimVolume(Model):
    """A claim of the same namespace."""

    claim_name: Annotated[meta.ObjectName, Doc("is the PersistentVolumeClaim's name.", _NEXT)]


class HostPathVolume(Model):
    """A directory of the node."""

    path: Annotated[meta.AbsolutePath, Doc("is the directory on the node.", _NEXT)]


class ConfigMapVolume(Model):
    """A ConfigMap of the same namespace, for small data."""

    name: Annotated[meta.ObjectName, Doc("is the ConfigMap's name.", _NEXT)]


class CsiVolume(Model):
    """A volume of a CSI driver."""

    driver: Annotated[meta.ObjectName, Doc("is the CSI driver's name.", _NEXT)]
    volume_handle: Annotated[
        Annotated[str, Field(min_length=1, max_length=1024)] | None,
        Doc("is the volume as the driver knows it.", _NEXT),
    ] = None
    attributes: Annotated[
        dict[str, Annotated[str, Field(max_length=1024)]],
        Field(max_length=64),
        Doc("are passed to the driver.", _NEXT),
    ] = Field(default_factory=dict)


class S3Volume(Model):
    """Objects of an S3 bucket."""

    url: Annotated[
        str,
        Field(min_length=6, max_length=1024, pattern=r"^s3://.+$"),
        Doc("is the objects' place, s3://BUCKET/PREFIX.", _NEXT),
    ]
    secret_name: Annotated[
        meta.ObjectName | None, Doc("is the Secret that opens the bucket; without it, none is used.", _NEXT)
    ] = None


class Volume(Model):
    """Where the data lie: exactly one of the fields."""

    CEL = (meta.exactly_one_of("persistentVolumeClaim", "hostPath", "configMap", "csi", "s3"),)

    persistent_volume_claim: Annotated[
        PersistentVolumeClaimVolume | None, Doc("is a claim of this namespace.", _NEXT)
    ] = None
    host_path: Annotated[HostPathVolume | None, Doc("is a directory of the node.", _NEXT)] = None
    config_map: Annotated[ConfigMapVolume | None, Doc("is a ConfigMap of this namespace.", _NEXT)] = None
    csi: Annotated[CsiVolume | None, Doc("is a volume of a CSI driver.", _NEXT)] = None
    s3: Annotated[S3Volume | None, Doc("is the objects of an S3 bucket.", _NEXT)] = None


class Declaration(Model):
    """What the hub may know of the data."""

    examples: Annotated[
        Annotated[int, Field(ge=1, le=2**53)] | None,
        Doc("is the number of examples; without it the hub is told none.", Change.ANY_TIME),
    ] = None
    schema_digest: Annotated[
        meta.Digest | None,
        Doc("is the digest of the data's schema; without it the hub is told none.", Change.ANY_TIME),
    ] = None


class EdgeDatasetSpec(Model):
    """The data set as its owner describes it."""

    name: Annotated[meta.DnsLabel, Doc("is the name that trainings ask for.", Change.NEVER)]
    volume: Annotated[Volume, Doc("is where the data lie; clients mount it read-only.", _NEXT)]
    mount_path: Annotated[meta.AbsolutePath, Doc("is where a client finds the data.", _NEXT)] = "/data"
    node_config: Annotated[
        meta.ScalarMap,
        Doc(
            "is what the ClientApp finds in context.node_config; $(MOUNT_PATH) inside text stands for "
            "the real mount path.",
            _NEXT,
        ),
    ] = Field(default_factory=dict)
    declare: Annotated[Declaration, Doc("is what the hub may know of the data.", Change.ANY_TIME)] = (
        Declaration()
    )
    labels: Annotated[meta.Labels, Doc("are told to the hub with the name.", Change.ANY_TIME)] = Field(
        default_factory=dict
    )


class EdgeDatasetStatus(Model):
    """What the edge agent says of the data set."""

    observed_generation: Annotated[
        meta.BigCount | None, Doc("is the metadata.generation that the status speaks of.", Change.BY_AGENT)
    ] = None
    conditions: Annotated[meta.Conditions, meta.AGENT_CONDITIONS] = ()


class EdgeDataset(meta.Resource):
    """EdgeDataset is a named data set of an edge and how a client reads it."""

    INFO = meta.ResourceInfo(
        kind="EdgeDataset",
        plural="edgedatasets",
        short_names=("eds",),
        namespaced=True,
        columns=(
            meta.Column("Dataset", ".spec.name"),
            meta.Column("Examples", ".spec.declare.examples", type="integer"),
            meta.Column("Available", '.status.conditions[?(@.type=="Available")].status'),
            meta.Column("In-Use", '.status.conditions[?(@.type=="InUse")].status'),
            meta.Column("Age", ".metadata.creationTimestamp", type="date"),
        ),
    )

    kind: Literal["EdgeDataset"] = "EdgeDataset"
    spec: Annotated[EdgeDatasetSpec, Doc("is the data set as its owner describes it.", Change.ANY_TIME)]
    status: Annotated[
        EdgeDatasetStatus | None, Doc("is what the edge agent says of it.", Change.BY_AGENT)
    ] = None
