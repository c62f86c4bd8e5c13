"""Making plans true: gather a Snapshot of every training, plan, apply; again at every change.

Level-triggered: it never acts on what happened, only on what is the case, so a missed or doubled notification
costs nothing. Bursts of changes are one round of work, and nothing runs while nothing changes. This module
refuses to decide (``coordinator.planning`` does) and to know how streams, processes and files work: those
stand behind the protocols here.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from coordinator import caches, workloads
from coordinator.clients import members
from coordinator.planning import (
    apps,
    conditions,
    desired,
    history,
    membership,
    model_stores,
    news,
    restarts,
    snapshot,
    status,
)  # fmt: skip
from federation.api import cluster as cluster_api
from federation.api import reasons
from federation.runtime import failpoints
from federation.runtime import port as runtimes
from federation.store import port as stores
from federation.telemetry import logs
from federation.trust import authorisation

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

STORING_SECONDS = 60.0
"""An aggregator whose training is stopped for good may store the model of its last round."""

CONFLICT_SECONDS = 0.25
"""A newer state than the one that was planned on is on its way here; if not, it is asked for again after so
long."""


_RESUMES = frozenset({desired.Stage.SUSPENDED, desired.Stage.NOT_ACCEPTED})
"""Stages in which an aggregator is ended that another one goes on from, so that its end is no failure."""


_UNKNOWN = snapshot.App()
"""Stands for an app that nobody has looked for yet."""


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

    def release(self) -> None:
        """What is asked of the clusters is known now: before, nobody is told anything."""
        ...


class Aggregators(workloads.Sessions, Protocol):
    """What is known of the aggregators' sessions, and the way to tell them."""

    def observed(self, uid: str) -> snapshot.Aggregator:
        """What it said."""
        ...

    def complete(self) -> None:
        """Every aggregator that may run is expected now."""
        ...

    def heard(self, uid: str) -> bool:
        """Whether it was heard of since it was last started."""
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


class Apps(Protocol):
    """What became of the trainings' apps."""

    async def resolve(self, resource: Mapping[str, Any], *, started: bool) -> snapshot.App | snapshot.Problem:
        """Return a training's app, or why there is none; started: whether it has an aggregator."""
        ...

    def forget(self, uid: str) -> None:
        """The training is gone."""
        ...


