"""A disk without room: what was appended waits, nobody is told that it is safe, and it is written later."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.journal import book, entries, reading, room
from federation.wire import digests
from tests.fakes import disks
from tests.unit.coordinator.journal.conftest import BASEL, ZURICH, nodes, pushed
from tests.unit.coordinator.journal.test_book import FACTS, again, with_array


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[disks.Disk]:
    """A disk of two megabytes; who waits for room looks often."""
    monkeypatch.setattr(room, "RETRY_SECONDS", 0.01)
    with disks.mounted(tmp_path, 2) as made:
        yield made


class Listener:
    """What is said of room."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, sentence: str) -> None:
        with self._changed:
            self.said.append(sentence)
            self._changed.notify_all()

    def until(self, missing: bool) -> str:
        """Wait until there is no room, or some again; returns the sentence."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.said and bool(self.said[-1]) == missing, 20)
            return self.said[-1]


def test_what_found_no_room_is_written_when_there_is_some(disk: disks.Disk) -> None:
    """In its order and once; meanwhile the sentence says where, how much, and what to do."""
    opened, heard = book.Book(disk.path / "journal", FACTS), Listener()
    opened.wait_for_room(heard)
    opened.append(nodes())
    opened.commit()
    disk.fill()
    durable, committed = threading.Event(), threading.Event()
    opened.append(pushed("b1", "a"), bytes(50_000))
    opened.when_durable(durable.set)
    sentence = heard.until(missing=True)
    for words in (str(disk.path / "journal"), "has no room for 50", "make the volume larger", "by itself"):
        assert words in sentence

    def commit() -> None:
        opened.append(pushed("b2", "a"))
        opened.commit()
        committed.set()

    writer = threading.Thread(target=commit)
    writer.start()
    assert [line.number for line in reading.read(disk.path / "journal").lines] == [1]
    assert not durable.is_set()
    assert not committed.is_set()
    disk.make_room()
    writer.join(20)
    assert committed.is_set()
    assert durable.wait(20)
    assert heard.until(missing=False) == ""
    opened.close()
    assert again(disk.path / "journal") == [nodes(), pushed("b1", "a"), pushed("b2", "a")]


def test_a_disk_that_fills_again_and_again(disk: disks.Disk) -> None:
    """Each time it goes on."""
    opened, heard = book.Book(disk.path / "journal", FACTS), Listener()
    opened.wait_for_room(heard)
    for number in range(3):
        disk.fill()
        opened.append(pushed(f"b{number}", "a"), bytes(50_000))
        opened.when_durable(lambda: None)
        heard.until(missing=True)
        disk.make_room()
        heard.until(missing=False)
    opened.close()
    assert again(disk.path / "journal") == [pushed(f"b{number}", "a") for number in range(3)]


def test_what_nobody_waits_for_is_tried_again_too(disk: disks.Disk) -> None:
    """The clock stands still until it is written, so it is not left to the next who commits."""
    opened, heard = book.Book(disk.path / "journal", FACTS), Listener()
    opened.wait_for_room(heard)
    disk.fill()
    opened.append(pushed("b1", "a"), bytes(50_000))
    opened.hurry()
    heard.until(missing=True)
    disk.make_room()
    heard.until(missing=False)
    opened.close()
    assert again(disk.path / "journal") == [pushed("b1", "a")]


def test_who_gave_up_does_not_wait(disk: disks.Disk) -> None:
    """A training that is stopped while there is no room ends; what was written stays."""
    opened, heard = book.Book(disk.path / "journal", FACTS), Listener()
    opened.wait_for_room(heard)
    opened.append(nodes())
    opened.commit()
    disk.fill()
    opened.append(pushed("b1", "a"), bytes(50_000))
    ended = threading.Event()

    def commit() -> None:
        with pytest.raises(book.NoRoom):
            opened.commit()
        ended.set()

    writer = threading.Thread(target=commit)
    writer.start()
    heard.until(missing=True)
    opened.give_up()
    writer.join(20)
    assert ended.is_set()
    opened.close()
    assert again(disk.path / "journal") == [nodes()]


def test_before_anybody_listens_nobody_waits(disk: disks.Disk) -> None:
    """An aggregator that cannot open its journal, or begin one, ends and says why; what is there stays."""
    opened = book.Book(disk.path / "journal", FACTS)
    opened.append(nodes())
    opened.close()
    disk.fill()
    with pytest.raises((book.NoRoom, OSError)) as raised:
        book.Book(disk.path / "journal", FACTS)
    assert isinstance(raised.value, book.NoRoom) or room.is_full(raised.value)
    with pytest.raises((book.NoRoom, OSError)):
        book.Book(disk.path / "another", FACTS)
    disk.make_room()
    assert again(disk.path / "journal") == [nodes()]


def test_a_snapshot_that_finds_no_room_takes_none(disk: disks.Disk) -> None:
    """Its arrays go at once, and what it was to stand for stays."""
    opened = book.Book(disk.path / "journal", FACTS)
    opened.append(pushed("b1", "a"))
    one, size = with_snapshot(opened), arrays_bytes(disk)
    assert size > 0
    disk.fill()
    with pytest.raises(book.NoRoom):
        opened.compact(one, bytes(200_000), {})
    assert arrays_bytes(disk) == 0
    opened.append(pushed("b2", "a"))
    opened.wait_for_room(Listener())  # the files are closed on a thread of their own
    opened.commit()
    disk.make_room()
    opened.compact(with_snapshot(opened), bytes(200_000), {})
    opened.close()
    assert [entry.entry for entry in again(disk.path / "journal")] == ["Snapshot"]


def test_a_snapshot_whose_arrays_cannot_be_synced_takes_none(
    disk: disks.Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of their bytes, and no entry names them."""
    opened = book.Book(disk.path / "journal", FACTS)
    opened.append(pushed("b1", "a"))
    one = with_snapshot(opened)

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "it fails")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", fails)
        patched.setattr("os.fdatasync", fails)
        with pytest.raises(OSError, match="it fails"):
            opened.compact(one, b"", {})
    assert arrays_bytes(disk) == 0
    opened.close()
    assert again(disk.path / "journal") == [pushed("b1", "a")]


