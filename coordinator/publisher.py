"""Everything that changes at a hub, as JSON lines on a stream, for the command that started it.

This module refuses to know what the changes mean.
"""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Mapping
from typing import Any

MAXIMUM_WAITING_LINES = 10_000
"""Changes that wait for a slow reader before log lines are left out; an edge writes as fast as it likes."""


class Publisher:
    """Writes JSON lines to standard output from the loop, and gives up for good once nobody reads them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lines: collections.deque[str] = collections.deque()
        self._read = True
        self._more = asyncio.Event()

    def __call__(self, change: Mapping[str, Any]) -> None:
        """Take one change; it is written soon, in order."""
        if not self._read:
            return
        if change["type"] == "LOG" and len(self._lines) >= MAXIMUM_WAITING_LINES:
            return  # the log files have them all
        self._lines.append(json.dumps(change, separators=(",", ":"), ensure_ascii=False))
        self._more.set()

    async def run(self) -> None:
        """Write until cancelled, from a thread, so that a slow reader holds nothing up."""
        while True:
            await self._more.wait()
            self._more.clear()
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what waits; once nobody reads any more, nothing is kept either."""
        try:
            while self._lines:
                self._stream.write(self._lines.popleft() + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._read = False
            self._lines.clear()
