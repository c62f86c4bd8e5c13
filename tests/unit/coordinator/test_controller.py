"""The controller makes plans true, whatever it hears, and stays quiet when there is nothing to do."""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import itertools
import pathlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pytest

from coordinator import controller, workloads
from coordinator.clients import last_words, members
from coordinator.planning import apps as planning
from coordinator.planning import desired, restarts, snapshot
from federation.runtime import port as runtimes
from federation.store import memory
from federation.store import port as stores
from federation.trust import authorisation
from federation.trust import identity as identities
from federation.wire import denials

START = 1_780_000_000.0
KEY = stores.Key("FederatedTraining", "cardiology", "hospitals")
PLAYED = {"phase": "Running", "round": {"current": 5, "total": 20}, "startedAt": "2026-06-01T00:00:00Z"}


class Runtime:
    """Starts nothing, and ends what it is told to end."""

    def __init__(self) -> None:
        self.running: dict[str, runtimes.Workload] = {}
        self.starts = self.asked = 0
        self.fails: runtimes.RuntimeFailure | None = None
        self.happened: asyncio.Queue[runtimes.WorkloadEvent] = asyncio.Queue()

    async def start(self, workload: runtimes.Workload) -> None:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        await asyncio.sleep(0.01)  # it takes longer than to hear that the one before is gone
        self.starts += 1
        self.running[workload.name] = workload

    async def stop(self, name: str, grace_seconds: float) -> None:
        self.end(name, 0)

    def end(self, name: str, exit_code: int, *tail: str) -> None:
        if self.running.pop(name, None) is not None:
            self.happened.put_nowait(runtimes.Exited(name, exit_code, None, tail))

    def drain(self, name: str) -> None:
        del self.running[name]
        ended = runtimes.Exited(name, None, "SIGTERM", (), "Evicted", "Drained.", disrupted=True)
        self.happened.put_nowait(ended)

    async def list(self) -> tuple[runtimes.RunningWorkload, ...]:
        return ()

    async def events(self) -> AsyncIterator[runtimes.WorkloadEvent]:
        while True:
            yield await self.happened.get()

    durable = False

    async def refresh(self, name: str, directory: pathlib.PurePath, files: Mapping[str, bytes]) -> None:
        pass

    async def close(self, grace_seconds: float) -> None:
        self.running.clear()


class Edges:
    """Agents and aggregators, as the controller sees them."""

    def __init__(self) -> None:
        self.lost: dict[str, float] = {}
        self.said: dict[str, snapshot.Report] = {}
        self.wanted: dict[str, tuple[desired.Assignment, ...]] = {}
        self.pushes = 0
        self.expected: set[str] = set()
        self.expected_again = 0
        self.silent = False
        self.all_expected = False
        self.aggregator = snapshot.Aggregator()
        self.stop: desired.Stop | None = None
        self.roster: tuple[desired.RosterMember, ...] = ()
        self.rules: desired.RoundRules | None = None

    def connected(self, cluster: str) -> bool:
        return cluster not in self.lost

    def disconnected_at(self, cluster: str) -> float:
        return self.lost.get(cluster, START)

    def reports(self, uid: str) -> Mapping[str, snapshot.Report]:
        return self.said

    def assign(self, cluster: str, wanted: Sequence[desired.Assignment]) -> None:
        if self.wanted.get(cluster, ()) != tuple(wanted):
            self.wanted[cluster] = tuple(wanted)
            self.pushes += 1

    def release(self) -> None:
        self.released = True

    def expect(self, uid: str, namespace: str, name: str, since: float | None = None) -> None:
        self.expected.add(uid)
        self.aggregator = snapshot.Aggregator()

    def complete(self) -> None:
        self.all_expected = True

    def heard(self, uid: str) -> bool:
        return not self.silent

    def expect_again(self, uid: str) -> None:
        self.expected_again += 1

    def forget(self, uid: str) -> None:
        self.aggregator = snapshot.Aggregator()

    def observed(self, uid: str) -> snapshot.Aggregator:
        return self.aggregator

    def direct(
        self,
        uid: str,
        roster: tuple[desired.RosterMember, ...],
        rules: desired.RoundRules,
        stop: desired.Stop | None,
    ) -> None:
        self.roster, self.rules, self.stop = roster, rules, stop

    async def drained(self, uid: str, timeout_seconds: float) -> None:
        return


class Apps:
    """Every training has the same app, unless a test says what is wrong with it."""

    def __init__(self) -> None:
        self.app: snapshot.App | snapshot.Problem = snapshot.App(digest="sha256:" + "9f" * 32)

    async def resolve(self, resource: Mapping[str, Any], *, started: bool) -> snapshot.App | snapshot.Problem:
        return self.app

    def forget(self, uid: str) -> None:
        return


