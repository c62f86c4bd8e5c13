"""Spans of time as people write and read them: 24h, 7d. Pure: the time is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def parse(text: str) -> timedelta:
    """Read 30m, 24h, 7d. Raises: ValueError with a sentence."""
    found = _SPAN.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:40]!r}: want a number with s, m, h or d, such as 24h")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def age(moment: str | datetime | None, now: datetime) -> str:
    """Return how long ago, as kubectl says it: 45s, 12m, 5h, 3d; a time to come with `in` before it."""
    if not moment:
        return ""
    then = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    seconds = round((now - then).total_seconds())
    said = _rough(abs(seconds))
    return said if seconds >= 0 else f"in {said}"


def _rough(seconds: int) -> str:
    if seconds < 120:
        return f"{seconds}s"
    if seconds < 2 * 3600:
        return f"{seconds // 60}m"
    if seconds < 2 * 86_400:
        return f"{seconds // 3600}h"
    return f"{seconds // 86_400}d"
