"""The journal's file: entries in SQLite, written in order, durable when it counts.

Why it exists: what an aggregator must still know after its death. SQLite in WAL mode finds the torn end of a
file that a crash left; each entry has a checksum besides, so that one which rotted is found, and everything
from there on is forgotten rather than believed.

When bytes are made to outlive the machine's power (fsync), and why there and nowhere else:

- before a batch of messages is sent: who acts on a message makes it a fact, so the decision that led to it
  must be one;
- before a client is told that its reply is safe: it forgets the reply then.

Everything between these two is written without waiting. A process that is killed loses nothing that it wrote,
synced or not. What stands in an entry is not known here.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from coordinator.journal import entries, segments
from federation.telemetry import logs
from federation.wire import digests

log = logs.get_logger(__name__)

FORMAT = 1
"""What this version writes, and the oldest that it reads."""

DROPPED = "dropped"
"""The fact that says why the arrays of replies are not there any more."""

INDEX = "journal.sqlite"
ARRAYS = "arrays"

_READ_BYTES = 1024 * 1024

_SCHEMA = """
create table if not exists facts (name text primary key, value text not null) strict;
create table if not exists entries (
    number integer primary key, line text not null, attachment blob not null, checksum integer not null
) strict;
"""


class JournalUnusable(Exception):
    """The journal cannot be read or written now, and what it holds stays; the message is for status."""


class JournalObsolete(JournalUnusable):
    """What is there is of no use to this training, now or later: another may be begun in its place."""


class Book:
    """One training's journal, open. Any thread may call."""

    def __init__(self, directory: Path, facts: dict[str, str]) -> None:
        """Open or begin the journal in `directory`.

        facts: what it is a journal of, such as the training's uid; one of anything else is of no use.
        Raises: JournalObsolete if it is of something else, or no training can be gone on with from it;
            JournalUnusable if it is of a newer format, or the disk does not give or take it; OSError.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = directory / INDEX
        self.segments = segments.Segments(directory / ARRAYS)
        # Who appends never waits for the disk: the file has a lock of its own, taken before the other.
        self._file_lock = threading.Lock()
        self._lock = threading.Lock()
        self._writing = False
        self._unwritten: list[tuple[entries.Any, bytes]] = []
        self._waiting: list[Callable[[], object]] = []
        self._wake = threading.Event()
        self._closed = False
        self._broken: Exception | None = None
        self.was_cut = False
        """Whether entries were found that are not what was written; they and all after them are gone."""
        self._connection = self._open(facts | {"format": str(FORMAT)})
        self._found = self._read()
        self._number = self._found[-1][0] if self._found else 0
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def found(self) -> list[tuple[entries.Any, bytes]]:
        """The entries that earlier processes wrote, in order, with their attachments."""
        return [(entry, attachment) for _, entry, attachment in self._found]

    def append(self, entry: entries.Any, attachment: bytes = b"") -> None:
        """Write an entry, some time before whatever is made durable next."""
        with self._lock:
            self._unwritten.append((entry, attachment))

    def when_durable(self, call: Callable[[], object]) -> None:
        """Call when all that was appended until now is durable; never, if it fails.

        At once if it is; otherwise on the journal's thread.
        """
        with self._lock:
            if self._closed:
                return
            if pending := bool(self._unwritten or self._waiting or self._writing):
                self._waiting.append(call)
        if pending:
            self._wake.set()
        else:
            call()

    def commit(self) -> None:
        """Return when all that was appended is durable.

        Raises: JournalUnusable, also if an earlier write has failed: nothing follows from what is not there.
        """
        with self._file_lock:
            self._flush()

    def fact(self, name: str, make: Callable[[], str]) -> str:
        """Return a value that was written once, or make and write it. Raises: JournalUnusable."""
        with self._file_lock, self._failures():
            self._connection.execute(
                "insert into facts (name, value) values (?, ?) on conflict do nothing", (name, make())
            )
            (value,) = self._connection.execute("select value from facts where name = ?", (name,)).fetchone()
            return str(value)

    def replace_fact(self, name: str, value: str) -> str:
        """Write such a value anew, and return it. Raises: JournalUnusable."""
        with self._file_lock, self._failures():
            self._connection.execute("update facts set value = ? where name = ?", (value, name))
        return value

    def cut(self, entries_kept: int) -> None:
        """Forget every entry that was found after the first so many. Raises: JournalUnusable."""
        with self._file_lock:
            self._flush()
            last = self._found[entries_kept - 1][0] if entries_kept else 0
            with self._failures():
                self._connection.execute("delete from entries where number > ?", (last,))
            del self._found[entries_kept:]
            self._number = last

    def drop_arrays(self) -> None:
        """The training is over: what replies carried is not needed any more, what happened stays."""
        with contextlib.suppress(JournalUnusable):
            self.fact(DROPPED, lambda: "the training is over")
        self.segments.drop(self.segments.numbers())

    def close(self) -> None:
        """Write what is left, if that is possible, and close the file; nobody is called any more."""
        with self._file_lock:
            with self._lock:
                if self._closed:
                    return
                self._closed = True
            try:
                self._flush()
            except JournalUnusable as error:
                log.warning("journal not closed in order", error=str(error))
            self._connection.close()
        self._wake.set()
        self._thread.join()

    # -- the file --------------------------------------------------------------------------------

    def _open(self, facts: dict[str, str]) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.executescript(_SCHEMA)
            connection.executemany(
                "insert into facts (name, value) values (?, ?) on conflict do nothing", facts.items()
            )
            written = dict(connection.execute("select name, value from facts"))
        except sqlite3.OperationalError as error:  # no room, no right, another process
            raise JournalUnusable(f"{self._file}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise JournalObsolete(f"{self._file}: {error}") from error
        for name, value in facts.items():
            if written[name] != value:
                kind = JournalUnusable if name == "format" else JournalObsolete
                raise kind(f"the journal's {name} is {written[name]}, and this aggregator's is {value}")
        return connection

    def _read(self) -> list[tuple[int, entries.Any, bytes]]:
        """Read up to the first entry that is not what was written, and remove it and all after it."""
        good: list[tuple[int, entries.Any, bytes]] = []
        why = ""
        try:
            for number, line, attachment, checksum in self._connection.execute(
                "select number, line, attachment, checksum from entries order by number"
            ):
                if entries.checksum(line, attachment) != checksum:
                    why = f"entry {number} is not what was written"
                    break
                entry = entries.read(line)
                if isinstance(entry, entries.Received) and (why := self._rotten(entry)):
                    break
                good.append((number, entry, attachment))
        except sqlite3.OperationalError as error:
            raise JournalUnusable(f"{self._file}: {error}") from error
        except (sqlite3.DatabaseError, ValueError) as error:
            why = str(error)
        if why:
            self.was_cut = True
            log.warning("journal cut back", kept=len(good), detail=why)
            last = good[-1][0] if good else 0
            try:
                self._connection.execute("delete from entries where number > ?", (last,))
            except sqlite3.OperationalError as error:
                raise JournalUnusable(f"{self._file}: {error}") from error
            except sqlite3.DatabaseError as error:
                raise JournalObsolete(f"{self._file} is damaged beyond entry {last}: {error}") from error
        return good

    def _rotten(self, entry: entries.Received) -> str:
        """Say what is wrong with the bytes of a reply; empty: nothing.

        Raises: JournalObsolete if they were dropped; JournalUnusable if the disk does not give them.
        """
        for array in entry.arrays:
            if not array.segment:
                continue  # covered by the entry's checksum
            try:
                region = self.segments.find(array.segment, array.offset, array.length)
            except FileNotFoundError as error:
                raise JournalObsolete(
                    "the replies of its first rounds were dropped, since all together they took too much room"
                ) from error
            except EOFError as error:
                return str(error)
            hasher = digests.start()
            try:
                for start in range(0, array.length, _READ_BYTES):
                    hasher.update(region.read(start, min(_READ_BYTES, array.length - start)))
            except OSError as error:
                raise JournalUnusable(f"{self._file.parent}: {error}") from error
            if hasher.digest(digests.DIGEST_BYTES).hex() != array.digest:
                return f"the reply to {entry.message_id} is not what was received"
        return ""

    def _flush(self) -> None:
        """Write and sync what was appended. With the file's lock held."""
        if self._broken is not None:
            raise JournalUnusable(f"the journal cannot be written: {self._broken}") from self._broken
        with self._lock:
            batch, self._unwritten = self._unwritten, []
            self._writing = bool(batch)
        if not batch:
            return
        with self._failures():
            # First the bytes, then the entry that names them.
            self.segments.sync(_segments_of(entry for entry, _ in batch))
            rows = []
            for entry, attachment in batch:
                self._number += 1
                line = entries.write(entry)
                rows.append((self._number, line, attachment, entries.checksum(line, attachment)))
            self._connection.execute("begin immediate")
            self._connection.executemany(
                "insert into entries (number, line, attachment, checksum) values (?, ?, ?, ?)", rows
            )
            self._connection.execute("commit")
        self._writing = False

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what SQLite and the disk say into JournalUnusable; nothing can be written any more then."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._broken = error
            log.error("journal not written", error=str(error))
            raise JournalUnusable(f"the journal cannot be written: {error}") from error

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            with self._file_lock:
                with self._lock:
                    if self._closed:
                        return
                    calls, self._waiting = self._waiting, []
                try:
                    self._flush()
                except JournalUnusable:
                    continue
            for call in calls:
                call()


def _segments_of(batch: Iterable[entries.Any]) -> set[int]:
    return {
        array.segment
        for entry in batch
        if isinstance(entry, entries.Received)
        for array in entry.arrays
        if array.segment
    }