class Scene:
    """A controller among fakes, with the store in memory."""

    def __init__(self, finished_kept: int | None = None, apps: controller.Apps | None = None) -> None:
        uids = (f"uid-{n}" for n in itertools.count(1))
        self.now = START
        self.lines: list[dict[str, Any]] = []
        self.store = memory.MemoryStore(
            lambda: dt.datetime.fromtimestamp(self.now, dt.UTC),
            lambda: next(uids),
            self.lines.append,
        )
        self.runtime, self.edges, self.apps = Runtime(), Edges(), Apps()
        self.revoked = authorisation.NONE_REVOKED
        self.controller = controller.Controller(
            store=self.store,
            runtime=self.runtime,
            agents=self.edges,
            aggregators=self.edges,
            apps=apps or self.apps,
            launch=self._launch,
            tidy=self._tidy,
            revoke=self._revoke,
            roll=members.Members(self.store, lambda: self.now),
            now=lambda: self.now,
            limits=snapshot.Limits(),
            stop_grace_seconds=0.0,
            finished_kept=finished_kept,
        )

    async def _launch(self, training: snapshot.Training, clusters: int) -> runtimes.Workload:
        return runtimes.Workload(
            workloads.workload_name(training.uid), ("aggregator",), pathlib.PurePath("/nowhere")
        )

    def _tidy(self, training: snapshot.Training) -> runtimes.Workload:
        assert "aggregator-uid-3" in self.runtime.running or training.suspended
        return runtimes.Workload(workloads.tidy_name(training.uid), ("tidy",), pathlib.PurePath("/nowhere"))

    def _revoke(self, revocations: authorisation.Revocations) -> None:
        self.revoked = revocations

    async def cluster(self, name: str, acceptance: str = "Accepted") -> None:
        await self.store.apply(
            {
                "apiVersion": "hanse.dev/v1alpha1",
                "kind": "EdgeCluster",
                "metadata": {"name": name},
                "spec": {"acceptance": acceptance, "labels": {}, "maximumTrainings": 10},
            }
        )
        key = stores.Key("EdgeCluster", "", name)
        if "datasets" not in ((await self.store.get(key)).get("status") or {}):
            await self.store.patch_status(key, {"datasets": [{"name": "heart"}]}, None)

    async def training(self, **spec: Any) -> None:
        await self.store.apply(
            {
                "apiVersion": "hanse.dev/v1alpha1",
                "kind": "FederatedTraining",
                "metadata": {"name": "hospitals", "namespace": "cardiology"},
                "spec": {"app": {"source": {"path": "/app"}}, "dataset": "heart", "clusters": {"minimum": 2}}
                | spec,
            }
        )

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.store.get(KEY)).get("status") or {}
        return found

    async def settle(self) -> None:
        """Let everything happen that is going to happen."""
        before = -1
        while before != self.controller.reconciled:
            before = self.controller.reconciled
            await asyncio.sleep(0.5)

    async def died(self, workload: str, *tail: str) -> None:
        """A process ends by itself, and a minute passes."""
        self.runtime.end(workload, 1, *tail)
        await asyncio.sleep(1.0)  # it is noticed
        self.now += 60.0
        await self.settle()

    def events(self) -> list[str]:
        return [line["object"]["reason"] for line in self.lines if line["type"] == "EVENT"]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A running controller; two clusters that may take part."""
    made = Scene()
    work = asyncio.create_task(made.controller.run())
    await made.cluster("budapest")
    await made.cluster("zurich")
    yield made
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


pytestmark = [pytest.mark.asyncio, pytest.mark.looptime]


async def test_enough_clusters_start_one_aggregator(scene: Scene) -> None:
    """Assignments go out and one aggregator starts, however often there is news."""
    await scene.training()
    await scene.settle()
    for _ in range(5):
        scene.controller.notify()
    await scene.settle()
    assert scene.runtime.starts == 1
    assert {name: len(wanted) for name, wanted in scene.edges.wanted.items()} == {"budapest": 1, "zurich": 1}
    assert scene.edges.pushes == 2
    member = await scene.store.get(stores.Key("EdgeCluster", "", "zurich"))
    assert member["status"]["trainings"] == [{"namespace": "cardiology", "name": "hospitals"}]


async def test_nothing_to_do_is_nothing_done(scene: Scene) -> None:
    """A settled federation plans nothing for an hour and writes nothing when it is asked to look again."""
    await scene.training()
    await scene.settle()
    planned, written = scene.controller.reconciled, len(scene.lines)
    await asyncio.sleep(3600)
    assert scene.controller.reconciled == planned
    scene.controller.notify()
    await scene.settle()
    assert (scene.controller.reconciled, len(scene.lines)) == (planned + 1, written)


async def test_a_burst_is_planned_once(scene: Scene) -> None:
    """Many notifications within a moment cost one plan."""
    await scene.training()
    await scene.settle()
    planned = scene.controller.reconciled
    for _ in range(100):
        scene.controller.notify()
        await asyncio.sleep(0)
    await scene.settle()
    assert scene.controller.reconciled == planned + 1


async def finish(scene: Scene, change: Callable[[snapshot.Progress], None] | None = None) -> None:
    """The aggregator reports its end and ends."""
    done = snapshot.Finished(True, "AllRoundsDone", "Done.", "file:///m/3", "5b" * 32, 3)
    scene.edges.aggregator = snapshot.Aggregator(progress=snapshot.Progress(round=3, finished=done))
    scene.controller.notify()
    await scene.settle()


async def test_a_finished_training_frees_its_clusters(scene: Scene) -> None:
    """The end is written once, clients and aggregator stop, and an Event tells of each phase."""
    await scene.training()
    await scene.settle()
    await finish(scene)
    assert (await scene.status())["phase"] == "Completed"
    assert scene.edges.wanted == {"budapest": (), "zurich": ()}
    assert not scene.runtime.running
    scene.controller.notify()
    await scene.settle()
    assert scene.runtime.starts == 1
    assert scene.events()[-1] == "AllRoundsDone"


async def test_the_end_is_written_before_the_edges_are_told(scene: Scene) -> None:
    """A write that comes in between does not cost the last status what the edges had said."""
    scene.edges.said = {name: snapshot.Report("RUNNING") for name in ("budapest", "zurich")}
    await scene.training()
    await scene.settle()
    real = scene.store.patch_status
    conflicts = [stores.ConflictError(KEY, "1", "2")]

    async def patch_status(
        key: stores.Key, status: Mapping[str, Any], version: str | None
    ) -> stores.Resource:
        if key == KEY and conflicts:
            assert scene.edges.wanted["zurich"]
            raise conflicts.pop()
        return await real(key, status, version)

    scene.store.patch_status = patch_status  # type: ignore[method-assign]
    await finish(scene)
    assert not conflicts
    assert {entry["state"] for entry in (await scene.status())["clusters"]} == {"Completed"}
    assert scene.edges.wanted["zurich"] == ()


async def test_an_exit_without_a_result_fails_the_training(scene: Scene) -> None:
    """If it may not be started again, it stays failed."""
    await scene.training(server={"maximumRestarts": 0})
    await scene.settle()
    scene.runtime.end("aggregator-uid-3", 1, "ValueError: no")
    await scene.settle()
    status = await scene.status()
    assert status["phase"] == "Failed"
    assert scene.events()[-1] == "ServerAppExited"
    assert scene.runtime.starts == 1


async def test_an_aggregator_that_died_is_started_again(scene: Scene) -> None:
    """What it had said holds, and so does what the edges were asked to do."""
    await scene.training()
    await scene.settle()
    scene.edges.aggregator = snapshot.Aggregator(address="10.0.0.1:7443", progress=snapshot.Progress(round=7))
    await scene.settle()
    asked = scene.edges.wanted
    await scene.died("aggregator-uid-3")
    assert (scene.runtime.starts, scene.edges.expected_again) == (2, 1)
    assert scene.edges.wanted == asked
    status = await scene.status()
    assert (status["phase"], status["summary"]["round"]) == ("Running", "7")


async def test_an_aggregator_that_dies_again_and_again_fails_the_training(
    scene: Scene,
) -> None:
    """Each round has as many starts; the message says how the last one ended."""
    await scene.training(server={"maximumRestarts": 2})
    await scene.settle()
    for number in (1, 1, 2, 2, 2):
        scene.edges.aggregator = snapshot.Aggregator(progress=snapshot.Progress(round=number))
        await scene.died("aggregator-uid-3", "MemoryError")
    assert scene.runtime.starts == 5
    status = await scene.status()
    assert status["phase"] == "Failed"
    failed = next(entry for entry in status["conditions"] if entry["type"] == "Failed")
    assert "exit status 1" in failed["message"]
    assert "MemoryError" in failed["message"]


async def test_what_the_cluster_does_to_an_aggregator_is_no_death(scene: Scene) -> None:
    """A dozen drains in one round fail nothing, and two deaths before them stay two."""
    await scene.training(server={"maximumRestarts": 2})
    await scene.settle()
    scene.edges.aggregator = snapshot.Aggregator(progress=snapshot.Progress(round=1))
    for _ in range(2):
        await scene.died("aggregator-uid-3", "MemoryError")
    for number in range(12):
        scene.runtime.drain("aggregator-uid-3")
        await asyncio.sleep(1.0)
        running = await running_condition(scene)
        assert (running["reason"], "(Drained)" in running["message"]) == ("AggregatorLost", True)
        scene.now += restarts.LONGEST_DELAY_SECONDS
        scene.controller.notify()
        await scene.settle()
        assert scene.runtime.starts == number + 4
    assert (await scene.status())["phase"] == "Running"
    await scene.died("aggregator-uid-3", "MemoryError")
    assert (await scene.status())["phase"] == "Failed"


async def test_what_an_aggregator_that_is_started_again_waits_for_is_seen(scene: Scene) -> None:
    """It reads no journal while no node has room; and what one waited for is not said of the next."""
    await scene.training()
    await scene.settle()
    scene.edges.aggregator = snapshot.Aggregator(progress=snapshot.Progress(round=5))
    scene.edges.silent = True
    await scene.died("aggregator-uid-3")
    assert (await running_condition(scene))["reason"] == "Resuming"
    for _ in range(2):
        waits = runtimes.Waiting("aggregator-uid-3", "Unschedulable", "No node has enough memory free.")
        scene.runtime.happened.put_nowait(waits)
        await scene.settle()
        running = await running_condition(scene)
        assert (running["status"], running["reason"]) == ("True", "AggregatorLost")
        assert running["message"].endswith("cannot run yet (Unschedulable): No node has enough memory free.")
        scene.runtime.drain("aggregator-uid-3")
        await asyncio.sleep(1.0)
        assert "started again" in (await running_condition(scene))["message"]
        scene.now += restarts.LONGEST_DELAY_SECONDS
        scene.controller.notify()
        await scene.settle()
    scene.runtime.happened.put_nowait(runtimes.Started("aggregator-uid-3", "1"))
    await scene.settle()
    assert (await running_condition(scene))["reason"] == "Resuming"


async def test_deaths_are_forgotten_when_it_has_run_well_for_a_while(scene: Scene) -> None:
    """A round may take days; a death in each of its hours is not the same trouble again and again."""
    await scene.training(server={"maximumRestarts": 1})
    await scene.settle()
    scene.edges.aggregator = snapshot.Aggregator(progress=snapshot.Progress(round=1))
    for _ in range(5):
        scene.now += restarts.STABLE_SECONDS
        await scene.died("aggregator-uid-3", "MemoryError")
    assert ((await scene.status())["phase"], scene.runtime.starts) == ("Running", 6)
    await scene.died("aggregator-uid-3", "MemoryError")
    assert (await scene.status())["phase"] == "Failed"


@pytest.mark.parametrize(
    ("exit_status", "reason", "words"),
    [
        (restarts.NO_ROOM, "StorageFull", "make the volume larger"),
        (restarts.HELD, "AggregatorLost", "Another aggregator"),
        (restarts.DAMAGED, "JournalDamaged", "Put them back"),
        (restarts.OTHER_APP, "JournalOfAnotherApp", "Put the app that the training began with back"),
        (restarts.REFUSED, "AggregatorLost", "The hub refused"),
        (restarts.UNREADABLE, "StorageUnavailable", "Mend the volume"),
    ],
)
async def test_an_aggregator_that_could_not_begin_is_started_until_it_can(
    exit_status: int, reason: str, words: str, scene: Scene
) -> None:
    """However often: it has not died. Status says what it waits for, also while the next one starts."""
    await scene.training(server={"maximumRestarts": 1})
    await scene.settle()
    scene.edges.aggregator = snapshot.Aggregator(progress=snapshot.Progress(round=2))
    scene.edges.silent = True
    for attempt in range(4):
        scene.runtime.end("aggregator-uid-3", exit_status)
        for _ in range(2):  # it is noticed, then it is started again
            await asyncio.sleep(restarts.NOT_NOW_SECONDS + 1)
            await scene.settle()
            status = await scene.status()
            assert status["phase"] == "Running"
            running = next(entry for entry in status["conditions"] if entry["type"] == "Running")
            assert (running["reason"], words in running["message"]) == (reason, True)
            scene.now += restarts.NOT_NOW_SECONDS
        assert scene.runtime.starts == attempt + 2
    scene.edges.silent = False
    for _ in range(2):
        await scene.died("aggregator-uid-3", "MemoryError")
    assert scene.runtime.starts == 6
    assert (await scene.status())["phase"] == "Failed"


@pytest.mark.parametrize("state", ["running", "suspended", "finished", "not begun"])
async def test_the_journal_of_a_training_that_is_deleted_goes(state: str, scene: Scene) -> None:
    """When its aggregator is gone; one that finished has tidied up, and one that never began has none."""
    if state == "not begun":
        await scene.training(clusters={"minimum": 5})
        await scene.settle()
    else:
        await scene.training()
        await scene.settle()
        progress = snapshot.Progress(round=2, round_started_at=START)
        scene.edges.aggregator = snapshot.Aggregator(address="10.0.0.1:7443", progress=progress)
        await scene.settle()
    if state == "suspended":
        await scene.training(suspend=True)
        await scene.settle()
    elif state == "finished":
        finished = snapshot.Finished(True, "AllRoundsDone", "done")
        scene.edges.aggregator = snapshot.Aggregator(
            address="10.0.0.1:7443", progress=dataclasses.replace(progress, finished=finished)
        )
        scene.controller.notify()
        await scene.settle()
    await scene.store.delete(KEY)
    await scene.settle()
    tidies = [name for name in scene.runtime.running if name.startswith(workloads.TIDY_PREFIX)]
    assert tidies == (["tidy-uid-3"] if state in ("running", "suspended") else [])
    assert "aggregator-uid-3" not in scene.runtime.running


async def test_an_aggregator_that_cannot_start_fails_the_training(scene: Scene) -> None:
    """The runtime's words are in the condition."""
    scene.runtime.fails = runtimes.WorkloadNotStarted("aggregator", "no such file")
    await scene.training()
    await scene.settle()
    failed = next(entry for entry in (await scene.status())["conditions"] if entry["type"] == "Failed")
    assert "could not be started, workload aggregator: not started: no such file" in failed["message"]


