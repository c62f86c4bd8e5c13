"""Room on the journal's disk: who finds none says so here, and it is known when all have found some.

Why it exists: a full disk is no end of a training. What cannot be written waits, nobody is told that it is
safe, and time stands still meanwhile; several writers may wait at once, each for its own bytes. How they try
again is theirs to know. Any thread may call.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from federation.telemetry import logs

log = logs.get_logger(__name__)

RETRY_SECONDS = 1.0
"""Who waits for room looks again after so long: a person who makes some sees it used at once."""

_PROBE_BYTES = 256 * 1024
"""As much as SQLite writes in one piece at most; less room than that is none."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_MAYBE_FULL = frozenset(
    {"SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_SHMOPEN", "SQLITE_CANTOPEN"}
)
"""What SQLite says of a quota that is used up, among other things."""


class Room:
    """Who waits for room on one disk."""

    def __init__(self, directory: Path) -> None:
        """Nobody waits yet; `directory` is where the journal lies."""
        self._directory = directory
        self._lock = threading.Lock()
        self._wanted: dict[str, int] = {}
        self._listener: Callable[[str], object] | None = None

    def listen(self, listener: Callable[[str], object]) -> None:
        """Call with a sentence when there is no room, and with an empty one when all have found some."""
        with self._lock:
            self._listener = listener
            self._tell("")

    def missing(self, who: str, wanted_bytes: int, why: object) -> None:
        """There is no room for so many bytes, and `who` waits for it."""
        with self._lock:
            before = self._sentence()
            self._wanted[who] = wanted_bytes
            if not before:
                log.warning("no room for the journal", bytes=wanted_bytes, error=str(why))
            self._tell(before)

    def there(self, who: str) -> None:
        """It has found room, or does not wait any more."""
        if who not in self._wanted:
            return
        with self._lock:
            before = self._sentence()
            self._wanted.pop(who, None)
            if not self._wanted:
                log.info("there is room for the journal")
            self._tell(before)

    def _tell(self, before: str) -> None:
        if self._listener is not None and (now := self._sentence()) != before:
            self._listener(now)

    def _sentence(self) -> str:
        if not self._wanted:
            return ""
        return (
            f"The disk of {self._directory} has no room for {sum(self._wanted.values())} bytes that the "
            "training's journal needs. The training waits, and no deadline of its round runs. Remove files "
            "there or make the volume larger; it goes on by itself."
        )

    def lacks(self, error: BaseException) -> bool:
        """Whether this error of the disk or of SQLite says that there is no room."""
        if isinstance(error, OSError):
            return is_full(error)
        name = getattr(error, "sqlite_errorname", "") if isinstance(error, sqlite3.Error) else ""
        return name == "SQLITE_FULL" or (name in _MAYBE_FULL and self._probe_fails())

    def _probe_fails(self) -> bool:
        """SQLite does not say which error of the disk it met: write something, and see."""
        try:
            with tempfile.TemporaryFile(dir=self._directory) as file:
                for _ in range(_PROBE_BYTES // 4096):
                    os.write(file.fileno(), bytes(4096))
        except OSError as error:
            return is_full(error)
        return False


def is_full(error: BaseException) -> bool:
    """Whether an error of the disk says that it, or a quota on it, has no room."""
    return isinstance(error, OSError) and error.errno in _FULL
