"""Every way in which the hub says no: one catalogue of reasons, shared by both sides.

A denial travels as a gRPC status, a sentence for people in the status' details, and the reason in the
trailing metadata `hanse-denial`. The other side acts on the reason only, never on the sentence or the status.
This module refuses to know gRPC's classes, identities and what a caller does next.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

METADATA_KEY: Final = "hanse-denial"

# A sentence from the other side goes into logs and conditions; Kubernetes bounds a condition's message too.
MAXIMUM_MESSAGE_CHARACTERS: Final = 1024


class Reason(StrEnum):
    """Why a call is denied. The value is what travels; it never changes its meaning."""

    UNKNOWN_IDENTITY = "UnknownIdentity"
    NOT_AUTHORISED = "NotAuthorised"
    WRONG_LISTENER = "WrongListener"
    WRONG_TRAINING = "WrongTraining"
    REVOKED = "Revoked"
    EXPELLED = "Expelled"
    CERTIFICATE_EXPIRED = "CertificateExpired"
    TLS_TOO_OLD = "TlsTooOld"
    TOKEN_MALFORMED = "TokenMalformed"  # noqa: S105  # a reason, not a secret
    TOKEN_UNKNOWN = "TokenUnknown"  # noqa: S105
    TOKEN_USED = "TokenUsed"  # noqa: S105
    TOKEN_EXPIRED = "TokenExpired"  # noqa: S105
    TOKEN_FOR_OTHER_CLUSTER = "TokenForOtherCluster"  # noqa: S105
    CLUSTER_NAME_INVALID = "ClusterNameInvalid"
    CLUSTER_NAME_TAKEN = "ClusterNameTaken"
    AWAITING_APPROVAL = "AwaitingApproval"
    CSR_INVALID = "CsrInvalid"
    UNSUPPORTED_PROTOCOL = "UnsupportedProtocol"
    UNKNOWN_ASSIGNMENT = "UnknownAssignment"
    UNKNOWN_BUNDLE = "UnknownBundle"
    UNKNOWN_TRAINING = "UnknownTraining"
    TRAINING_ENDED = "TrainingEnded"
    NOT_EXPECTED = "NotExpected"
    BAD_MESSAGE = "BadMessage"
    TOO_LARGE = "TooLarge"
    SESSION_REPLACED = "SessionReplaced"
    BUSY = "Busy"
    SHUTTING_DOWN = "ShuttingDown"
    INTERNAL = "Internal"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue.

    status: the name of a gRPC status code. template: `str.format` with the fields of `Denied(reason,
    **fields)`.
    may_retry: whether the same call by the same identity can succeed later without anybody's intervention.
    """

    status: str
    template: str
    may_retry: bool = False

    @property
    def fields(self) -> frozenset[str]:
        """The names that the template needs."""
        return frozenset(name for _, name, _, _ in string.Formatter().parse(self.template) if name)


