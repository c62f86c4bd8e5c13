"""The learning curve in the terminal and as a picture."""

from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from simulations.local import curve

POINTS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=200).map(
    lambda values: list(enumerate(values, start=1))
)


@pytest.mark.parametrize("points", [[], [(1, 0.5)]])
def test_too_few_points(points: list[tuple[int, float]]) -> None:
    """One point is no curve."""
    assert curve.terminal("loss", points) == ""


def test_drawing() -> None:
    """The highest value fills its column, the lowest has one eighth; both are labelled."""
    lines = curve.terminal("accuracy", [(1, 0.0), (2, 0.5), (3, 1.0)], height=2).splitlines()

    assert lines == [
        "accuracy",
        "1.000 │   ▁▁▁███",
        "0.000 │▁▁▁██████",
        "      └─────────",
        "       round 1 round 3",
    ]


@hypothesis.given(points=POINTS)
def test_drawing_fits(points: list[tuple[int, float]]) -> None:
    """Law: whatever the values, eight rows of equal width, at most 60 columns of curve."""
    lines = curve.terminal("loss", points).splitlines()
    rows = [line.partition("│")[2] for line in lines[1:9]]

    assert len(lines) == 11
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(rows[0]) <= 60
    assert not set("".join(rows)) - set(" ▁▂▃▄▅▆▇█")


def test_equal_values() -> None:
    """A metric that never moves is a flat line, not an error."""
    assert "▁" in curve.terminal("loss", [(1, 0.5), (2, 0.5)])


@pytest.mark.parametrize(
    "series", [{"loss": [(1, 0.5), (2, 0.25)]}, {"a": [(1, 1.0)], "b": [(1, 2.0), (2, 3.0)]}, {}]
)
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning")
def test_picture(series: dict[str, list[tuple[int, float]]], tmp_path: Path) -> None:
    """A PNG file for any number of metrics."""
    curve.picture(tmp_path / "curve.png", "lab/tiny", series)

    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
