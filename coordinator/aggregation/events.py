"""What can happen to a running training: the past facts that the round machine is told.

The module exists so that a driver (gRPC servicers, a Grid, a clock) and the round machine share one
vocabulary. It knows nothing of channels, files, Flower or the machine's own states.

Units: every `now`, and `expires_at`, is in seconds on one clock that the driver chooses; `*_seconds` are
lengths. Nodes are 64-bit unsigned node ids, one for each cluster; messages and batches have the ids that the
driver gave.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from fractions import Fraction


class Kind(enum.StrEnum):
    """What the messages of a batch ask of a node."""

    TRAIN = "Train"
    EVALUATE = "Evaluate"
    QUERY = "Query"


class LateReplies(enum.StrEnum):
    """What becomes of a valid Train reply that comes after its batch was closed at the deadline.

    DISCARD: it is confirmed and dropped.
    NEXT_ROUND: it stands for its cluster's answer to the next Train message, once, in place of a fresh one:
    to the one already open, if there is one, otherwise to the next one pushed, which is then not sent.
    """

    DISCARD = "Discard"
    NEXT_ROUND = "NextRound"


@dataclasses.dataclass(frozen=True, slots=True)
class RoundRules:
    """The rules of the manifest, as the machine needs them.

    quorum: clusters, at least 1, to start and (no more than were asked) in every Train batch.
    minimum_fraction: of the clusters asked, 0 to 1, that must give a valid reply to a Train batch.
    deadline_seconds: above 0, of every batch and of every wait for clusters; None: no deadline.
    grace_seconds: how long a batch that has the replies it needs still waits for the others; None: until the
        deadline.
    over_provision_fraction: 0 to 1, by how much more clusters are asked than a batch takes; 0: it takes all.
    link_grace_seconds: how long a cluster whose link was cut may stay away before it counts as lost.
    start_deadline_seconds: how long the start waits for a quorum, since an app may take minutes to import;
        None: as long as a round. After a restart those who took part have as long at least, too.
    start_grace_seconds: how long the app's start waits for the other clusters once quorum is connected.
    """

    quorum: int = 1
    minimum_fraction: Fraction = Fraction(0)
    deadline_seconds: float | None = None
    late_replies: LateReplies = LateReplies.DISCARD
    grace_seconds: float | None = None
    over_provision_fraction: Fraction = Fraction(0)
    link_grace_seconds: float = 30.0
    start_grace_seconds: float = 10.0
    start_deadline_seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse rules that no manifest can express."""
        if self.quorum < 1:
            raise ValueError(f"quorum is {self.quorum}, it must be at least 1")
        if not 0 <= self.minimum_fraction <= 1:
            raise ValueError(f"minimum fraction is {self.minimum_fraction}, it must be from 0 to 1")
        if self.deadline_seconds is not None and not self.deadline_seconds > 0:
            raise ValueError(f"deadline is {self.deadline_seconds} s, it must be above 0")
        if not 0 <= self.over_provision_fraction <= 1:
            raise ValueError(
                f"over-provision fraction is {self.over_provision_fraction}, it must be from 0 to 1"
            )
        if self.grace_seconds is not None and self.grace_seconds < 0:
            raise ValueError("a grace is below 0 s")
        if self.link_grace_seconds < 0 or self.start_grace_seconds < 0:
            raise ValueError("a grace is below 0 s")

    def needed(self, asked: int) -> int:
        """Return how many of those asked must report: max(ceil(fraction x asked), min(quorum, asked))."""
        return max(math.ceil(self.minimum_fraction * asked), min(self.quorum, asked))

    def taken(self, asked: int) -> int:
        """Return how many clusters' valid replies are enough: ceil(asked / (1 + f)), or all that are needed.

        Source: over-selection of devices, Bonawitz et al. 2019, arXiv:1902.01046, section 2.2.
        """
        return max(math.ceil(asked / (1 + self.over_provision_fraction)), self.needed(asked))


# -- What a reply turned out to be --------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """The reply passed every check; `examples` is what it was trained or evaluated on, if it says so."""

    examples: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """The reply failed a check; the message names the array, the reason and what was wanted."""

    reason: str
    message: str
    array: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Errored:
    """The client answered with an error of its own: Flower's error code, and its text."""

    code: int
    reason: str


