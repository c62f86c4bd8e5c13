"""A journal on a disk whose node lost its power: what was said to be safe is there, the rest is cut back.

What a process asked of its disk is recorded (tests/fakes/recorder.py); of what it had not synced any part may
be lost (tests/fakes/power.py). The power goes after each step of the list.
"""

from __future__ import annotations

import hashlib
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.journal import book
from tests.fakes import power, recorder
from tests.unit.coordinator.journal import power_workload
from tests.unit.coordinator.journal.conftest import nodes
from tests.unit.coordinator.journal.test_book import FACTS

CHANCES = 4
"""Disks that are made by chance for each moment."""

LATER = (nodes(), b"later")


Life = tuple[list[power.Step], list[power_workload.Found]]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    """What an aggregator asked of its disk, and what a reader may find after each entry."""
    if recorder.library() is None:
        pytest.skip("this Python hides the library of SQLite that it uses")
    root, result = tmp_path_factory.mktemp("volume"), tmp_path_factory.mktemp("result") / "trace"
    subprocess.run([sys.executable, "-m", power_workload.__name__, str(root), str(result)], check=True)
    trace, states, left = pickle.loads(result.read_bytes())
    assert power.whole(trace) == left, "something was done that was not recorded"
    return trace, states


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory in memory where there is one: it is filled many times over."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


class Lost(Exception):
    """What was said to be safe is not there, or something is there that nobody wrote."""


def opened(root: Path) -> tuple[power_workload.Found, dict[str, str]]:
    """What the next aggregator finds, and the facts that it is told; it writes another entry."""
    journal = book.Book(root / power_workload.PLACE, FACTS)
    found = journal.found
    facts = {"run": journal.fact("run", lambda: "made anew")}
    journal.append(*LATER)
    journal.commit()
    journal.close()
    again = book.Book(root / power_workload.PLACE, FACTS)
    again.close()
    assert again.found == [*found, LATER]
    return found, facts


def try_all(life: Life, root: Path, rng: random.Random) -> int:
    """Let the power go after each step, and return how many disks that left. Raises: Lost."""
    trace, states = life
    seen: set[bytes] = set()
    for moment in range(len(trace) + 1):
        past = power.Past(trace, moment)
        durable = max((said[1] for said in past.told if said[0] == "entries"), default=None)
        for disk in power.losses(past, rng, CHANCES):
            key = hashlib.sha256(repr((past.told, sorted(disk.items()))).encode()).digest()
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(root)
            root.mkdir()
            power.lay(disk, root)
            try:
                found, facts = opened(root)
            except book.JournalDamaged as error:
                raise Lost(f"after step {moment}: {error}") from error
            except book.JournalObsolete as error:  # another is begun in its place
                if durable is not None:
                    raise Lost(f"after step {moment}: {error}") from error
                continue
            if found not in states[durable or 0 :]:
                raise Lost(f"after step {moment}: {len(found)} entries")
            if any(said[0] == "fact" and facts[said[1]] != said[2] for said in past.told):
                raise Lost(f"after step {moment}: {facts}")
    return len(seen)


def test_what_was_said_to_be_safe_outlives_the_power(life: Life, root: Path, rng: random.Random) -> None:
    """Whenever it goes, and whatever the disk had not done yet; and the journal goes on from there."""
    tried = try_all(life, root, rng)
    assert tried > 500, tried


@pytest.mark.parametrize(
    "path",
    [
        "",
        "journals",
        power_workload.PLACE,
        f"{power_workload.PLACE}/arrays",
        f"{power_workload.PLACE}/arrays/segment-00000001",
        f"{power_workload.PLACE}/arrays/segment-00000002",
        f"{power_workload.PLACE}/{book.INDEX}",
        f"{power_workload.PLACE}/{book.INDEX}-wal",
    ],
)
def test_a_sync_that_is_left_out_is_seen(life: Life, root: Path, rng: random.Random, path: str) -> None:
    """Of the names in each directory, and of each kind of file: the test above would fail without it."""
    trace, states = life
    without = [
        power.Told(("nothing",)) if isinstance(step, power.Synced) and step.path == path else step
        for step in trace
    ]
    assert without != trace
    with pytest.raises(Lost):
        try_all((without, states), root, rng)
