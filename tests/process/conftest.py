"""Places for runs: a directory for each, and no process left when a test fails in the middle."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.process import running

Starter = Callable[..., running.Run]


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """A shell that starts the tests in the background has them ignore Ctrl-C, and their processes too."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Start `hanse ...` in a place of its own below tmp_path; what still runs at the end is killed."""
    runs: list[running.Run] = []

    def starter(*arguments: object, environment: dict[str, str] | None = None) -> running.Run:
        place = tmp_path / f"run-{len(runs)}"
        place.mkdir()
        runs.append(running.Run(place, *arguments, environment=environment))
        return runs[-1]

    yield starter
    for run in runs:
        run.end()
