"""A clock that can be stopped.

Why it exists: while a training cannot write its journal nothing of it goes on, and no deadline of a round may
pass for that. Whoever asks this clock sees no time go by meanwhile. It is for one thread.
"""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Seconds of another clock, less those for which this one was stopped."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Go on as `clock` does."""
        self._clock = clock
        self._stopped_at: float | None = None
        self._lost = 0.0

    def __call__(self) -> float:
        """The time, in seconds from anywhere."""
        now = self._clock() if self._stopped_at is None else self._stopped_at
        return now - self._lost

    @property
    def stands(self) -> bool:
        """Whether it is stopped."""
        return self._stopped_at is not None

    def stop(self) -> None:
        """Stand still from now on."""
        if self._stopped_at is None:
            self._stopped_at = self._clock()

    def go_on(self) -> None:
        """Go on from the time that it shows."""
        if self._stopped_at is not None:
            self._lost += self._clock() - self._stopped_at
            self._stopped_at = None
