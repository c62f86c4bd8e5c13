"""Entries as an aggregator writes them."""

from __future__ import annotations

from coordinator.aggregation import events
from coordinator.journal import entries

ZURICH, BASEL = entries.Node(node=7, cluster="zurich"), entries.Node(node=9, cluster="basel")


def nodes(*given: entries.Node, main: bool = True) -> entries.NodesGiven:
    """The app was told of these nodes."""
    return entries.NodesGiven(nodes=given or (ZURICH, BASEL), main=main)


def pushed(
    batch: str, said: str, *to: int, main: bool = True, waits: bool = True, number: int = 1
) -> entries.Pushed:
    """A batch that says `said` to each node."""
    return entries.Pushed(
        batch_id=batch,
        kind=events.Kind.TRAIN,
        round=number,
        waits=waits,
        main=main,
        messages=tuple(
            entries.SentMessage(message_id=f"{batch}-{node}", node=node, fingerprint=said)
            for node in to or (ZURICH.node, BASEL.node)
        ),
    )


def outcomes(batch: entries.Pushed) -> tuple[entries.Outcome, ...]:
    """A reply to each message."""
    return tuple(entries.Outcome(message_id=m.message_id, reply=m.message_id) for m in batch.messages)


def closed(batch: entries.Pushed) -> entries.Closed:
    """The batch is over, with a reply to each message."""
    return entries.Closed(batch_id=batch.batch_id, outcomes=outcomes(batch))


def received(message_id: str, node: int = ZURICH.node) -> entries.Received:
    """A reply without arrays."""
    return entries.Received(message_id=message_id, node=node, verdict=entries.AcceptedReply(examples=3))