REFUSAL = 'pods "aggregator" is forbidden: exceeded quota: compute'


async def running_condition(scene: Scene) -> dict[str, Any]:
    found = (entry for entry in (await scene.status())["conditions"] if entry["type"] == "Running")
    return next(found)


@pytest.mark.parametrize("when", ["resumed", "taken over", "started again"])
async def test_a_start_that_is_refused_in_mid_training_is_tried_until_it_is_made(
    when: str, scene: Scene
) -> None:
    """Hours of training are not lost to a quota; status has the refusal's own words."""
    await scene.training(suspend=when == "resumed", server={"maximumRestarts": 1})
    if when != "started again":
        await scene.store.patch_status(KEY, PLAYED, None)
        scene.runtime.fails = runtimes.WorkloadNotStarted("aggregator", REFUSAL)
    await scene.settle()
    if when == "resumed":
        await scene.training(server={"maximumRestarts": 1})
        await scene.settle()
    elif when == "started again":
        scene.edges.aggregator = snapshot.Aggregator(progress=snapshot.Progress(round=5))
        scene.runtime.fails = runtimes.WorkloadNotStarted("aggregator", REFUSAL)
        await scene.died("aggregator-uid-3")
    made = scene.runtime.starts
    for pause in (20.0, 40.0, *[60.0] * 20):
        running = await running_condition(scene)
        assert (running["reason"], REFUSAL in running["message"]) == ("AggregatorLost", True)
        scene.now += pause - 1
        scene.runtime.asked = 0
        scene.controller.notify()
        await scene.settle()
        assert scene.runtime.asked == 0
        scene.now += 1
        scene.controller.notify()
        await scene.settle()
        assert scene.runtime.asked == 1
    assert (await scene.status())["phase"] in ("Preparing", "Running")
    scene.runtime.fails = None
    scene.now += 60.0
    scene.controller.notify()
    await scene.settle()
    assert (scene.runtime.starts, len(scene.runtime.running)) == (made + 1, 1)
    assert REFUSAL not in (await running_condition(scene))["message"]


