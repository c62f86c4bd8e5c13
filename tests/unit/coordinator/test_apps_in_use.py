"""Whatever becomes of the source of an app in use, no client and no aggregator ends for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from coordinator.clients import bundles
from coordinator.planning import apps as planning
from coordinator.planning import restarts, snapshot
from federation.apps import bundle
from federation.store import port as stores
from tests.unit.coordinator import test_controller
from tests.unit.coordinator.clients import test_bundles

pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]

SOURCE = {"configMap": {"name": "tiny-app"}}
AGGREGATOR = "aggregator-uid-3"
TRAINS = snapshot.Aggregator(
    address="10.0.0.1:7443",
    server_name="a",
    progress=snapshot.Progress(round=2, rounds_total=3, round_started_at=test_controller.START),
)


class Hub:
    """A hub whose training of a ConfigMap's app is in its second round."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        (directory / "app").mkdir()
        self.packed = _packed(directory / "app", "one")
        self.source: bytes | Exception | None = self.packed.data
        self.copy: bytes | None = None
        self.refused: snapshot.Problem | None = None
        self.lives = 0
        self.scene = test_controller.Scene(apps=self._apps())
        self.work = asyncio.create_task(self.scene.controller.run())

    def _apps(self) -> bundles.Apps:
        self.lives += 1
        self.shelf = bundles.BundleShelf(self.directory / f"shelf-{self.lives}")
        return bundles.Apps(
            self.shelf,
            self._read,
            lambda spec: self.refused,
            self._read_copy,
            asyncio.get_running_loop().time,
        )

    async def _read(self, namespace: str, name: str, key: str) -> bytes | None:
        if isinstance(self.source, Exception):
            raise self.source
        return self.source

    async def _read_copy(self, namespace: str, uid: str) -> bytes | None:
        return self.copy

    async def begin(self) -> None:
        for name in ("budapest", "zurich"):
            await self.scene.cluster(name)
        self.scene.edges.said = {name: snapshot.Report("RUNNING") for name in ("budapest", "zurich")}
        await self.change()
        await self.trains()
        assert (await self.scene.status())["startedAt"]

    async def trains(self) -> None:
        """The aggregator says that it is in the second round."""
        self.scene.edges.aggregator = TRAINS
        await self.look()

    async def change(self, **spec: Any) -> None:
        """What makes another generation."""
        await self.scene.training(app={"source": SOURCE}, **spec)
        await self.scene.settle()

    async def look(self) -> None:
        self.scene.controller.notify()
        await self.scene.settle()

    async def pass_by(self, seconds: float) -> None:
        """Time passes, and what is due happens."""
        await asyncio.sleep(seconds)
        self.scene.now += seconds
        await self.look()

    async def forget(self) -> None:
        """Another hub, without the files of the one before."""
        self.scene.controller._apps = self._apps()
        await self.look()

    async def condition(self, type_: str) -> dict[str, Any]:
        conditions = (await self.scene.status())["conditions"]
        found: dict[str, Any] = next(one for one in conditions if one["type"] == type_)
        return found

    def clients(self) -> set[str]:
        """Of which app the clusters have clients."""
        return {one.app.digest for wanted in self.scene.edges.wanted.values() for one in wanted}


def _packed(directory: pathlib.Path, content: str) -> bundle.Bundle:
    pyproject = test_bundles.PYPROJECT.format(components=test_bundles.BOTH)
    (directory / "pyproject.toml").write_text(pyproject)
    (directory / "tiny.py").write_text(f"client = server = {content!r}\n")
    return bundle.pack(directory)


