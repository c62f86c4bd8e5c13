"""Hanse's vocabulary of why: every phase, condition, state and reason that a status can carry.

One place, so that hub and edge say the same word for the same thing and so that the documentation's
tables are drawn from what the code uses. A value is what stands in YAML and on the wire; `doc` is one
sentence for people. Messages (whole sentences about one case) are made by whoever decides.

This module refuses to know who decides, or when.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path


class Documented(StrEnum):
    """A string enum whose members carry one sentence of documentation each: `NAME = "Value", "doc"`."""

    doc: str

    def __new__(cls, value: str, doc: str = "") -> Documented:
        """Make the member from its value and its sentence."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.doc = doc
        return member


class TrainingPhase(Documented):
    """One word for people and print columns in `FederatedTraining.status.phase`; machines read conditions."""

    PENDING = "Pending", "The hub has not looked at it yet, or it was not accepted."
    WAITING = "Waiting", "Accepted; too few clusters can take part."
    PREPARING = (
        "Preparing",
        "Enough clusters take part; aggregator, apps, certificates and clients are being made ready.",
    )
    RUNNING = "Running", "Rounds are being played."
    SUSPENDED = "Suspended", "spec.suspend is true; clients and aggregator have ended and start again later."
    COMPLETED = "Completed", "All rounds are done and the model is stored."
    FAILED = "Failed", "It ended without a final model; the condition Failed says why."
    STOPPED = "Stopped", "spec.stop is true; it ended for good, and what it reached stays in its status."


class TrainingCondition(Documented):
    """Types of `FederatedTraining.status.conditions`."""

    ACCEPTED = "Accepted", "The spec is valid, the hub allows the server's image, and the app could be read."
    QUORUM_REACHED = "QuorumReached", "Enough clusters take part, counted against spec.clusters.minimum."
    RUNNING = "Running", "The aggregator is up and rounds are being played."
    COMPLETED = "Completed", "All rounds are done and the model is stored; final."
    FAILED = "Failed", "The training ended without finishing its rounds; final."
    SUSPENDED = "Suspended", "The training rests because spec.suspend is true."
    STOPPED = "Stopped", "The training ended for good because spec.stop is true; final."
    DIVERGED = (
        "Diverged",
        "Run again after a restart, the ServerApp did something else than before, and went on from there. "
        "This condition is there only if it did.",
    )