async def test_an_aggregator_is_started_when_what_runs_it_answers_again(scene: Scene) -> None:
    """An API server that is away as it is started fails no training; what runs is not known before that."""
    scene.runtime.fails = runtimes.RuntimeAway("workload aggregator: not started yet: no answer")
    await scene.training()
    await scene.settle()
    assert not scene.edges.all_expected
    scene.runtime.fails = None
    await asyncio.sleep(controller.RETRY_SECONDS)
    await scene.settle()
    assert (await scene.status())["phase"] != "Failed"
    assert scene.runtime.starts == 1
    assert scene.edges.all_expected


async def test_suspending_stops_and_resuming_starts_again(scene: Scene) -> None:
    """A suspension ends clients and aggregator without failing the training."""
    await scene.training()
    await scene.settle()
    await scene.training(suspend=True)
    await scene.settle()
    assert (await scene.status())["phase"] == "Suspended"
    assert scene.edges.wanted == {"budapest": (), "zurich": ()}
    assert not scene.runtime.running
    await scene.training()
    await scene.settle()
    assert (await scene.status())["phase"] == "Preparing"
    assert (scene.runtime.starts, len(scene.runtime.running)) == (2, 1)


async def test_deleting_a_training_stops_everything(scene: Scene) -> None:
    """Neither clients nor aggregator outlive the resource."""
    await scene.training()
    await scene.settle()
    await scene.store.delete(KEY)
    await scene.settle()
    assert scene.edges.wanted == {"budapest": (), "zurich": ()}
    assert list(scene.runtime.running) == ["tidy-uid-3"]


