"""The removal of a deleted training's journal: started, waited for, and started again when it fails.

Why it exists: whoever deletes a training counts on each cluster's updates being gone. A removal that fails in
silence would leave them for ever. What it runs, and where, is not known here (launcher.py, pod_launcher.py).
"""

from __future__ import annotations

import asyncio

from federation.runtime import port as runtimes
from federation.store import port as stores
from federation.telemetry import logs

_log = logs.get_logger(__name__)

ATTEMPTS = 4
"""In all; a volume that cannot be written, or an aggregator that still holds it, may come right."""

AGAIN_SECONDS = 60.0
"""Between two of them; each one waits for the journal's holder by itself (journal/removal.py)."""

MAXIMUM_DETAIL_CHARACTERS = 2000
"""Of what a removal's log says; the last of it tells why it failed."""


class Tidying:
    """The removals that one hub has under way."""

    def __init__(self, runtime: runtimes.Runtime) -> None:
        """Nothing is removed before `tidy`."""
        self._runtime = runtime
        self._ends: dict[str, asyncio.Future[runtimes.Exited]] = {}

    async def tidy(self, workload: runtimes.Workload) -> None:
        """Run a removal until it succeeds, or has failed so often; each failure is logged."""
        for attempt in range(1, ATTEMPTS + 1):
            if await self._run(workload, attempt):
                return
            if attempt < ATTEMPTS:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _run(self, workload: runtimes.Workload, attempt: int) -> bool:
        """Try once; returns whether that was the last time."""
        end: asyncio.Future[runtimes.Exited] = asyncio.get_running_loop().create_future()
        self._ends[workload.name] = end
        try:
            await self._runtime.start(workload)
        except runtimes.RuntimeClosed:
            return True
        except runtimes.WorkloadExists:
            pass  # one runs, and its end is told as well
        except (runtimes.RuntimeFailure, stores.StoreError, OSError) as error:
            self._ends.pop(workload.name, None)
            _log.error("journal not removed", workload=workload.name, attempt=attempt, error=str(error))
            return False
        event = await end
        if not event.succeeded:
            _failed(event, attempt)
        return event.succeeded

    def ended(self, event: runtimes.Exited) -> None:
        """Take the end of a removal; of one that an earlier coordinator started nobody can start another."""
        end = self._ends.pop(event.name, None)
        if end is not None:
            end.set_result(event)
        elif not event.succeeded:
            _failed(event, 1)


def _failed(event: runtimes.Exited, attempt: int) -> None:
    how = f"signal {event.signal}" if event.signal else f"exit status {event.exit_code}"
    _log.error(
        "journal not removed",
        workload=event.name,
        attempt=attempt,
        error=event.message or how,
        detail="\n".join(event.log_tail)[-MAXIMUM_DETAIL_CHARACTERS:],
    )
