"""The tables of a journal's index, and whether what claims to be one has them.

Why it exists: a journal lies where others can write, and SQLite runs what a file says: a view in the place of
a table may never end, and a trigger does more than what was asked. What the rows mean is not known here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

TABLES = """
create table if not exists facts (name text primary key, value text not null) strict;
create table if not exists entries (
    number integer primary key, line text not null, attachment blob not null, checksum integer not null
) strict;
"""

MAXIMUM_NUMBER = 2**62
"""Of an entry: so many can still follow it."""

_COLUMNS = {
    "facts": {"name", "value"},
    "entries": {"number", "line", "attachment", "checksum"},
}

Row = tuple[int, str, bytes, int]


def distrust(connection: sqlite3.Connection) -> None:
    """Let nothing that the file says run; text that is none is read as other text than was written."""
    connection.execute("pragma trusted_schema = off")
    connection.text_factory = lambda data: data.decode(errors="replace")


def why_not(connection: sqlite3.Connection) -> str:
    """Say why these are not a journal's tables; empty: they are. Raises: sqlite3.DatabaseError."""
    tables: set[str] = set()
    for kind, name, statement in connection.execute("select type, name, sql from sqlite_master"):
        if kind in ("view", "trigger"):
            return f"it has a {kind}, {name}, which no journal has"
        if kind == "table" and not str(statement).lower().startswith("create virtual"):
            tables.add(name)
    for table, wanted in _COLUMNS.items():
        if table not in tables:
            return f"it has no such table: {table}"
        columns = {
            name
            for name, hidden in connection.execute("select name, hidden from pragma_table_xinfo(?)", (table,))
            if not hidden
        }
        if missing := sorted(wanted - columns):
            return f"its table {table} has no column {missing[0]}"
    return ""


def rows(connection: sqlite3.Connection) -> Iterator[tuple[Any, Row | None]]:
    """Yield the number of each entry with its row, in order; None in the place of one that none wrote.

    Raises: sqlite3.DatabaseError.
    """
    for row in connection.execute("select number, line, attachment, checksum from entries order by number"):
        is_row = tuple(map(type, row)) == (int, str, bytes, int) and 0 < row[0] < MAXIMUM_NUMBER
        yield row[0], row if is_row else None