Verdict = Accepted | Refused | Errored


# -- Who takes part -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One line of the roster. Not expected: refused, failed, left or expelled, with the reason.

    Of one that is expected the message says why its client does not run yet: it is held up, or being started.
    While it says so the node's grace ends with the deadline of a batch only.
    """

    node: int
    cluster: str
    expected: bool = True
    reason: str = ""
    message: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class RosterChanged:
    """The coordinator said who is wanted: the whole list. A node no longer listed counts as removed."""

    members: tuple[Member, ...]
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class NodeConnected:
    """A warm client of this node opened a session, or replaced the one it had."""

    node: int
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class LinkLost:
    """The node's current session ended without a word; it may return within the grace.

    The driver does not tell the end of a session that another one has already replaced.
    """

    node: int
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class ClientDied:
    """The node's client process ended; its messages end with error 8. A new process may connect later."""

    node: int
    reason: str
    message: str
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class NodeRemoved:
    """The node was refused, failed, left or was expelled: for good, whatever a later roster says."""

    node: int
    reason: str
    message: str
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class Late:
    """A Train message of an earlier round whose batch was closed without the reply of its node.

    came: the reply has come since, was accepted, and waits to stand in; False: it may still come.
    """

    message_id: str
    node: int
    round: int
    came: bool
    examples: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Resumed:
    """An aggregator was started anew in the middle of the training; told before the app's first live call.

    members: the nodes that the app was last told of; each is away, and has as long as at the first start.
    round: the number of the last round that was begun.
    late: what earlier rounds did not wait for, in the order pushed.
    """

    members: tuple[Member, ...]
    round: int
    now: float
    late: tuple[Late, ...] = ()


# -- What the app does --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Outgoing:
    """One message of a batch. `expires_at` None: it lives as long as its batch."""

    message_id: str
    node: int
    expires_at: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class BatchPushed:
    """The app pushed messages, in this order.

    waits: the app waits for all of them (send_and_receive). Only such a Train batch counts as a round and is
    judged by quorum, and only while such a batch is open the list of nodes stands still.
    judged: False exempts a waiting Train batch from the quorum rules: Flower's older client proxies call
    send_and_receive with one message each, and one failed client is not a lost quorum.
    round: the round's number if the driver knows it; otherwise judged Train batches are counted.
    """

    batch_id: str
    kind: Kind
    messages: tuple[Outgoing, ...]
    timeout_seconds: float | None
    waits: bool
    now: float
    judged: bool = True
    round: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class BatchTimedOut:
    """The caller of send_and_receive will wait no longer."""

    batch_id: str
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class NodesAsked:
    """The app asked which nodes there are; read `RoundMachine.nodes()` after this event."""

    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class AppFinished:
    """The ServerApp returned; nothing is waited for any more."""

    now: float


# -- What comes back ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class MessageDelivered:
    """The client has the whole message, checked."""

    message_id: str


@dataclasses.dataclass(frozen=True, slots=True)
class ReplyArrived:
    """A whole reply of `node` to `message_id`, the message that it answers, is stored, or was refused."""

    message_id: str
    node: int
    verdict: Verdict
    now: float


# -- The rest -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class TimePassed:
    """It is `now`; sent when a WakeAt is due, and harmless at any other moment."""

    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class RulesChanged:
    """The manifest's rules changed: batches that are open keep theirs, later ones and waits follow these."""

    rules: RoundRules
    now: float


@dataclasses.dataclass(frozen=True, slots=True)
class StopAsked:
    """Someone wants the training to end: suspended, deleted, interrupted."""

    reason: str
    message: str = ""


Event = (
    RosterChanged
    | NodeConnected
    | LinkLost
    | ClientDied
    | NodeRemoved
    | Resumed
    | BatchPushed
    | BatchTimedOut
    | NodesAsked
    | AppFinished
    | MessageDelivered
    | ReplyArrived
    | TimePassed
    | RulesChanged
    | StopAsked
)
