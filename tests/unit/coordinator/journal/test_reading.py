"""Reading a journal changes nothing of it, and finds what was written and what was damaged."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from pathlib import Path

import pytest

from coordinator.journal import book, entries, reading, story
from tests.unit.coordinator.journal.conftest import BASEL, ZURICH, closed, nodes, outcomes, pushed, received
from tests.unit.coordinator.journal.test_book import FACTS, with_array


def damages(directory: Path) -> list[story.Damage]:
    """What `verify` finds."""
    return story.damages(reading.read(directory), reading.why_not_found)


def played(directory: Path) -> list[entries.Any]:
    """A journal of two rounds; the second is not over."""
    opened = book.Book(directory, FACTS)
    first, second = pushed("b1", "a"), pushed("b2", "c", number=2)
    refused = received("b1-9", BASEL.node).model_copy(
        update={"verdict": entries.RefusedReply(reason="NotFinite", message="NaN in layer 1")}
    )
    written = [
        nodes(),
        first,
        with_array(opened, "b1-7", b"g" * 100_000),
        refused,
        closed(first),
        entries.Resumed(at_unix=0.0),
        second,
        received("b2-7"),
    ]
    for entry in written:
        opened.append(entry)
    opened.close()
    return written


def state_of(directory: Path) -> dict[str, tuple[int, bytes]]:
    """All files, with times and bytes."""
    return {
        str(path.relative_to(directory)): (
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(directory.rglob("*"))
    }


def change(directory: Path, statement: str) -> None:
    """Damage the index."""
    with sqlite3.connect(directory / book.INDEX) as connection:
        connection.execute(statement)
    connection.close()


def test_what_happened_is_told_round_by_round(tmp_path: Path) -> None:
    """Batches with what became of each message; a restart where it was."""
    played(tmp_path)
    told = story.tell(reading.read(tmp_path))
    assert [(one["entry"], one["what"]) for one in told] == [
        (1, "Nodes"),
        (2, "Batch"),
        (6, "Restart"),
        (7, "Batch"),
    ]
    first, second = told[1]["messages"], told[3]["messages"]
    assert [(m["cluster"], m["outcome"], m["verdict"], m["examples"]) for m in first] == [
        ("zurich", "Given", "Accepted", 3),
        ("basel", "Given", "Refused", None),
    ]
    assert first[0]["bytes"] > 100_000
    assert first[1]["detail"] == "NotFinite: NaN in layer 1"
    assert [(m["cluster"], m["outcome"]) for m in second] == [("zurich", "Came"), ("basel", "Waiting")]
    assert told[3]["round"] == 2


def test_late_replies_and_errors_are_told(tmp_path: Path) -> None:
    """One that came after its batch, one that stands in for another message, none at all."""
    opened = book.Book(tmp_path, FACTS)
    first, second = pushed("b1", "a"), pushed("b2", "c", BASEL.node, ZURICH.node, number=2)
    mine = entries.Outcome(message_id="b1-7", reply="b1-7")
    stands_in = entries.Outcome(message_id="b2-9", reply="b1-9")
    none = entries.Outcome(message_id="b2-7", code=1, reason="the deadline passed")
    for entry in (
        nodes(),
        first,
        received("b1-7"),
        entries.Closed(batch_id="b1", outcomes=(mine,)),
        second,
        received("b1-9", BASEL.node),
        entries.Closed(batch_id="b2", outcomes=(stands_in, none)),
    ):
        opened.append(entry)
    opened.close()
    _, one, two = story.tell(reading.read(tmp_path))
    assert [(m["outcome"], m["late"]) for m in one["messages"]] == [("Given", False), ("Missing", True)]
    assert [(m["outcome"], m["detail"]) for m in two["messages"]] == [
        ("Given", "the late reply to b1-9 stands in"),
        ("Error", "the deadline passed"),
    ]


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """Neither a closed journal nor one that an aggregator has open: no file, no byte, no time."""
    played(tmp_path)
    for opened in (None, book.Book(tmp_path, FACTS)):
        if opened is not None:
            opened.append(nodes())
            opened.commit()
        before = state_of(tmp_path)
        found = reading.read(tmp_path)
        assert len(found.lines) == (8 if opened is None else 9)
        assert damages(tmp_path) == []
        assert state_of(tmp_path) == before
        if opened is not None:
            opened.close()


def test_what_is_read_while_it_is_written_is_a_beginning_of_it(tmp_path: Path) -> None:
    """Also while SQLite moves its log into the index, again and again."""
    opened = book.Book(tmp_path, FACTS)
    opened._connection.execute("pragma wal_autocheckpoint = 10")
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        while not stop.is_set() and written < 5000:
            opened.append(received(f"m{written}"), bytes(20_000))
            opened.commit()
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    try:
        while seen < 10:
            before = written
            try:
                found = reading.read(tmp_path)
            except reading.JournalUnreadable:  # written to faster than it can be read; try again
                continue
            assert not found.broken
            assert len(found.lines) >= before
            assert [line.number for line in found.lines] == list(range(1, len(found.lines) + 1))
            assert all(line.whole and line.known for line in found.lines)
            seen += 1
    finally:
        stop.set()
        writer.join()
        opened.close()


def test_a_whole_journal_has_no_damage(tmp_path: Path) -> None:
    """Whether it is over or not."""
    played(tmp_path)
    assert damages(tmp_path) == []
    opened = book.Book(tmp_path, FACTS)
    opened.drop_arrays()
    opened.close()
    assert damages(tmp_path) == []
    assert reading.read(tmp_path).facts[book.DROPPED] == "the training is over"


@pytest.mark.parametrize(
    ("statement", "want", "resume"),
    [
        ("update entries set line = replace(line, 'Train', 'Other') where number = 7",
         "entry 7 is not what was written", "back to 6 entries, forgets 2, and goes on in round"),
        ("update entries set attachment = x'00' where number = 1",
         "entry 1 is not what was written", "back to 0 entries, forgets 8, and begins anew"),
        ("delete from entries where number in (4, 5)", "entries 4 to 5 are missing", "would not notice"),
        ("delete from entries where number = 3", "entry 3 is missing", "would not notice"),
        ("update facts set value = '3' where name = 'format'", "its format is 3, this version reads 1 and 2",
         "does not touch it"),
    ],
)  # fmt: skip
def test_damage_in_the_index_is_named(tmp_path: Path, statement: str, want: str, resume: str) -> None:
    """With what it means for an aggregator that is started again."""
    played(tmp_path)
    change(tmp_path, statement)
    (found,) = damages(tmp_path)
    assert want in found.what
    assert resume in found.resume


def test_what_verify_says_of_a_resume_is_what_happens(tmp_path: Path) -> None:
    """The entries that it says count are those that the next aggregator finds."""
    written = played(tmp_path)
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    content = bytearray(segment.read_bytes())
    content[50_000] ^= 1
    segment.write_bytes(content)
    (found,) = damages(tmp_path)
    assert "the reply to b1-7 is damaged, segment-00000001 holds other bytes than were received" in found.what
    assert found.resume.startswith("An aggregator cuts the journal back to 2 entries")
    opened = book.Book(tmp_path, FACTS)
    opened.close()
    assert [entry for entry, _ in opened.found] == written[:2]


def test_a_torn_file_of_arrays_is_named(tmp_path: Path) -> None:
    """It ends too early."""
    played(tmp_path)
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    segment.write_bytes(segment.read_bytes()[:-1])
    (found,) = damages(tmp_path)
    assert "segment-00000001 ends 1 bytes too early" in found.what


def test_files_of_arrays_that_are_gone_are_named(tmp_path: Path) -> None:
    """The training waits for them."""
    played(tmp_path)
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    segment.unlink()
    (found,) = damages(tmp_path)
    assert "1 of 1 files with arrays are not there" in found.what
    assert "waits until they are put back" in found.resume


def test_entries_that_a_later_version_wrote_are_named(tmp_path: Path) -> None:
    """Show goes on behind them; what stands before a snapshot may be gone."""
    played(tmp_path)
    line = '{"entry":"Summary","round":1}'
    change(
        tmp_path,
        f"insert into entries values (9, '{line}', x'', {entries.checksum(line, b'')})",
    )
    change(tmp_path, "delete from entries where number between 2 and 6")
    (found,) = damages(tmp_path)
    assert "entry 9 (Summary) is of no kind that this version knows" in found.what
    assert [one["what"] for one in story.tell(reading.read(tmp_path))] == ["Nodes", "Batch", "Summary"]


@pytest.mark.parametrize("content", [None, b"", b"no database at all" * 1000])
def test_what_is_no_journal_is_said(tmp_path: Path, content: bytes | None) -> None:
    """By one sentence."""
    if content is not None:
        (tmp_path / book.INDEX).write_bytes(content)
    want = {None: "there is no journal", b"": "no such table"}.get(content, "not a database")
    with pytest.raises(reading.JournalUnreadable, match=want):
        reading.read(tmp_path)


def test_after_a_cut_numbers_go_on(tmp_path: Path) -> None:
    """So that a gap is always damage."""
    opened = book.Book(tmp_path, FACTS)
    for index in range(4):
        opened.append(pushed(f"b{index}", "a"))
    opened.close()
    later = book.Book(tmp_path, FACTS)
    later.cut(1)
    later.append(nodes())
    later.close()
    assert [line.number for line in reading.read(tmp_path).lines] == [1, 2]


def test_outcomes_that_were_fetched_one_by_one_are_told(tmp_path: Path) -> None:
    """An app that polls."""
    opened = book.Book(tmp_path, FACTS)
    batch = pushed("b1", "a", waits=False)
    fetched = outcomes(batch)[:1]
    for entry in (nodes(), batch, received("b1-7"), entries.Pulled(outcomes=fetched, main=True)):
        opened.append(entry)
    opened.close()
    (message, other) = story.tell(reading.read(tmp_path))[1]["messages"]
    assert (message["outcome"], other["outcome"]) == ("Given", "Waiting")


def test_a_snapshot_is_told_and_its_arrays_are_looked_at(tmp_path: Path) -> None:
    """What it stands for is no gap; a changed byte of it is damage."""
    journal = book.Book(tmp_path, FACTS)
    journal.append(nodes())
    journal.append(pushed("b1", "a"))
    stored = with_array(journal, "of", b"z" * 80_000).arrays
    snapshot = entries.Snapshot(
        start=1, round=3, rounds=9, after=0, until=journal.position(), calls=0, messages=3, nodes=(),
        state_bytes=5, arrays=stored,
    )  # fmt: skip
    journal.compact(snapshot, b"state", {})
    journal.append(pushed("b2", "b", number=4))
    journal.close()
    found = reading.read(tmp_path)
    told = story.tell(found)
    assert [one["what"] for one in told] == ["Snapshot", "Batch"]
    assert (told[0]["round"], told[0]["calls"], told[0]["bytes"] > 80_000) == (3, 2, True)
    assert story.damages(found, reading.why_not_found) == []
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    segment.write_bytes(segment.read_bytes()[:-1] + b"!")
    (damage,) = story.damages(found, reading.why_not_found)
    assert "the snapshot is damaged" in damage.what


def line_of(entry: entries.Any, **changes: object) -> str:
    """An entry as none is written."""
    return json.dumps({**json.loads(entries.write(entry)), **changes})


def put(directory: Path, number: object, line: object, attachment: object = b"") -> None:
    """Write a row whose checksum holds."""
    checksum = entries.checksum(line, b"") if isinstance(line, str) else 0
    with sqlite3.connect(directory / book.INDEX) as connection:
        connection.execute("insert into entries values (?, ?, ?, ?)", (number, line, attachment, checksum))
    connection.close()


def loosen(directory: Path) -> None:
    """Make the table of entries one that takes anything."""
    change(directory, "create table loose (number, line, attachment, checksum)")
    change(directory, "insert into loose select * from entries")
    change(directory, "drop table entries")
    change(directory, "alter table loose rename to entries")


def found_again(directory: Path) -> list[entries.Any]:
    """What the next aggregator finds."""
    opened = book.Book(directory, FACTS)
    opened.close()
    return [entry for entry, _ in opened.found]


@pytest.mark.parametrize("at", [1e300, -1e300, 1e15])
def test_a_time_that_there_is_not_is_said_to_be_none(tmp_path: Path, at: float) -> None:
    """An entry whose checksum holds may say any number."""
    played(tmp_path)
    put(tmp_path, 9, entries.write(entries.Resumed(at_unix=at)))
    assert story.tell(reading.read(tmp_path))[-1]["at"] == "no time that there is"
    assert damages(tmp_path) == []


@pytest.mark.parametrize("place", ["segment", "offset", "length"])
@pytest.mark.parametrize("value", [2**64, 2**63, -1])
def test_an_array_where_no_file_has_bytes_is_damage(tmp_path: Path, place: str, value: int) -> None:
    """Verify names it, and an aggregator cuts it off."""
    written = played(tmp_path)
    stored = {"digest": "00" * 32, "segment": 1, "offset": 0, "length": 1, place: value}
    put(tmp_path, 9, line_of(received("b2-9", BASEL.node), arrays=[stored]))
    (found,) = damages(tmp_path)
    assert "entry 9 (Received) is of no kind that this version knows" in found.what
    assert found_again(tmp_path) == written


@pytest.mark.parametrize("place", ["offset", "length"])
def test_an_array_beyond_the_end_of_its_file_is_damage(tmp_path: Path, place: str) -> None:
    """The largest numbers that there may be."""
    written = played(tmp_path)
    stored = {"digest": "00" * 32, "segment": 1, "offset": 1, "length": 1, place: 2**63 - 1}
    put(tmp_path, 9, line_of(received("b2-9", BASEL.node), arrays=[stored]))
    (found,) = damages(tmp_path)
    assert "the reply to b2-9 is damaged, segment-00000001" in found.what
    assert found_again(tmp_path) == written


@pytest.mark.parametrize(
    ("line", "attachment"), [(None, b""), (7, b""), (b"{}", b""), ("{}", None), ("{}", "text"), ("{}", 1.5)]
)
def test_a_row_of_other_values_is_damage(tmp_path: Path, line: object, attachment: object) -> None:
    """In a table that takes them."""
    written = played(tmp_path)
    loosen(tmp_path)
    put(tmp_path, 9, line, attachment)
    (found,) = damages(tmp_path)
    assert "entry 9 is not what was written" in found.what
    assert story.tell(reading.read(tmp_path))[-1]["what"] == "Unreadable"
    assert found_again(tmp_path) == written


@pytest.mark.parametrize("number", [None, "nine", 1.5, b"", 0, -3])
def test_an_entry_that_has_no_number_makes_the_journal_useless(tmp_path: Path, number: object) -> None:
    """It cannot be cut off: what stands behind it is not known."""
    played(tmp_path)
    loosen(tmp_path)
    put(tmp_path, number, entries.write(nodes()))
    assert any("is not what was written" in found.what for found in damages(tmp_path))
    with pytest.raises(book.JournalObsolete, match="an entry without a number"):
        book.Book(tmp_path, FACTS)


def test_an_entry_with_the_last_number_there_is_is_cut_off(tmp_path: Path) -> None:
    """None could follow it."""
    written = played(tmp_path)
    put(tmp_path, 2**63 - 1, entries.write(nodes()))
    assert any("is not what was written" in found.what for found in damages(tmp_path))
    opened = book.Book(tmp_path, FACTS)
    opened.append(nodes())
    opened.commit()
    opened.close()
    assert found_again(tmp_path) == [*written, nodes()]


def test_text_that_is_none_is_damage(tmp_path: Path) -> None:
    """Bytes in the place of text."""
    written = played(tmp_path)
    change(tmp_path, "update entries set line = cast(x'ff7b7d' as text) where number = 8")
    (found,) = damages(tmp_path)
    assert "entry 8 is not what was written" in found.what
    assert found_again(tmp_path) == written[:7]


ENDLESS = (
    "create view {} as with recursive n(i) as (select 1 union all select i + 1 from n) "
    "select i as number, '' as line, x'' as attachment, 0 as checksum, '' as name, '' as value from n"
)


@pytest.mark.parametrize(
    ("statements", "want"),
    [
        (["drop table entries", ENDLESS.format("entries")], "it has a view, entries"),
        (["drop table facts", ENDLESS.format("facts")], "it has a view, facts"),
        (["create trigger t after insert on entries begin delete from facts; end"], "it has a trigger, t"),
        (["drop table entries", "create virtual table entries using fts5(number, line, checksum)"],
         "no such table: entries"),
        (["drop table entries",
          "create table entries (number integer primary key, line, checksum, attachment as (zeroblob(9)))"],
         "its table entries has no column attachment"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_a_journal_is_not_asked(tmp_path: Path, statements: list[str], want: str) -> None:
    """A view may never end; an aggregator begins another journal in its place."""
    played(tmp_path)
    for statement in statements:
        change(tmp_path, statement)
    with pytest.raises(reading.JournalUnreadable, match=want):
        reading.read(tmp_path)
    with pytest.raises(book.JournalObsolete, match=want):
        book.Book(tmp_path, FACTS)


def test_facts_that_are_no_words_are_said(tmp_path: Path) -> None:
    """In a table that takes them."""
    played(tmp_path)
    change(tmp_path, "drop table facts")
    change(tmp_path, "create table facts (name primary key, value)")
    change(tmp_path, "insert into facts values ('uid', x'00')")
    with pytest.raises(reading.JournalUnreadable, match="its facts are no words"):
        reading.read(tmp_path)
    with pytest.raises(book.JournalObsolete):
        book.Book(tmp_path, FACTS)


def test_a_pipe_in_the_place_of_arrays_is_damage(tmp_path: Path) -> None:
    """Nobody writes into it, and it is not waited for."""
    written = played(tmp_path)
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    segment.unlink()
    os.mkfifo(segment)
    (found,) = damages(tmp_path)
    assert "segment-00000001 is no file" in found.what
    assert found_again(tmp_path) == written[:2]
