"""Named places at which a test may end this process or fail its disk: the worst moment, on purpose.

Why it exists: that nothing is lost is only true if it is true at each step, and no test kills a process
between two lines by luck. A step that matters says `reach(NAME)`; that costs a dictionary's look-up and does
nothing, unless the process was started with HANSE_FAILPOINTS. Then that variable names a directory: a file
`NAME` in it holds what happens there.

    3           at the third visit the process ends itself with SIGKILL, as if the machine had
    3 EIO       the third visit raises OSError(EIO), as a disk does that fails
    3 EIO 2     so do this visit and the next, two in all
    0           nothing; visits are counted

Visits are counted beside it, also those of processes before this one, so that a place ends one process and
not each.

Source of the idea: FreeBSD's fail points, and TiKV's fail-rs.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "HANSE_FAILPOINTS"

NAMES: Final = (
    "aggregator.journal-opened",
    "aggregator.fact-written",
    "aggregator.hello-heard",
    "aggregator.client-welcomed",
    "aggregator.app-starts",
    "aggregator.journal-sync",
    "aggregator.arrays-synced",
    "aggregator.entries-sync",
    "aggregator.entries-written",
    "aggregator.batch-written",
    "aggregator.batch-sent",
    "aggregator.reply-begins",
    "aggregator.part-kept",
    "aggregator.reply-received",
    "aggregator.reply-written",
    "aggregator.reply-confirmed",
    "aggregator.batch-closed",
    "aggregator.snapshot-sync",
    "aggregator.snapshot-written",
    "aggregator.snapshot-counts",
    "aggregator.journal-cut",
    "aggregator.resumed",
    "aggregator.app-ended",
    "aggregator.model-written",
    "aggregator.model-stored",
    "aggregator.hub-told",
    "aggregator.arrays-dropped",
    "client.app-loaded",
    "client.link-up",
    "client.message-received",
    "client.message-confirmed",
    "client.message-taken",
    "client.app-answered",
    "client.keep-sync",
    "client.state-written",
    "client.reply-written",
    "client.commit-written",
    "client.reply-begins",
    "client.reply-confirmed",
    "client.kept-removed",
    "agent.assigned",
    "agent.client-certified",
    "agent.client-starts",
    "agent.client-started",
    "agent.client-ended",
    "agent.client-forgotten",
    "coordinator.ready",
    "coordinator.aggregator-starts",
    "coordinator.aggregator-started",
    "coordinator.edges-assigned",
    "coordinator.status-written",
    "coordinator.end-heard",
)
"""Every place there is: those of the aggregator and of the client in the order of a round."""


@dataclasses.dataclass(frozen=True)
class _Planned:
    """What happens at a place: from which visit on, how often, and which error; none is the process's end."""

    file: Path
    visit: int
    times: int = 1
    code: int | None = None

    @classmethod
    def read(cls, file: Path) -> _Planned:
        visit, *rest = file.read_text().split()
        if not rest:
            return cls(file, int(visit))
        return cls(file, int(visit), int(rest[1]) if rest[1:] else 1, getattr(errno, rest[0]))


def _plan(environment: Mapping[str, str]) -> dict[str, _Planned]:
    directory = environment.get(VARIABLE)
    if not directory:
        return {}
    files = ((name, Path(directory) / name) for name in NAMES)
    return {name: _Planned.read(file) for name, file in files if file.exists()}


_PLAN = _plan(os.environ)


def reach(name: str) -> None:
    """Pass this place, or end here. Raises: OSError where one is planned."""
    if name not in _PLAN:
        return
    planned = _PLAN[name]
    visits = os.open(planned.file.with_name(f"{name}.visits"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(visits, b".")
    count = os.fstat(visits).st_size
    os.close(visits)
    if not planned.visit <= count < planned.visit + planned.times or not planned.visit:
        return
    if planned.code is not None:
        raise OSError(planned.code, os.strerror(planned.code), f"failpoint {name}")
    os.kill(os.getpid(), signal.SIGKILL)
