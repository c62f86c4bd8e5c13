"""Named places at which a test may end this process: what a crash at the worst moment does, on purpose.

Why it exists: that nothing is lost is only true if it is true at each step, and no test kills a process
between two lines by luck. A step that matters says `reach(NAME)`; that costs a dictionary's look-up and does
nothing, unless the process was started with HANSE_FAILPOINTS. Then that variable names a directory: a file
`NAME` in it holds the number of the visit at which the process ends itself with SIGKILL, as if the machine
had. Visits are counted beside it, also those of processes before this one, so that a place ends one process
and not each.

Source of the idea: FreeBSD's fail points, and TiKV's fail-rs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VARIABLE: Final = "HANSE_FAILPOINTS"

NAMES: Final = (
    "aggregator.app-starts",
    "aggregator.batch-written",
    "aggregator.batch-sent",
    "aggregator.reply-begins",
    "aggregator.reply-received",
    "aggregator.reply-written",
    "aggregator.reply-confirmed",
    "aggregator.batch-closed",
    "aggregator.resumed",
    "aggregator.app-ended",
    "aggregator.model-stored",
)
"""Every place there is, in the order of a round."""


def _plan(environment: Mapping[str, str]) -> dict[str, tuple[Path, int]]:
    directory = environment.get(VARIABLE)
    if not directory:
        return {}
    files = ((name, Path(directory) / name) for name in NAMES)
    return {name: (file, int(file.read_text())) for name, file in files if file.exists()}


_PLAN = _plan(os.environ)


def reach(name: str) -> None:
    """Pass this place, or end here."""
    if name not in _PLAN:
        return
    file, fatal = _PLAN[name]
    visits = os.open(file.with_name(f"{name}.visits"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(visits, b".")
    count = os.fstat(visits).st_size
    os.close(visits)
    if count == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
