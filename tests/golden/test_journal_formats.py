"""Journals as their formats have them, byte for byte: what one version wrote, the next one reads.

The files beside this one are never made again from today's code. An entry that is added comes with a line in
the file of its format; a line that cannot be read any more is a format that is given up.
"""

from __future__ import annotations

import sqlite3
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.journal import book, entries, replay

FORMATS = Path(__file__).parent / "journals"
FACTS = {"training": "cardiology/hospitals", "uid": "uid-3"}

TABLES = """
create table facts (name text primary key, value text not null) strict;
create table entries (
    number integer primary key, line text not null, attachment blob not null, checksum integer not null
) strict;
"""
"""As formats 1 and 2 have them."""


def lines(number: int) -> list[str]:
    """The entries of a format, as they were written."""
    return (FORMATS / f"format-{number}.jsonl").read_text().splitlines()


def journal(directory: Path, number: int, change: Callable[[str], str] = lambda line: line) -> list[str]:
    """Write a journal of a format as the version did that had it; return its lines."""
    directory.mkdir()
    written = [change(line) for line in lines(number)]
    connection = sqlite3.connect(directory / book.INDEX, isolation_level=None)
    connection.executescript(TABLES)
    facts = FACTS | {"format": str(number)}
    connection.executemany("insert into facts values (?, ?)", facts.items())
    rows = [
        (place, line, b"header", entries.checksum(line, b"header")) for place, line in enumerate(written, 1)
    ]
    connection.executemany("insert into entries values (?, ?, ?, ?)", rows)
    connection.close()
    return written


def test_each_format_that_is_read_is_here() -> None:
    """With every kind of entry that it has."""
    assert {path.name for path in FORMATS.iterdir()} == {f"format-{number}.jsonl" for number in book.FORMATS}
    kinds = {entries.read(line).entry for number in book.FORMATS for line in lines(number)}
    assert kinds == {kind.__name__ for kind in typing.get_args(typing.get_args(entries.Any)[0])}


@pytest.mark.parametrize("number", book.FORMATS)
def test_a_journal_of_a_format_is_gone_on_with(tmp_path: Path, number: int) -> None:
    """Nothing is cut back, and what it says is what was written; another entry comes after it."""
    written = journal(tmp_path / "journal", number)
    opened = book.Book(tmp_path / "journal", FACTS)
    assert not opened.was_cut
    assert [entries.write(entry) for entry, _ in opened.found] == written
    opened.append(entries.Resumed(at_unix=1.0))
    opened.close()
    again = book.Book(tmp_path / "journal", FACTS)
    again.close()
    assert [entries.write(entry) for entry, _ in again.found[:-1]] == written
    past = replay.Replay(entry for entry, _ in again.found)
    assert past.messages == 3


def test_what_a_later_version_adds_to_an_entry_is_not_stumbled_over(tmp_path: Path) -> None:
    """An aggregator of the version before goes on with it, as when Hanse is put back in mid-training."""
    journal(tmp_path / "journal", 1, lambda line: line.replace("{", '{"later":[1],', 1))
    opened = book.Book(tmp_path / "journal", FACTS)
    opened.close()
    assert not opened.was_cut
    assert [entries.write(entry) for entry, _ in opened.found] == lines(1)
