"""Aggregators that an earlier coordinator started are taken over or ended, never started twice."""

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator

import pytest

from coordinator import workloads
from coordinator.clients import last_words
from coordinator.gateway import links
from coordinator.planning import restarts, snapshot
from federation.runtime import port as runtimes
from federation.wire import denials
from tests.loopback import test_gateway

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

TRAINING = snapshot.Training("cardiology", "hospitals", "u1", 1, {}, {}, snapshot.App("sha256:1"), 1000.0)
NAME = workloads.workload_name("u1")


class Durable(test_gateway.FakeRuntime):
    """What runs here outlives whoever started it."""

    durable = True  # type: ignore[misc]


class Sessions:
    """Remembers who is expected, and since when."""

    def __init__(self) -> None:
        self.expected: dict[str, float | None] = {}

    def expect(self, uid: str, namespace: str, name: str, since: float | None = None) -> None:
        self.expected[uid] = since

    def expect_again(self, uid: str) -> None:
        self.expected[uid] = None

    def forget(self, uid: str) -> None:
        self.expected.pop(uid, None)

    async def drained(self, uid: str, timeout_seconds: float) -> None:
        return


class Scene:
    """Workloads over a durable runtime."""

    def __init__(self, sessions: workloads.Sessions | None = None) -> None:
        self.runtime, self.sessions, self.launched = Durable(), sessions or Sessions(), 0
        self.workloads = workloads.Workloads(
            runtime=self.runtime,
            sessions=self.sessions,
            launch=self.launch,
            now=lambda: 5000.0,
            stop_grace_seconds=0.0,
            on_change=lambda: None,
        )

    async def launch(self, training: snapshot.Training, clusters: int) -> runtimes.Workload:
        self.launched += 1
        return runtimes.Workload(NAME, ("aggregator",), pathlib.PurePath("/nowhere"))


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    watching = asyncio.create_task(made.workloads.watch())
    yield made
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def test_what_runs_is_taken_over_with_its_credentials(scene: Scene) -> None:
    """Nothing is issued anew, and its certificate counts from when the training was made."""
    await scene.runtime.start(await scene.launch(TRAINING, 1))
    await scene.workloads.start(TRAINING, 1)
    found = scene.workloads.find("u1")
    assert found is not None
    assert (found.adopted_at, scene.launched) == (5000.0, 1)
    assert scene.sessions.expected == {"u1": 1000.0}
    scene.runtime.end(NAME, 1, "no")
    await asyncio.sleep(1)
    assert found.exit == snapshot.Exit("exit status 1", ("no",))


async def test_without_its_app_an_aggregator_is_taken_over_but_not_started(scene: Scene) -> None:
    """Who runs has the app; another start waits until the hub has it."""
    trouble = snapshot.Problem("AppNotFound", "ConfigMap tiny-app is gone.")
    lacking = dataclasses.replace(TRAINING, app=snapshot.App("sha256:1", trouble=trouble, startable=False))
    await scene.workloads.start(lacking, 1)
    assert (scene.workloads.find("u1"), scene.launched) == (None, 0)
    await scene.runtime.start(await scene.launch(TRAINING, 1))
    await scene.workloads.start(lacking, 1)
    found = scene.workloads.find("u1")
    assert found is not None
    assert (found.adopted_at, scene.launched) == (5000.0, 1)


async def test_what_nobody_wants_is_ended(scene: Scene) -> None:
    """A training that was deleted while no coordinator ran leaves nothing."""
    await scene.runtime.start(await scene.launch(TRAINING, 1))
    await asyncio.sleep(1)
    scene.workloads.sweep({"u1"})
    await asyncio.sleep(1)
    assert NAME in scene.runtime.running
    scene.workloads.sweep({"another"})
    await asyncio.sleep(1)
    assert not scene.runtime.running


async def test_why_it_cannot_run_is_known(scene: Scene) -> None:
    """A pod that no node has room for says so until it runs."""
    await scene.workloads.start(TRAINING, 1)
    scene.runtime.happened.put_nowait(runtimes.Waiting(NAME, "Unschedulable", "no node has room"))
    await asyncio.sleep(1)
    found = scene.workloads.find("u1")
    assert found is not None
    assert found.waiting == snapshot.Problem("Unschedulable", "no node has room")


async def test_one_that_was_started_for_a_deleted_training_is_ended(scene: Scene) -> None:
    """A deletion in the middle of a start is found at the next look."""
    await scene.workloads.start(TRAINING, 1)
    await asyncio.sleep(1)
    scene.workloads.sweep(set())
    await asyncio.sleep(1)
    assert not scene.runtime.running
    assert scene.workloads.find("u1") is None


