"""A journal's life, in a process of its own that writes down what it asks of the disk.

Called as `python -m tests.unit.coordinator.journal.power_workload DIRECTORY RESULT`.
"""

from __future__ import annotations

import pickle
import sqlite3
import sys
from pathlib import Path
from typing import Any

from coordinator.journal import book, entries
from tests.fakes import power, recorder
from tests.unit.coordinator.journal.conftest import BASEL, ZURICH, closed, nodes, pushed
from tests.unit.coordinator.journal.test_book import FACTS, with_array
from tests.unit.coordinator.journal.test_retention import snapshot

PLACE = "journals/uid-3"
"""Of the journal, below the volume."""

Found = list[tuple[Any, bytes]]


class Life:
    """What was appended, what is said to be durable, and what a reader may find."""

    def __init__(self, root: Path) -> None:
        """Nothing is written yet."""
        self.recorded = recorder.Recorder(root)
        self.states: list[Found] = [[]]
        """What a reader finds, as one entry comes after the other."""
        self._directory = root / PLACE

    def open(self) -> book.Book:
        """Open the journal as an aggregator does."""
        journal = book.Book(self._directory, FACTS)
        assert journal.found == self.states[-1]
        self.durable()
        return journal

    def durable(self) -> None:
        """Somebody was told that all until now is safe."""
        self.recorded.mark(("entries", len(self.states) - 1))

    def append(self, journal: book.Book, entry: entries.Any, attachment: bytes = b"") -> None:
        """Another entry."""
        self.states.append([*self.states[-1], (entry, attachment)])
        journal.append(entry, attachment)

    def round(self, journal: book.Book, number: int) -> None:
        """A round: two replies with an array, and attachments of two lengths, one heard of before the end."""
        batch = pushed(f"b{number}", f"said in {number}", number=number)
        self.append(journal, nodes())
        self.append(journal, batch)
        journal.commit()
        self.durable()
        for index, message in enumerate(batch.messages):
            data = bytes([number, index]) * (700 + 3000 * index)
            reply = with_array(journal, message.message_id, data).model_copy(update={"node": message.node})
            self.append(journal, reply, b"header" * (1 + 500 * index))
            if index == 0 and number % 2:
                journal.commit()
                self.durable()
        self.append(journal, closed(batch))

    def compact(self, journal: book.Book, number: int) -> None:
        """A snapshot in the place of all rounds so far."""
        until = journal.position()
        self.durable()
        data = b"global arrays" * 300
        (region,) = journal.segments.allocate_apart([len(data)])
        region.write(0, data)
        stored = entries.StoredArray(
            digest=book.digests.digest(data).hex(), segment=region.number, offset=0, length=len(data)
        )
        update = {"arrays": (stored,), "state_bytes": 5}
        one = snapshot(number, 0, until, 3 * number).model_copy(update=update)
        calls = sum(_calls(entry) for entry, _ in self.states[-1])
        self.states.append([(one.model_copy(update={"calls": calls}), b"state")])
        journal.compact(one, b"state", {})
        self.durable()

    def fact(self, journal: book.Book, name: str, value: str) -> None:
        """A value that is made once."""
        assert journal.fact(name, lambda: value) == value
        self.recorded.mark(("fact", name, value))


def _calls(entry: entries.Any) -> int:
    """For how many calls of the app it stands."""
    if isinstance(entry, entries.Snapshot):
        return entry.calls
    return int(isinstance(entry, entries.Pushed | entries.NodesGiven))


def main(root: Path, result: Path) -> None:
    """Two aggregators, one after the other; SQLite moves its log into its file in between, and earlier."""
    life = Life(root)
    life.recorded.watch_python()
    life.recorded.watch_sqlite()
    journal = life.open()
    life.fact(journal, "run", "run-7")
    for number in (1, 2):
        life.round(journal, number)
    life.compact(journal, 2)
    life.round(journal, 3)
    with sqlite3.connect(root / PLACE / book.INDEX) as beside:
        beside.execute("pragma wal_checkpoint(passive)")
    beside.close()
    life.round(journal, 4)
    journal.close()
    life.durable()
    journal = life.open()
    life.round(journal, 5)
    life.compact(journal, 5)
    life.append(journal, nodes(ZURICH, BASEL))
    journal.commit()
    life.durable()
    result.write_bytes(pickle.dumps((life.recorded.trace, life.states, power.read(root))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
