"""Replies that do not fit together, and which of them to leave out.

Why it exists: Flower's strategies want the same record and metric names from every client and end the run
otherwise, so one client with an odd reply could end everybody's training. The majority tells what a reply
looks like. It knows no strategy and no channel.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Message

Outline = tuple[tuple[str, str, tuple[str, ...]], ...]
"""Kind, name and keys of each array record and metric record of a reply, sorted."""

_NAMED_KEYS = 3


@dataclass(frozen=True)
class Odd:
    """A reply that differs from the majority: its place in the list, and in words how it differs."""

    index: int
    how: str


def outline(message: Message) -> Outline:
    """What a reply carries, by name; config records are free."""
    content = message.content
    arrays = (("arrays", name, tuple(sorted(record))) for name, record in content.array_records.items())
    metrics = (("metrics", name, tuple(sorted(record))) for name, record in content.metric_records.items())
    return tuple(sorted((*arrays, *metrics)))


def odd_ones(replies: Sequence[Message]) -> list[Odd]:
    """The replies whose outline is not that of more than half of all that carry content.

    Empty if all are alike, and also if no outline has such a majority: then nobody can say who is odd.
    """
    outlines = {index: outline(reply) for index, reply in enumerate(replies) if reply.has_content()}
    if not outlines:
        return []
    common, count = collections.Counter(outlines.values()).most_common(1)[0]
    if count == len(outlines) or 2 * count <= len(outlines):
        return []
    return [Odd(index, _difference(found, common)) for index, found in outlines.items() if found != common]


def _difference(found: Outline, common: Outline) -> str:
    mine, others = _keys(found), _keys(common)
    missing, extra = sorted(others - mine), sorted(mine - others)
    parts = [f"lacks {_names(missing)}"] if missing else []
    parts += [f"has {_names(extra)} besides"] if extra else []
    return f"its reply {' and '.join(parts) or 'names its records otherwise'}, unlike most others'"


def _keys(found: Outline) -> set[str]:
    return {f"{kind} {name}.{key}" for kind, name, keys in found for key in keys}


def _names(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED_KEYS} more" if len(keys) > _NAMED_KEYS else ""
    return ", ".join(keys[:_NAMED_KEYS]) + more
