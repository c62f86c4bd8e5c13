"""The journal's file: entries in SQLite, written in order, durable when it counts.

Why it exists: what an aggregator must still know after its death. SQLite in WAL mode finds the torn end of a
file that a crash left; each entry has a checksum besides, so that one which rotted is found, and everything
from there on is forgotten rather than believed.

When bytes are made to outlive the machine's power (fsync), and why there and nowhere else:

- before a batch of messages is sent: who acts on a message makes it a fact, so the decision that led to it
  must be one;
- before a client is told that its reply is safe: it forgets the reply then;
- the names of new directories and segments: bytes without a name are lost. SQLite sees to those of its files.

Everything between these two is written without waiting. A process that is killed loses nothing that it wrote,
synced or not. What stands in an entry is not known here.

A disk without room is waited for: what was appended stays in memory, and nobody is told that it is durable
(`wait_for_room`). A disk that fails is not: of pages whose sync failed nothing is known, so the journal is
not written any more.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from coordinator.journal import entries, holding, retention, room, schema, segments, unfinished
from federation import durable
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.wire import digests, outbox

log = logs.get_logger(__name__)

FORMATS = (1, 2)
"""What this version reads. A journal is begun in the first, which the version before reads as well; with its
first snapshot it is of the second."""

DROPPED = "dropped"
"""The fact that says why the arrays of replies are not there any more."""

CUT = "cut"
"""The fact that entries were cut off, until what must follow from that has been done."""

ROUNDS = "rounds"
"""The fact that says how many rounds there are, where the manifest may still raise that."""

DIVERGED = "diverged"
"""The fact that says which call of the app was the first that was not repeated after a restart."""

INDEX = "journal.sqlite"
ARRAYS = "arrays"
UNFINISHED = "unfinished"

SOON_SECONDS = 0.1
"""So long may a client wait to hear that its reply is safe: meanwhile it only keeps the bytes. Its batch
mostly closes sooner; a sync before that would hold up what still comes in, to the same file."""

_READ_BYTES = 1024 * 1024


class JournalUnusable(Exception):
    """The journal cannot be read or written now, and what it holds stays; the message is for status."""


class NoRoom(JournalUnusable):
    """The disk has no room now; what was to be written is still there to be."""


class JournalObsolete(JournalUnusable):
    """What is there is of no use to this training, now or later: another may be begun in its place."""


class JournalDamaged(JournalUnusable):
    """Files that a resume needs are not there; what is left stays, should somebody put them back."""


class JournalOfAnotherApp(JournalUnusable):
    """What is there is this training's memory, and needs the app that wrote it; it stays."""


