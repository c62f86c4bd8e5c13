"""When the entries of old rounds go: what a snapshot makes needless, and when one pays.

Why it exists: a journal that keeps every reply grows with each round, and a resume that aggregates every
round again takes longer with each. A snapshot says what a start's rounds came to, and stands in their place.
What is in a snapshot, and how it is written, is not known here. This module is pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from coordinator.aggregation import events
from coordinator.journal import entries


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """When a snapshot pays."""

    replies_bytes: int = 256 * 1024 * 1024
    """Of replies since the last one. Less than that costs little room, and is aggregated again in a second
    or two."""
    times_its_size: int = 4
    """So many times as many bytes of replies as the snapshot has: at most a quarter more is written."""
    rounds: int = 100
    """With so many rounds since the last one it pays anyhow: of small models, so many are gone through in
    about a second after a crash."""

    def pays(self, grown_bytes: int, rounds: int, snapshot_bytes: int) -> bool:
        """Whether it does, after so many bytes of replies and rounds since the last one."""
        if rounds >= self.rounds:
            return True
        return grown_bytes >= max(self.replies_bytes, self.times_its_size * snapshot_bytes)


def needless(
    found: Sequence[tuple[int, entries.Any]], snapshot: entries.Snapshot, kept: Collection[str]
) -> set[int]:
    """Return the numbers of the entries up to `snapshot.until` that nobody asks for any more.

    found: the entries up to there, with their numbers. kept: messages whose replies stay all the same.
    Law: what a replay answers of the calls before `snapshot.after`, and of those after `snapshot.until`, is
        the same without them.
    """
    doomed: set[int] = set()
    batches: set[str] = set()
    asked_for = set(kept)
    for number, entry in found:
        match entry:
            case entries.Pushed() if number <= snapshot.after:
                asked_for.update(message.message_id for message in entry.messages)
            case entries.Pushed():
                batches.add(entry.batch_id)
                doomed.add(number)
            case entries.NodesGiven() | entries.Resumed() | entries.Pulled() if number > snapshot.after:
                doomed.add(number)
            case entries.Snapshot() if entry.start == snapshot.start:
                doomed.add(number)
            case _:
                pass
    for number, entry in found:
        if isinstance(entry, entries.Closed):
            if entry.batch_id in batches:
                doomed.add(number)
            else:
                asked_for.update(outcome.reply for outcome in entry.outcomes)
        elif isinstance(entry, entries.Pulled) and number not in doomed:
            asked_for.update(outcome.reply for outcome in entry.outcomes)
    doomed.update(
        number
        for number, entry in found
        if isinstance(entry, entries.Received | entries.Dropped) and entry.message_id not in asked_for
    )
    return doomed


def late(
    found: Iterable[tuple[int, entries.Any]], kept: Mapping[str, tuple[str, str]]
) -> tuple[entries.KeptReply, ...]:
    """Return what a snapshot says of late replies, in the order in which they were asked for.

    kept: by message, the type and the group of what the app had sent; the reply waits to count, or may come.
    """
    told: list[entries.KeptReply] = []
    for _, entry in found:
        if isinstance(entry, entries.Snapshot):
            told.extend(one for one in entry.late if one.message_id in kept)
        elif isinstance(entry, entries.Pushed) and entry.kind is events.Kind.TRAIN and entry.waits:
            told.extend(
                entries.KeptReply(
                    message_id=message.message_id,
                    node=message.node,
                    round=entry.round or 0,
                    message_type=kept[message.message_id][0],
                    group_id=kept[message.message_id][1],
                )
                for message in entry.messages
                if message.message_id in kept
            )
    return tuple(told)


def calls(found: Iterable[tuple[int, entries.Any]], numbers: Collection[int]) -> int:
    """Return for how many calls of the app these entries stand."""
    count = 0
    for number, entry in found:
        if number in numbers:
            if isinstance(entry, entries.Snapshot):
                count += entry.calls
            elif isinstance(entry, entries.Pushed | entries.Pulled | entries.NodesGiven):
                count += entry.main
    return count
