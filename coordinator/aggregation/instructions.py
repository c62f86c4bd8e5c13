"""What the round machine wants done: imperatives that a driver executes in the order given.

The module exists so that deciding stays apart from doing. It knows nothing of how an instruction is carried
out; nothing here is a Flower type.
"""

from __future__ import annotations

import dataclasses
import enum

from federation.api import reasons

# Flower's error codes (flwr.app.error.ErrorCode), written out so that this package needs no flwr.
REPLY_REFUSED = 4  # "reply message unavailable": the node answered, and the answer was not acceptable
MESSAGE_EXPIRED = 3
NODE_UNAVAILABLE = 5
CLIENT_DIED = 8


class WhyDiscarded(enum.StrEnum):
    """Why a reply has no effect."""

    UNKNOWN_MESSAGE = "UnknownMessage"
    NODE_MISMATCH = "NodeMismatch"
    DUPLICATE = "Duplicate"
    LATE = "Late"
    TRAINING_OVER = "TrainingOver"


class Phase(enum.StrEnum):
    """What the training as a whole is doing, for status."""

    WAITING_FOR_CLIENTS = "WaitingForClients"
    TRAIN = "Train"
    EVALUATE = "Evaluate"
    QUERY = "Query"
    AGGREGATE = "Aggregate"


# -- The outcome of a message -------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """The reply to `message_id` is the answer.

    It differs from the settled message's own id only when a late reply stands in (LateReplies.NEXT_ROUND):
    the driver then hands that reply to the app as an answer to the settled message.
    """

    message_id: str
    examples: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Error:
    """The answer is an error message: with code 3, 4, 5 or 8 as above, or as the client gave it."""

    code: int
    reason: str


Outcome = Reply | Error


# -- Instructions -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class StartApp:
    """Run the ServerApp: enough clusters are connected."""


@dataclasses.dataclass(frozen=True, slots=True)
class SendMessage:
    """Offer the message to the node's session.

    It comes again after a reconnect: the client ignores a message that it has, and sends its finished reply
    again.
    """

    message_id: str
    node: int


@dataclasses.dataclass(frozen=True, slots=True)
class ConfirmReply:
    """Tell the client that its reply need not be sent again; also for one that was refused or discarded."""

    message_id: str
    node: int


@dataclasses.dataclass(frozen=True, slots=True)
class WithdrawMessage:
    """Tell the client that nobody waits for its reply: what it has not begun with, it leaves out."""

    message_id: str
    node: int


@dataclasses.dataclass(frozen=True, slots=True)
class SettleMessage:
    """The message has its one final outcome.

    (One that is missing at the deadline is named by CloseBatch instead.)
    """

    message_id: str
    outcome: Outcome


@dataclasses.dataclass(frozen=True, slots=True)
class CloseBatch:
    """Give the batch's outcomes to the app.

    message_ids: the settled messages, by node id, then in the order pushed. missing: the others, in the same
    order.
    """

    batch_id: str
    message_ids: tuple[str, ...]
    missing: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class AbandonBatch:
    """The training is over: end the app's call for this batch with an exception; no CloseBatch will come."""

    batch_id: str
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class KeepReply:
    """Keep this late reply: a later SettleMessage names it as the outcome of another message."""

    message_id: str
    node: int


@dataclasses.dataclass(frozen=True, slots=True)
class DropKeptReply:
    """The reply kept by KeepReply will not be used."""

    message_id: str
    node: int


@dataclasses.dataclass(frozen=True, slots=True)
class DiscardReply:
    """Drop the copy that has just arrived from `node`; never the one that counted before."""

    message_id: str
    node: int
    why: WhyDiscarded


@dataclasses.dataclass(frozen=True, slots=True)
class CutLink:
    """Say goodbye to the node's session, if it has one, and do not let it back."""

    node: int
    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class WakeAt:
    """Send TimePassed at this time (seconds, the driver's clock); it replaces the earlier WakeAt."""

    time: float


@dataclasses.dataclass(frozen=True, slots=True)
class FailTraining:
    """The training cannot go on: QuorumNotReached or QuorumLost, and a sentence with the next step."""

    reason: reasons.TrainingReason
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class StopApp:
    """End the app as asked."""

    reason: str
    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class ReportCluster:
    """What status should say of one cluster; `examples` as its last accepted reply had it."""

    node: int
    cluster: str
    state: reasons.ClusterState
    reason: str = ""
    message: str = ""
    round: int = 0
    examples: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class ReportRound:
    """What status should say of the round: at most once for each call of `handle`.

    round: 0 before the first. asked, reported, needed: clusters of the batch; needed is 0 where quorum does
    not apply.
    """

    round: int
    phase: Phase
    message: str
    batch_id: str = ""
    asked: int = 0
    reported: int = 0
    needed: int = 0


Instruction = (
    StartApp
    | SendMessage
    | ConfirmReply
    | WithdrawMessage
    | SettleMessage
    | CloseBatch
    | AbandonBatch
    | KeepReply
    | DropKeptReply
    | DiscardReply
    | CutLink
    | WakeAt
    | FailTraining
    | StopApp
    | ReportCluster
    | ReportRound
)
