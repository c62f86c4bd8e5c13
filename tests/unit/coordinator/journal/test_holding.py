"""One process at a time writes a journal."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.journal import book, holding
from tests.unit.coordinator.journal.conftest import nodes, pushed
from tests.unit.coordinator.journal.test_book import FACTS

WRITER = """
import os, sys
from pathlib import Path
from coordinator.journal import book
opened = book.Book(Path(sys.argv[1]), {"training": "cardiology/hospitals", "uid": "uid-3"})
if sys.argv[2] == "fork" and os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["alone", "fork"])
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes the journal, alone or with a child that outlives it."""
    words = [sys.executable, "-W", "ignore", "-c", WRITER, str(tmp_path / "journal"), request.param]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_writer_is_refused_and_removes_nothing(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    """By a sentence; also one that would begin anew. When the first is gone it may, whatever it forked."""
    before = sorted(tmp_path.rglob("*"))
    for facts in (FACTS, FACTS | {"uid": "another"}):
        with pytest.raises(holding.Held, match="another aggregator of this training writes its journal"):
            book.Book(tmp_path / "journal", facts)
    with pytest.raises(holding.Held):
        holding.empty(tmp_path / "journal")
    assert sorted(tmp_path.rglob("*")) == before
    writer.kill()
    writer.wait()
    book.Book(tmp_path / "journal", FACTS).close()


def test_a_journal_of_no_use_is_emptied_for_the_next(tmp_path: Path) -> None:
    """With all that it has, but for the lock, on which others may wait."""
    opened = book.Book(tmp_path, FACTS)
    for entry in (nodes(), pushed("b1", "a")):
        opened.append(entry)
    opened.segments.allocate(10)
    opened.close()
    holding.empty(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [holding.LOCK]
    begun = book.Book(tmp_path, FACTS | {"uid": "another"})
    assert begun.found == []
    begun.close()


def test_a_journal_that_could_not_be_opened_is_free_again(tmp_path: Path) -> None:
    """For whoever removes it, in the same process or in another."""
    book.Book(tmp_path, FACTS).close()
    with pytest.raises(book.JournalObsolete):
        book.Book(tmp_path, FACTS | {"uid": "another"})
    take = (
        "import sys; from pathlib import Path; from coordinator.journal import holding; "
        "holding.hold(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", take, str(tmp_path)], check=False).returncode == 0