async def test_what_waits_for_a_node_is_swept_too(scene: Scene) -> None:
    """A Job of a training that is gone, whose pod never ran, is found by the first list."""
    late = Scene()
    late.runtime.running[NAME] = await scene.launch(TRAINING, 1)  # nothing tells of it
    watching = asyncio.create_task(late.workloads.watch())
    await asyncio.sleep(1)
    late.workloads.sweep(set())
    await asyncio.sleep(1)
    assert not late.runtime.running
    watching.cancel()


WORDS = snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "pvc://m/20", "5b" * 32, 20)


async def test_one_that_finished_while_nobody_led_is_not_started_again(scene: Scene) -> None:
    """Its last words are the end of the training, whether they are read before or after it is wanted."""
    for wanted_first in (True, False):
        made = Scene()
        if wanted_first:
            made.runtime.running[NAME] = await scene.launch(TRAINING, 1)
        else:
            made.runtime.happened.put_nowait(runtimes.Started(NAME, "1"))
        made.runtime.happened.put_nowait(
            runtimes.Exited(NAME, 0, None, (), "AllRoundsDone", "Done.", last_words.write(WORDS))
        )
        watching = asyncio.create_task(made.workloads.watch())
        await made.workloads.start(TRAINING, 1)
        await asyncio.sleep(1)
        found = made.workloads.find("u1")
        assert found is not None
        assert found.exit is not None
        assert (found.exit.finished, made.launched) == (WORDS, 0)
        watching.cancel()


async def test_one_that_died_while_nobody_led_is_let_in_when_it_is_started_again() -> None:
    """The hub and its aggregator died together, as with their node; the one that follows is known by both."""
    known = links.AggregatorLinks(lambda: None, now=lambda: 5000.0)
    made = Scene(known)
    made.runtime.happened.put_nowait(runtimes.Exited(NAME, 137, None, ()))
    watching = asyncio.create_task(made.workloads.watch())
    await asyncio.sleep(1)
    await made.workloads.start(TRAINING, 1)
    found = made.workloads.find("u1")
    assert found is not None
    assert found.exit is not None
    await made.workloads.restart(found, TRAINING, 1, 0)
    assert made.launched == 1
    assert known.find("cardiology", "hospitals", issued_at=5000.0).uid == "u1"
    with pytest.raises(denials.Denied, match="an earlier cardiology/hospitals"):
        known.find("cardiology", "hospitals", issued_at=4000.0)
    watching.cancel()


async def test_one_that_could_not_begin_says_what_was_the_matter() -> None:
    """In its pod's last words, since the log goes with the pod; its end of the training goes before that."""
    ended = runtimes.Exited(NAME, restarts.UNREADABLE, None, (), restarts.NOT_NOW, "Stale file handle")
    found = workloads.exit_of(ended).not_now
    assert found is not None
    assert found.message.endswith("every 20 seconds. It said: Stale file handle.")
    words = dataclasses.replace(ended, last_words=last_words.write(WORDS))
    assert (workloads.exit_of(words).not_now, workloads.exit_of(words).finished) == (None, WORDS)
    own = dataclasses.replace(ended, exit_code=1)
    assert workloads.exit_of(own).not_now is None


async def test_one_that_ended_for_a_pause_is_started_again(scene: Scene) -> None:
    """Its last words say so; the pause is over."""
    paused = dataclasses.replace(WORDS, succeeded=False, reason="SuspendRequested")
    scene.runtime.happened.put_nowait(
        runtimes.Exited(NAME, 1, None, (), "SuspendRequested", "Paused.", last_words.write(paused))
    )
    await asyncio.sleep(1)
    await scene.workloads.start(TRAINING, 1)
    assert scene.launched == 1


async def test_the_end_of_one_before_is_not_taken_for_the_end_of_the_one_that_starts(scene: Scene) -> None:
    """A hub restored from a backup finds what is left of a pod, and makes room for a new one."""
    start = scene.runtime.start

    async def make_room_first(workload: runtimes.Workload) -> None:
        scene.runtime.happened.put_nowait(runtimes.Exited(NAME, None, "SIGKILL", ()))
        await asyncio.sleep(1)  # whoever reads events has read it
        await start(workload)

    scene.runtime.start = make_room_first  # type: ignore[method-assign]
    await scene.workloads.start(TRAINING, 1)
    await asyncio.sleep(5)
    process = scene.workloads.find("u1")
    assert process is not None
    assert process.exit is None
    await scene.workloads.restart(process, TRAINING, 1, 0)
    await asyncio.sleep(5)
    assert process.exit is None, "it would be started again and again"