class TrainingReason(Documented):
    """Reasons of a training's conditions."""

    # Accepted
    VALID = "Valid", "Nothing is wrong with the spec or the app."
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec breaks a rule that the schema could not hold; the message says which.",
    )
    APP_NOT_FOUND = "AppNotFound", "The source of the app does not exist or cannot be read."
    APP_NOT_LOADABLE = "AppNotLoadable", "The app's modules or attributes cannot be imported."
    DIGEST_MISMATCH = "DigestMismatch", "The app's SHA-256 is not the one pinned in spec.app.digest."
    APP_CHANGED = (
        "AppChanged",
        "The source has another app than the training began with, which goes on with its own.",
    )
    STRATEGY_UNKNOWN = "StrategyUnknown", "spec.strategy.name is no strategy that Hanse or Flower has."
    STRATEGY_PARAMETERS_INVALID = (
        "StrategyParametersInvalid",
        "The strategy does not take one of spec.strategy.parameters.",
    )
    SERVER_APP_MISSING = "ServerAppMissing", "The app has no ServerApp and the spec names no strategy."
    IMAGE_NOT_ALLOWED = (
        "ImageNotAllowed",
        "spec.server.image is none of those that the hub's operator allows for aggregators.",
    )
    # QuorumReached
    ENOUGH_CLUSTERS = "EnoughClusters", "At least spec.clusters.minimum clusters take part."
    WAITING_FOR_CLUSTERS = "WaitingForClusters", "Selected clusters may still suffice; not all are ready."
    NO_SUCH_DATASET = "NoSuchDataset", "No member cluster offers the data set."
    NO_CLUSTER_SELECTED = "NoClusterSelected", "No member cluster matches spec.clusters.selector."
    QUORUM_NOT_REACHED = "QuorumNotReached", "Fewer clusters can take part than the quorum asks for."
    QUORUM_LOST = "QuorumLost", "Enough clusters took part before; too many have gone since."
    # Running
    STARTING = "Starting", "The aggregator or the first clients are being started."
    STOPPING = "Stopping", "The training was told to stop; its aggregator stores what there is and ends."
    ROUND_IN_PROGRESS = "RoundInProgress", "A round has begun and is not committed."
    RESUMING = "Resuming", "The aggregator was restarted and reads its journal."
    AGGREGATOR_LOST = "AggregatorLost", "The aggregator's process or link is gone; it is being restarted."
    NOT_STARTED = "NotStarted", "The training has not begun: see Accepted and QuorumReached."
    # Completed, Failed
    ROUNDS_REMAINING = "RoundsRemaining", "Rounds are left to play."
    ALL_ROUNDS_DONE = "AllRoundsDone", "The last round is committed and the model is stored."
    ENDED_EARLY = "EndedEarly", "The training ended before its last round."
    NOT_FAILED = "NotFailed", "Nothing has ended the training."
    SERVER_APP_FAILED = (
        "ServerAppFailed",
        "The ServerApp raised; the message has the last lines of its traceback.",
    )
    SERVER_APP_EXITED = "ServerAppExited", "The ServerApp's process ended without a result."
    CLIENT_APP_FAILED = "ClientAppFailed", "ClientApps raised on so many clusters that the quorum broke."
    DEADLINE_EXCEEDED = "DeadlineExceeded", "A round did not get enough replies before its deadline."
    UPDATES_REFUSED = "UpdatesRefused", "An update broke spec.updateChecks and onViolation is FailTraining."
    AGGREGATE_NOT_FINITE = (
        "AggregateNotFinite",
        "The aggregate has NaN or an infinity, although no update had.",
    )
    RESUME_DIVERGED = (
        "ResumeDiverged",
        "Run again, the ServerApp did something else than before; the message names the first such call.",
    )
    JOURNAL_DAMAGED = "JournalDamaged", "The journal lacks what it should have; the message says what."
    JOURNAL_OF_ANOTHER_APP = (
        "JournalOfAnotherApp",
        "The journal is of another app than the aggregator was given; the training waits for that app.",
    )
    STORAGE_FULL = "StorageFull", "The disk for journal or model has no room; the training waits for some."
    STORAGE_UNAVAILABLE = (
        "StorageUnavailable",
        "The model store cannot be reached or refuses the credentials: at the end that is waited for. Or the "
        "journal's disk fails.",
    )
    INTERNAL_ERROR = "InternalError", "Hanse itself failed; the message names the log to send with a report."
    CANCELLED = "Cancelled", "Somebody stopped or deleted the training."
    # Suspended
    SUSPEND_REQUESTED = "SuspendRequested", "spec.suspend is true."
    NOT_SUSPENDED = "NotSuspended", "spec.suspend is false."
    # Stopped
    STOP_REQUESTED = "StopRequested", "spec.stop is true."
    NOT_STOPPED = "NotStopped", "spec.stop is false, or the training had ended before."


class TrainingEvent(Documented):
    """Reasons of the Events about a training's clusters; those about its phase have a condition's reason."""

    CLUSTER_TAKES_PART = "ClusterTakesPart", "A cluster came into a training that runs."
    CLUSTER_WAITS = "ClusterWaits", "The edge would take part, but not now."
    CLUSTER_REFUSED = "ClusterRefused", "The edge's policy says no."
    CLUSTER_FAILED = "ClusterFailed", "The client could not be started or ended more often than allowed."
    CLUSTER_LOST = "ClusterLost", "The link to a cluster that takes part is gone."
    CLUSTER_BACK = "ClusterBack", "A cluster that was lost, refused or failed takes part again."
    CLUSTER_LEFT = "ClusterLeft", "The cluster left the federation or was expelled."


class ClusterState(Documented):
    """`FederatedTraining.status.clusters[].state`: where one cluster stands in one training."""

    EXCLUDED = "Excluded", "The hub left it out; the reason says why (no data set, above the maximum, ...)."
    SELECTED = "Selected", "The hub chose it; the edge has not answered yet."
    WAITING = "Waiting", "The edge would take part, but not now: a schedule, an approval, a place."
    PREPARING = "Preparing", "The edge allows it; app and credentials are fetched, the client is started."
    READY = "Ready", "The client is connected and has nothing to do."
    TRAINING = "Training", "The client works on a message of the current round."
    REPORTED = "Reported", "Its reply to the current message has come in and counts."
    REFUSED = "Refused", "The edge's policy says no; the message names the rule."
    FAILED = "Failed", "The client could not be started or ended more often than allowed."
    LOST = "Lost", "The link is gone; it may come back and go on."
    LEFT = "Left", "It left the federation or was expelled; it does not come back to this training."
    COMPLETED = "Completed", "It took part until the training ended."


class ClusterReason(Documented):
    """`FederatedTraining.status.clusters[].reason`: why the state is what it is."""

    # decided by the hub
    NOT_SELECTED = "NotSelected", "Its labels do not match spec.clusters.selector."
    DATASET_NOT_OFFERED = "DatasetNotOffered", "It does not offer the data set."
    NOT_ACCEPTED = "NotAccepted", "The hub's operator has not accepted it yet."
    NOT_CONNECTED = "NotConnected", "Its agent has no link to the hub."
    ABOVE_MAXIMUM = "AboveMaximum", "spec.clusters.maximum clusters take part already."
    TOO_MANY_TRAININGS = "TooManyTrainings", "It runs as many trainings as its spec.maximumTrainings allows."
    EXPELLED = "Expelled", "The hub's operator expelled it."
    CLUSTER_LEFT = "ClusterLeft", "Its operator left the federation."
    # decided by the edge
    NO_POLICY = "NoPolicy", "The edge has no EdgePolicy; nothing runs until its owner allows it."
    POLICY_DENIED = "PolicyDenied", "No rule allows the training, or a rule denies it."
    OUTSIDE_SCHEDULE = "OutsideSchedule", "The rule that allows it has no schedule window open now."
    APPROVAL_NEEDED = "ApprovalNeeded", "The rule asks for the owner's approval, which is not given yet."
    IMAGE_NOT_ALLOWED = "ImageNotAllowed", "The client's image matches no pattern of the rule."
    APP_NOT_ALLOWED = "AppNotAllowed", "The app's digest or signature is not among the rule's."
    STRATEGY_NOT_ALLOWED = "StrategyNotAllowed", "The training's strategy is not among the rule's."
    PRIVACY_INSUFFICIENT = "PrivacyInsufficient", "The training promises less privacy than the rule demands."
    LIMIT_EXCEEDED = "LimitExceeded", "The training asks for more than the rule's limits."
    TOO_FEW_EXAMPLES = "TooFewExamples", "The data set has fewer examples than the rule demands."
    DIGEST_MISMATCH = "DigestMismatch", "The app that came is not the one that the assignment names."
    DATASET_UNAVAILABLE = (
        "DatasetUnavailable",
        "The data set is declared, but its volume cannot be mounted or read, or not yet.",
    )
    # the client's life
    APP_NOT_LOADABLE = "AppNotLoadable", "The ClientApp cannot be imported at the edge."
    CLIENT_APP_FAILED = (
        "ClientAppFailed",
        "The ClientApp raised; the message has the last lines of its traceback.",
    )
    CLIENT_EXITED = "ClientExited", "The client's process ended by itself."
    CLIENT_START_FAILED = "ClientStartFailed", "The client's process or Job could not be created."
    UNSCHEDULABLE = "Unschedulable", "No node of the edge has room for the client, or none fits it."
    IMAGE_NOT_PULLED = "ImageNotPulled", "The edge cannot get the client's image."
    VOLUME_NOT_MOUNTED = "VolumeNotMounted", "A volume that the client needs cannot be mounted."
    NOT_ADMITTED = "NotAdmitted", "The edge's Kubernetes does not let the client's pod be made."
    CONTAINER_NOT_CREATED = "ContainerNotCreated", "The edge's node cannot make the client's container."
    NETWORK_NOT_READY = (
        "NetworkNotReady",
        "The edge's node cannot give the client's pod a network yet, or the hub's name is not found there.",
    )
    OUT_OF_MEMORY = "OutOfMemory", "The client used more memory than its limit and was ended."
    EVICTED = (
        "Evicted",
        "The edge's node ended the client: it wrote too much, the node ran short, or the node is drained.",
    )
    PREEMPTED = "Preempted", "A pod of higher priority took the client's place on its node."
    REMOVED = "Removed", "Somebody at the edge deleted the client's Job or pod."
    NODE_LOST = "NodeLost", "The node that the client ran on is gone or does not answer."
    NETWORK_NOT_RESTRICTED = (
        "NetworkNotRestricted",
        "The client could reach an address that must be closed to it, and so touched no data.",
    )
    APP_TOO_LARGE = "AppTooLarge", "The app is too large for the edge's Kubernetes; it belongs into an image."
    CREDENTIALS_REFUSED = "CredentialsRefused", "The hub did not issue or take the client's certificate."
    LINK_LOST = "LinkLost", "The connection broke; the edge tries again by itself."
    STORAGE_FULL = "StorageFull", "The edge has no room for the app or the messages."
    # its replies
    DEADLINE_EXCEEDED = "DeadlineExceeded", "Its reply did not come before the round's deadline."
    ENOUGH_REPORTED = "EnoughReported", "The round had enough replies of others and waits for it no longer."
    UPDATE_REFUSED = "UpdateRefused", "Its update broke a check; the message names tensor and violation."
    TRAINING_ENDED = "TrainingEnded", "The training is over; nothing was wrong with the cluster."


