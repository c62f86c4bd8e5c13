"""What stands in for an aggregator's surroundings in the model: event loop, journal's file, status.

Each does what the real one promises, in memory and at once; what the real one leaves open is a step of
the model.
"""

from __future__ import annotations

import collections
import functools
import types
from collections.abc import Callable
from typing import Any

from coordinator.journal import entries

Line = tuple[str, bytes]
"""An entry as it is written, and its attachment."""

Journal = tuple[Line, ...]


class Violation(Exception):
    """Something that must never be; the message says what."""


class Loop:
    """Runs what it is given, one after the other; nothing that is due later ever is."""

    def __init__(self) -> None:
        self._waiting: collections.deque[Callable[[], object]] = collections.deque()
        self._running = False

    def call_soon_threadsafe(self, call: Callable[..., object], *arguments: object) -> None:
        """Run it now, or after what runs."""
        self._waiting.append(functools.partial(call, *arguments))
        if self._running:
            return
        self._running = True
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            self._running = False

    def call_later(self, delay: float, call: Callable[..., object], *arguments: object) -> Any:
        """Nothing: time stands still."""
        return types.SimpleNamespace(cancel=lambda: None)


@functools.cache
def read(line: str) -> entries.Any:
    """Read an entry; most are read often."""
    return entries.read(line)


class MemoryBook:
    """A journal in memory, with the promises of journal.Book."""

    def __init__(self, journal: Journal) -> None:
        self.durable = list(journal)
        self.unwritten: list[Line] = []
        self.waiting: list[Callable[[], object]] = []
        self.written: list[Callable[[], object]] = []
        self.found = [(read(line), attachment) for line, attachment in journal]
        self.facts: dict[str, str] = {}
        self.was_cut = False
        self.crashes: list[Journal] = []

    def append(self, entry: entries.Any, attachment: bytes = b"") -> None:
        """Keep it in memory until the next writing."""
        self.unwritten.append((entries.write(entry), attachment))

    def when_durable(self, call: Callable[[], object]) -> None:
        """Call when all that was appended until now is durable; at once if it is."""
        if self.unwritten or self.waiting or self.written:
            self.waiting.append(call)
        else:
            call()

    def hurry(self) -> None:
        """Nothing: when the journal's thread writes is a step of the model."""

    def commit(self) -> None:
        """Write all that was appended, and call those who waited for it."""
        calls, self.waiting = self.waiting, []
        self._write()
        for call in calls:
            call()

    def _write(self) -> None:
        self.durable += self.unwritten
        self.unwritten = []
        self.crashes.append(canonical(self.durable))

    def write(self) -> None:
        """The journal's thread writes."""
        self.written += self.waiting
        self.waiting = []
        self._write()

    def tell(self) -> None:
        """The journal's thread calls those who waited for what it wrote."""
        calls, self.written = self.written, []
        for call in calls:
            call()

    def when_broken(self, tell: Callable[[str], object]) -> None:
        """It never is."""

    def wait_for_room(self, tell: Callable[[str], object]) -> None:
        """There always is."""

    def fact(self, name: str, make: Callable[[], str]) -> str:
        """The ids' beginning; a real one is drawn once for a training."""
        return "m"


def canonical(lines: list[Line]) -> Journal:
    """Return a journal that says the same to Replay.

    It is without Resumed, which Replay passes over, and the replies to one batch, which it looks up by
    message, are in order.
    """
    ordered: list[Line] = []
    run: list[Line] = []
    for line in lines:
        match read(timeless(line[0])):
            case entries.Resumed():
                continue
            case entries.Received():
                run.append(line)
            case _:
                ordered += [*sorted(run), line]
                run = []
    return (*ordered, *sorted(run))


def timeless(line: str) -> str:
    """Return a line without its time, so that two runs write the same."""
    return entries.write(entries.Resumed(at_unix=0)) if '"Resumed"' in line[:40] else line


class Unshown:
    """Where the driver says what status should show; nobody looks."""

    def cluster(self, *_: object) -> None:
        """Of a cluster."""

    def round(self, *_: object) -> None:
        """Of a round."""
