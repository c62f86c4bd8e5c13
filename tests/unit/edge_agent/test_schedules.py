"""Tests for schedule windows: days, midnights, zones and changed clocks."""

import datetime as dt
import zoneinfo

import hypothesis
import pytest
from hypothesis import strategies as st

from edge_agent import schedules

ZURICH = zoneinfo.ZoneInfo("Europe/Zurich")


def zurich(text: str, fold: int = 0) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZURICH, fold=fold).astimezone(dt.UTC)


OPEN = [
    ("Mon-Fri 20:00-06:00 Europe/Zurich", "2026-03-03 20:00", True),
    ("Mon-Fri 20:00-06:00 Europe/Zurich", "2026-03-03 19:59:59", False),
    ("Mon-Fri 20:00-06:00 Europe/Zurich", "2026-03-04 05:59:59", True),
    ("Mon-Fri 20:00-06:00 Europe/Zurich", "2026-03-04 06:00", False),
    # Friday's window goes on into Saturday; Sunday's does not exist, so Monday's early hours are closed
    ("Mon-Fri 20:00-06:00 Europe/Zurich", "2026-03-07 03:00", True),
    ("Mon-Fri 20:00-06:00 Europe/Zurich", "2026-03-09 03:00", False),
    ("Sat,Sun 00:00-24:00 Europe/Zurich", "2026-03-08 23:59", True),
    ("Sat,Sun 00:00-24:00 Europe/Zurich", "2026-03-09 00:00", False),
    ("Fri-Mon 10:00-11:00 Europe/Zurich", "2026-03-08 10:30", True),
    ("Tue 12:00-13:00", "2026-03-03 13:30", True),  # UTC without a zone; Zurich is an hour ahead
]


@pytest.mark.parametrize("window, at, want", OPEN)
def test_when_a_window_is_open(window: str, at: str, want: bool) -> None:
    """Opening instants are in, closing ones out; a night belongs to the day on which it began."""
    assert schedules.is_open([schedules.parse(window)], zurich(at)) is want


def test_next_opening_is_the_earliest_of_all_windows() -> None:
    """Counted from now, over the weekend."""
    windows = [
        schedules.parse(text)
        for text in ("Mon-Fri 20:00-06:00 Europe/Zurich", "Mon 08:00-09:00 Europe/Zurich")
    ]
    assert schedules.next_opening(windows, zurich("2026-03-07 12:00")) == zurich("2026-03-09 08:00")


def test_the_clock_set_forward_shortens_the_night() -> None:
    """On 29 March 2026 Zurich's clock goes from 2 to 3 o'clock: seven hours instead of eight."""
    window = [schedules.parse("Sat 22:00-06:00 Europe/Zurich")]
    opening = zurich("2026-03-28 22:00")
    assert schedules.is_open(window, opening + dt.timedelta(hours=6, minutes=59))
    assert not schedules.is_open(window, opening + dt.timedelta(hours=7))


def test_the_clock_set_back_lengthens_the_night() -> None:
    """On 25 October 2026 the hour from 2 to 3 comes twice: nine hours instead of eight."""
    window = [schedules.parse("Sat 22:00-06:00 Europe/Zurich")]
    opening = zurich("2026-10-24 22:00")
    assert schedules.is_open(window, opening + dt.timedelta(hours=8, minutes=59))
    assert not schedules.is_open(window, opening + dt.timedelta(hours=9))


def test_a_window_that_the_clock_skips_opens_a_week_later() -> None:
    """02:30-03:00 does not exist on the day of the change, and is never open then."""
    window = [schedules.parse("Sun 02:30-03:00 Europe/Zurich")]
    assert schedules.next_opening(window, zurich("2026-03-28 12:00")) == zurich("2026-04-05 02:30")


@pytest.mark.parametrize(
    "text, want",
    [
        ("always", "DAYS HH:MM-HH:MM ZONE"),
        ("Mon-Fry 10:00-11:00", "'Mon-Fry' names no days"),
        ("Mon 25:00-26:00", "times go from"),
        ("Mon 10:00-11:60", "times go from"),
        ("Mon 10:00-11:00 Europe/Atlantis", "no time zone Europe/Atlantis"),
        ("Mon 10:00-11:00 ../../etc/passwd", "DAYS HH:MM-HH:MM ZONE"),
    ],
)
def test_a_window_that_cannot_be_read_says_why(text: str, want: str) -> None:
    """The text, what is wrong, and a right one."""
    with pytest.raises(schedules.InvalidWindow, match="Mon-Fri 20:00-06:00 Europe/Zurich") as caught:
        schedules.parse(text)
    assert want in str(caught.value)


instants = st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2027, 1, 1), timezones=st.just(dt.UTC))
times = st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59))
windows = st.builds(
    "{} {}-{} {}".format,
    st.sampled_from(["Mon-Sun", "Sat,Sun", "Wed", "Fri-Mon"]),
    times,
    times,
    st.sampled_from(["Europe/Zurich", "America/New_York", "Asia/Kolkata", "UTC"]),
)


@hypothesis.given(st.lists(windows, min_size=1, max_size=3), instants)
def test_law_it_is_open_at_the_next_opening(texts: list[str], now: dt.datetime) -> None:
    """The next opening lies ahead, a window is open there, and none opens between."""
    parsed = [schedules.parse(text) for text in texts]
    opening = schedules.next_opening(parsed, now)
    assert opening is not None
    assert opening > now
    assert schedules.is_open(parsed, opening)
    if not schedules.is_open(parsed, now):
        assert not schedules.is_open(parsed, now + (opening - now) / 2)
