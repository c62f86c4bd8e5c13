"""What a journal says after a crash is what was written, up to the first byte that is not."""

from __future__ import annotations

import queue
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.journal import book, entries, segments
from federation.wire import digests
from tests.unit.coordinator.journal.conftest import closed, nodes, pushed, received

FACTS = {"training": "cardiology/hospitals", "uid": "uid-3"}


def again(directory: Path) -> list[entries.Any]:
    """What the next process finds."""
    opened = book.Book(directory, FACTS)
    opened.close()
    return [entry for entry, _ in opened.found]


def with_array(journal: book.Book, message_id: str, data: bytes) -> entries.Received:
    """A reply with one large array."""
    region = journal.segments.allocate(len(data))
    region.write(0, data)
    return stored(region, message_id, data)


def stored(region: segments.Region, message_id: str, data: bytes) -> entries.Received:
    """A reply whose one array lies there."""
    array = entries.StoredArray(
        digest=digests.digest(data).hex(), segment=region.number, offset=region.offset, length=len(data)
    )
    return received(message_id).model_copy(update={"arrays": (array,)})


def test_what_was_written_is_found_in_order(tmp_path: Path) -> None:
    """Entries, and what is attached to them."""
    batch = pushed("b1", "a")
    written = [nodes(), batch, received("b1-7"), closed(batch)]
    opened = book.Book(tmp_path, FACTS)
    for entry in written:
        opened.append(entry, b"attached" if isinstance(entry, entries.Received) else b"")
    opened.commit()
    opened.close()
    later = book.Book(tmp_path, FACTS)
    assert [entry for entry, _ in later.found] == written
    assert [attachment for _, attachment in later.found] == [b"", b"", b"attached", b""]
    later.append(nodes())
    later.close()
    assert again(tmp_path) == [*written, nodes()]


def test_what_is_committed_outlives_the_process(tmp_path: Path) -> None:
    """Another process sees it at once, without the first being closed."""
    opened = book.Book(tmp_path, FACTS)
    opened.append(nodes())
    opened.commit()
    assert again(tmp_path) == [nodes()]
    opened.close()


def test_those_who_wait_are_called_when_it_is_durable(tmp_path: Path) -> None:
    """At once if nothing is left to write, else after it was; each is called once."""
    opened = book.Book(tmp_path, FACTS)
    called: list[int] = []
    opened.when_durable(lambda: called.append(1))
    assert called == [1]
    opened.append(nodes())
    written = threading.Event()
    opened.when_durable(written.set)
    assert written.wait(10)
    assert again(tmp_path) == [nodes()]
    opened.close()
    opened.when_durable(lambda: called.append(2))
    assert called == [1]


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    """The sentence says what it is of."""
    book.Book(tmp_path, FACTS).close()
    with pytest.raises(book.JournalUnusable, match="uid is uid-3, and this aggregator's is uid-4"):
        book.Book(tmp_path, FACTS | {"uid": "uid-4"})


@pytest.mark.parametrize(
    ("written", "over", "facts", "want"),
    [
        (True, False, {"app": "sha256:2"}, book.JournalOfAnotherApp),
        (False, False, {"app": "sha256:2"}, book.JournalObsolete),
        (True, True, {"app": "sha256:2"}, book.JournalObsolete),
        (True, False, {"app": "sha256:2", "uid": "uid-4"}, book.JournalObsolete),
    ],
    ids=["trained", "nothing yet", "over", "of another training"],
)
def test_a_journal_of_another_app_is_given_up_only_if_nothing_is_lost(
    written: bool, over: bool, facts: dict[str, str], want: type[Exception], tmp_path: Path
) -> None:
    """What a training in progress remembers stays for the app that wrote it."""
    of_an_app = FACTS | {"app": "sha256:1"}
    opened = book.Book(tmp_path, of_an_app)
    if written:
        opened.append(nodes())
        opened.commit()
    if over:
        opened.drop_arrays()
    opened.close()
    with pytest.raises(book.JournalUnusable, match=r"journal's (app|uid) is") as raised:
        book.Book(tmp_path, of_an_app | facts)
    assert type(raised.value) is want
    later = book.Book(tmp_path, of_an_app)
    assert [entry for entry, _ in later.found] == [nodes()] * written
    later.close()


