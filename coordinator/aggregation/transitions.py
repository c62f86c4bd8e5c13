"""The states that a training, its nodes, its batches and its messages can be in: the one table of each.

The round machine moves only along these tables; a fact that a state has no line for is a LocalProtocolError,
so that a driver's mistake is seen at once instead of becoming a round that hangs. The diagrams in
docs/state-diagrams.md are drawn from here. The module knows nothing of what a transition makes the machine
do.

Source of the form: h11's `_state.py`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar


class LocalProtocolError(Exception):
    """The driver told the machine something that cannot be in the state that the machine is in."""

    def __init__(self, subject: str, state: str, fact: str) -> None:
        """Say which subject (e.g. `message m1`) is in which state, and which fact has no place there."""
        super().__init__(f"{subject} is {state}, where the fact '{fact}' has no place")
        self.subject, self.state, self.fact = subject, state, fact


# -- The training -------------------------------------------------------------------------------


class Run(enum.StrEnum):
    """Where the training stands."""

    GATHERING = "Gathering"
    RUNNING = "Running"
    FAILED = "Failed"
    STOPPED = "Stopped"
    FINISHED = "Finished"


class RunFact(enum.StrEnum):
    """What can happen to the training."""

    ENOUGH_CONNECTED = "enough clusters connected"
    QUORUM_MISSED = "quorum missed"
    BATCH_PUSHED = "batch pushed"
    BATCH_TIMED_OUT = "batch timed out"
    NODES_ASKED = "nodes asked"
    APP_FINISHED = "app finished"
    STOP_ASKED = "stop asked"
    RESUMED = "resumed"


# An app's threads notice the end of their training a moment later, so an ended training still takes their
# calls.
_ENDED_RUN = (
    RunFact.BATCH_PUSHED,
    RunFact.BATCH_TIMED_OUT,
    RunFact.NODES_ASKED,
    RunFact.APP_FINISHED,
    RunFact.STOP_ASKED,
    RunFact.RESUMED,
)

RUN: Mapping[Run, Mapping[RunFact, Run]] = {
    Run.GATHERING: {
        RunFact.ENOUGH_CONNECTED: Run.RUNNING,
        RunFact.RESUMED: Run.RUNNING,
        RunFact.QUORUM_MISSED: Run.FAILED,
        RunFact.STOP_ASKED: Run.STOPPED,
    },
    Run.RUNNING: {
        RunFact.BATCH_PUSHED: Run.RUNNING,
        RunFact.BATCH_TIMED_OUT: Run.RUNNING,
        RunFact.NODES_ASKED: Run.RUNNING,
        RunFact.QUORUM_MISSED: Run.FAILED,
        RunFact.APP_FINISHED: Run.FINISHED,
        RunFact.STOP_ASKED: Run.STOPPED,
    },
    Run.FAILED: dict.fromkeys(_ENDED_RUN, Run.FAILED),
    Run.STOPPED: dict.fromkeys(_ENDED_RUN, Run.STOPPED),
    Run.FINISHED: dict.fromkeys(_ENDED_RUN, Run.FINISHED),
}


# -- A node -------------------------------------------------------------------------------------


class Node(enum.StrEnum):
    """Where a node stands, that is, the client process of one cluster."""

    UNKNOWN = "Unknown"  # not in the roster, not connected
    EARLY = "Early"  # connected before the roster named it: it does not count yet
    EXPECTED = "Expected"
    CONNECTED = "Connected"
    AWAY = "Away"  # link lost, and waited for: within the grace, or while its edge says that a client comes
    LOST = "Lost"  # link lost, grace over
    DIED = "Died"
    REMOVED = "Removed"  # by the roster, which may take it back
    BARRED = "Barred"  # for good


class NodeFact(enum.StrEnum):
    """What can happen to a node."""

    EXPECTED = "expected"
    CONNECTED = "connected"
    LINK_LOST = "link lost"
    REMEMBERED = "took part before a restart"
    GRACE_OVER = "grace over"
    CLIENT_DIED = "client died"
    REMOVED = "removed by roster"
    BARRED = "removed for good"


# Facts come over two channels (the coordinator's and the client's own), so a node's death or removal and the
# end of its link may be told in either order.
NODE: Mapping[Node, Mapping[NodeFact, Node]] = {
    Node.UNKNOWN: {
        NodeFact.EXPECTED: Node.EXPECTED,
        NodeFact.CONNECTED: Node.EARLY,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
        NodeFact.REMEMBERED: Node.AWAY,
    },
    Node.EARLY: {
        NodeFact.EXPECTED: Node.CONNECTED,
        NodeFact.CONNECTED: Node.EARLY,
        NodeFact.LINK_LOST: Node.UNKNOWN,
        NodeFact.CLIENT_DIED: Node.UNKNOWN,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
        NodeFact.REMEMBERED: Node.CONNECTED,
    },
    Node.EXPECTED: {
        NodeFact.EXPECTED: Node.EXPECTED,
        NodeFact.CONNECTED: Node.CONNECTED,
        NodeFact.CLIENT_DIED: Node.DIED,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
        NodeFact.REMEMBERED: Node.AWAY,
    },
    Node.CONNECTED: {
        NodeFact.EXPECTED: Node.CONNECTED,
        NodeFact.CONNECTED: Node.CONNECTED,
        NodeFact.LINK_LOST: Node.AWAY,
        NodeFact.CLIENT_DIED: Node.DIED,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
        NodeFact.REMEMBERED: Node.CONNECTED,
    },
    Node.AWAY: {
        NodeFact.EXPECTED: Node.AWAY,
        NodeFact.CONNECTED: Node.CONNECTED,
        NodeFact.GRACE_OVER: Node.LOST,
        NodeFact.CLIENT_DIED: Node.DIED,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
    },
    Node.LOST: {
        NodeFact.EXPECTED: Node.LOST,
        NodeFact.CONNECTED: Node.CONNECTED,
        NodeFact.CLIENT_DIED: Node.DIED,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
    },
    Node.DIED: {
        NodeFact.EXPECTED: Node.DIED,
        NodeFact.CONNECTED: Node.CONNECTED,
        NodeFact.LINK_LOST: Node.DIED,
        NodeFact.CLIENT_DIED: Node.DIED,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
        NodeFact.REMEMBERED: Node.DIED,
    },
    Node.REMOVED: {
        NodeFact.EXPECTED: Node.EXPECTED,
        NodeFact.CONNECTED: Node.REMOVED,
        NodeFact.LINK_LOST: Node.REMOVED,
        NodeFact.CLIENT_DIED: Node.REMOVED,
        NodeFact.REMOVED: Node.REMOVED,
        NodeFact.BARRED: Node.BARRED,
        NodeFact.REMEMBERED: Node.REMOVED,
    },
    Node.BARRED: {
        NodeFact.EXPECTED: Node.BARRED,
        NodeFact.CONNECTED: Node.BARRED,
        NodeFact.LINK_LOST: Node.BARRED,
        NodeFact.CLIENT_DIED: Node.BARRED,
        NodeFact.REMOVED: Node.BARRED,
        NodeFact.BARRED: Node.BARRED,
        NodeFact.REMEMBERED: Node.BARRED,
    },
}


# -- A batch ------------------------------------------------------------------------------------


class Batch(enum.StrEnum):
    """Where a batch stands: the messages of one push."""

    OPEN = "Open"
    CLOSED = "Closed"
    ABANDONED = "Abandoned"  # the training ended first


class BatchFact(enum.StrEnum):
    """What can happen to a batch."""

    MESSAGE_SETTLED = "message settled"
    ALL_SETTLED = "all settled"
    DEADLINE_WITH_ENOUGH = "deadline with enough replies"
    GRACE_OVER = "grace over"
    TAKEN = "as many replies as are taken"
    QUORUM_LOST = "quorum lost"
    TRAINING_ENDED = "training ended"
    CALLER_GAVE_UP = "caller gave up"


BATCH: Mapping[Batch, Mapping[BatchFact, Batch]] = {
    Batch.OPEN: {
        BatchFact.MESSAGE_SETTLED: Batch.OPEN,
        BatchFact.ALL_SETTLED: Batch.CLOSED,
        BatchFact.DEADLINE_WITH_ENOUGH: Batch.CLOSED,
        BatchFact.GRACE_OVER: Batch.CLOSED,
        BatchFact.TAKEN: Batch.CLOSED,
        BatchFact.QUORUM_LOST: Batch.ABANDONED,
        BatchFact.TRAINING_ENDED: Batch.ABANDONED,
        BatchFact.CALLER_GAVE_UP: Batch.OPEN,  # the deadline follows, and decides
    },
    Batch.CLOSED: {BatchFact.CALLER_GAVE_UP: Batch.CLOSED},
    Batch.ABANDONED: {BatchFact.CALLER_GAVE_UP: Batch.ABANDONED},
}


# -- A message ----------------------------------------------------------------------------------


class Message(enum.StrEnum):
    """Where a message stands. All but the first three are final."""

    HELD = "Held"  # its node is away
    SENT = "Sent"
    DELIVERED = "Delivered"
    ACCEPTED = "Accepted"
    REFUSED = "Refused"
    ERRORED = "Errored"
    UNAVAILABLE = "Unavailable"
    DIED = "Died"
    EXPIRED = "Expired"
    MISSING = "Missing"
    STOOD_IN = "StoodIn"  # answered by a late reply to an earlier message; its own reply, if any, is late
    LATE = "Late"  # its late reply has been seen


class MessageFact(enum.StrEnum):
    """What can happen to a message."""

    LINK_LOST = "link lost"
    LINK_BACK = "link back"
    DELIVERED = "delivered"
    REPLY_ACCEPTED = "reply accepted"
    REPLY_REFUSED = "reply refused"
    REPLY_ERROR = "reply is an error"
    STOOD_IN = "late reply stands in"
    NODE_GONE = "node gone"
    CLIENT_DIED = "client died"
    EXPIRED = "time to live over"
    BATCH_CLOSED = "batch closed"


OPEN_MESSAGE = frozenset({Message.HELD, Message.SENT, Message.DELIVERED})

_ENDS = {
    MessageFact.REPLY_ACCEPTED: Message.ACCEPTED,
    MessageFact.REPLY_REFUSED: Message.REFUSED,
    MessageFact.REPLY_ERROR: Message.ERRORED,
    MessageFact.STOOD_IN: Message.STOOD_IN,
    MessageFact.NODE_GONE: Message.UNAVAILABLE,
    MessageFact.CLIENT_DIED: Message.DIED,
    MessageFact.EXPIRED: Message.EXPIRED,
    MessageFact.BATCH_CLOSED: Message.MISSING,
}
_FROM_THE_NODE = (
    MessageFact.DELIVERED,
    MessageFact.REPLY_ACCEPTED,
    MessageFact.REPLY_REFUSED,
    MessageFact.REPLY_ERROR,
)


def _final(state: Message) -> dict[MessageFact, Message]:
    """Return the lines of a final state: what the node still says of the message changes nothing."""
    return dict.fromkeys(_FROM_THE_NODE, state)


def _awaiting_late_reply(state: Message) -> dict[MessageFact, Message]:
    """Return the lines of a settled state whose first reply of its own is a late one."""
    return {**dict.fromkeys(_FROM_THE_NODE, Message.LATE), MessageFact.DELIVERED: state}


MESSAGE: Mapping[Message, Mapping[MessageFact, Message]] = {
    Message.HELD: {
        MessageFact.LINK_BACK: Message.SENT,
        MessageFact.DELIVERED: Message.HELD,  # told over the link that is gone; it is offered again
        **_ENDS,
    },
    Message.SENT: {
        MessageFact.LINK_LOST: Message.HELD,
        MessageFact.LINK_BACK: Message.SENT,
        MessageFact.DELIVERED: Message.DELIVERED,
        **_ENDS,
    },
    Message.DELIVERED: {
        MessageFact.LINK_LOST: Message.HELD,
        MessageFact.LINK_BACK: Message.SENT,
        MessageFact.DELIVERED: Message.DELIVERED,
        **_ENDS,
    },
    Message.ACCEPTED: _final(Message.ACCEPTED),
    Message.REFUSED: _final(Message.REFUSED),
    Message.ERRORED: _final(Message.ERRORED),
    Message.UNAVAILABLE: _final(Message.UNAVAILABLE),
    Message.DIED: _final(Message.DIED),
    Message.EXPIRED: _final(Message.EXPIRED),
    Message.MISSING: _awaiting_late_reply(Message.MISSING),
    Message.STOOD_IN: _awaiting_late_reply(Message.STOOD_IN),
    Message.LATE: _final(Message.LATE),
}


State = TypeVar("State", bound=enum.StrEnum)
Fact = TypeVar("Fact", bound=enum.StrEnum)


def step(table: Mapping[State, Mapping[Fact, State]], subject: str, state: State, fact: Fact) -> State:
    """Return the state after the fact.

    Raises: LocalProtocolError(subject, state, fact) if the table has no line.
    """
    after = table[state].get(fact)
    if after is None:
        raise LocalProtocolError(subject, state, fact)
    return after