async def test_deleting_a_training_revokes_its_certificates(scene: Scene) -> None:
    """Until the last of them has ended, or there is a training of this name again."""
    await scene.training()
    await scene.settle()
    assert scene.revoked == authorisation.NONE_REVOKED
    await scene.store.delete(KEY)
    await scene.settle()
    assert scene.revoked == authorisation.Revocations(trainings=frozenset({("cardiology", "hospitals")}))
    aggregator = identities.AggregatorIdentity("hanse.local", "cardiology", "hospitals")
    client = identities.ClientIdentity("hanse.local", "zurich", "cardiology", "hospitals", "heart")
    for identity in (aggregator, client):
        denied = scene.revoked.find(identity)
        assert denied is not None and denied.reason is denials.Reason.REVOKED
    scene.now += 86_401
    await scene.cluster("geneva")
    await scene.settle()
    assert scene.revoked == authorisation.NONE_REVOKED


async def test_a_training_of_the_name_of_a_deleted_one_is_let_in(scene: Scene) -> None:
    """What was revoked was the earlier one's."""
    await scene.training()
    await scene.settle()
    await scene.store.delete(KEY)
    await scene.settle()
    await scene.training()
    await scene.settle()
    assert scene.revoked == authorisation.NONE_REVOKED


async def test_expelling_revokes_at_once_and_leaves_the_roster(scene: Scene) -> None:
    """An expelled cluster is revoked, and the aggregator is told not to wait for it."""
    await scene.training()
    await scene.settle()
    await scene.cluster("zurich", "Expelled")
    await scene.settle()
    assert scene.revoked.clusters == {"zurich"}
    assert [(member.cluster, member.expected) for member in scene.edges.roster] == [
        ("budapest", True),
        ("zurich", False),
    ]
    assert scene.edges.wanted["zurich"] == ()


