"""What the lifecycle hears and what it says: facts are past, instructions are imperatives.

This module refuses to know what follows from what; that is `lifecycle`.
"""

from __future__ import annotations

import dataclasses
import enum

from edge_agent import assignments, policy
from federation.api import reasons


@dataclasses.dataclass(frozen=True, slots=True)
class AssignmentsReceived:
    """The hub's whole wanted list; what is not in it is no longer wanted."""

    assignments: tuple[assignments.Assignment, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """What policy says about an assignment, at the start and again at every change."""

    uid: str
    decision: policy.Decision


@dataclasses.dataclass(frozen=True, slots=True)
class BundleFetched:
    """The bundle with this digest is unpacked at this agent."""

    uid: str
    digest: str


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateIssued:
    """The client's key and certificate are written."""

    uid: str


@dataclasses.dataclass(frozen=True, slots=True)
class BundleNotFetched:
    """Fetching failed; `may_retry` says whether trying again can help."""

    uid: str
    digest: str
    reason: reasons.ClusterReason
    message: str
    may_retry: bool


@dataclasses.dataclass(frozen=True, slots=True)
class CertificateNotIssued:
    """The hub did not issue the client's certificate."""

    uid: str
    reason: reasons.ClusterReason
    message: str
    may_retry: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ClientFound:
    """A client that an earlier agent started runs still; it is taken over until the hub says otherwise."""

    assignment: assignments.Assignment


@dataclasses.dataclass(frozen=True, slots=True)
class ClientStarted:
    """The client is up."""

    uid: str


@dataclasses.dataclass(frozen=True, slots=True)
class ClientWaiting:
    """The client was asked for and cannot run yet."""

    uid: str
    reason: reasons.ClusterReason
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class ClientExited:
    """The client process is gone; a client that could not be started is told so too, without an exit code."""

    uid: str
    exit_code: int | None
    detail: str
    log_tail: tuple[str, ...] = ()
    reason: reasons.ClusterReason = reasons.ClusterReason.CLIENT_EXITED


@dataclasses.dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing happened but time; backoffs may be over."""


Fact = (
    AssignmentsReceived
    | Decided
    | BundleFetched
    | BundleNotFetched
    | CertificateIssued
    | CertificateNotIssued
    | ClientFound
    | ClientStarted
    | ClientWaiting
    | ClientExited
    | TimePassed
)


class Reported(enum.Enum):
    """What the hub is told; the values are the wire's AssignmentState without its prefix."""

    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    WAITING = "WAITING"


@dataclasses.dataclass(frozen=True, slots=True)
class FetchBundle:
    """Fetch and unpack the app; answer with BundleFetched or BundleNotFetched."""

    uid: str
    digest: str


@dataclasses.dataclass(frozen=True, slots=True)
class RequestCertificate:
    """Make a key, get its certificate; answer with CertificateIssued or CertificateNotIssued."""

    uid: str
    assignment: assignments.Assignment


@dataclasses.dataclass(frozen=True, slots=True)
class StartClient:
    """Start the client process; answer with ClientStarted or ClientWaiting, and with ClientExited when it
    ends or cannot be started.
    """

    uid: str
    assignment: assignments.Assignment
    decision: policy.Allowed


@dataclasses.dataclass(frozen=True, slots=True)
class StopClient:
    """End the client process; ClientExited follows."""

    uid: str


@dataclasses.dataclass(frozen=True, slots=True)
class Discard:
    """Remove what was prepared for the assignment: files, keys, state."""

    uid: str
    assignment: assignments.Assignment


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """Tell the hub."""

    uid: str
    state: Reported
    reason: str
    message: str
    log_tail: tuple[str, ...] = ()


Instruction = FetchBundle | RequestCertificate | StartClient | StopClient | Discard | Report