def with_snapshot(opened: book.Book) -> entries.Snapshot:
    """A snapshot of all that was written, with an array in a segment of its own."""
    until = opened.position()
    (region,) = opened.segments.allocate_apart([300_000])
    data = b"z" * 300_000
    region.write(0, data)
    stored = entries.StoredArray(
        digest=digests.digest(data).hex(), segment=region.number, offset=region.offset, length=len(data)
    )
    return entries.Snapshot(
        start=1, round=1, rounds=9, after=0, until=until, calls=0, messages=3,
        nodes=(ZURICH, BASEL), state_bytes=0, arrays=(stored,),
    )  # fmt: skip


def arrays_bytes(disk: disks.Disk) -> int:
    """What the journal's segments take."""
    return sum(path.stat().st_size for path in (disk.path / "journal" / book.ARRAYS).iterdir())


def test_arrays_that_find_no_room(disk: disks.Disk) -> None:
    """A file of arrays that could not be made is made later; the entry that names it holds."""
    opened = book.Book(disk.path / "journal", FACTS)
    region = opened.segments.allocate(1_500_000)
    region.write(0, b"a" * 1_000_000)
    disk.fill()
    with pytest.raises(OSError, match="No space left") as raised:
        region.write(1_000_000, b"b" * 500_000)
    assert room.is_full(raised.value)
    disk.make_room()
    region.write(1_000_000, b"b" * 500_000)
    assert region.read(0, 1_500_000) == b"a" * 1_000_000 + b"b" * 500_000
    entry = with_array(opened, "m1", b"g" * 100_000)
    opened.append(entry)
    opened.close()
    assert again(disk.path / "journal") == [entry]


def test_a_disk_that_fails_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sync that failed nothing is known of what was written: nothing is, from then on."""
    opened, heard = book.Book(tmp_path, FACTS), Listener()
    opened.wait_for_room(heard)
    opened.append(with_array(opened, "m1", b"g" * 100_000))

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    told: list[int] = []
    monkeypatch.setattr("os.fdatasync", fails)
    opened.when_durable(lambda: told.append(1))
    for _ in range(2):
        with pytest.raises(book.JournalUnusable, match="cannot be written"):
            opened.commit()
        monkeypatch.undo()
    opened.close()
    assert (told, heard.said) == ([], [])
    assert again(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EIO, "Input/output error"), False),
        (sqlite3.OperationalError("database is locked"), False),
        (ValueError("no"), False),
    ],
)
def test_which_errors_say_that_there_is_no_room(error: Exception, want: bool, tmp_path: Path) -> None:
    """Those of the disk and of its quotas."""
    assert room.Room(tmp_path).lacks(error) is want