async def test_a_cluster_that_leaves_is_out_at_once(scene: Scene) -> None:
    """No grace is given to its link, it is asked nothing more, and the status says who ended it."""
    await scene.training()
    await scene.settle()
    key = stores.Key("EdgeCluster", "", "zurich")
    left = {"type": "Joined", "status": "False", "reason": "Left"}
    await scene.store.patch_status(key, {"datasets": [], "conditions": [left]}, None)
    scene.edges.lost["zurich"] = scene.now
    await scene.settle()
    assert [(member.cluster, member.expected, member.reason) for member in scene.edges.roster] == [
        ("budapest", True, ""),
        ("zurich", False, "ClusterLeft"),
    ]
    assert scene.edges.wanted["zurich"] == ()
    entry = (await scene.status())["clusters"][1]
    assert (entry["name"], entry["state"], entry["reason"]) == ("zurich", "Left", "ClusterLeft")
    assert "`hanse token create --cluster zurich`" in entry["message"]
    assert "ClusterLeft" in scene.events()


async def test_a_lost_link_is_looked_at_again_when_its_grace_ends(scene: Scene) -> None:
    """Without any further news, the roster changes when the time is over."""
    await scene.training()
    await scene.settle()
    scene.now += 100
    scene.edges.lost["zurich"] = scene.now
    scene.controller.notify()
    await scene.settle()
    assert [member.expected for member in scene.edges.roster] == [True, True]
    scene.now += 30
    await asyncio.sleep(31)
    assert [member.expected for member in scene.edges.roster] == [True, False]


async def test_a_bad_app_starts_nothing(scene: Scene) -> None:
    """The training waits with the reason, and goes on when the app is right."""
    scene.apps.app = snapshot.Problem("DigestMismatch", "The app has another digest.")
    await scene.training()
    await scene.settle()
    assert (await scene.status())["phase"] == "Pending"
    assert scene.runtime.starts == 0
    scene.apps.app = snapshot.App(digest="sha256:" + "9f" * 32)
    scene.controller.notify()
    await scene.settle()
    assert scene.runtime.starts == 1


async def test_an_app_that_cannot_be_read_any_more_fails_nothing(scene: Scene) -> None:
    """The training waits with the reason, and another aggregator goes on when the app is back."""
    await scene.training()
    await scene.settle()
    scene.apps.app = snapshot.Problem("AppNotFound", "There is no such ConfigMap.")
    scene.controller.notify()
    await scene.settle()
    assert ((await scene.status())["phase"], scene.runtime.running) == ("Pending", {})
    scene.apps.app = snapshot.App(digest="sha256:" + "9f" * 32)
    await asyncio.sleep(planning.NEEDED_SECONDS)
    await scene.settle()
    assert ((await scene.status())["phase"], scene.runtime.starts) == ("Preparing", 2)


async def test_rules_that_change_are_told_while_it_runs(scene: Scene) -> None:
    """Quorum and deadline of the spec go to the running aggregator, which is not started again."""
    await scene.training()
    await scene.settle()
    await scene.training(clusters={"minimum": 1}, round={"deadlineSeconds": 30, "minimumFraction": "0.5"})
    await scene.settle()
    assert scene.edges.rules == desired.RoundRules(1, "0.5", 30.0, "Discard")
    assert scene.runtime.starts == 1


async def test_a_stop_ends_everything_for_good(scene: Scene) -> None:
    """The aggregator is told; when it has ended the training is Stopped, and nothing starts again."""
    await scene.training()
    await scene.settle()
    await scene.training(stop=True)
    await scene.settle()
    assert (await scene.status())["phase"] == "Stopped"
    assert scene.edges.wanted == {"budapest": (), "zurich": ()}
    assert not scene.runtime.running
    assert scene.events()[-1] == "StopRequested"
    await scene.training()  # the API server would refuse it; the hub does not believe it either
    await scene.settle()
    assert ((await scene.status())["phase"], scene.runtime.starts) == ("Stopped", 1)