class Book:
    """One training's journal, open. Any thread may call."""

    def __init__(self, directory: Path, facts: dict[str, str]) -> None:
        """Open or begin the journal in `directory`.

        facts: what it is a journal of, such as the training's uid; one of anything else is of no use.
        Raises: JournalObsolete if it is of something else, or no training can be gone on with from it;
            JournalOfAnotherApp if all that it is not of is the app, and there is something to go on with;
            JournalDamaged if it lacks files; holding.Held if another process writes it; NoRoom;
            JournalUnusable if it is of a newer format, or the disk does not give or take it; OSError.
        """
        durable.make_directory(directory, mode=0o700)
        self._held = holding.hold(directory)
        self.room = room.Room(directory)
        self._patient = False
        self._given_up = threading.Event()
        self._file = directory / INDEX
        self.segments = segments.Segments(directory / ARRAYS)
        # Who appends never waits for the disk: the file has a lock of its own, taken before the other.
        self._file_lock = threading.Lock()
        self._lock = threading.Lock()
        self._writing = False
        self._unwritten: list[tuple[entries.Any, bytes]] = []
        self._waiting: list[Callable[[], object]] = []
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closed = False
        self._broken: Exception | None = None
        self._on_broken: Callable[[str], object] = lambda _: None
        self.facts: dict[str, str] = {}
        """What was written once, as it was found."""
        self.was_cut = False
        """Whether entries were found that are not what was written, now or by a process that died before
        `mended`; they and all after them are gone."""
        try:
            self._connection = self._open(facts | {"format": str(FORMATS[0])})
            self.was_cut = CUT in self.facts
            self._found = self._read()
            self.unfinished = unfinished.Unfinished(directory / UNFINISHED, self._may_go_on)
        except BaseException:
            os.close(self._held)
            raise
        self._number = self._found[-1][0] if self._found else 0
        self._named = {number: _segments_of([entry]) for number, entry, _ in self._found}
        self.segments.keep_only(self.unfinished.segments().union(*self._named.values()))
        self.grown_bytes = sum(_size(entry, attachment) for _, entry, attachment in self._found)
        """What all replies that were written took; it never goes down."""
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    @property
    def found(self) -> list[tuple[entries.Any, bytes]]:
        """The entries that earlier processes wrote, in order, with their attachments."""
        return [(entry, attachment) for _, entry, attachment in self._found]

    def when_broken(self, call: Callable[[str], object]) -> None:
        """Call with part of a sentence, on any thread, when the journal can be written no more."""
        self._on_broken = call

    def wait_for_room(self, told: Callable[[str], object]) -> None:
        """From now on, who writes waits for room where there is none, until `give_up`.

        told: called with a sentence when there is no room, with an empty one when there is some again; from
            any thread, and with locks held.
        """
        self._patient = True
        self.room.listen(told)

    def give_up(self) -> None:
        """The training is over: nobody waits for room any more."""
        self._given_up.set()

    def append(self, entry: entries.Any, attachment: bytes = b"") -> None:
        """Write an entry, some time before whatever is made durable next."""
        with self._lock:
            self._unwritten.append((entry, attachment))
            self.grown_bytes += _size(entry, attachment)
            for array in entries.stored_in(entry):
                self.segments.named(array.segment, array.offset)

    def when_durable(self, call: Callable[[], object]) -> None:
        """Call when all that was appended until now is durable; never, if the disk fails.

        At once if it is; otherwise soon, on the journal's thread or on that of who commits.
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

    def hurry(self) -> None:
        """Begin to make durable what was appended: somebody will soon wait for it."""
        self._hurry.set()
        self._wake.set()

    def commit(self) -> None:
        """Return when all that was appended is durable.

        Raises: JournalUnusable, also if an earlier write has failed: nothing follows from what is not there.
        """
        self._flushed(lambda: None)

    def position(self) -> int:
        """Return the number of the last entry, when all that was appended is durable.

        Raises: JournalUnusable.
        """
        return self._flushed(lambda: self._number)

    def number_of(self, position: int) -> int:
        """The number of the entry that was found in this position, counted from 0; 0 for none."""
        return self._found[position][0] if position >= 0 else 0

    def compact(
        self, snapshot: entries.Snapshot, attachment: bytes, kept: Mapping[str, tuple[str, str]]
    ) -> None:
        """Put a snapshot in the place of what it makes needless, at once or not at all.

        kept: messages whose late replies wait to count, or may still come, with the type and group of what
            was sent.
        Raises: NoRoom, and then nothing has changed; OSError if its arrays cannot be synced; in both cases
            its segments are gone, to take no room from what must be written. JournalUnusable.
        """
        own = _segments_of([snapshot])
        try:
            failpoints.reach("aggregator.snapshot-sync")
            self.segments.sync(own)  # who writes entries meanwhile does not wait for that
        except OSError:
            self.segments.drop(own)
            raise
        try:
            self._put(snapshot, attachment, kept)
        except NoRoom:  # after any other error the snapshot may count
            self.segments.drop(own)
            raise

    def _put(
        self, snapshot: entries.Snapshot, attachment: bytes, kept: Mapping[str, tuple[str, str]]
    ) -> None:
        with self._file_lock:
            if self._closed or self._broken is not None:
                return
            with self._failures():
                rows = [
                    (number, entries.read(line))
                    for number, line in self._connection.execute(
                        "select number, line from entries where number <= ? order by number",
                        (snapshot.until,),
                    )
                ]
                needless = retention.needless(rows, snapshot, kept)
                if not needless:
                    return
                counted = {"calls": retention.calls(rows, needless), "late": retention.late(rows, kept)}
                number, line = max(needless), entries.write(snapshot.model_copy(update=counted))
                self._connection.execute("begin immediate")
                self._connection.executemany(
                    "delete from entries where number = ?", [(one,) for one in needless]
                )
                self._connection.execute(
                    "insert into entries (number, line, attachment, checksum) values (?, ?, ?, ?)",
                    (number, line, attachment, entries.checksum(line, attachment)),
                )
                self._connection.execute(
                    "update facts set value = ? where name = 'format'", (str(FORMATS[-1]),)
                )
                failpoints.reach("aggregator.snapshot-written")
                self._connection.execute("commit")
            failpoints.reach("aggregator.snapshot-counts")
            self._named = {one: named for one, named in self._named.items() if one not in needless}
            self._named[number] = _segments_of([snapshot])
            with self._lock:
                unwritten = _segments_of(entry for entry, _ in self._unwritten)
                others = unwritten | self.unfinished.segments()
                self.segments.keep_only(others.union(*self._named.values()))

    def fact(self, name: str, make: Callable[[], str]) -> str:
        """Return a value that was written once, or make and write it. Raises: JournalUnusable."""

        def work() -> str:
            with self._failures():
                self._connection.execute(
                    "insert into facts (name, value) values (?, ?) on conflict do nothing", (name, make())
                )
                (value,) = self._connection.execute(
                    "select value from facts where name = ?", (name,)
                ).fetchone()
            failpoints.reach("aggregator.fact-written")
            return str(value)

        return self._write(work)

    def replace_fact(self, name: str, value: str) -> str:
        """Write such a value anew, and return it. Raises: JournalUnusable."""

        def work() -> str:
            with self._failures():
                self._connection.execute("update facts set value = ? where name = ?", (value, name))
            failpoints.reach("aggregator.fact-written")
            return value

        return self._write(work)

    def mended(self) -> None:
        """What must follow from a cut has been done: the next process need not. Raises: JournalUnusable."""

        def work() -> None:
            with self._failures():
                self._connection.execute("delete from facts where name = ?", (CUT,))

        self._write(work)

    def cut(self, entries_kept: int) -> None:
        """Forget every entry that was found after the first so many. Raises: JournalUnusable."""

        def work() -> None:
            last = self._found[entries_kept - 1][0] if entries_kept else 0
            with self._failures():
                self._connection.execute("delete from entries where number > ?", (last,))
            del self._found[entries_kept:]
            self._named = {number: named for number, named in self._named.items() if number <= last}
            self._number = last
            failpoints.reach("aggregator.journal-cut")

        self._flushed(work)

    def drop_arrays(self) -> None:
        """The training is over: what replies carried is not needed any more, what happened stays."""
        self.unfinished.end()
        self.give_up()
        self._say_dropped()  # first: a journal that lacks files and does not say why is a damaged one
        self.segments.drop(self.segments.numbers())
        self._say_dropped()  # where only they left no room for it

    def _say_dropped(self) -> None:
        with contextlib.suppress(JournalUnusable):
            self.fact(DROPPED, lambda: "the training is over")

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
        self.hurry()
        self._thread.join()
        os.close(self._held)

    # -- the file --------------------------------------------------------------------------------

    def _open(self, facts: dict[str, str]) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(self._file, check_same_thread=False, isolation_level=None)
            schema.distrust(connection)
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.executescript(schema.TABLES)
            if why := schema.why_not(connection):
                connection.close()
                raise JournalObsolete(f"{self._file}: {why}")
            connection.executemany(
                "insert into facts (name, value) values (?, ?) on conflict do nothing", facts.items()
            )
            self.facts = written = dict(connection.execute("select name, value from facts"))
        except sqlite3.OperationalError as error:  # no room, no right, another process
            raise self._unusable(error) from error
        except sqlite3.DatabaseError as error:
            raise JournalObsolete(f"{self._file}: {error}") from error
        for name, value in facts.items():
            if name == "format" and written[name] in map(str, FORMATS):
                continue
            if written[name] != value:
                kind: type[JournalUnusable] = JournalObsolete
                if name == "format":
                    kind = JournalUnusable
                elif name == "app" and DROPPED not in written and self._has_entries(connection):
                    kind = JournalOfAnotherApp
                connection.close()
                raise kind(f"the journal's {name} is {written[name]}, and this aggregator's is {value}")
        return connection

    def _has_entries(self, connection: sqlite3.Connection) -> bool:
        """Whether there is anything to go on with. Raises: JournalUnusable."""
        try:
            return connection.execute("select 1 from entries limit 1").fetchone() is not None
        except sqlite3.OperationalError as error:
            raise self._unusable(error) from error
        except sqlite3.DatabaseError:
            return True  # damaged, and perhaps not all of it

    def _read(self) -> list[tuple[int, entries.Any, bytes]]:
        """Read up to the first entry that is not what was written, and remove it and all after it."""
        good: list[tuple[int, entries.Any, bytes]] = []
        why = ""
        try:
            for number, row in schema.rows(self._connection):
                if type(number) is not int or number < 1:  # nothing that is cut off stands behind it
                    raise JournalObsolete(f"{self._file}: it has an entry without a number of one")
                if row is None or entries.checksum(row[1], row[2]) != row[3]:
                    why = f"entry {number} is not what was written"
                    break
                _, line, attachment, _ = row
                entry = entries.read(line)
                if why := self._rotten(entry):
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
                self._connection.execute("begin immediate")
                self._connection.execute(
                    "insert into facts (name, value) values (?, ?) on conflict do nothing", (CUT, why)
                )
                self._connection.execute("delete from entries where number > ?", (last,))
                self._connection.execute("commit")
            except sqlite3.OperationalError as error:
                raise self._unusable(error) from error
            except sqlite3.DatabaseError as error:
                raise JournalObsolete(f"{self._file} is damaged beyond entry {last}: {error}") from error
        return good

    def _may_go_on(self, record: unfinished.Record) -> bool:
        """Whether no entry has the reply that a record is of, or bytes where it says that they are to go."""
        own = _Regions(array for array in record.arrays if array.segment)
        answered = outbox.answered_by(record.transfer_id)
        for _, entry, _ in self._found:
            if isinstance(entry, entries.Received) and entry.message_id == answered:
                return False
            if any(own.meet(array, whole_segment=record.alone) for array in entries.stored_in(entry)):
                return False
        return True

    def _rotten(self, entry: entries.Any) -> str:
        """Say what is wrong with the bytes of an entry's arrays; empty: nothing.

        Raises: JournalObsolete if they went with the training's end; JournalDamaged if they are gone for any
            other reason; JournalUnusable if the disk does not give them.
        """
        for array in entries.stored_in(entry):  # the others are covered by the entry's checksum
            try:
                region = self.segments.find(array.segment, array.offset, array.length)
            except FileNotFoundError as error:
                if DROPPED in self.facts:
                    raise JournalObsolete("the training was over, and its replies are gone") from error
                # Versions before this one removed the oldest replies beyond 8 GiB.
                file = segments.name_of(array.segment)
                raise JournalDamaged(f"{file} is gone, which the training cannot go on without") from error
            except EOFError as error:
                return str(error)
            except OSError as error:
                raise JournalUnusable(f"{self._file.parent}: {error}") from error
            hasher = digests.start()
            try:
                for start in range(0, array.length, _READ_BYTES):
                    hasher.update(region.read(start, min(_READ_BYTES, array.length - start)))
            except OSError as error:
                raise JournalUnusable(f"{self._file.parent}: {error}") from error
            if hasher.digest(digests.DIGEST_BYTES).hex() != array.digest:
                return f"an array of a {entry.entry} entry is not what was written"
        return ""

    def _write(self, work: Callable[[], _Result]) -> _Result:
        """Do what writes to the file, again and again while there is no room and somebody waits for it."""
        while True:
            try:
                with self._file_lock:
                    return work()
            except NoRoom:
                if not self._patient or self._given_up.wait(room.RETRY_SECONDS):
                    raise

    def _flushed(self, work: Callable[[], _Result]) -> _Result:
        """Write and sync what was appended, do something more with the file, and call those who waited."""
        calls: list[Callable[[], object]] = []

        def both() -> _Result:
            calls.extend(self._flush())  # also of a try that finds no room afterwards
            return work()

        result = self._write(both)
        for call in calls:
            call()
        return result

    def _flush(self) -> list[Callable[[], object]]:
        """Write and sync what was appended; return whom to call now. With the file's lock held.

        Raises: NoRoom, JournalUnusable.
        """
        if self._broken is not None:
            raise JournalUnusable(f"the journal cannot be written: {self._broken}") from self._broken
        with self._lock:
            batch, self._unwritten = self._unwritten, []
            calls, self._waiting = self._waiting, []
            self._writing = bool(batch)
        if not batch:
            return calls
        rows: list[tuple[int, str, bytes, int]] = []
        try:
            with self._failures():
                failpoints.reach("aggregator.journal-sync")
                # First the bytes, then the entry that names them.
                named = [_segments_of([entry]) for entry, _ in batch]
                self.segments.sync(set().union(*named))
                failpoints.reach("aggregator.arrays-synced")
                for number, (entry, attachment) in enumerate(batch, self._number + 1):
                    line = entries.write(entry)
                    rows.append((number, line, attachment, entries.checksum(line, attachment)))
                self._connection.execute("begin immediate")
                self._connection.executemany(
                    "insert into entries (number, line, attachment, checksum) values (?, ?, ?, ?)", rows
                )
                failpoints.reach("aggregator.entries-sync")
                self._connection.execute("commit")
                self._named.update(zip((row[0] for row in rows), named, strict=True))
                failpoints.reach("aggregator.entries-written")
        except NoRoom as error:
            with self._lock:
                self._unwritten[:0], self._waiting[:0] = batch, calls
                self._writing = False
            self.room.missing("journal", sum(len(line) + len(more) for _, line, more, _ in rows), error)
            raise
        self.room.there("journal")
        self._number += len(batch)
        self._writing = False
        return calls

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what SQLite and the disk say into NoRoom, with nothing changed, or JournalUnusable.

        Nothing can be written any more after the latter.
        """
        try:
            yield
        except sqlite3.Error as error:
            if self.room.lacks(error):
                with contextlib.suppress(sqlite3.Error):
                    self._connection.execute("rollback")  # some errors have done so already
                if not self._connection.in_transaction:
                    raise NoRoom(f"the journal cannot be written: {error}") from error
            raise self._break(error) from error
        except OSError as error:  # of a sync, after which nothing is known of what was written
            raise self._break(error) from error

    def _break(self, error: Exception) -> JournalUnusable:
        self._broken = error
        log.error("journal not written", error=str(error))
        unusable = JournalUnusable(f"the journal cannot be written: {error}")
        self._on_broken(str(unusable))
        return unusable

    def _unusable(self, error: sqlite3.Error) -> JournalUnusable:
        kind = NoRoom if self.room.lacks(error) else JournalUnusable
        return kind(f"{self._file}: {error}")

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        pause: float | None = None
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            if pause is None:
                self._hurry.wait(SOON_SECONDS)
            pause = None
            with self._file_lock:
                with self._lock:
                    if self._closed:
                        return
                    if not self._waiting and not self._hurry.is_set():
                        continue
                self._hurry.clear()
                try:
                    calls = self._flush()
                except NoRoom:
                    pause = room.RETRY_SECONDS
                    self._hurry.set()  # the clock stands still until it is written, whoever waits
                    continue
                except JournalUnusable:
                    continue
            for call in calls:
                call()


