"""Making plans true: gather a Snapshot of every training, plan, apply; again at every change.

Level-triggered: it never acts on what happened, only on what is the case, so a missed or doubled notification
costs nothing. Bursts of changes are one round of work, and nothing runs while nothing changes. This module
refuses to decide (``coordinator.planning`` does) and to know how streams, processes and files work: those
stand behind the protocols here.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

from coordinator.clients import members
from coordinator.planning import desired, snapshot, status
from federation.api import cluster as cluster_api
from federation.api import reasons
from federation.runtime import port as runtimes
from federation.store import port as stores
from federation.telemetry import logs

_log = logs.get_logger(__name__)

TRAINING = "FederatedTraining"

BURST_SECONDS = 0.02
"""Changes that come within this time are planned together; a person does not see it, and a storm of reports
costs fifty plans a second at most.
"""

RETRY_SECONDS = 5.0
"""A training that could not be planned is looked at again after so long, even without news."""

STOP_GRACE_SECONDS = 10.0
"""An aggregator that is to stop may finish what it writes; a model was stored before it said so."""

DRAIN_SECONDS = 2.0
"""The end of a process can be seen before the last words on its stream are read."""


class Agents(Protocol):
    """What is known of the edge agents' sessions, and the way to tell them."""

    def connected(self, cluster: str) -> bool:
        """Whether the cluster has a session."""
        ...

    def disconnected_at(self, cluster: str) -> float:
        """Since when it has none."""
        ...

    def reports(self, uid: str) -> Mapping[str, snapshot.Report]:
        """What the edges say of one training."""
        ...

    def assign(self, cluster: str, wanted: Sequence[desired.Assignment]) -> None:
        """Say what the cluster is asked to do."""
        ...


class Aggregators(Protocol):
    """What is known of the aggregators' sessions, and the way to tell them."""

    def expect(self, uid: str, namespace: str, name: str) -> None:
        """An aggregator is being started."""
        ...

    def forget(self, uid: str) -> None:
        """It is gone."""
        ...

    def observed(self, uid: str) -> snapshot.Aggregator:
        """What it said."""
        ...

    def direct(
        self,
        uid: str,
        roster: tuple[desired.RosterMember, ...],
        rules: desired.RoundRules,
        stop: desired.Stop | None,
    ) -> None:
        """Say what it should be told."""
        ...

    async def drained(self, uid: str, timeout_seconds: float) -> None:
        """Wait until an ended process's last words are read."""
        ...


class Apps(Protocol):
    """What became of the trainings' apps."""

    async def resolve(self, resource: Mapping[str, Any]) -> snapshot.App | snapshot.Problem:
        """Return a training's app, or why there is none."""
        ...

    def forget(self, uid: str) -> None:
        """The training is gone."""
        ...


Launch = Callable[[snapshot.Training, int], Coroutine[Any, Any, runtimes.Workload]]
"""Writes the aggregator's credentials and returns the workload that runs it, for so many clusters."""

Revoke = Callable[[frozenset[str]], object]
"""Puts the whole set of expelled clusters in force and cuts their streams."""


@dataclasses.dataclass
class _Process:
    """One aggregator's process, from the wish to start it until nothing is left of it."""

    uid: str
    exit: snapshot.Exit | None = None
    winding_down: asyncio.Task[None] | None = None
    suspended: bool = False