async def test_an_edge_that_flaps_is_told_of_in_few_words(scene: Scene) -> None:
    """Whether lost or back, the same words come each time, which one Event can count."""
    scene.edges.said = {name: snapshot.Report("RUNNING") for name in ("budapest", "zurich")}
    await scene.training()
    await scene.settle()
    for _ in range(20):
        scene.edges.lost["zurich"] = scene.now
        scene.controller.notify()
        await scene.settle()
        del scene.edges.lost["zurich"]
        scene.controller.notify()
        await scene.settle()
    told = [
        line["object"]["message"]
        for line in scene.lines
        if line["type"] == "EVENT" and line["object"]["reason"].startswith("Cluster")
    ]
    assert (len(told), len(set(told))) == (40, 2)


async def test_the_oldest_finished_trainings_go() -> None:
    """Beyond what the hub keeps, those that ended first are deleted; what runs stays."""
    made = Scene(finished_kept=1)
    for number in (1, 2, 3):
        await made.training()
        resource = await made.store.get(KEY)
        name = f"old-{number}"
        await made.store.apply(resource | {"metadata": {"name": name, "namespace": "cardiology"}})
        ended = {
            "phase": "Completed",
            "completedAt": f"2026-01-0{number}T00:00:00Z",
            "conditions": [{"type": "Completed", "status": "True", "reason": "AllRoundsDone"}],
        }
        await made.store.patch_status(stores.Key(KEY.kind, KEY.namespace, name), ended, None)
    work = asyncio.create_task(made.controller.run())
    await made.settle()
    left = [resource["metadata"]["name"] for resource in (await made.store.list(KEY.kind)).items]
    assert sorted(left) == ["hospitals", "old-3"]
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_what_an_earlier_hub_knew_is_not_forgotten_when_its_aggregator_had_ended() -> None:
    """A hub that comes to lead learns of the end while it plans; no picture without it is written."""
    made = Scene()
    await made.cluster("budapest")
    await made.cluster("zurich")
    await made.training()
    round_ = {"current": 20, "total": 20}
    known = await made.store.patch_status(KEY, {"phase": "Running", "round": round_}, None)
    done = snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "file:///m/20", "5b" * 32, 20)
    name = workloads.workload_name(known["metadata"]["uid"])
    made.runtime.durable = True
    for event in (
        runtimes.Started(name, "1"),
        runtimes.Exited(name, 0, None, (), "AllRoundsDone", "Done.", last_words.write(done)),
    ):
        made.runtime.happened.put_nowait(event)
    made.lines.clear()
    work = asyncio.create_task(made.controller.run())
    await made.settle()
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    changes = (line["object"] for line in made.lines if line["type"] == "MODIFIED")
    phases = [one["status"]["phase"] for one in changes if one["kind"] == "FederatedTraining"]
    assert set(phases) == {"Completed"}
    assert (await made.status())["round"] == round_
    assert made.runtime.starts == 0


AGGREGATOR = "aggregator-uid-3"


@contextlib.asynccontextmanager
async def succeeded(
    status: Mapping[str, Any], *, app: snapshot.Problem | None = None, **spec: Any
) -> AsyncIterator[Scene]:
    """A hub that comes to lead and finds another's aggregator running; the spec was changed meanwhile.

    app: what is wrong with the training's, if anything is.
    """
    made = Scene()
    await made.cluster("budapest")
    await made.cluster("zurich")
    await made.training(**spec)
    await made.store.patch_status(KEY, status, None)
    made.runtime.durable = True
    made.runtime.running[AGGREGATOR] = runtimes.Workload(
        AGGREGATOR, ("aggregator",), pathlib.PurePath("/nowhere")
    )
    made.runtime.happened.put_nowait(runtimes.Started(AGGREGATOR, "1"))
    made.apps.app = app or made.apps.app
    work = asyncio.create_task(made.controller.run())
    await made.settle()
    yield made
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def dials(scene: Scene) -> None:
    """The aggregator that runs has found the hub that leads now."""
    scene.edges.aggregator = snapshot.Aggregator(
        address="10.0.0.1:7443", progress=snapshot.Progress(round=5, round_started_at=START)
    )
    scene.controller.notify()
    await scene.settle()


async def test_an_aggregator_whose_image_is_allowed_no_more_is_ended_until_it_is() -> None:
    """An earlier coordinator had started it; the training keeps what it reached, and has not failed."""
    round_ = {"current": 7, "total": 20}
    refused = snapshot.Problem("ImageNotAllowed", "The hub's operator allows it no more.")
    async with succeeded({"phase": "Running", "round": round_}, app=refused) as scene:
        assert not scene.runtime.running
        told = await scene.status()
        assert (told["phase"], told["summary"]["reason"]) == ("Pending", "ImageNotAllowed")
        assert told["round"] == round_
        scene.apps.app = snapshot.App(digest="sha256:" + "9f" * 32)
        await asyncio.sleep(planning.NEEDED_SECONDS + 1)
        await scene.settle()
        assert list(scene.runtime.running) == [AGGREGATOR]
        assert (await scene.status())["phase"] != "Failed"