Revoke = Callable[[authorisation.Revocations], object]
"""Puts the whole set of revocations in force and cuts the streams that they concern."""


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """What became of one training's plan.

    hold: nobody is to be told of any assignment yet. recheck_at: when to look again without news, unix
    seconds.
    """

    training: snapshot.Training
    plan: desired.Plan
    hold: bool = False
    recheck_at: float | None = None


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
        launch: workloads.Launch,
        tidy: Callable[[snapshot.Training], runtimes.Workload] | None = None,
        revoke: Revoke,
        roll: members.Members,
        now: Callable[[], float],
        limits: snapshot.Limits,
        stop_grace_seconds: float = STOP_GRACE_SECONDS,
        certificate_seconds: float = 86_400.0,
        finished_kept: int | None = None,
    ) -> None:
        """Wire it; nothing runs before `run`.

        tidy: gives what removes the journal of a training that is deleted while it runs.
        certificate_seconds: how long a certificate of a training that is deleted may still be good.
        finished_kept: so many finished trainings stay in each namespace; None keeps all.
        """
        self._finished_kept = finished_kept
        self._tidy = tidy
        self._certificate_seconds = certificate_seconds
        self._store = store
        self._agents = agents
        self._aggregators = aggregators
        self._apps = apps
        self._revoke = revoke
        self._roll = roll
        self._now = now
        self._limits = limits
        self._stop_grace_seconds = stop_grace_seconds
        self._trainings, self._clusters = caches.Cache(), caches.Cache()
        self._caches = {TRAINING: self._trainings, members.KIND: self._clusters}
        self._deleted: dict[tuple[str, str], float] = {}
        self._placed: dict[str, frozenset[str]] = {}
        self._plans: dict[str, tuple[snapshot.Training, desired.Plan]] = {}
        self._asked: set[str] = set()
        self._written: dict[str, tuple[dict[str, Any], Mapping[str, Any]]] = {}
        self._dirty = asyncio.Event()
        self._workloads = workloads.Workloads(
            runtime=runtime,
            sessions=aggregators,
            launch=launch,
            now=now,
            stop_grace_seconds=stop_grace_seconds,
            on_change=self.notify,
        )
        self.reconciled = 0

    def notify(self) -> None:
        """Something changed; to be called from the loop's thread."""
        self._dirty.set()

    async def run(self, *, follow: bool = True) -> None:
        """Reconcile until cancelled. Ends no workloads: whoever owns the runtime closes it.

        follow: watch the store; without it, `observe` and `listed` say what it holds.
        """
        async with asyncio.TaskGroup() as group:
            if follow:
                for kind, cache in self._caches.items():
                    cache.listed = True
                    group.create_task(self._follow(kind))
            group.create_task(self._workloads.watch())
            group.create_task(self._loop())

    def observe(self, change: stores.Change) -> None:
        """A resource of the hub changed; the same change may come again."""
        kind = change.resource["kind"]
        self._saw(kind, self._caches[kind].observe(change))

    def listed(self, kind: str, listing: stores.ResourceList) -> None:
        """All resources of a kind, as they were at one moment."""
        self._saw(kind, self._caches[kind].replace(listing))

    def _saw(self, kind: str, gone: Sequence[stores.Resource]) -> None:
        if kind == TRAINING:
            for resource in gone:
                self._forget(resource)
        self._apply_revocations()
        self.notify()

    async def _loop(self) -> None:
        recheck_at: float | None = None
        self.notify()
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
            if all(cache.listed for cache in self._caches.values()):
                recheck_at = await self.reconcile()

    async def reconcile(self) -> float | None:
        """Plan and apply every training once; return when to look again without news, or None."""
        self.reconciled += 1
        wanted: dict[str, list[desired.Assignment]] = {name: [] for name in self._asked}
        running: dict[str, list[dict[str, str]]] = {key.name: [] for key in self._clusters}
        rechecks: list[float] = []
        barred: set[str] = set()
        hold, planned = False, True
        for key in sorted(self._trainings):
            if key not in self._trainings:
                continue  # deleted meanwhile
            try:
                outcome = await self._reconcile_training(key)
            except Exception as error:
                # What one training's app or edges said, and a store that does not answer, must not end the
                # hub for all the others.
                _log.warning(
                    "training not reconciled",
                    error=str(error),
                    exc_info=_mistake(error),
                    training=f"{key.namespace}/{key.name}",
                )
                rechecks.append(self._now() + RETRY_SECONDS)
                planned = False
                known = key in self._trainings and self._plans.get(self._trainings[key]["metadata"]["uid"])
                if not known:
                    continue
                outcome = _Outcome(*known)
            training, plan = outcome.training, outcome.plan
            if not desired.may_run(training):
                barred.add(training.uid)
            for cluster, assignment in sorted(plan.assignments.items()):
                wanted.setdefault(cluster, []).append(assignment)
            for cluster in self._placed.get(training.uid, frozenset()) & running.keys():
                running[cluster].append({"namespace": training.namespace, "name": training.name})
            hold = hold or outcome.hold
            if (moment := _earliest(outcome.recheck_at, plan.recheck_at)) is not None:
                rechecks.append(moment)
        if planned:
            self._aggregators.complete()
        if hold:
            return min(rechecks)
        failpoints.reach("coordinator.edges-assigned")
        for cluster, assignments in wanted.items():
            self._agents.assign(cluster, assignments)
        self._asked = {cluster for cluster, assignments in wanted.items() if assignments}
        self._agents.release()
        self._workloads.sweep({resource["metadata"]["uid"] for resource in self._trainings.values()} - barred)
        for namespace, name in history.surplus(list(self._trainings.values()), self._finished_kept):
            try:
                await self._delete(stores.Key(TRAINING, namespace, name))
            except stores.StoreError as error:
                _log.warning(
                    "finished training not deleted",
                    error=str(error),
                    exc_info=_mistake(error),
                    training=f"{namespace}/{name}",
                )
                rechecks.append(self._now() + RETRY_SECONDS)
        for cluster, references in running.items():
            try:
                if (moment := await self._apply_member(cluster, references)) is not None:
                    rechecks.append(moment)
            except stores.StoreError as error:
                _log.warning(
                    "cluster's status not written",
                    error=str(error),
                    exc_info=_mistake(error),
                    cluster=cluster,
                )
                rechecks.append(self._now() + RETRY_SECONDS)
        return min(rechecks, default=None)

    async def _reconcile_training(self, key: stores.Key) -> _Outcome:
        """Plan one training and apply it, but for the assignments."""
        snap = await self._gather(self._trainings[key])
        plan = desired.plan(snap)
        training, now = snap.training, self._now()
        self._plans[training.uid] = training, plan
        self._placed[training.uid] = frozenset(
            member.cluster for member in plan.members if member.placed and plan.assignments
        )
        self._aggregators.direct(training.uid, plan.roster, plan.rules, plan.stop)
        if await self._apply_process(training, plan, snap.aggregator.restart_at) and _ran(training):
            # Another leader's aggregator, running or ended, is here since now, and this picture lacks it.
            return _Outcome(training, plan, hold=True, recheck_at=now)
        speaks = plan.aggregator_wanted or plan.stage is desired.Stage.STOPPING
        if speaks and (until := self._unheard_until(training)) > now:
            # Its status says more than is known here until it has spoken; its edges go on as they are.
            return _Outcome(training, plan, hold=True, recheck_at=until)
        if not await self._apply_status(key, snap, plan):
            # The last status needs what the edges said; that is not to be dropped before it is written.
            ended = plan.stage is desired.Stage.ENDED
            return _Outcome(training, plan, hold=ended, recheck_at=now + CONFLICT_SECONDS)
        seconds = apps.look_again_seconds(training.app)
        if seconds is not None and plan.stage is not desired.Stage.ENDED:
            return _Outcome(training, plan, recheck_at=now + seconds)
        expires_at = status.expires_at(training)
        if expires_at is not None and expires_at <= now:
            await self._delete(key)
            expires_at = None
        heard_at = self._hearing_until(training)
        return _Outcome(
            training, plan, recheck_at=_earliest(expires_at, heard_at if heard_at > now else None)
        )

    async def _delete(self, key: stores.Key) -> None:
        _log.info("finished training deleted", training=f"{key.namespace}/{key.name}")
        with contextlib.suppress(stores.NotFoundError):
            await self._store.delete(key)

    async def _gather(self, resource: stores.Resource) -> snapshot.Snapshot:
        known = snapshot.training_of(resource, _UNKNOWN)
        await self._workloads.take_over(known, over=desired.ended(known))
        started = self._workloads.find(known.uid) is not None
        training = snapshot.training_of(resource, await self._apps.resolve(resource, started=started))
        clusters = tuple(
            snapshot.cluster_of(
                self._clusters[key],
                connected=self._agents.connected(key.name),
                other_trainings=sum(
                    key.name in placed for uid, placed in self._placed.items() if uid != training.uid
                ),
                disconnected_at=self._agents.disconnected_at(key.name),
                left=membership.has_left(self._clusters[key].get("status") or {}),
            )
            for key in sorted(self._clusters)
        )
        process = self._workloads.find(training.uid)
        over = desired.ended(training) or training.suspended
        left = None if process is None or process.exit is None else process.exit.finished
        if process is not None and process.gone and over and process.winding_down is not None:
            # It was told to end, has ended, and the status knows: nothing of it matters any more.
            self._workloads.drop(process)
            process = None
        observed = self._aggregators.observed(training.uid)
        if left is not None and observed.progress.finished is None:
            # It could tell nobody, and left word.
            observed = dataclasses.replace(
                observed, progress=dataclasses.replace(observed.progress, finished=left)
            )
        aggregator = dataclasses.replace(
            observed,
            started=process is not None,
            # That it ended because of a suspension is no failure, even if the suspension is over by now.
            exit=None if process is None or process.suspended else process.exit,
            waiting=None if process is None else process.waiting,
            recovering=apps.needed(training.app) if process is None else None,
        )
        if process is not None:
            aggregator = self._recovering(training, process, aggregator)
        return snapshot.Snapshot(
            training, clusters, self._agents.reports(training.uid), aggregator, self._now(), self._limits
        )

    def _recovering(
        self, training: snapshot.Training, process: workloads.Process, aggregator: snapshot.Aggregator
    ) -> snapshot.Aggregator:
        """Return the picture of an aggregator that died and may be started again: that is no end yet.

        So may one that was taken over and is not heard: its certificate may have lapsed while nobody led.
        """
        number = aggregator.progress.round
        if process.exit is None:
            again = process.held or (restarts.RESUMING if process.restarts.any else None)
            if self._aggregators.heard(training.uid):
                return dataclasses.replace(aggregator, recovering=None)
            replaceable = process.waiting is None and apps.needed(training.app) is None
            if process.adopted_at is not None and replaceable:
                given_up_at = process.began_at + workloads.UNHEARD_SECONDS
                silent = self._now() >= process.began_at + workloads.HEARING_SECONDS
                again = restarts.UNHEARD if silent else again
                return dataclasses.replace(aggregator, recovering=again, restart_at=given_up_at)
            return dataclasses.replace(aggregator, recovering=again)
        if aggregator.exit is None or aggregator.progress.finished or process.winding_down or not process.ran:
            return aggregator
        at = restarts.restart_at(training, aggregator.exit, process.ended_at, process.restarts, number)
        if at is None:
            return aggregator
        if (needed := apps.needed(training.app)) is not None:
            return dataclasses.replace(aggregator, exit=None, recovering=needed)
        lost = restarts.lost(aggregator.exit, number)
        return dataclasses.replace(aggregator, exit=None, recovering=lost, restart_at=at)

    async def _apply_process(
        self, training: snapshot.Training, plan: desired.Plan, restart_at: float | None
    ) -> bool:
        """Start or end the aggregator as planned; return whether one is here that was not before."""
        process = self._workloads.find(training.uid)
        clusters = sum(member.placed for member in plan.members)
        if plan.aggregator_wanted:
            if process is not None and process.suspended and process.gone:
                self._workloads.drop(process)
                process = None
                self.notify()  # this picture still has it
            if process is None:
                await self._workloads.start(training, clusters)
                return self._workloads.find(training.uid) is not None
            if restart_at is not None and restart_at <= self._now():
                number = self._aggregators.observed(training.uid).progress.round
                await self._workloads.restart(process, training, clusters, number)
        elif process is not None and self._hearing_until(training) <= self._now():
            if process.winding_down is None:
                process.suspended = plan.stage in _RESUMES
            played = self._aggregators.observed(training.uid).progress.round > 0
            storing = plan.stage is desired.Stage.STOPPING and played
            seconds = max(self._stop_grace_seconds, STORING_SECONDS if storing else 0.0)
            self._workloads.wind_down(process, seconds)
        return False

    def _unheard_until(self, training: snapshot.Training) -> float:
        """Until when no picture is written of a training whose aggregator was taken over, unix seconds."""
        # Before its first round there is nothing to forget yet.
        return self._hearing_until(training) if _ran(training) else 0.0

    def _hearing_until(self, training: snapshot.Training) -> float:
        """Until when the words of an aggregator that was taken over are waited for, unix seconds.

        Only then does it know what it is told: to end, and to store its model before that.
        """
        process = self._workloads.find(training.uid)
        if process is None or process.adopted_at is None or process.exit is not None:
            return 0.0
        said = self._aggregators.observed(training.uid)
        if said.address and (said.progress.round or said.progress.finished):
            return 0.0
        return process.adopted_at + workloads.HEARING_SECONDS

    async def _apply_status(self, key: stores.Key, snap: snapshot.Snapshot, plan: desired.Plan) -> bool:
        """Write the status if it changed; return whether the store has it now."""
        rendered = status.render(snap, plan)
        before = snap.training.status
        # A store may fill in defaults: what was written last counts, too, as long as nobody changed it.
        if rendered == before or self._written.get(snap.training.uid) == (rendered, before):
            return True
        resource = self._trainings.get(key)
        if resource is None or resource["metadata"]["uid"] != snap.training.uid:
            return True  # deleted meanwhile
        try:
            stored = await self._store.patch_status(key, rendered, stores.version_of(resource))
        except (stores.ConflictError, stores.NotFoundError):
            return False  # the newer state is on its way here
        failpoints.reach("coordinator.status-written")
        self._written[snap.training.uid] = rendered, stored.get("status") or {}
        self._caches[key.kind].observe(stores.Change(stores.ChangeType.MODIFIED, stored))
        await self._record(key, news.between(before, rendered))
        if rendered["phase"] != before.get("phase"):
            _log.info(
                "training changed phase",
                training=f"{key.namespace}/{key.name}",
                previous=before.get("phase", ""),
                state=rendered["phase"],
                reason=rendered["summary"]["reason"],
            )
        return True

    async def _record(self, key: stores.Key, happened: Sequence[news.News]) -> None:
        for one in happened:
            kind = stores.EventType.WARNING if one.warning else stores.EventType.NORMAL
            try:
                await self._store.record_event(stores.Event(key, kind, one.reason, one.message))
            except stores.StoreError as error:
                _log.warning(
                    "event not recorded",
                    error=str(error),
                    exc_info=_mistake(error),
                    training=f"{key.namespace}/{key.name}",
                )
                return

    async def _apply_member(self, name: str, references: list[dict[str, str]]) -> float | None:
        """Write what a member takes part in and what its certificate is worth, if that changed.

        Returns when to look at its certificate again.
        """
        member = self._clusters.get(members.key(name))
        if member is None:
            return None
        known = member.get("status") or {}
        judged = membership.certificate(name, member["spec"], known, self._now())
        condition = conditions.find(known, reasons.EdgeClusterCondition.CERTIFICATE_VALID) or {}
        is_said = judged is None or condition.get("reason") == judged.reason

        def change(status: members.Status) -> None:
            status["trainings"] = references
            now_judged = membership.certificate(name, member["spec"], status, self._now())
            if now_judged is not None:
                self._roll.set_certificate(status, now_judged)

        if (known.get("trainings") or []) != references or not is_said:
            await self._roll.update(name, change)
        return judged.changes_at if judged is not None else None

    async def _follow(self, kind: str) -> None:
        async for change in stores.follow(self._store, kind):
            self.observe(change)

    def _apply_revocations(self) -> None:
        now = self._now()
        alive = {(key.namespace, key.name) for key in self._trainings}
        self._deleted = {name: until for name, until in self._deleted.items() if until > now}
        self._revoke(
            authorisation.Revocations(
                clusters=frozenset(
                    entry.name
                    for entry, resource in self._clusters.items()
                    if resource["spec"].get("acceptance") == cluster_api.Acceptance.EXPELLED
                ),
                trainings=frozenset(self._deleted.keys() - alive),
            )
        )

    def _forget(self, resource: stores.Resource) -> None:
        """A training was deleted: its assignments go with the next reconcile, its aggregator now."""
        key, uid = stores.key_of(resource), resource["metadata"]["uid"]
        self._deleted[key.namespace, key.name] = self._now() + self._certificate_seconds
        self._apps.forget(uid)
        for known in (self._placed, self._plans, self._written):
            known.pop(uid, None)
        self._workloads.forget(uid, self._tidying(resource))

    def _tidying(self, resource: stores.Resource) -> runtimes.Workload | None:
        """What removes the journal of a training that was deleted; one that had ended did that by itself."""
        gone = snapshot.Problem(reasons.TrainingReason.CANCELLED, "The training was deleted.")
        training = snapshot.training_of(resource, gone)
        began = "startedAt" in training.status or self._workloads.find(training.uid) is not None
        if self._tidy is None or desired.ended(training) or not began:
            return None
        try:
            return self._tidy(training)
        except (model_stores.UnusableStore, runtimes.RuntimeFailure) as error:
            _log.warning("journal not removed", uid=training.uid, error=str(error))
            return None


def _earliest(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _ran(training: snapshot.Training) -> bool:
    """Whether the status tells of rounds that an aggregator plays."""
    return training.status.get("phase") == reasons.TrainingPhase.RUNNING


def _mistake(error: Exception) -> Exception | None:
    """Whose traceback is worth reading: a store that does not answer is known trouble, all else our fault."""
    return None if isinstance(error, stores.StoreError | runtimes.RuntimeAway) else error
