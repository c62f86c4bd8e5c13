"""How many rounds a training with a declared strategy has, which may be raised while it runs.

Why it exists: Flower's loop takes its number when it starts. A raise that comes meanwhile is kept here until
that loop is done, and is written down before anything follows from it, so that an aggregator that is started
again plays as many rounds as the one before. How the loop goes on is for federation/flower/kept_rounds.py.
"""

from __future__ import annotations

import threading

from coordinator.aggregator import progress as progress_module
from coordinator.journal import book as journal
from federation.telemetry import logs

log = logs.get_logger(__name__)


class Total:
    """The number of rounds of one training, for the app's first thread; any may say that it is raised."""

    def __init__(self, rounds: int, book: journal.Book, progress: progress_module.Progress) -> None:
        """Begin with what the manifest says now, or with more if an earlier process went by that.

        Raises: JournalUnusable.
        """
        self._book, self._progress = book, progress
        self._lock = threading.Lock()
        self._over = False
        self._written = int(book.fact(journal.ROUNDS, lambda: str(rounds)))
        self._rounds = max(rounds, self._written)
        self._write(self._rounds)

    @property
    def rounds(self) -> int:
        """How many there are, as far as is known."""
        return self._rounds

    def raised(self, rounds: int) -> None:
        """The manifest asks for so many now. What is no raise, or comes after the end, changes nothing."""
        with self._lock:
            if self._over or rounds <= self._rounds:
                return
            self._rounds = rounds
            self._progress.total(rounds)
        log.info("rounds raised", rounds=rounds)

    def after(self, played: int) -> int:
        """So many are played: return how many there are to be; no more, and then that is the end.

        Waits where the disk has no room. Raises: JournalUnusable.
        """
        with self._lock:
            rounds = self._rounds
            self._over = rounds <= played
        self._write(rounds)
        return rounds

    def _write(self, rounds: int) -> None:
        if rounds > self._written:
            self._book.replace_fact(journal.ROUNDS, str(rounds))
            self._written = rounds
