"""Who somebody is: the four kinds of SPIFFE ID of a federation, as values.

An identity is a name and nothing else. This module refuses to know certificates, keys, networks and what an
identity may do; `authorisation.py` decides that.

    coordinator   spiffe://TD/coordinator
    edge agent    spiffe://TD/cluster/NAME
    aggregator    spiffe://TD/aggregator/NAMESPACE/NAME
    client        spiffe://TD/cluster/NAME/training/NAMESPACE/NAME/dataset/DATASET

Law: `parse(identity.uri) == identity`, and `parse(uri).uri == uri` for each URI that parses.
Source: SPIFFE ID and X.509-SVID specifications; names are DNS labels (RFC 1123) as in Kubernetes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, TypeAlias

# A DNS label: what Kubernetes allows for a namespace, and short enough to be a part of a host name.
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

# Bounds that keep any identity, with its longest names, below the 2048 bytes of a SPIFFE ID, and the
# aggregator's host name (two labels and one word before the trust domain) below the 253 of a DNS name.
MAXIMUM_LABEL_LENGTH = 63
MAXIMUM_TRUST_DOMAIN_LENGTH = 253 - 2 * (MAXIMUM_LABEL_LENGTH + 1) - len("aggregator.")

Kind: TypeAlias = Literal["coordinator", "cluster", "aggregator", "client"]


class InvalidIdentity(ValueError):
    """A URI or a part of a name that is no identity of a federation."""


def is_label(text: str) -> bool:
    """Say whether `text` is a DNS label: 1 to 63 of a-z, 0-9 and -, not beginning or ending with -."""
    return _LABEL.fullmatch(text) is not None


def check_trust_domain(text: str) -> str:
    """Return `text` if it is a trust domain (dot-separated DNS labels, at most 114 characters).

    Raises: InvalidIdentity.
    """
    if len(text) > MAXIMUM_TRUST_DOMAIN_LENGTH or not all(is_label(part) for part in text.split(".")):
        raise InvalidIdentity(
            f"trust domain {text[:300]!r}: want lower-case DNS labels joined by dots, "
            f"at most {MAXIMUM_TRUST_DOMAIN_LENGTH} characters"
        )
    return text


class _Named:
    """Checks each field on construction, so that an identity that exists is a valid one."""

    trust_domain: str

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # each subclass is a dataclass
            value = getattr(self, field.name)
            if field.name == "trust_domain":
                check_trust_domain(value)
            elif not is_label(value):
                raise InvalidIdentity(
                    f"{field.name} {value[:300]!r}: want 1 to {MAXIMUM_LABEL_LENGTH} of a-z, 0-9 and -, "
                    "beginning and ending with a letter or digit"
                )


@dataclass(frozen=True, slots=True)
class CoordinatorIdentity(_Named):
    """The hub's coordinator."""

    kind: ClassVar[Kind] = "coordinator"
    trust_domain: str

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return f"spiffe://{self.trust_domain}/coordinator"

    @property
    def server_name(self) -> str:
        """The DNS name in its server certificate, for those that dial it."""
        return f"coordinator.{self.trust_domain}"

    @property
    def enrollment_server_name(self) -> str:
        """The DNS name of its enrollment listener, so that one address can lead to both listeners."""
        return f"enrollment.{self.trust_domain}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """Every DNS name in its certificate."""
        return (self.server_name, self.enrollment_server_name)


@dataclass(frozen=True, slots=True)
class ClusterIdentity(_Named):
    """An edge cluster, in the person of its edge agent."""

    kind: ClassVar[Kind] = "cluster"
    trust_domain: str
    cluster: str

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return f"spiffe://{self.trust_domain}/cluster/{self.cluster}"


@dataclass(frozen=True, slots=True)
class AggregatorIdentity(_Named):
    """The aggregator of one training; `training` is the training's name in `namespace`."""

    kind: ClassVar[Kind] = "aggregator"
    trust_domain: str
    namespace: str
    training: str

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return f"spiffe://{self.trust_domain}/aggregator/{self.namespace}/{self.training}"

    @property
    def server_name(self) -> str:
        """The DNS name in its server certificate, for those that dial it."""
        return f"{self.training}.{self.namespace}.aggregator.{self.trust_domain}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """Every DNS name in its certificate."""
        return (self.server_name,)


@dataclass(frozen=True, slots=True)
class ClientIdentity(_Named):
    """The process that trains on one data set of one cluster for one training."""

    kind: ClassVar[Kind] = "client"
    trust_domain: str
    cluster: str
    namespace: str
    training: str
    dataset: str

    @property
    def uri(self) -> str:
        """The SPIFFE ID."""
        return (
            f"spiffe://{self.trust_domain}/cluster/{self.cluster}"
            f"/training/{self.namespace}/{self.training}/dataset/{self.dataset}"
        )


Identity: TypeAlias = CoordinatorIdentity | ClusterIdentity | AggregatorIdentity | ClientIdentity

KINDS: tuple[Kind, ...] = ("coordinator", "cluster", "aggregator", "client")


def parse(uri: str) -> Identity:
    """Read an identity from its SPIFFE ID, strictly: no port, query, escape, empty part or final slash.

    Raises: InvalidIdentity.
    """
    scheme = "spiffe://"
    if not uri.startswith(scheme):
        raise InvalidIdentity(f"{uri[:300]!r} is no SPIFFE ID: it does not begin with {scheme}")
    match uri[len(scheme) :].split("/"):
        case [domain, "coordinator"]:
            return CoordinatorIdentity(domain)
        case [domain, "cluster", cluster]:
            return ClusterIdentity(domain, cluster)
        case [domain, "aggregator", namespace, training]:
            return AggregatorIdentity(domain, namespace, training)
        case [domain, "cluster", cluster, "training", namespace, training, "dataset", dataset]:
            return ClientIdentity(domain, cluster, namespace, training, dataset)
    raise InvalidIdentity(f"{uri[:300]!r} names no coordinator, cluster, aggregator or client")
