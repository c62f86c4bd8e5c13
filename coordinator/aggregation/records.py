"""What the round machine remembers of nodes, batches and messages, and the arithmetic of enough replies.

The module exists so that counting is apart from deciding. It refuses to know which instructions follow.
"""

from __future__ import annotations

import dataclasses

from coordinator.aggregation import events, transitions


@dataclasses.dataclass(slots=True)
class NodeRecord:
    """One node.

    `open` holds its unsettled messages, `kept` its late replies that may still stand in: in push order.
    """

    node: int
    cluster: str = ""
    state: transitions.Node = transitions.Node.UNKNOWN
    why: str = ""  # why it is not connected, as part of a sentence
    coming: str = ""  # why its client does not run yet, as long as its edge says so
    away_until: float = 0.0
    away_seconds: float = 0.0  # how long it is waited for
    open: dict[str, MessageRecord] = dataclasses.field(default_factory=dict)
    kept: list[MessageRecord] = dataclasses.field(default_factory=list)
    newest_counted: int = -1  # the push number of the newest Train message whose own reply counted

    @property
    def name(self) -> str:
        """Return the name that people know."""
        return self.cluster or f"node {self.node}"

    @property
    def reachable(self) -> bool:
        """Say whether a message pushed now has a chance: the node is connected, or away within its grace."""
        return self.state in (transitions.Node.CONNECTED, transitions.Node.AWAY)

    @property
    def removed(self) -> bool:
        """Say whether nobody waits for the node any more."""
        return self.state in (transitions.Node.REMOVED, transitions.Node.BARRED)

    @property
    def wanted(self) -> bool:
        """Say whether the roster wants the node, connected or not."""
        return not self.removed and self.state not in (transitions.Node.UNKNOWN, transitions.Node.EARLY)


@dataclasses.dataclass(slots=True)
class MessageRecord:
    """One message.

    `number` counts all pushed messages; `why` says why it was not answered, as part of a sentence.
    """

    message_id: str
    node: int
    number: int
    batch: BatchRecord
    expires_at: float | None
    state: transitions.Message = transitions.Message.HELD
    examples: int | None = None
    why: str = ""

    @property
    def is_open(self) -> bool:
        """Say whether the message has no outcome yet."""
        return self.state in transitions.OPEN_MESSAGE


@dataclasses.dataclass(slots=True)
class BatchRecord:
    """One batch and its count of clusters.

    A cluster has reported when all of its messages in the batch were answered by accepted replies, and has
    failed as soon as one of them ended otherwise.
    """

    batch_id: str
    kind: events.Kind
    waits: bool
    judged: bool
    rules: events.RoundRules
    round: int
    deadline: float | None
    deadline_seconds: float | None  # the length of what `deadline` is the end of
    state: transitions.Batch = transitions.Batch.OPEN
    grace_until: float | None = None  # set once it has what it needs, if others are given a grace
    messages: list[MessageRecord] = dataclasses.field(default_factory=list)
    unsettled: int = 0
    reported: set[int] = dataclasses.field(default_factory=set)
    failed: set[int] = dataclasses.field(default_factory=set)
    _left: dict[int, int] = dataclasses.field(default_factory=dict)

    def add(self, message: MessageRecord) -> None:
        """Make the message part of the batch."""
        self.messages.append(message)
        self.unsettled += 1
        self._left[message.node] = self._left.get(message.node, 0) + 1

    def count(self, message: MessageRecord, *, valid: bool) -> None:
        """Count the outcome of a message that was open until now."""
        self.unsettled -= 1
        self._left[message.node] -= 1
        if not valid:
            self.failed.add(message.node)
        elif self._left[message.node] == 0 and message.node not in self.failed:
            self.reported.add(message.node)

    @property
    def asked(self) -> int:
        """Return how many clusters were asked."""
        return len(self._left)

    @property
    def needed(self) -> int:
        """Return how many must report: max(ceil(fraction x asked), min(quorum, asked)); 0 if not judged."""
        if not self.judged:
            return 0
        return self.rules.needed(self.asked)

    @property
    def may_close_early(self) -> bool:
        """Say whether it may close before all have replied: the app waits for what each cluster makes of the
        same thing.
        """
        return self.waits and self.kind is not events.Kind.QUERY

    @property
    def has_taken(self) -> bool:
        """Say whether as many have reported as are taken of those asked."""
        return self.may_close_early and len(self.reported) >= self.rules.taken(self.asked)

    @property
    def has_needed(self) -> bool:
        """Say whether at least one has reported, and as many as the rules need of those asked."""
        return self.may_close_early and len(self.reported) >= max(1, self.rules.needed(self.asked))

    @property
    def possible(self) -> int:
        """Return how many clusters have reported or may still."""
        return self.asked - len(self.failed)

    @property
    def pending(self) -> list[int]:
        """Return the nodes that still owe a reply and have not failed, by node id."""
        return sorted(node for node, left in self._left.items() if left and node not in self.failed)

    def in_order(self) -> list[MessageRecord]:
        """Return the messages by node id, then in the order pushed."""
        return sorted(self.messages, key=lambda message: (message.node, message.number))
