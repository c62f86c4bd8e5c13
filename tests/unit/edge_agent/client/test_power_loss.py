"""What a client keeps, on a disk whose node lost its power: never a state that is older than what was sent.

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

from tests.fakes import power
from tests.unit.edge_agent.client import power_workload
from tests.unit.edge_agent.client.power_workload import STATES, message_id
from tests.unit.edge_agent.client.test_keeping import EMPTY, Opened, bits, counted, reply, stream

CHANCES = 4
"""Disks that are made by chance for each moment."""


class Lost(Exception):
    """What somebody builds on is not there, or does not fit together."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> list[power.Step]:
    """What clients asked of their disk."""
    root, result = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("result") / "trace"
    subprocess.run([sys.executable, "-m", power_workload.__name__, str(root), str(result)], check=True)
    steps, left = pickle.loads(result.read_bytes())
    assert power.whole(steps) == left, "something was done that was not recorded"
    return list(steps)


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory in memory where there is one: it is filled many times over."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        yield Path(made)


def check(root: Path, told: list[tuple[str, int]]) -> None:
    """Open it as the next client does. Raises: Lost."""
    sent = max((number for what, number in told if what == "sent"), default=0)
    confirmed = {number for what, number in told if what == "confirmed"}
    opened = Opened(root / power_workload.PLACE)
    opened.close()
    known = {bits(counted(number) if number else EMPTY): number for number in STATES}
    state = known.get(bits(opened.state))
    if state is None or state < STATES[sent]:
        raise Lost(f"state {state}, and the aggregator has a reply that came after state {STATES[sent]}")
    for number in range(1, len(STATES)):
        made = stream(reply(message_id(number), bytes([number]) * 900 * number))
        found = opened.replies.get(message_id(number))
        if found is not None and found != made:
            raise Lost(f"reply {number} is another one")
        came_before = STATES[number] < state or (STATES[number] == state != STATES[number - 1])
        if came_before and found is None and number not in confirmed:
            raise Lost(f"reply {number} is not there, and the state has gone on since")


def try_all(trace: list[power.Step], root: Path, rng: random.Random) -> int:
    """Let the power go after each step, and return how many disks that left. Raises: Lost."""
    seen: set[bytes] = set()
    for moment in range(len(trace) + 1):
        past = power.Past(trace, moment, files_keep_names=True)
        for disk in power.losses(past, rng, CHANCES):
            key = hashlib.sha256(repr((past.told, sorted(disk.items()))).encode()).digest()
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(root)
            root.mkdir()
            power.lay(disk, root)
            try:
                check(root, past.told)
            except Lost as error:
                raise Lost(f"after step {moment}: {error}") from error
    return len(seen)


def test_no_state_is_older_than_what_was_sent(
    trace: list[power.Step], root: Path, rng: random.Random
) -> None:
    """Nor does one go on beyond a reply that nobody has: what is redone is redone from the state before."""
    tried = try_all(trace, root, rng)
    assert tried > 300, tried


@pytest.mark.parametrize(
    "path",
    ["", "state", "state/kept/commit-7", "state/kept/state-2", "state/kept/reply-4", "state/kept/new-4"],
)
def test_a_sync_that_is_left_out_is_seen(
    trace: list[power.Step], root: Path, rng: random.Random, path: str
) -> None:
    """Of the names in each directory, and of each kind of file: the test above would fail without it."""
    without = [
        power.Told(("nothing", 0)) if isinstance(step, power.Synced) and step.path == path else step
        for step in trace
    ]
    assert without != trace
    with pytest.raises(Lost):
        try_all(without, root, rng)
