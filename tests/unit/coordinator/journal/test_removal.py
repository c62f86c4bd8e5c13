"""The journal of a training that was deleted while it ran goes, and no other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.journal import book, holding, removal
from tests.unit.coordinator.journal.conftest import nodes
from tests.unit.coordinator.journal.test_book import FACTS, again, with_array


def journal(directory: Path) -> book.Book:
    """An open journal with a reply of one cluster."""
    opened = book.Book(directory, FACTS)
    opened.append(nodes())
    opened.append(with_array(opened, "m1", b"g" * 100_000))
    opened.commit()
    return opened


def test_a_directory_of_its_own_goes_whole(tmp_path: Path) -> None:
    """As on a claim, beside those of other trainings; also when it is asked for twice."""
    for uid in ("uid-3", "uid-4"):
        journal(tmp_path / uid).close()
    assert removal.remove(tmp_path / "uid-3", "uid-3")
    assert not removal.remove(tmp_path / "uid-3", "uid-3")
    assert [path.name for path in tmp_path.iterdir()] == ["uid-4"]


def test_a_namesakes_journal_stays(tmp_path: Path) -> None:
    """Local processes keep it below the training's name, which may have been given again."""
    opened = journal(tmp_path / "journal")
    opened.close()
    assert not removal.remove(tmp_path / "journal", "uid-2")
    assert len(again(tmp_path / "journal")) == 2
    assert removal.remove(tmp_path / "journal", "uid-3")
    assert [path.name for path in (tmp_path / "journal").iterdir()] == [holding.LOCK]


def test_it_waits_for_an_aggregator_that_still_writes(tmp_path: Path) -> None:
    """Another process: nothing goes before this one has closed it."""
    opened = journal(tmp_path / "uid-3")
    words = [sys.executable, "-m", "coordinator.journal.removal", str(tmp_path / "uid-3"), "uid-3"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2.5)
        assert len(list((tmp_path / "uid-3").iterdir())) > 2
        opened.close()
        assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []
