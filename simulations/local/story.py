"""A training's story as its status tells it, from the first word to the last.

Why it exists: processes and clusters show a training's status through different doors, and a simulation
follows it in the same way through both: show each, keep all metrics, see when it is over, when it cannot go
on, and when the time is up. This module starts nothing and stops nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from simulations.local import results, view

SETTLE_SECONDS = 3.0
"""An edge that has just connected offers nothing for a moment; what still keeps the quorum away after this
long will go on doing so."""

FINAL_PHASES = frozenset({"Completed", "Failed", "Stopped", "Suspended"})
_HOPELESS = frozenset({"QuorumNotReached", "NoSuchDataset", "NoClusterSelected"})


class Story:
    """Follows one training of a simulation whose edges are all known."""

    def __init__(
        self,
        title: str,
        edges: int,
        shown: view.View,
        *,
        on_round: Callable[[int], None] = lambda number: None,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Take the training's title, how many edges there are, and who wants to know of statuses and rounds.

        The clock for the outcome's seconds starts now. `on_round` hears the current round with each status
        that is not final.
        """
        self._title = title
        self._edges = edges
        self._view = shown
        self._on_round = on_round
        self._settle_seconds = settle_seconds
        self._started = time.monotonic()
        self._first_round: float | None = None
        self._ended: float | None = None
        self._status: dict[str, Any] = {}
        self._metrics: dict[tuple[int, str], Mapping[str, Any]] = {}

    async def follow(
        self, statuses: AsyncIterator[dict[str, Any]], timeout_seconds: float
    ) -> results.Outcome:
        """Read statuses until a final one, the timeout, or until no quorum can come; say how it ended."""
        timed_out = hopeless = False
        try:
            async with asyncio.timeout(timeout_seconds):
                hopeless = await self._read_to_the_end(statuses)
        except TimeoutError:
            timed_out = True
        self._ended = time.monotonic()
        outcome = results.outcome_of(self._title, self._status, list(self._metrics.values()), self._seconds())
        if hopeless:
            # On a real federation it would go on waiting; here nobody else can come.
            outcome.state = "Failed"
        if timed_out:
            waited = f"after {timeout_seconds:g} s the training was still {outcome.state}"
            outcome.state, outcome.reason = "TimedOut", "Timeout"
            outcome.message = f"{waited}: {outcome.message}" if outcome.message else waited
        return outcome

    async def _read_to_the_end(self, statuses: AsyncIterator[dict[str, Any]]) -> bool:
        """Take every status until a final one; says whether none comes because the quorum cannot be."""
        coming: asyncio.Future[dict[str, Any]] | None = None
        try:
            while self._status.get("phase") not in FINAL_PHASES:
                coming = asyncio.ensure_future(anext(statuses))
                settled, _ = await asyncio.wait(
                    {coming}, timeout=self._settle_seconds if self._is_hopeless() else None
                )
                if not settled:
                    return True
                self._take(coming.result())
        finally:
            if coming is not None:
                coming.cancel()
        return False

    def _is_hopeless(self) -> bool:
        """Whether, with the edges as they are, the quorum cannot be reached."""
        here = {c["name"] for c in self._status.get("clusters", []) if c.get("reason") != "NotConnected"}
        if len(here) < self._edges:
            return False
        conditions = {entry["type"]: entry["reason"] for entry in self._status.get("conditions", [])}
        return conditions.get("QuorumReached") in _HOPELESS and self._status.get("phase") in (
            "Pending",
            "Waiting",
        )

    def _take(self, status: dict[str, Any]) -> None:
        self._status = status
        for entry in status.get("metrics", []):
            self._metrics[entry["round"], entry["phase"]] = entry
        current = status.get("round", {}).get("current", 0)
        if current and self._first_round is None:
            self._first_round = time.monotonic()
        if status.get("phase") not in FINAL_PHASES:
            self._on_round(current)
        self._view.status(status)

    def _seconds(self) -> dict[str, float]:
        ended = self._ended or time.monotonic()
        first = self._first_round or ended
        return {"start": first - self._started, "rounds": ended - first, "total": ended - self._started}
