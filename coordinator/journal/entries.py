"""What a journal can say: the ServerApp's calls of the Grid, what came back, and what was decided.

The order of entries is the order in which things happened, as far as it matters: an entry is written before
anybody outside the process can see what follows from it. This module refuses to know files and Flower.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Literal

import pydantic

from coordinator.aggregation import events


class Entry(pydantic.BaseModel):
    """One line of the journal; `entry` says which kind."""

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)


class Node(Entry):
    """A node as the app may address it."""

    node: int
    cluster: str


class NodesGiven(Entry):
    """The app asked for the nodes there are. main: on the thread that the app began on."""

    entry: Literal["NodesGiven"] = "NodesGiven"
    nodes: tuple[Node, ...]
    main: bool


class SentMessage(Entry):
    """A message of a batch. fingerprint: hexadecimal digest of what it says, and of nothing else."""

    message_id: str
    node: int
    fingerprint: str


class Pushed(Entry):
    """The app pushed messages; written before any of them is sent."""

    entry: Literal["Pushed"] = "Pushed"
    batch_id: str
    kind: events.Kind
    round: int | None
    waits: bool
    main: bool
    messages: tuple[SentMessage, ...]


FilePlace = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
"""What a file system takes; beyond that the calls of it raise other errors than those of a disk."""


class StoredArray(Entry):
    """Where the bytes of one array of a reply lie. digest: hexadecimal, the array's name on the wire.

    segment 0: they stand in the entry's own attachment, at that offset.
    """

    digest: Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
    segment: FilePlace
    offset: FilePlace
    length: FilePlace


class Received(Entry):
    """A whole reply came and was checked; written before its client is told so.

    The attachment is the reply's header (header_bytes long), then its small arrays.
    """

    entry: Literal["Received"] = "Received"
    message_id: str
    node: int
    verdict: Annotated[AcceptedReply | RefusedReply | FailedReply, pydantic.Field(discriminator="verdict")]
    header_bytes: int = 0
    arrays: tuple[StoredArray, ...] = ()


class AcceptedReply(Entry):
    """It passed every check."""

    verdict: Literal["Accepted"] = "Accepted"
    examples: int | None = None


class RefusedReply(Entry):
    """It failed one."""

    verdict: Literal["Refused"] = "Refused"
    reason: str
    message: str
    array: str = ""


class FailedReply(Entry):
    """The client answered with an error of its own."""

    verdict: Literal["Failed"] = "Failed"
    code: int
    reason: str


class Outcome(Entry):
    """What became of one message: its reply, a late one to another message in its place, or an error."""

    message_id: str
    reply: str = ""
    """The message whose reply it is; empty: an error."""
    code: int = 0
    reason: str = ""


class Closed(Entry):
    """A batch that was waited for has its outcomes, in the order in which the app gets them."""

    entry: Literal["Closed"] = "Closed"
    batch_id: str
    outcomes: tuple[Outcome, ...]


class Pulled(Entry):
    """The app fetched replies, in this order."""

    entry: Literal["Pulled"] = "Pulled"
    outcomes: tuple[Outcome, ...]
    main: bool


class Dropped(Entry):
    """A late reply that was kept for the next round will not be used: its cluster takes part no longer."""

    entry: Literal["Dropped"] = "Dropped"
    message_id: str


class Resumed(Entry):
    """An aggregator was started anew and has answered every call that stands above."""

    entry: Literal["Resumed"] = "Resumed"
    at_unix: float


class KeptReply(Entry):
    """A message of a round that a snapshot stands for, whose late reply may count in a round to come.

    The reply has an entry of its own, before the snapshot or after it, if it has come.

    message_type, group_id: of the message that it answers, which the app does not make again.
    """

    message_id: str
    node: int
    round: int
    message_type: str
    group_id: str


class Snapshot(Entry):
    """What the rounds of a start came to; it stands in the place of their entries.

    The attachment is what it says (state_bytes long), then its small arrays.
    """

    entry: Literal["Snapshot"] = "Snapshot"
    start: int
    """Which call of a strategy's start it is of, counted from 1."""
    round: int
    """The last round that it stands for."""
    rounds: int
    """How many rounds the start was to have."""
    after: int
    until: int
    """Entries with numbers above the one and up to the other are in it, but for those beside it."""
    calls: int
    """How many calls of the app it stands for."""
    messages: int
    """How many messages and batches had been numbered."""
    nodes: tuple[Node, ...]
    """The nodes that the app was last told of."""
    late: tuple[KeptReply, ...] = ()
    state_bytes: int
    arrays: tuple[StoredArray, ...]


Any = Annotated[
    NodesGiven | Pushed | Received | Closed | Pulled | Dropped | Resumed | Snapshot,
    pydantic.Field(discriminator="entry"),
]

Received.model_rebuild()
_ADAPTER: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Any)


def stored_in(entry: Any) -> tuple[StoredArray, ...]:
    """Return the arrays of an entry whose bytes lie in segments."""
    if not isinstance(entry, Received | Snapshot):
        return ()
    return tuple(array for array in entry.arrays if array.segment)


def write(entry: Any) -> str:
    """Return the entry as one line of JSON."""
    return _ADAPTER.dump_json(entry).decode()


def read(line: str) -> Any:
    """Read an entry. Raises: ValueError for a line that no version of Hanse wrote."""
    return _ADAPTER.validate_json(line)


def checksum(line: str, attachment: bytes) -> int:
    """Return the CRC-32 of an entry with its attachment, which tells a torn or rotten one."""
    return zlib.crc32(attachment, zlib.crc32(line.encode()))


def verdict_of(verdict: events.Verdict) -> AcceptedReply | RefusedReply | FailedReply:
    """Return a reply's verdict as the journal writes it."""
    match verdict:
        case events.Accepted(examples):
            return AcceptedReply(examples=examples)
        case events.Refused(reason, message, array):
            return RefusedReply(reason=reason, message=message, array=array)
        case events.Errored(code, reason):
            return FailedReply(code=code, reason=reason)


def event_of(verdict: AcceptedReply | RefusedReply | FailedReply) -> events.Verdict:
    """Return a written verdict as the round machine takes it."""
    match verdict:
        case AcceptedReply():
            return events.Accepted(verdict.examples)
        case RefusedReply():
            return events.Refused(verdict.reason, verdict.message, verdict.array)
        case FailedReply():
            return events.Errored(verdict.code, verdict.reason)
