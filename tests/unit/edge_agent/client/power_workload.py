"""What a client keeps, in a process of its own that writes down what it asks of the disk.

Called as `python -m tests.unit.edge_agent.client.power_workload DIRECTORY RESULT`.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.client import keeping
from federation.wire import outbox
from tests.fakes import power, recorder
from tests.unit.edge_agent.client.test_keeping import KEY, counted, reply

PLACE = "state/kept"
LIMIT_SECONDS = 30

STATES = (0, 1, 1, 2, 3, 3, 3, 4)
"""By answer: the number of the state after it, empty before the first. Answers 2, 5 and 6 leave it."""


def message_id(answer: int) -> str:
    """Return the message that was answered."""
    return f"t-{answer}-5"


def wait_for(what: Callable[[], object]) -> None:
    """The work beside the conversation is done a moment later."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def main(root: Path, result: Path) -> None:
    """Two clients, one after the other; replies are confirmed at once, later or never."""
    seen = recorder.Recorder(root)
    seen.watch_python()
    place = root / PLACE

    def begin() -> keeping.Keep:
        keep = keeping.Keep(place, KEY, sync=os.fsync)
        keep.open()
        return keep

    def answer(keep: keeping.Keep, number: int) -> None:
        made = reply(message_id(number), bytes([number]) * 900 * number)
        keep.answered(message_id(number), counted(STATES[number]), made, lambda: seen.mark(("sent", number)))

    def confirm(keep: keeping.Keep, number: int) -> None:
        seen.mark(("confirmed", number))  # from now on its bytes may go
        keep.confirmed(outbox.reply_id(message_id(number)))

    keep = begin()
    answer(keep, 1)
    confirm(keep, 1)
    answer(keep, 2)
    answer(keep, 3)  # while nobody has the one before
    confirm(keep, 3)
    confirm(keep, 2)
    wait_for(lambda: len(list(place.iterdir())) == 2)
    answer(keep, 4)
    confirm(keep, 4)
    answer(keep, 5)
    synced = len(seen.trace)
    wait_for(lambda: any(isinstance(step, power.Synced) for step in seen.trace[synced:]))
    answer(keep, 6)
    keep.close()
    keep = begin()
    confirm(keep, 5)
    answer(keep, 7)
    keep.close()
    result.write_bytes(pickle.dumps((seen.trace, power.read(root))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