CLIENT_HELD: frozenset[str] = frozenset(
    {
        ClusterReason.UNSCHEDULABLE,
        ClusterReason.IMAGE_NOT_PULLED,
        ClusterReason.VOLUME_NOT_MOUNTED,
        ClusterReason.NOT_ADMITTED,
        ClusterReason.CONTAINER_NOT_CREATED,
        ClusterReason.NETWORK_NOT_READY,
    }
)
"""Why a client that was started does not run yet: the edge agreed, and it comes when its cluster lets it."""


class UpdateViolation(Documented):
    """Which check an update broke; stands in the message of `UpdateRefused`."""

    SHAPE_MISMATCH = "ShapeMismatch", "A tensor has another shape than the one sent."
    DTYPE_MISMATCH = "DtypeMismatch", "A tensor has another element type than the one sent."
    MISSING_ARRAY = "MissingArray", "A tensor that was sent is not in the reply."
    UNEXPECTED_ARRAY = "UnexpectedArray", "The reply has a tensor that was not sent."
    NOT_FINITE = "NotFinite", "A tensor or a metric has NaN or an infinity in it."
    TOO_LARGE = "TooLarge", "The reply has more bytes than updateChecks.maximumUpdateBytes."
    EXAMPLE_COUNT_INVALID = (
        "ExampleCountInvalid",
        "The number of examples is not between 1 and maximumExamples.",
    )
    NORM_EXCEEDED = "NormExceeded", "The update's L2 norm is above updateChecks.maximumNorm."
    INCONSISTENT = "Inconsistent", "Its records or metrics are named otherwise than in most other replies."
    UNREADABLE = "Unreadable", "The reply's bytes are not an array of the type that they claim."


class EdgeClusterCondition(Documented):
    """Types of `EdgeCluster.status.conditions`."""

    JOINED = "Joined", "The cluster has enrolled and holds a certificate."
    CONNECTED = "Connected", "Its agent has a live session with the hub."
    CERTIFICATE_VALID = "CertificateValid", "Its certificate has not expired or been revoked."


