"""When a policy's rule is open: windows such as "Mon-Fri 20:00-06:00 Europe/Zurich", as functions of now.

A window opens on each of its days at its first time and closes at its second; if that is not later on the
clock, it closes on the next day. Days and times are those of the window's zone, UTC where none is named.
Where the clock is set back and a time comes twice, the first is meant; a time that the clock skips is taken
as if it had not been set forward. This module refuses to know what runs inside a window.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
import zoneinfo
from collections.abc import Iterable, Iterator

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_MINUTES = 24 * 60
_HORIZON_DAYS = 15
"""Every weekday comes twice in this time, so a window that one change of the clock empties is still found."""

_WINDOW = re.compile(r"([A-Za-z,-]+) (\d\d):(\d\d)-(\d\d):(\d\d)(?: ([A-Za-z0-9_+/-]+))?", re.ASCII)


class InvalidWindow(ValueError):
    """The text is not a schedule window."""

    def __init__(self, text: str, wrong: str) -> None:
        """Keep the text; say what is wrong and show a right one."""
        super().__init__(f"schedule window {text!r}: {wrong}, want e.g. Mon-Fri 20:00-06:00 Europe/Zurich")
        self.text = text


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """A weekly window; days count from Monday, minutes from midnight of the window's zone."""

    text: str
    days: frozenset[int]
    opens_minutes: int
    closes_minutes: int
    zone: zoneinfo.ZoneInfo


def parse(text: str) -> Window:
    """Read one window.

    Raises: InvalidWindow.
    """
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise InvalidWindow(text, "it is not of the form DAYS HH:MM-HH:MM ZONE")
    days, *times, zone = match.groups()
    opens_hour, opens_minute, closes_hour, closes_minute = (int(time) for time in times)
    opens = opens_hour * 60 + opens_minute
    closes = closes_hour * 60 + closes_minute
    if opens_minute > 59 or closes_minute > 59 or opens >= _DAY_MINUTES or closes > _DAY_MINUTES:
        raise InvalidWindow(text, "times go from 00:00 to 24:00")
    try:
        zone_info = zoneinfo.ZoneInfo(zone or "UTC")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidWindow(text, f"there is no time zone {zone}") from error
    return Window(text, _days(text, days), opens, closes, zone_info)


def is_open(windows: Iterable[Window], now: dt.datetime) -> bool:
    """Say whether one of the windows is open; `now` is aware. The opening instant is in."""
    return any(
        opening <= now < closing
        for window in windows
        for opening, closing in _openings(window, now - dt.timedelta(days=2), 4)
    )


def next_opening(windows: Iterable[Window], now: dt.datetime) -> dt.datetime | None:
    """Return when a window opens next, strictly after `now`, in UTC; None without windows."""
    openings = [
        opening
        for window in windows
        for opening, _ in _openings(window, now - dt.timedelta(days=1), _HORIZON_DAYS)
        if opening > now
    ]
    return min(openings, default=None)


def _openings(window: Window, start: dt.datetime, days: int) -> Iterator[tuple[dt.datetime, dt.datetime]]:
    first = start.astimezone(window.zone).date()
    for offset in range(days):
        day = first + dt.timedelta(days=offset)
        if day.weekday() not in window.days:
            continue
        closes = window.closes_minutes
        if closes <= window.opens_minutes:
            closes += _DAY_MINUTES
        opening = _instant(day, window.opens_minutes, window.zone)
        closing = _instant(day, closes, window.zone)
        if opening < closing:
            yield opening, closing


def _instant(day: dt.date, minutes: int, zone: zoneinfo.ZoneInfo) -> dt.datetime:
    # Wall time first, then the zone: adding minutes to an aware datetime would mean the same, adding them to
    # an instant would not. By way of UTC so that comparing two instants of one zone compares instants.
    wall = dt.datetime.combine(day, dt.time()) + dt.timedelta(minutes=minutes)
    return wall.replace(tzinfo=zone).astimezone(dt.UTC)


def _days(text: str, days: str) -> frozenset[int]:
    chosen: set[int] = set()
    for part in days.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise InvalidWindow(text, f"{part!r} names no days of {' '.join(DAYS)}")
        start = DAYS.index(first)
        length = (DAYS.index(last) - start) % 7 if dash else 0
        chosen.update((start + offset) % 7 for offset in range(length + 1))
    return frozenset(chosen)