CATALOGUE: Final[dict[Reason, Entry]] = {
    Reason.UNKNOWN_IDENTITY: Entry(
        "UNAUTHENTICATED",
        "the certificate names no member of this federation: {detail}; join again with a new token",
    ),
    Reason.NOT_AUTHORISED: Entry("PERMISSION_DENIED", "{identity} may not call {method}"),
    Reason.WRONG_LISTENER: Entry(
        "PERMISSION_DENIED", "{method} is not served at this address; use the {listener} address"
    ),
    Reason.WRONG_TRAINING: Entry(
        "PERMISSION_DENIED",
        "the certificate is for training {got} and this aggregator serves {want}; "
        "dial the aggregator of {got}",
    ),
    Reason.REVOKED: Entry(
        "UNAUTHENTICATED", "the certificate of {identity} is revoked; join again with a new token"
    ),
    Reason.EXPELLED: Entry(
        "PERMISSION_DENIED",
        "cluster {cluster} is expelled from the federation; ask the hub's operator to accept it again",
    ),
    Reason.CERTIFICATE_EXPIRED: Entry(
        "UNAUTHENTICATED", "the certificate of {identity} expired at {expired_at}; connect with a renewed one"
    ),
    Reason.TLS_TOO_OLD: Entry(
        "UNAUTHENTICATED",
        "the connection uses {version} and TLS 1.3 is needed; update the caller's TLS library",
    ),
    Reason.TOKEN_MALFORMED: Entry(
        "INVALID_ARGUMENT",
        "this is no join token, which looks like hanse_<id>.<secret>; copy the whole token",
    ),
    Reason.TOKEN_UNKNOWN: Entry(
        "PERMISSION_DENIED",
        "no such join token at this hub; ask the hub's operator for a new one (hanse token create)",
    ),
    Reason.TOKEN_USED: Entry(
        "PERMISSION_DENIED",
        "the join token {token_id} was used already; ask the hub's operator for a new one "
        "(hanse token create)",
    ),
    Reason.TOKEN_EXPIRED: Entry(
        "PERMISSION_DENIED",
        "the join token {token_id} expired at {expired_at}; ask the hub's operator for a new one "
        "(hanse token create)",
    ),
    Reason.TOKEN_FOR_OTHER_CLUSTER: Entry(
        "PERMISSION_DENIED",
        "the join token {token_id} is for another cluster than {cluster}; use the name that it was made for",
    ),
    Reason.CLUSTER_NAME_INVALID: Entry(
        "INVALID_ARGUMENT", "the cluster name is not usable: {detail}; choose another name"
    ),
    Reason.CLUSTER_NAME_TAKEN: Entry(
        "ALREADY_EXISTS",
        "a cluster named {cluster} is a member already; choose another name or ask the hub's operator",
    ),
    Reason.AWAITING_APPROVAL: Entry(
        "FAILED_PRECONDITION",
        "cluster {cluster} awaits approval; ask the hub's operator to approve it "
        "(hanse clusters approve {cluster})",
        may_retry=True,
    ),
    Reason.CSR_INVALID: Entry(
        "INVALID_ARGUMENT", "the certificate request is not acceptable: {detail}; make a new key and request"
    ),
    Reason.UNSUPPORTED_PROTOCOL: Entry(
        "FAILED_PRECONDITION",
        "the caller speaks protocol {their_oldest} to {their_newest} "
        "and this side {our_oldest} to {our_newest}; update the older of the two",
    ),
    Reason.UNKNOWN_ASSIGNMENT: Entry(
        "NOT_FOUND", "cluster {cluster} has no assignment for training {training} and data set {dataset}"
    ),
    Reason.UNKNOWN_BUNDLE: Entry(
        "NOT_FOUND", "no app bundle {digest} belongs to an assignment of cluster {cluster}"
    ),
    Reason.UNKNOWN_TRAINING: Entry("NOT_FOUND", "there is no training {training} at this hub"),
    Reason.TRAINING_ENDED: Entry("FAILED_PRECONDITION", "training {training} has ended"),
    Reason.NOT_EXPECTED: Entry(
        "FAILED_PRECONDITION",
        "cluster {cluster} does not take part in training {training} at present: {detail}",
        may_retry=True,
    ),
    Reason.BAD_MESSAGE: Entry("INVALID_ARGUMENT", "a message cannot be understood: {detail}"),
    Reason.TOO_LARGE: Entry(
        "RESOURCE_EXHAUSTED", "{what} has {got_bytes} bytes and at most {limit_bytes} are accepted"
    ),
    Reason.SESSION_REPLACED: Entry(
        "ABORTED", "{identity} opened a newer session; only one of them can be open at a time"
    ),
    Reason.BUSY: Entry("UNAVAILABLE", "the hub is busy: {detail}; try again later", may_retry=True),
    Reason.SHUTTING_DOWN: Entry("UNAVAILABLE", "the hub is shutting down; connect again", may_retry=True),
    Reason.INTERNAL: Entry("INTERNAL", "the hub failed to answer {method}; its log says why", may_retry=True),
}


@dataclass(frozen=True, slots=True)
class Denial:
    """A no, with its reason and its sentence."""

    reason: Reason
    message: str

    @property
    def status(self) -> str:
        """The name of the gRPC status code that it travels with."""
        return CATALOGUE[self.reason].status

    @property
    def may_retry(self) -> bool:
        """Whether the same call can succeed later without anybody's intervention."""
        return CATALOGUE[self.reason].may_retry

    def __str__(self) -> str:
        return self.message


class Denied(Exception):
    """Raised where a call is served, to refuse it: `raise Denied(Reason.UNKNOWN_BUNDLE, digest=...,
    cluster=...)`.

    The server interceptor turns it into status, details and trailing metadata.
    """

    def __init__(self, reason: Reason | Denial, **fields: object) -> None:
        self.denial = reason if isinstance(reason, Denial) else denial(reason, **fields)
        super().__init__(self.denial.message)

    @property
    def reason(self) -> Reason:
        """The typed reason."""
        return self.denial.reason


def denial(reason: Reason, **fields: object) -> Denial:
    """Fill the reason's template.

    Raises: KeyError if a field of the template is missing.
    """
    return Denial(reason, _clean(CATALOGUE[reason].template.format(**fields)))


def trailing_metadata(denied: Denial) -> tuple[tuple[str, str], ...]:
    """What to send beside the status."""
    return ((METADATA_KEY, denied.reason.value),)


def from_rpc_error(error: Any) -> Denial | None:
    """Read the denial out of a failed call (`grpc.RpcError` or `grpc.aio.AioRpcError`).

    None if the failure is no denial, or has a reason that this version does not know.
    """
    return from_metadata(error.trailing_metadata() or (), error.details() or "")


def from_metadata(metadata: Iterable[tuple[str, str | bytes]], details: str) -> Denial | None:
    """As `from_rpc_error`, from trailing metadata and the status' details."""
    for key, value in metadata:
        if key == METADATA_KEY:
            try:
                return Denial(Reason(value if isinstance(value, str) else value.decode()), _clean(details))
            except ValueError:
                return None
    return None


def _clean(message: str) -> str:
    """One bounded line without control characters: parts of it may come from the other side."""
    line = "".join(character if character.isprintable() else " " for character in message)
    return line[:MAXIMUM_MESSAGE_CHARACTERS]