def test_what_the_disk_does_not_give_now_is_not_given_up(tmp_path: Path) -> None:
    """No right, no room, a newer format: it stays for another attempt. Another's journal, or none, may go."""
    (tmp_path / "a" / book.INDEX).mkdir(parents=True)
    book.Book(tmp_path / "b", FACTS).close()
    with sqlite3.connect(tmp_path / "b" / book.INDEX) as connection:
        connection.execute("update facts set value = '3' where name = 'format'")
    connection.close()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / book.INDEX).write_bytes(b"no database at all" * 1000)
    book.Book(tmp_path / "d", FACTS | {"uid": "another"}).close()
    obsolete = {}
    for name in "abcd":
        with pytest.raises(book.JournalUnusable) as raised:
            book.Book(tmp_path / name, FACTS)
        obsolete[name] = isinstance(raised.value, book.JournalObsolete)
    assert obsolete == {"a": False, "b": False, "c": True, "d": True}


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    """By a sentence, not by a crash."""
    (tmp_path / book.INDEX).write_bytes(b"no database at all" * 1000)
    with pytest.raises(book.JournalUnusable, match="not a database"):
        book.Book(tmp_path, FACTS)


@given(number=st.integers(1, 6))
def test_an_entry_that_rotted_goes_with_all_after_it(
    number: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """What stands before it holds."""
    directory = tmp_path_factory.mktemp("journal")
    opened = book.Book(directory, FACTS)
    written = [pushed(f"b{index}", "a") for index in range(6)]
    for entry in written:
        opened.append(entry)
    opened.close()
    with sqlite3.connect(directory / book.INDEX) as connection:
        connection.execute(
            "update entries set line = replace(line, '\"a\"', '\"b\"') where number = ?", (number,)
        )
    connection.close()
    later = book.Book(directory, FACTS)
    assert [entry for entry, _ in later.found] == written[: number - 1]
    assert later.was_cut
    later.append(nodes())
    later.close()
    assert again(directory) == [*written[: number - 1], nodes()]


def test_a_cut_is_known_until_what_follows_from_it_is_done(tmp_path: Path) -> None:
    """Who found it may die at once; the next process would use the numbers of what is gone again."""
    opened = book.Book(tmp_path, FACTS)
    for index in range(3):
        opened.append(pushed(f"b{index}", "a"))
    opened.close()
    with sqlite3.connect(tmp_path / book.INDEX) as connection:
        connection.execute("update entries set checksum = 1 where number = 2")
    connection.close()
    for _ in range(2):
        finder = book.Book(tmp_path, FACTS)
        assert (len(finder.found), finder.was_cut) == (1, True)
        finder.close()
    last = book.Book(tmp_path, FACTS)
    last.mended()
    last.close()
    later = book.Book(tmp_path, FACTS)
    assert (len(later.found), later.was_cut) == (1, False)
    later.close()


def test_a_reply_whose_bytes_rotted_goes_with_all_after_it(tmp_path: Path) -> None:
    """Its digest tells."""
    opened = book.Book(tmp_path, FACTS)
    good, bad = with_array(opened, "m1", b"g" * 100_000), with_array(opened, "m2", b"b" * 100_000)
    for entry in (good, bad, nodes()):
        opened.append(entry)
    opened.close()
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    content = bytearray(segment.read_bytes())
    content[150_000] ^= 1
    segment.write_bytes(content)
    assert again(tmp_path) == [good]


def test_a_torn_segment_is_a_reply_that_never_came(tmp_path: Path) -> None:
    """A file that ends too early."""
    opened = book.Book(tmp_path, FACTS)
    opened.append(with_array(opened, "m1", b"g" * 100_000))
    opened.close()
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    segment.write_bytes(segment.read_bytes()[:-1])
    assert again(tmp_path) == []


def test_a_journal_that_lacks_files_is_neither_used_nor_given_up(tmp_path: Path) -> None:
    """As one whose first replies a version before this removed: the training would begin at round zero."""
    opened = book.Book(tmp_path, FACTS)
    opened.append(with_array(opened, "m1", b"g" * 100_000))
    opened.close()
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    segment.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(book.JournalDamaged, match="segment-00000001 is gone"):
            book.Book(tmp_path, FACTS)
    (tmp_path / "elsewhere").rename(segment)
    assert len(again(tmp_path)) == 1


def test_a_training_that_is_over_may_begin_anew(tmp_path: Path) -> None:
    """Its replies went with its end, and the journal says so."""
    opened = book.Book(tmp_path, FACTS)
    opened.append(with_array(opened, "m1", b"g" * 100_000))
    opened.drop_arrays()
    opened.close()
    with pytest.raises(book.JournalObsolete, match="was over"):
        book.Book(tmp_path, FACTS)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(("reply", "apart", "dropped", "alone", "again")), st.integers(1, 70_000)),
        max_size=25,
    )
)
def test_nothing_that_a_resume_needs_is_removed(
    steps: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever comes in which order: replies in shared files or in ones of their own, others dropped."""
    directory = tmp_path_factory.mktemp("journal")
    opened, written = book.Book(directory, FACTS), []
    for number, (step, length) in enumerate(steps):
        files = opened.segments
        if step == "again":
            opened.close()
            opened = book.Book(directory, FACTS)
            assert [entry for entry, _ in opened.found] == written
            continue
        if step == "dropped":
            files.drop([files.allocate_alone(length, None).number])
            continue
        data = bytes([number]) * length
        region = {
            "reply": lambda n=length, to=files: to.allocate(n),
            "apart": lambda n=length, to=files: to.allocate_apart([n])[0],
            "alone": lambda n=length, to=files: to.allocate_alone(n, None),
        }[step]()
        region.write(0, data)
        written.append(stored(region, f"m{number}", data))
        opened.append(written[-1])
    opened.close()
    assert again(directory) == written


def test_no_number_of_bytes_makes_replies_go(tmp_path: Path) -> None:
    """Beyond 8 GiB the oldest went once, and with them the way back; now the volume is the bound."""
    files = segments.Segments(tmp_path)
    for _ in range(5):
        (region,) = files.allocate_apart([3 * 1024**3])
        region.write(len(region) - 1, b"x")  # the file has its length, and takes a block of the disk
    assert files.numbers() == [1, 2, 3, 4, 5]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 15 * 1024**3


def test_after_a_cut_the_rest_is_forgotten(tmp_path: Path) -> None:
    """As if it had never been."""
    opened = book.Book(tmp_path, FACTS)
    for index in range(4):
        opened.append(pushed(f"b{index}", "a"))
    opened.close()
    later = book.Book(tmp_path, FACTS)
    later.cut(1)
    later.append(nodes())
    later.close()
    assert again(tmp_path) == [pushed("b0", "a"), nodes()]


def test_values_are_made_once(tmp_path: Path) -> None:
    """Such as the prefix of message ids, until somebody replaces it."""
    opened = book.Book(tmp_path, FACTS)
    assert opened.fact("prefix", lambda: "one") == "one"
    opened.close()
    later = book.Book(tmp_path, FACTS)
    assert later.fact("prefix", lambda: "two") == "one"
    assert later.replace_fact("prefix", "three") == "three"
    later.close()
    last = book.Book(tmp_path, FACTS)
    assert last.fact("prefix", lambda: "four") == "three"
    last.close()


def test_a_journal_that_cannot_be_written_says_so_from_then_on(tmp_path: Path) -> None:
    """Nothing may follow from what is not on disk; nobody is told that it is."""
    opened = book.Book(tmp_path, FACTS)
    opened._connection.execute("pragma max_page_count = 1")  # SQLite's own way to have no room
    opened.append(nodes(), b"x" * 1_000_000)
    told: list[int] = []
    opened.when_durable(lambda: told.append(1))
    for _ in range(2):
        with pytest.raises(book.JournalUnusable, match="cannot be written"):
            opened.commit()
    opened.close()
    assert told == []


def test_a_journal_that_breaks_says_so_at_once(tmp_path: Path) -> None:
    """Also when nobody commits: who waits for what is never written would wait for ever."""
    opened, said = book.Book(tmp_path, FACTS), queue.Queue[str]()
    opened.when_broken(said.put)
    opened._connection.execute("pragma query_only = on")
    opened.append(nodes())
    opened.when_durable(lambda: said.put("durable"))
    assert "cannot be written" in said.get(timeout=20)
    opened.close()
    assert said.empty()
