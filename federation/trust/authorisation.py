"""Who may call what: one table, and one function that reads it.

Every RPC of the protocol has a line here; a test walks the protobuf descriptors and fails for one that has
none. What has no line may be called by nobody. This module refuses to know connections, certificates and
servicers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from federation.trust import identity as identities
from federation.wire import denials


class Listener(StrEnum):
    """The three doors of a hub."""

    ENROLLMENT = "enrollment"  # TLS with a server certificate only
    CONTROL = "control"  # the coordinator, mutual TLS
    EXCHANGE = "exchange"  # one training's aggregator, mutual TLS


@dataclass(frozen=True, slots=True)
class Rule:
    """Where a method is served, and which kinds of identity may call it. `anonymous`: needs no
    certificate.
    """

    listener: Listener
    kinds: frozenset[identities.Kind] = frozenset()
    anonymous: bool = False


def _rule(listener: Listener, *kinds: identities.Kind) -> Rule:
    return Rule(listener, frozenset(kinds))


TABLE: Final[dict[str, Rule]] = {
    "/hanse.v1.Enrollment/Join": Rule(Listener.ENROLLMENT, anonymous=True),
    "/hanse.v1.Enrollment/Renew": _rule(Listener.CONTROL, "cluster", "aggregator"),
    "/hanse.v1.Control/Session": _rule(Listener.CONTROL, "cluster"),
    "/hanse.v1.Control/IssueClientCertificate": _rule(Listener.CONTROL, "cluster"),
    "/hanse.v1.Control/FetchBundle": _rule(Listener.CONTROL, "cluster"),
    "/hanse.v1.Progress/Session": _rule(Listener.CONTROL, "aggregator"),
    "/hanse.v1.Exchange/Session": _rule(Listener.EXCHANGE, "client"),
}


@dataclass(frozen=True, slots=True)
class Scope:
    """What a server serves: its door, its trust domain and, for an aggregator, its one training."""

    listener: Listener
    trust_domain: str
    namespace: str = ""
    training: str = ""

    def __post_init__(self) -> None:
        if (self.listener is Listener.EXCHANGE) != bool(self.namespace and self.training):
            raise ValueError("an exchange scope, and no other, names a training")


def enrollment_scope(trust_domain: str) -> Scope:
    """The coordinator's listener for those that have no certificate yet."""
    return Scope(Listener.ENROLLMENT, trust_domain)


def control_scope(trust_domain: str) -> Scope:
    """The coordinator's listener for members."""
    return Scope(Listener.CONTROL, trust_domain)


def exchange_scope(trust_domain: str, namespace: str, training: str) -> Scope:
    """The listener of the aggregator of one training."""
    return Scope(Listener.EXCHANGE, trust_domain, namespace, training)


@dataclass(frozen=True, slots=True)
class Revocations:
    """Whom not to let in any more, although the certificate is still good.

    clusters: names of expelled clusters, with all their clients. trainings: (namespace, name) of trainings
    whose aggregator and clients are no longer welcome. serials: single certificates. left: names of clusters
    whose operator took them out, with all their clients.
    """

    clusters: frozenset[str] = field(default_factory=frozenset)
    trainings: frozenset[tuple[str, str]] = field(default_factory=frozenset)
    serials: frozenset[int] = field(default_factory=frozenset)
    left: frozenset[str] = field(default_factory=frozenset)

    def __or__(self, other: Revocations) -> Revocations:
        return Revocations(
            self.clusters | other.clusters,
            self.trainings | other.trainings,
            self.serials | other.serials,
            self.left | other.left,
        )

    def find(self, identity: identities.Identity, serial: int | None = None) -> denials.Denial | None:
        """Say why this identity, with the certificate of this serial number, is not let in; None if it is."""
        if isinstance(identity, identities.ClusterIdentity | identities.ClientIdentity):
            if identity.cluster in self.clusters:
                return denials.denial(denials.Reason.EXPELLED, cluster=identity.cluster)
            if identity.cluster in self.left:
                return denials.denial(denials.Reason.REVOKED, identity=identity.uri)
        if serial in self.serials or (
            isinstance(identity, identities.AggregatorIdentity | identities.ClientIdentity)
            and (identity.namespace, identity.training) in self.trainings
        ):
            return denials.denial(denials.Reason.REVOKED, identity=identity.uri)
        return None


NONE_REVOKED: Final = Revocations()


def authorise(
    method: str,
    identity: identities.Identity | None,
    revocations: Revocations,
    scope: Scope,
    *,
    serial: int | None = None,
) -> denials.Denial | None:
    """Decide whether the caller may call `method` (/package.Service/Method) at a server with this scope.

    identity: of the verified certificate, None without one. serial: of that certificate.
    Returns None for yes, or the first reason for no: door, identity, trust domain, revocation, kind,
    training.
    """
    rule = TABLE.get(method)
    if rule is None:
        caller = identity.uri if identity else "a caller without a certificate"
        return denials.denial(denials.Reason.NOT_AUTHORISED, identity=caller, method=method)
    if rule.listener is not scope.listener:
        return denials.denial(denials.Reason.WRONG_LISTENER, method=method, listener=rule.listener.value)
    if rule.anonymous:
        return None
    if identity is None:
        return denials.denial(denials.Reason.UNKNOWN_IDENTITY, detail="there is no client certificate")
    if identity.trust_domain != scope.trust_domain:
        return denials.denial(
            denials.Reason.UNKNOWN_IDENTITY,
            detail=f"it is of trust domain {identity.trust_domain} and this is {scope.trust_domain}",
        )
    revoked = revocations.find(identity, serial)
    if revoked is not None:
        return revoked
    if identity.kind not in rule.kinds:
        return denials.denial(denials.Reason.NOT_AUTHORISED, identity=identity.uri, method=method)
    if (
        scope.listener is Listener.EXCHANGE
        and isinstance(identity, identities.ClientIdentity)
        and (identity.namespace, identity.training) != (scope.namespace, scope.training)
    ):
        return denials.denial(
            denials.Reason.WRONG_TRAINING,
            got=f"{identity.namespace}/{identity.training}",
            want=f"{scope.namespace}/{scope.training}",
        )
    return None
