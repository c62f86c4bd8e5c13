"""What a journal tells: the batches of each round with what became of every message, and what is damaged.

Why it exists: entries are written for an app that runs again; a person asks other things of them. `tell` and
`damages` read what `reading` found, and say it as plain values. An entry of a kind that this version does not
know is named and skipped. Files are not known here; who looks into the arrays is handed in.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coordinator.journal import book, entries, reading


@dataclasses.dataclass(frozen=True, slots=True)
class Damage:
    """Something that is not as it was written. entry: its number; 0: of the whole journal.

    resumes: what it means for an aggregator that is started again, as a sentence.
    """

    entry: int
    what: str
    resume: str


def document(directory: Path, *, arrays: bool) -> dict[str, Any]:
    """Return all that there is to say of a journal, as values that JSON has. arrays: look into these, too.

    Raises: reading.JournalUnreadable.
    """
    found = reading.read(directory)
    return {
        "directory": str(directory),
        "facts": dict(found.facts),
        "entries": len(found.lines),
        "bytes": {"index": found.index_bytes, "arrays": sum(found.segments.values())},
        "happened": tell(found),
        "damages": [
            dataclasses.asdict(damage)
            for damage in damages(found, reading.why_not_found if arrays else _not_looked_into)
        ],
    }


def tell(journal: reading.Journal) -> list[dict[str, Any]]:
    """Return what happened, in order: each batch with its messages, restarts, the nodes that there were."""
    names: dict[int, str] = {}
    happened: list[dict[str, Any]] = []
    batches: dict[str, dict[str, Any]] = {}
    messages: dict[str, dict[str, Any]] = {}
    nodes: tuple[entries.Node, ...] | None = None
    for line in journal.lines:
        if line.entry is None or line.kind not in _KINDS:
            what = line.kind if line.whole and line.kind else "Unreadable"
            happened.append(_happened(line, what, known=line.entry is not None))
            continue
        match line.entry:
            case entries.NodesGiven(nodes=given):
                names.update((node.node, node.cluster) for node in given)
                if given != nodes:
                    nodes = given
                    happened.append(_happened(line, "Nodes", clusters=[node.cluster for node in given]))
            case entries.Pushed() as pushed:
                told = _batch(line, pushed, names)
                happened.append(told)
                batches[pushed.batch_id] = told
                messages.update((message["id"], message) for message in told["messages"])
            case entries.Received() as received:
                if (message := messages.get(received.message_id)) is not None:
                    _reply(message, line, received, late=message["outcome"] != "Waiting")
            case entries.Closed() as closed:
                for outcome in closed.outcomes:
                    _settle(messages, outcome)
                if (told_of := batches.get(closed.batch_id)) is not None:
                    told_of["closed"] = line.number
                    for message in told_of["messages"]:
                        if message["outcome"] == "Waiting":
                            message["outcome"] = "Missing"
            case entries.Pulled() as pulled:
                for outcome in pulled.outcomes:
                    _settle(messages, outcome)
            case entries.Dropped(message_id=message_id):
                if (message := messages.get(message_id)) is not None:
                    message["detail"] = (
                        "the late reply was dropped: its cluster had left, or late ones count no more"
                    )
            case entries.Snapshot() as snapshot:
                stands_for = {"start": snapshot.start, "round": snapshot.round, "calls": snapshot.calls}
                happened.append(_happened(line, "Snapshot", **stands_for, bytes=bytes_of(line, snapshot)))
            case entries.Resumed() as resumed:
                happened.append(_happened(line, "Restart", at=_moment(resumed.at_unix)))
    return happened


_KINDS = frozenset({"NodesGiven", "Pushed", "Received", "Closed", "Pulled", "Dropped", "Resumed", "Snapshot"})
"""What is told here; of other kinds an entry is only named."""


def _moment(unix: float) -> str:
    try:
        return dt.datetime.fromtimestamp(unix, dt.UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return "no time that there is"


def _happened(line: reading.Line, what: str, **more: Any) -> dict[str, Any]:
    return {"entry": line.number, "what": what, **more}


def _batch(line: reading.Line, pushed: entries.Pushed, names: Mapping[int, str]) -> dict[str, Any]:
    return _happened(
        line,
        "Batch",
        batch=pushed.batch_id,
        kind=str(pushed.kind),
        round=pushed.round,
        closed=None,
        messages=[
            {
                "id": message.message_id,
                "cluster": names.get(message.node, f"{message.node:x}"),
                "outcome": "Waiting",
                "verdict": "",
                "late": False,
                "examples": None,
                "detail": "",
                "bytes": 0,
            }
            for message in pushed.messages
        ],
    )


def _reply(message: dict[str, Any], line: reading.Line, received: entries.Received, *, late: bool) -> None:
    message["bytes"] = bytes_of(line, received)
    message["late"] = late
    match received.verdict:
        case entries.AcceptedReply(examples=examples):
            message["verdict"], message["examples"] = "Accepted", examples
        case entries.RefusedReply(reason=reason, message=text):
            message["verdict"], message["detail"] = "Refused", f"{reason}: {text}"
        case entries.FailedReply(reason=reason):
            message["verdict"], message["detail"] = "Failed", reason
    if not late:
        message["outcome"] = "Came"


def _settle(messages: Mapping[str, dict[str, Any]], outcome: entries.Outcome) -> None:
    """What the app was given for a message."""
    message = messages.get(outcome.message_id)
    if message is None:
        return
    if not outcome.reply:
        message["outcome"] = "Error"
        message["detail"] = message["detail"] or outcome.reason
    elif outcome.reply == outcome.message_id:
        message["outcome"] = "Given"
    else:
        message["outcome"], message["detail"] = "Given", f"the late reply to {outcome.reply} stands in"


def bytes_of(line: reading.Line, entry: entries.Any) -> int:
    """Return how many bytes the journal has of a reply or a snapshot."""
    return line.size_bytes + sum(array.length for array in entries.stored_in(entry))


def damages(
    journal: reading.Journal, why_not_found: Callable[[reading.Journal, entries.StoredArray], str]
) -> list[Damage]:
    """Return what is not as it was written, in order; `why_not_found` says what is wrong with an array."""
    found: list[Damage] = []
    format_ = journal.facts.get("format", "")
    if format_ not in map(str, book.FORMATS):
        reads = " and ".join(map(str, book.FORMATS))
        found.append(
            Damage(0, f"its format is {format_ or 'missing'}, this version reads {reads}", _NOT_READ)
        )
    if gone := _dropped(journal):
        found.append(Damage(0, gone, _LACKS))
    looked_into = not gone and book.DROPPED not in journal.facts
    snapshots = [
        line.number
        for line in journal.lines
        if line.whole and (line.kind not in _KINDS or isinstance(line.entry, entries.Snapshot))
    ]
    last = 0
    for position, line in enumerate(journal.lines):
        # Entries that a snapshot stands for are removed: who reads on after it does not miss them.
        if line.number != last + 1 and not any(number >= line.number for number in snapshots):
            missing = (
                f"entry {last + 1} is"
                if line.number == last + 2
                else f"entries {last + 1} to {line.number - 1} are"
            )
            found.append(Damage(line.number, f"{missing} missing", _NOT_NOTICED))
        last = line.number
        what = _wrong(journal, line, why_not_found if looked_into else _not_looked_into)
        if what:
            found.append(Damage(line.number, what, _cut_back(journal.lines, position)))
    if journal.broken:
        what = f"the index cannot be read beyond entry {last}: {journal.broken}"
        found.append(Damage(0, what, _cut_back(journal.lines, len(journal.lines))))
    return found


_NOT_READ = "An aggregator of this version does not touch it, and the training waits for one that reads it."
_LACKS = "An aggregator does not touch it, and the training waits until they are put back."
_NOT_NOTICED = "An aggregator would not notice, and the app may get other answers than before."


def _dropped(journal: reading.Journal) -> str:
    """Say so if arrays of replies are gone, and not with the training's end."""
    if book.DROPPED in journal.facts:
        return ""
    named = {
        array.segment
        for line in journal.lines
        if line.entry is not None
        for array in entries.stored_in(line.entry)
    }
    gone = sorted(named - set(journal.segments))
    if not gone:
        return ""
    return f"{len(gone)} of {len(named)} files with arrays are not there, the first is number {gone[0]}"


