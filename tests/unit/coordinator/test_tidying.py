"""The removal of a deleted training's journal does not fail in silence."""

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import pytest
import structlog

from coordinator import tidying, workloads
from federation.runtime import port as runtimes
from tests.loopback import test_gateway
from tests.unit.coordinator import test_workloads

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

NAME = workloads.tidy_name("u1")
TIDY = runtimes.Workload(NAME, ("tidy",), pathlib.PurePath("/nowhere"))

Lines = list[MutableMapping[str, Any]]


class Refusing(test_gateway.FakeRuntime):
    """Starts nothing while it is full."""

    durable = True  # type: ignore[misc]
    full = False
    starts = 0

    async def start(self, workload: runtimes.Workload) -> None:
        self.starts += 1
        if self.full:
            raise runtimes.WorkloadNotStarted(workload.name, "quota exceeded")
        await super().start(workload)


@pytest.fixture
async def runtime() -> AsyncIterator[Refusing]:
    """A durable runtime."""
    return Refusing()


@pytest.fixture
async def hub(runtime: Refusing) -> AsyncIterator[workloads.Workloads]:
    """Workloads that are watched."""
    made = workloads.Workloads(
        runtime=runtime,
        sessions=test_workloads.Sessions(),  # type: ignore[arg-type]
        launch=lambda training, clusters: pytest.fail("nothing is launched"),
        now=lambda: 5000.0,
        stop_grace_seconds=0.0,
        on_change=lambda: None,
    )
    watching = asyncio.create_task(made.watch())
    yield made
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


def said(lines: Lines) -> list[tuple[str, int]]:
    """The failures that the log has."""
    assert all(line["log_level"] == "error" and line["workload"] == NAME for line in lines), lines
    return [(line["event"], line["attempt"]) for line in lines]


async def test_one_that_fails_is_logged_and_started_again(
    runtime: Refusing, hub: workloads.Workloads
) -> None:
    """With the end of its log, after a minute, three times; then it stays."""
    with structlog.testing.capture_logs() as lines:
        hub.forget("u1", TIDY)
        await asyncio.sleep(1)
        for attempt in range(1, tidying.ATTEMPTS + 1):
            assert (runtime.starts, list(runtime.running)) == (attempt, [NAME])
            runtime.end(NAME, 1, "starting", "read-only file system")
            await asyncio.sleep(1)
            assert not runtime.running
            await asyncio.sleep(tidying.AGAIN_SECONDS)
        await asyncio.sleep(3600)
    assert runtime.starts == tidying.ATTEMPTS == 4
    assert said(lines) == [("journal not removed", attempt) for attempt in (1, 2, 3, 4)]
    assert (lines[0]["error"], lines[0]["detail"]) == ("exit status 1", "starting\nread-only file system")


async def test_one_that_succeeds_is_not_started_again(runtime: Refusing, hub: workloads.Workloads) -> None:
    """At the first try, or at the second."""
    with structlog.testing.capture_logs() as lines:
        hub.forget("u1", TIDY)
        await asyncio.sleep(1)
        runtime.end(NAME, 1)
        await asyncio.sleep(tidying.AGAIN_SECONDS + 2)
        runtime.end(NAME, 0)
        await asyncio.sleep(3600)
    assert (runtime.starts, said(lines)) == (2, [("journal not removed", 1)])


async def test_one_that_cannot_be_started_is_tried_again(runtime: Refusing, hub: workloads.Workloads) -> None:
    """A quota may have room a minute later."""
    runtime.full = True
    with structlog.testing.capture_logs() as lines:
        hub.forget("u1", TIDY)
        await asyncio.sleep(1)
        runtime.full = False
        await asyncio.sleep(tidying.AGAIN_SECONDS)
        assert list(runtime.running) == [NAME]
        runtime.end(NAME, 0)
        await asyncio.sleep(3600)
    assert (runtime.starts, said(lines)) == (2, [("journal not removed", 1)])
    assert "quota exceeded" in lines[0]["error"]


async def test_one_that_an_earlier_coordinator_started_is_logged(
    runtime: Refusing, hub: workloads.Workloads
) -> None:
    """Nobody knows what it was to run, so it is not started again; one that succeeds is no news."""
    with structlog.testing.capture_logs() as lines:
        for status in (1, 0):
            await runtime.start(TIDY)
            runtime.end(NAME, status, "no")
            await asyncio.sleep(3600)
    assert (runtime.starts, said(lines)) == (2, [("journal not removed", 1)])
