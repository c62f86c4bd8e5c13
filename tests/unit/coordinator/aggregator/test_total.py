"""How many rounds there are, when that is raised and whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.aggregator import progress, total
from coordinator.journal import book

FACTS = {"training": "cardiology/hospitals", "uid": "uid-3"}


def process(directory: Path, rounds: int, *raised: int, played: int) -> int:
    """How many rounds there are to be after an aggregator has played some, and was told of these raises."""
    journal = book.Book(directory, FACTS)
    try:
        counted = total.Total(rounds, journal, progress.Progress())
        for number in raised:
            counted.raised(number)
        return counted.after(played)
    finally:
        journal.close()


@pytest.mark.parametrize(
    ("raised", "want"), [((), 3), ((5,), 5), ((5, 4), 5), ((2,), 3), ((0,), 3), ((4, 9), 9)], ids=str
)
def test_after_the_last_round(raised: tuple[int, ...], want: int, tmp_path: Path) -> None:
    """The largest number that was asked for counts; 0 is what a hub says that does not know."""
    assert process(tmp_path, 3, *raised, played=3) == want


def test_another_process_plays_as_many(tmp_path: Path) -> None:
    """What was acted upon stays, also if the manifest that the next one is given is an older one."""
    assert process(tmp_path, 3, 5, played=3) == 5
    assert process(tmp_path, 3, played=3) == 5
    assert process(tmp_path, 7, played=5) == 7
    assert process(tmp_path, 3, played=7) == 7


def test_what_comes_after_the_end_changes_nothing(tmp_path: Path) -> None:
    """Nobody plays those rounds; neither the journal nor the status has them."""
    journal, told = book.Book(tmp_path, FACTS), progress.Progress()
    counted = total.Total(3, journal, told)
    told.total(counted.rounds)
    counted.raised(4)
    assert told.report(True).rounds_total == 4
    assert counted.after(3) == 4
    assert counted.after(4) == 4
    counted.raised(9)
    assert (counted.rounds, told.report(True).rounds_total) == (4, 4)
    journal.close()
    assert process(tmp_path, 3, played=4) == 4