class Controller:
    """Reconciles all trainings of one hub."""

    def __init__(
        self,
        *,
        store: stores.Store,
        runtime: runtimes.Runtime,
        agents: Agents,
        aggregators: Aggregators,
        apps: Apps,
        launch: Launch,
        revoke: Revoke,
        roll: members.Members,
        now: Callable[[], float],
        limits: snapshot.Limits,
        stop_grace_seconds: float = STOP_GRACE_SECONDS,
    ) -> None:
        """Wire it; nothing runs before `run`."""
        self._store = store
        self._runtime = runtime
        self._agents = agents
        self._aggregators = aggregators
        self._apps = apps
        self._launch = launch
        self._revoke = revoke
        self._roll = roll
        self._now = now
        self._limits = limits
        self._stop_grace_seconds = stop_grace_seconds
        self._trainings: dict[stores.Key, stores.Resource] = {}
        self._clusters: dict[stores.Key, stores.Resource] = {}
        self._placed: dict[str, frozenset[str]] = {}
        self._plans: dict[str, tuple[snapshot.Training, desired.Plan]] = {}
        self._asked: set[str] = set()
        self._processes: dict[str, _Process] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._dirty = asyncio.Event()
        self.reconciled = 0

    def notify(self) -> None:
        """Something changed; to be called from the loop's thread."""
        self._dirty.set()

    async def run(self) -> None:
        """Reconcile until cancelled. Ends no workloads: whoever owns the runtime closes it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(TRAINING, self._trainings))
            group.create_task(self._follow(members.KIND, self._clusters))
            group.create_task(self._watch_workloads())
            group.create_task(self._loop())

    async def _loop(self) -> None:
        recheck_at: float | None = None
        while True:
            try:
                async with asyncio.timeout(
                    None if recheck_at is None else max(recheck_at - self._now(), 0.0)
                ):
                    await self._dirty.wait()
                await asyncio.sleep(BURST_SECONDS)
            except TimeoutError:
                pass
            self._dirty.clear()
            recheck_at = await self.reconcile()

    async def reconcile(self) -> float | None:
        """Plan and apply every training once; return when to look again without news, or None."""
        self.reconciled += 1
        wanted: dict[str, list[desired.Assignment]] = {name: [] for name in self._asked}
        running: dict[str, list[dict[str, str]]] = {key.name: [] for key in self._clusters}
        rechecks: list[float] = []
        unwritten = False
        for key in sorted(self._trainings):
            try:
                training, plan, written = await self._reconcile_training(key)
            except Exception:
                # What one training's app or edges said must not end the hub for all the others.
                _log.exception("training not reconciled", training=f"{key.namespace}/{key.name}")
                rechecks.append(self._now() + RETRY_SECONDS)
                known = self._plans.get(self._trainings[key]["metadata"]["uid"])
                if known is None:
                    continue
                training, plan, written = *known, True
            for cluster, assignment in sorted(plan.assignments.items()):
                wanted.setdefault(cluster, []).append(assignment)
            for cluster in self._placed[training.uid] & running.keys():
                running[cluster].append({"namespace": training.namespace, "name": training.name})
            if not written and plan.stage is desired.Stage.ENDED:
                # The last status needs what the edges said; it is not to be dropped before that is written.
                unwritten = True
            if plan.recheck_at is not None:
                rechecks.append(plan.recheck_at)
        if unwritten:
            return self._now() + BURST_SECONDS
        for cluster, assignments in wanted.items():
            self._agents.assign(cluster, assignments)
        self._asked = {cluster for cluster, assignments in wanted.items() if assignments}
        for cluster, references in running.items():
            await self._apply_trainings(cluster, references)
        return min(rechecks, default=None)

    async def _reconcile_training(self, key: stores.Key) -> tuple[snapshot.Training, desired.Plan, bool]:
        """Plan one training and apply it, but for the assignments; say whether the status is written."""
        snap = await self._gather(self._trainings[key])
        plan = desired.plan(snap)
        self._plans[snap.training.uid] = snap.training, plan
        self._placed[snap.training.uid] = frozenset(
            member.cluster for member in plan.members if member.placed and plan.assignments
        )
        self._aggregators.direct(snap.training.uid, plan.roster, plan.rules, plan.stop)
        await self._apply_process(snap.training, plan)
        return snap.training, plan, await self._apply_status(key, snap, plan)

    async def _gather(self, resource: stores.Resource) -> snapshot.Snapshot:
        training = snapshot.training_of(resource, await self._apps.resolve(resource))
        clusters = tuple(
            snapshot.cluster_of(
                self._clusters[key],
                connected=self._agents.connected(key.name),
                other_trainings=sum(
                    key.name in placed for uid, placed in self._placed.items() if uid != training.uid
                ),
                disconnected_at=self._agents.disconnected_at(key.name),
            )
            for key in sorted(self._clusters)
        )
        process = self._processes.get(training.uid)
        over = desired.ended(training) or training.suspended
        if process is not None and process.exit is not None and over and process.winding_down is not None:
            # It was told to end, has ended, and the status knows: nothing of it matters any more.
            self._drop(process)
            process = None
        aggregator = dataclasses.replace(
            self._aggregators.observed(training.uid),
            started=process is not None,
            # That it ended because of a suspension is no failure, even if the suspension is over by now.
            exit=None if process is None or process.suspended else process.exit,
        )
        return snapshot.Snapshot(
            training, clusters, self._agents.reports(training.uid), aggregator, self._now(), self._limits
        )

    async def _apply_process(self, training: snapshot.Training, plan: desired.Plan) -> None:
        process = self._processes.get(training.uid)
        if plan.aggregator_wanted:
            if process is None:
                await self._start(training, plan)
            elif process.suspended and process.exit is not None:
                self._drop(process)
                await self._start(training, plan)
        elif process is not None and process.winding_down is None:
            process.suspended = plan.stage is desired.Stage.SUSPENDED
            self._wind_down(process, self._stop_grace_seconds)

    async def _start(self, training: snapshot.Training, plan: desired.Plan) -> None:
        process = self._processes[training.uid] = _Process(training.uid)
        self._aggregators.expect(training.uid, training.namespace, training.name)
        try:
            clusters = sum(member.placed for member in plan.members)
            await self._runtime.start(await self._launch(training, clusters))
        except (runtimes.RuntimeFailure, OSError) as error:
            process.exit = snapshot.Exit(f"it could not be started, {error}")
        _log.info("aggregator started", training=f"{training.namespace}/{training.name}", uid=training.uid)
        self.notify()

    def _wind_down(self, process: _Process, wait_seconds: float) -> None:
        async def work() -> None:
            # It ends by itself after its last report or after being told; force comes only after that.
            waited = 0.0
            while process.exit is None and waited < wait_seconds:
                await asyncio.sleep(0.1)
                waited += 0.1
            await self._runtime.stop(workload_name(process.uid), self._stop_grace_seconds)
            self.notify()

        process.winding_down = asyncio.create_task(work())
        self._ending.add(process.winding_down)
        process.winding_down.add_done_callback(self._ending.discard)

    def _drop(self, process: _Process) -> None:
        self._processes.pop(process.uid, None)
        self._aggregators.forget(process.uid)

    async def _apply_status(self, key: stores.Key, snap: snapshot.Snapshot, plan: desired.Plan) -> bool:
        """Write the status if it changed; return whether the store has it now."""
        rendered = status.render(snap, plan)
        before = snap.training.status
        if rendered == before:
            return True
        resource = self._trainings[key]
        try:
            stored = await self._store.patch_status(key, rendered, stores.version_of(resource))
        except (stores.ConflictError, stores.NotFoundError):
            self.notify()  # the newer state is on its way here
            return False
        if self._trainings.get(key) is resource:
            self._trainings[key] = stored
        if rendered["phase"] != before.get("phase"):
            why = status.phase_condition(rendered)
            bad = rendered["phase"] == reasons.TrainingPhase.FAILED
            kind = stores.EventType.WARNING if bad else stores.EventType.NORMAL
            await self._store.record_event(stores.Event(key, kind, why["reason"], why["message"]))
            _log.info(
                "training changed phase",
                training=f"{key.namespace}/{key.name}",
                previous=before.get("phase", ""),
                state=rendered["phase"],
                reason=why["reason"],
            )
        return True

    async def _apply_trainings(self, name: str, references: list[dict[str, str]]) -> None:
        known = (self._clusters[members.key(name)].get("status") or {}).get("trainings") or []
        if known == references:
            return

        def change(member_status: members.Status) -> None:
            member_status["trainings"] = references

        await self._roll.update(name, change)

    async def _follow(self, kind: str, cache: dict[stores.Key, stores.Resource]) -> None:
        async for change in stores.follow(self._store, kind):
            key = stores.key_of(change.resource)
            if change.type is stores.ChangeType.DELETED:
                cache.pop(key, None)
                if kind == TRAINING:
                    self._forget(change.resource["metadata"]["uid"])
            else:
                cache[key] = change.resource
            if kind == members.KIND:
                self._revoke(
                    frozenset(
                        entry.name
                        for entry, resource in self._clusters.items()
                        if resource["spec"].get("acceptance") == cluster_api.Acceptance.EXPELLED
                    )
                )
            self.notify()

    def _forget(self, uid: str) -> None:
        """A training was deleted: its assignments go with the next reconcile, its aggregator now."""
        self._apps.forget(uid)
        self._placed.pop(uid, None)
        self._plans.pop(uid, None)
        process = self._processes.pop(uid, None)
        self._aggregators.forget(uid)
        if process is not None:
            self._wind_down(process, 0.0)

    async def _watch_workloads(self) -> None:
        events: AsyncIterator[runtimes.WorkloadEvent] = self._runtime.events()
        async for event in events:
            if isinstance(event, runtimes.Exited):
                process = next(
                    (p for p in self._processes.values() if workload_name(p.uid) == event.name), None
                )
                if process is not None:
                    await self._aggregators.drained(process.uid, DRAIN_SECONDS)
                    how = f"signal {event.signal}" if event.signal else f"exit status {event.exit_code}"
                    process.exit = snapshot.Exit(how, event.log_tail)
                    _log.info("aggregator ended", uid=process.uid, reason=how)
                    self.notify()


def workload_name(uid: str) -> str:
    """Return the name of the workload that runs a training's aggregator."""
    return f"aggregator-{uid}"[: runtimes.MAXIMUM_NAME_LENGTH].rstrip("-")