_Result = TypeVar("_Result")


def _segments_of(batch: Iterable[entries.Any]) -> set[int]:
    return {array.segment for entry in batch for array in entries.stored_in(entry)}


class _Regions:
    """Where some arrays lie, in order: a reply may have tens of thousands."""

    def __init__(self, arrays: Iterable[entries.StoredArray]) -> None:
        places: dict[int, list[tuple[int, int]]] = {}
        for array in arrays:
            places.setdefault(array.segment, []).append((array.offset, array.offset + array.length))
        self._begins = {number: sorted(begin for begin, _ in found) for number, found in places.items()}
        self._ends = {
            number: list(itertools.accumulate((end for _, end in sorted(found)), max))
            for number, found in places.items()
        }

    def meet(self, other: entries.StoredArray, *, whole_segment: bool = False) -> bool:
        """Whether another array has bytes where these lie; whole_segment: or is in one of their segments."""
        if other.segment not in self._begins or whole_segment:
            return other.segment in self._begins
        before = bisect.bisect_left(self._begins[other.segment], other.offset + other.length)
        return before > 0 and self._ends[other.segment][before - 1] > other.offset


def _size(entry: entries.Any, attachment: bytes) -> int:
    replied = isinstance(entry, entries.Received)
    return len(attachment) + sum(array.length for array in entries.stored_in(entry)) if replied else 0
