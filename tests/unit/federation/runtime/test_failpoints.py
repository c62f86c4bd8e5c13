"""Places at which a process ends or its disk fails, when a file says so and not otherwise."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from federation.runtime import failpoints

PLACE = failpoints.NAMES[0]
REACH = """
import sys
from federation.runtime import failpoints
for _ in range(int(sys.argv[1])):
    try:
        failpoints.reach({place!r})
    except OSError as error:
        print(error.errno)
    else:
        print("passed")
"""


def visit(directory: Path | None, number: int) -> tuple[int, list[str]]:
    """Start a process that comes to the place so often; its exit status and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", REACH.format(place=PLACE), str(number)],
        env={} if directory is None else {failpoints.VARIABLE: str(directory)},
        cwd=Path(__file__).resolve().parents[4],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.split()


def test_nothing_happens_without_a_plan(tmp_path: Path) -> None:
    """Neither without the variable nor where no file names the place."""
    for directory in (None, tmp_path):
        assert visit(directory, 2) == (0, ["passed", "passed"])
    assert list(tmp_path.iterdir()) == []


def test_a_process_ends_at_the_visit_that_is_named_and_the_next_one_passes(tmp_path: Path) -> None:
    """Visits of earlier processes count."""
    (tmp_path / PLACE).write_text("3")
    assert visit(tmp_path, 2)[0] == 0
    assert visit(tmp_path, 5)[0] == -signal.SIGKILL
    assert visit(tmp_path, 2) == (0, ["passed", "passed"])
    assert (tmp_path / f"{PLACE}.visits").stat().st_size == 5


@pytest.mark.parametrize(
    ("plan", "want"),
    [
        ("0", ["passed"] * 4),
        ("2 EIO", ["passed", str(errno.EIO), "passed", "passed"]),
        ("2 ENOSPC 2", ["passed", str(errno.ENOSPC), str(errno.ENOSPC), "passed"]),
    ],
)
def test_a_disk_fails_as_often_as_is_said(tmp_path: Path, plan: str, want: list[str]) -> None:
    """With the error that is named; at visit 0 nothing happens but counting."""
    (tmp_path / PLACE).write_text(plan)
    assert visit(tmp_path, 4) == (0, want)
    assert (tmp_path / f"{PLACE}.visits").stat().st_size == 4