def _wrong(
    journal: reading.Journal,
    line: reading.Line,
    why_not_found: Callable[[reading.Journal, entries.StoredArray], str],
) -> str:
    if not line.whole:
        return f"entry {line.number} is not what was written, its checksum differs"
    if line.entry is None:
        return f"entry {line.number} ({line.kind or 'no kind'}) is of no kind that this version knows"
    for array in entries.stored_in(line.entry):
        if why := why_not_found(journal, array):
            of = "the snapshot" if isinstance(line.entry, entries.Snapshot) else _reply_of(line.entry)
            return f"{of} is damaged, {why}"
    return ""


def _reply_of(entry: entries.Any) -> str:
    return f"the reply to {entry.message_id}" if isinstance(entry, entries.Received) else "it"


def _not_looked_into(journal: reading.Journal, array: entries.StoredArray) -> str:
    del journal, array
    return ""


def _cut_back(lines: Sequence[reading.Line], kept: int) -> str:
    """Say how far a resume gets if so many entries count."""
    begun = (entries.Pushed, entries.Snapshot)
    rounds = [line.entry.round for line in lines[:kept] if isinstance(line.entry, begun)]
    number = max((number for number in rounds if number is not None), default=0)
    where = f"goes on in round {number}" if number else "begins anew"
    lost = len(lines) - kept
    return f"An aggregator cuts the journal back to {kept} entries, forgets {lost}, and {where}."
