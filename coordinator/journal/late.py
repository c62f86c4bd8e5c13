"""Which late replies still mean something: what the journal knows of messages that no round waited for.

Why it exists: a reply that came after its round, and is to count in the next, must outlive the aggregator;
and a client that is still at work for an earlier round must find somebody who knows what it was asked.
Whether late replies count at all is the round machine's to say. This module is pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from coordinator.aggregation import events
from coordinator.journal import entries


@dataclasses.dataclass(frozen=True, slots=True)
class Late:
    """A train message that was settled without the reply of its node.

    reply: came late and has counted nowhere yet; None: it has not come.
    """

    message_id: str
    node: int
    round: int
    reply: entries.Received | None = None


def waiting(found: Iterable[entries.Any]) -> tuple[Late, ...]:
    """Return them in the order in which they were pushed.

    Of those whose reply has not come only the last one of each node, and none that is older than a reply of
    that node which counted; none that a snapshot stands for, since nothing is left to check a reply against.
    """
    kept: dict[str, entries.KeptReply] = {}
    pushed: list[entries.Pushed] = []
    closed: dict[str, dict[str, entries.Outcome]] = {}
    accepted: dict[str, entries.Received] = {}
    gone: set[str] = set()  # late replies that counted, or were dropped
    for entry in found:
        match entry:
            case entries.Pushed(kind=events.Kind.TRAIN, waits=True):
                pushed.append(entry)
            case entries.Closed():
                closed[entry.batch_id] = {outcome.message_id: outcome for outcome in entry.outcomes}
                gone.update(one.reply for one in entry.outcomes if one.reply != one.message_id)
            case entries.Snapshot():
                kept.update((one.message_id, one) for one in entry.late)
            case entries.Received(verdict=entries.AcceptedReply()):
                accepted.setdefault(entry.message_id, entry)
            case entries.Dropped():
                gone.add(entry.message_id)
    came: dict[str, Late] = {
        key: Late(key, one.node, one.round, accepted[key])
        for key, one in kept.items()
        if key in accepted and key not in gone
    }
    awaited: dict[int, Late] = {}
    order: dict[str, int] = {key: number for number, key in enumerate(came)}
    for batch in pushed:
        outcomes = closed.get(batch.batch_id)
        if outcomes is None:
            continue  # it is opened again, and says for itself what came
        for message in batch.messages:
            order[message.message_id] = len(order)
            reply, outcome = accepted.get(message.message_id), outcomes.get(message.message_id)
            if reply is not None or message.message_id in gone:
                awaited.pop(message.node, None)
            settled_without = outcome is None or outcome.reply not in ("", message.message_id)
            if not settled_without or message.message_id in gone:
                continue
            late = Late(message.message_id, message.node, batch.round or 0, reply)
            if reply is None:
                awaited[message.node] = late
            else:
                came[message.message_id] = late
    return tuple(sorted((*came.values(), *awaited.values()), key=lambda late: order[late.message_id]))
