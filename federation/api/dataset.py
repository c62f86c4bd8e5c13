"""EdgeDataset: a named data set of an edge, how a client reads it, and what the hub may know of it.

It refuses to know who may train on it (policy.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from federation.api import meta
from federation.api.meta import Change, Doc, Model

MOUNT_PATH_TEXT = "$(MOUNT_PATH)"  # in nodeConfig's strings, replaced by the real mount path at the edge

S3_URL_PATTERN = r"^s3://[A-Za-z0-9][A-Za-z0-9._-]*(/.*)?$"
meta.PATTERN_WORDS[S3_URL_PATTERN] = "a bucket and a prefix such as s3://cardiology/heart-disease"

_NEXT = Change.NEXT_TRAINING
_FETCHED = Change.ANY_TIME  # and has the objects fetched anew, for which clients are ended and wait


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
    """Objects of an S3 bucket, fetched into a claim of their own that clients mount."""

    url: Annotated[
        str,
        Field(min_length=6, max_length=1024, pattern=S3_URL_PATTERN),
        Doc("is the objects' place, s3://BUCKET/PREFIX; all below it is fetched.", _FETCHED),
    ]
    endpoint: Annotated[
        Annotated[str, Field(max_length=512, pattern=r"^https?://[^\s/?#@]+/?$")] | None,
        Doc(
            "is the URL of S3-compatible storage, for example https://10.0.0.5:9000; without it, it is "
            "Amazon's of the region. What fetches reaches only this; the Secret's AWS_ENDPOINT_URL does not "
            "count.",
            _FETCHED,
        ),
    ] = None
    region: Annotated[
        Annotated[str, Field(min_length=1, max_length=63, pattern=meta.LABEL_PATTERN)],
        Doc("is the bucket's region; the Secret's AWS_REGION does not count.", _FETCHED),
    ] = "us-east-1"
    secret_name: Annotated[
        meta.ObjectName | None,
        Doc(
            "is the Secret of this namespace that opens the bucket: AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, and if needed AWS_SESSION_TOKEN and ca.crt; without it the bucket must "
            "be open to everyone. Only what fetches sees it, no client and no agent.",
            _FETCHED,
        ),
    ] = None
    size_limit: Annotated[
        meta.Quantity,
        Doc("is the claim's size, and how much is fetched at most; a quantity such as 10Gi.", _FETCHED),
    ] = "10Gi"
    storage_class_name: Annotated[
        meta.ObjectName | None,
        Doc("is the claim's StorageClass; without it, the cluster's default.", _FETCHED),
    ] = None
    revision: Annotated[
        meta.Word, Doc("is any word of yours; another one has the objects fetched anew.", _FETCHED)
    ] = ""


class Volume(Model):
    """Where the data lie: exactly one of the fields."""

    CEL = (meta.exactly_one_of("persistentVolumeClaim", "hostPath", "configMap", "csi", "s3"),)

    persistent_volume_claim: Annotated[
        PersistentVolumeClaimVolume | None, Doc("is a claim of this namespace.", _NEXT)
    ] = None
    host_path: Annotated[HostPathVolume | None, Doc("is a directory of the node.", _NEXT)] = None
    config_map: Annotated[ConfigMapVolume | None, Doc("is a ConfigMap of this namespace.", _NEXT)] = None
    csi: Annotated[CsiVolume | None, Doc("is a volume of a CSI driver.", _NEXT)] = None
    s3: Annotated[
        S3Volume | None,
        Doc(
            "is the objects of an S3 bucket: they are fetched into a claim of the agent's making, which "
            "clients mount. A change fetches them anew; clients end and wait for that.",
            _FETCHED,
        ),
    ] = None


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