@pytest.fixture
async def hub(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """A hub that is there."""

    async def at_once(work: Callable[..., Any], *given: Any) -> Any:
        return work(*given)

    monkeypatch.setattr(asyncio, "to_thread", at_once)  # the tests' time does not wait for threads
    made = Hub(tmp_path)
    yield made
    made.work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await made.work


def break_source(hub: Hub, how: str) -> None:
    """What happens to a ConfigMap."""
    if how == "another app":
        hub.source = _packed(hub.directory / "app", "two").data
    else:
        hub.source = {
            "gone": None,
            "no app": b"no app at all",
            "not to be read": stores.UnavailableError("no answer"),
        }[how]


BROKEN = {
    "gone": "AppNotFound",
    "no app": "AppNotLoadable",
    "not to be read": "AppNotFound",
    "another app": "AppChanged",
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("change", ["another generation", "another hub", "another hub without files"])
async def test_a_source_that_breaks_ends_nothing(hub: Hub, how: str, change: str) -> None:
    """Clients and aggregator go on, status tells it, and tells no more when the source is as it was."""
    await hub.begin()
    break_source(hub, how)
    hub.copy = hub.packed.data if change == "another hub" else None
    if change == "another generation":
        await hub.change(round={"deadlineSeconds": 30})
    else:
        await hub.forget()
    status = await hub.scene.status()
    assert (status["phase"], status["app"]["digest"]) == ("Running", hub.packed.digest)
    assert hub.clients() == {hub.packed.digest}
    assert {len(wanted) for wanted in hub.scene.edges.wanted.values()} == {1}
    assert (list(hub.scene.runtime.running), hub.scene.runtime.starts) == ([AGGREGATOR], 1)
    accepted = await hub.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", BROKEN[how])
    assert "ConfigMap tiny-app" in accepted["message"]
    assert accepted["message"].endswith(".")
    assert hub.scene.events()[-1] == BROKEN[how]
    kept = change != "another hub without files"
    assert ("put it back" in accepted["message"], "goes on with the app" in accepted["message"]) == (
        not kept, kept,
    )  # fmt: skip

    hub.source = hub.packed.data
    await asyncio.sleep(planning.TOLD_SECONDS + 1)
    await hub.look()
    accepted = await hub.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "Valid")
    assert hub.shelf.path(hub.packed.digest) is not None


@pytest.mark.parametrize("how", BROKEN)
async def test_what_a_suspended_training_keeps_outlives_its_source(hub: Hub, how: str) -> None:
    """The clusters keep what they have; resumed, it waits for the app, and goes on when it is back."""
    await hub.begin()
    await hub.change(suspend=True)
    break_source(hub, how)
    await hub.forget()
    assert (await hub.scene.status())["phase"] == "Suspended"
    assert {one.resting for wanted in hub.scene.edges.wanted.values() for one in wanted} == {True}
    assert hub.clients() == {hub.packed.digest}
    assert (await hub.condition("Accepted"))["reason"] == BROKEN[how]

    await hub.change()
    for _ in range(3):
        await hub.pass_by(planning.NEEDED_SECONDS + 1)
    status = await hub.scene.status()
    assert (status["phase"], status["round"]["current"]) == ("Preparing", 2)
    assert status["startedAt"]
    running = await hub.condition("Running")
    assert (running["status"], running["reason"]) == ("False", BROKEN[how])
    assert "has to be started" in running["message"]
    assert (
        f"put it back into ConfigMap tiny-app of namespace {test_controller.KEY.namespace}"
        in running["message"]
    )
    assert hub.clients() == {hub.packed.digest}
    assert (hub.scene.runtime.running, hub.scene.runtime.starts) == ({}, 1)

    hub.source = hub.packed.data
    await asyncio.sleep(planning.NEEDED_SECONDS + 1)
    await hub.scene.settle()
    assert (list(hub.scene.runtime.running), hub.scene.runtime.starts) == ([AGGREGATOR], 2)
    assert (await hub.condition("Running"))["reason"] == "Starting"


async def test_an_image_that_the_hub_allows_no_more_changes_no_app(hub: Hub) -> None:
    """That ends the aggregator; when it goes on, it is still with the app that the training began with."""
    await hub.begin()
    hub.refused = snapshot.Problem("ImageNotAllowed", "Aggregators may run others only.")
    hub.copy = hub.packed.data
    await hub.forget()
    assert (await hub.scene.status())["phase"] == "Pending"
    hub.refused = None
    break_source(hub, "another app")
    await hub.forget()
    await hub.pass_by(planning.NEEDED_SECONDS + 1)
    assert hub.clients() == {hub.packed.digest}
    assert (await hub.condition("Accepted"))["reason"] == "AppChanged"


async def test_an_aggregator_that_died_waits_for_its_app(hub: Hub) -> None:
    """It is started again when the app is back; that no one has it is not counted as a death."""
    await hub.begin()
    hub.source = None
    await hub.forget()
    hub.scene.runtime.end(AGGREGATOR, 1)
    for _ in range(5):
        await hub.pass_by(60)
    running = await hub.condition("Running")
    assert (running["status"], running["reason"]) == ("True", "AppNotFound")
    assert hub.scene.runtime.starts == 1
    hub.source = hub.packed.data
    await asyncio.sleep(planning.NEEDED_SECONDS + 1)
    await hub.scene.settle()
    assert hub.scene.runtime.starts == 2
    assert (await hub.scene.status())["phase"] == "Running"


async def test_a_journal_of_another_app_gets_that_app_when_it_is_back(hub: Hub) -> None:
    """However status came to name another one: the journal knows, and nothing was emptied."""
    await hub.begin()
    hub.scene.edges.silent = True
    hub.scene.runtime.end(AGGREGATOR, restarts.OTHER_APP)
    await hub.scene.settle()
    hub.source = None  # nor does this end anything
    await hub.pass_by(restarts.NOT_NOW_SECONDS + 1)
    running = await hub.condition("Running")
    assert (running["status"], running["reason"]) == ("True", "JournalOfAnotherApp")
    assert hub.clients() == {hub.packed.digest}
    break_source(hub, "another app")
    await hub.pass_by(restarts.NOT_NOW_SECONDS + 1)
    (digest,) = hub.clients()
    assert digest != hub.packed.digest
    hub.scene.runtime.end(AGGREGATOR, restarts.OTHER_APP)
    for _ in range(2):
        await hub.pass_by(restarts.NOT_NOW_SECONDS + 1)
    assert AGGREGATOR in hub.scene.runtime.running
    hub.scene.edges.silent = False
    await hub.look()
    assert (await hub.condition("Running"))["reason"] == "RoundInProgress"
    assert (await hub.scene.status())["app"]["digest"] == digest

    hub.source = hub.packed.data
    await hub.change(round={"deadlineSeconds": 30})
    assert hub.clients() == {digest}
    assert (await hub.condition("Accepted"))["reason"] == "AppChanged"


async def test_a_training_that_has_not_begun_takes_what_its_source_has(hub: Hub) -> None:
    """Until then, what is put right counts."""
    await hub.begin()
    await hub.scene.store.delete(test_controller.KEY)
    await hub.scene.settle()
    await hub.change(clusters={"minimum": 3})
    assert (await hub.scene.status())["app"]["digest"] == hub.packed.digest
    break_source(hub, "another app")
    await hub.change(clusters={"minimum": 2})
    await hub.trains()
    (digest,) = hub.clients()
    assert digest != hub.packed.digest
    assert (await hub.condition("Accepted"))["reason"] == "Valid"


async def test_a_full_disk_of_the_hub_ends_no_training(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its shelf is not written again; what is not is told."""
    await hub.begin()

    write = pathlib.Path.write_bytes

    def full(path: pathlib.Path, data: bytes) -> int:
        if path.parent.name.startswith("shelf"):
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    await hub.change(round={"deadlineSeconds": 30})
    assert (await hub.condition("Accepted"))["reason"] == "Valid"
    await hub.forget()
    accepted = await hub.condition("Accepted")
    assert (accepted["status"], accepted["reason"]) == ("True", "StorageFull")
    assert (hub.clients(), list(hub.scene.runtime.running)) == ({hub.packed.digest}, [AGGREGATOR])


async def test_suspended_again_before_a_round_was_heard_of_it_still_rests(hub: Hub) -> None:
    """That it has begun is not forgotten while its next aggregator starts."""
    await hub.begin()
    await hub.change(suspend=True)
    await hub.change()
    hub.scene.edges.aggregator = dataclasses.replace(TRAINS, progress=snapshot.Progress())
    await hub.look()
    await hub.change(suspend=True)
    assert (await hub.scene.status())["startedAt"]
    assert {one.resting for wanted in hub.scene.edges.wanted.values() for one in wanted} == {True}