class EdgeClusterReason(Documented):
    """Reasons of an EdgeCluster's conditions."""

    ENROLLED = "Enrolled", "A join token was redeemed."
    AWAITING_ACCEPTANCE = "AwaitingAcceptance", "spec.acceptance is Pending."
    SESSION_OPEN = "SessionOpen", "Heartbeats arrive."
    SESSION_CLOSED = "SessionClosed", "The agent closed its session or the link broke."
    HEARTBEAT_MISSED = "HeartbeatMissed", "The session is open, but heartbeats have stopped."
    ISSUED = "Issued", "The certificate is in force."
    EXPIRED = "Expired", "The certificate has expired; the cluster must join again."
    EXPELLED = "Expelled", "spec.acceptance is Expelled; the certificate is revoked."
    LEFT = "Left", "The edge's operator left the federation."


class EdgeDatasetCondition(Documented):
    """Types of `EdgeDataset.status.conditions`."""

    AVAILABLE = "Available", "The volume exists and can be mounted read-only."
    IN_USE = "InUse", "A client reads the data set now."


class EdgeDatasetReason(Documented):
    """Reasons of an EdgeDataset's conditions."""

    VOLUME_FOUND = "VolumeFound", "The volume is there."
    VOLUME_NOT_FOUND = "VolumeNotFound", "The volume, its directory or its secret does not exist."
    VOLUME_NOT_LOOKED_AT = (
        "VolumeNotLookedAt",
        "The agent cannot look at a volume of this kind; the first client will show whether it is there.",
    )
    VOLUME_NOT_SUPPORTED = "VolumeNotSupported", "Clients of this edge cannot have a volume of this kind."
    FETCHING = "Fetching", "The objects are being fetched from their bucket, or wait to be; clients wait."
    FETCH_FAILED = (
        "FetchFailed",
        "The objects cannot be fetched from their bucket; the message says what to do. It is tried again.",
    )
    NAME_TAKEN = "NameTaken", "An older EdgeDataset of this cluster has the same spec.name."
    TRAINING_RUNS = "TrainingRuns", "At least one training's client has it mounted."
    NO_TRAINING = "NoTraining", "No training's client has it mounted."


class EdgePolicyCondition(Documented):
    """Types of `EdgePolicy.status.conditions`."""

    ENFORCED = "Enforced", "The agent has read the policy and decides by it."


class EdgePolicyReason(Documented):
    """Reasons of an EdgePolicy's conditions."""

    VALID = "Valid", "Every rule can be enforced."
    INVALID_RULE = (
        "InvalidRule",
        "A rule cannot be read or enforced, so the policy allows nothing; the message names the rule.",
    )


VOCABULARY: tuple[type[Documented], ...] = (
    TrainingPhase,
    TrainingCondition,
    TrainingReason,
    TrainingEvent,
    ClusterState,
    ClusterReason,
    UpdateViolation,
    EdgeClusterCondition,
    EdgeClusterReason,
    EdgeDatasetCondition,
    EdgeDatasetReason,
    EdgePolicyCondition,
    EdgePolicyReason,
)


def table(enums: Iterable[type[Documented]] = VOCABULARY) -> str:
    """Return the vocabulary as Markdown, one heading and one table for each enum, in the order given."""
    parts: list[str] = []
    for enum in enums:
        parts.append(
            f"## {enum.__name__}\n\n{(enum.__doc__ or '').strip()}\n\n| value | meaning |\n| --- | --- |"
        )
        parts[-1] += "".join(f"\n| `{member.value}` | {member.doc} |" for member in enum)
    return "\n\n".join(parts) + "\n"


HEADER = """# Words of status

Every phase, condition, state and reason that a resource's status or an Event can carry. Drawn by
`python -m federation.api.reasons docs/reasons.md` from `federation/api/reasons.py`; do not edit.

"""

if __name__ == "__main__":
    text = HEADER + table()
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