async def test_a_suspension_while_nobody_led_suspends_the_aggregator_that_runs() -> None:
    """The next leader takes it over, tells it, and starts another one when the training goes on."""
    async with succeeded(PLAYED, suspend=True) as scene:
        assert (scene.edges.expected, AGGREGATOR in scene.runtime.running) == ({"uid-3"}, True)
        assert scene.edges.stop is not None
        assert scene.edges.stop.reason == "SuspendRequested"
        await dials(scene)
        status = await scene.status()
        assert (status["phase"], status["summary"]["round"], scene.runtime.running) == ("Suspended", "5", {})
        await scene.training()
        await scene.settle()
        assert (scene.runtime.starts, (await scene.status())["phase"]) == (1, "Preparing")


@pytest.mark.parametrize("phase", ["Running", "Preparing"])
async def test_a_stop_while_nobody_led_still_gives_the_model(phase: str) -> None:
    """The aggregator that runs is heard, told, and has its time to store what it reached."""
    async with succeeded(PLAYED | {"phase": phase}, stop=True) as scene:
        assert scene.edges.stop is not None
        assert scene.edges.stop.reason == "StopRequested"
        await asyncio.sleep(workloads.HEARING_SECONDS / 2)
        await dials(scene)
        await asyncio.sleep(controller.STORING_SECONDS / 2)
        assert (AGGREGATOR in scene.runtime.running, (await scene.status())["phase"]) == (True, "Running")
        words = snapshot.Finished(False, "StopRequested", "Stopped.", "pvc://m/5", "5b" * 32, 5)
        del scene.runtime.running[AGGREGATOR]
        scene.runtime.happened.put_nowait(
            runtimes.Exited(AGGREGATOR, 1, None, (), "StopRequested", "Stopped.", last_words.write(words))
        )
        await asyncio.sleep(1.0)
        await scene.settle()
        status = await scene.status()
        assert (status["phase"], status["model"]["round"]) == ("Stopped", 5)


@pytest.mark.parametrize("over", ["completed", "suspended", "not accepted"])
async def test_an_aggregator_that_is_not_heard_and_not_wanted_is_ended(over: str) -> None:
    """It does not run for ever, and its end fails nothing."""
    completed = [{"type": "Completed", "status": "True", "reason": "AllRoundsDone"}]
    status = {"phase": "Completed", "conditions": completed} if over == "completed" else PLAYED
    async with succeeded(status, suspend=over == "suspended") as scene:
        if over == "not accepted":
            scene.apps.app = snapshot.Problem("AppNotFound", "There is no such ConfigMap.")
            scene.controller.notify()
            await scene.settle()
        assert AGGREGATOR in scene.runtime.running
        scene.now += workloads.HEARING_SECONDS
        await asyncio.sleep(workloads.HEARING_SECONDS + 1)
        await scene.settle()
        assert not scene.runtime.running
        want = {"completed": "Completed", "suspended": "Suspended", "not accepted": "Pending"}
        assert (await scene.status())["phase"] == want[over]
        if over == "not accepted":
            scene.apps.app = snapshot.App(digest="sha256:" + "9f" * 32)
            await asyncio.sleep(planning.NEEDED_SECONDS)
            await scene.settle()
            assert (scene.runtime.starts, (await scene.status())["phase"]) == (1, "Preparing")


@pytest.mark.parametrize("dials_after", [None, 500.0])
async def test_one_that_was_taken_over_and_is_never_heard_is_started_again(dials_after: float | None) -> None:
    """Its certificate lapsed in a long outage, say. One that does dial goes on, however late it does."""
    async with succeeded(PLAYED) as scene:
        scene.edges.silent = True
        scene.now += workloads.HEARING_SECONDS
        await asyncio.sleep(workloads.HEARING_SECONDS + 1)
        await scene.settle()
        running = await running_condition(scene)
        assert (running["reason"], "has not dialled" in running["message"]) == ("AggregatorLost", True)
        if dials_after is not None:
            scene.edges.silent = False
            await dials(scene)
        scene.now += workloads.UNHEARD_SECONDS
        await asyncio.sleep(workloads.UNHEARD_SECONDS)
        await scene.settle()
        assert scene.runtime.starts == (dials_after is None)
        assert list(scene.runtime.running) == [AGGREGATOR]
        scene.now += 10 * workloads.UNHEARD_SECONDS
        scene.controller.notify()
        await scene.settle()
        assert scene.runtime.starts == (dials_after is None), "the one that was started has its own time"
        assert (await scene.status())["phase"] in ("Preparing", "Running")
