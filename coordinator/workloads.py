"""The aggregators' workloads: from the wish to start one until nothing is left of it.

Of a durable runtime (Kubernetes Jobs) workloads are found that an earlier coordinator started. They are taken
over as they are, with the credentials that they have; those that nobody wants any more are ended. This module
refuses to decide which training should run, and to know what runs a workload.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from typing import Any, Protocol

from coordinator import tidying
from coordinator.clients import last_words
from coordinator.planning import apps, restarts, snapshot
from federation.api import reasons
from federation.runtime import failpoints
from federation.runtime import port as runtimes
from federation.store import port as stores
from federation.telemetry import logs

_log = logs.get_logger(__name__)

DRAIN_SECONDS = 2.0
"""The end of a process can be seen before the last words on its stream are read."""

HEARING_SECONDS = 60.0
"""An aggregator that was taken over dials again within seconds; so long nothing is said of its training."""

UNHEARD_SECONDS = 600.0
"""One that was taken over and is not heard for so long is ended and started again."""

NAME_PREFIX = "aggregator-"
TIDY_PREFIX = "tidy-"

Launch = Callable[[snapshot.Training, int], Coroutine[Any, Any, runtimes.Workload]]
"""Writes the aggregator's credentials and returns the workload that runs it, for so many clusters."""


class Launcher(Protocol):
    """What aggregators need, on one kind of runtime."""

    async def launch(self, training: snapshot.Training, clusters: int) -> runtimes.Workload:
        """Write the aggregator's credentials and return the workload that runs it."""
        ...

    def tidy(self, training: snapshot.Training) -> runtimes.Workload:
        """Return the workload that removes the journal of a training that was deleted while it ran."""
        ...


class Sessions(Protocol):
    """What is known of the aggregators' sessions."""

    def expect(self, uid: str, namespace: str, name: str, since: float | None = None) -> None:
        """An aggregator is being started, or was since that time (unix seconds)."""
        ...

    def expect_again(self, uid: str) -> None:
        """It died and is being started again."""
        ...

    def forget(self, uid: str) -> None:
        """It is gone."""
        ...

    async def drained(self, uid: str, timeout_seconds: float) -> None:
        """Wait until an ended process's last words are read."""
        ...


@dataclasses.dataclass
class Process:
    """One aggregator, from the wish to start it until nothing is left of it.

    began_at, ended_at: when it was last started or seen to begin, and when `exit` was noticed, unix seconds;
    what waits for a node begins when it has one. waiting: why it does not run yet, if its runtime says so.
    ran: whether it, or one before it, was ever started; a training whose first one cannot be fails.
    adopted_at: when it was taken over from an earlier coordinator, unix seconds.
    """

    uid: str
    exit: snapshot.Exit | None = None
    began_at: float = 0.0
    ended_at: float = 0.0
    waiting: snapshot.Problem | None = None
    restarts: restarts.Restarts = dataclasses.field(default_factory=restarts.Restarts)
    held: snapshot.Problem | None = None
    """Why it could not begin when it was started last."""
    ran: bool = False
    winding_down: asyncio.Task[None] | None = None
    suspended: bool = False
    adopted_at: float | None = None
    patience: float = 0.0
    """So many seconds, from when it was told to end, until it is ended by force."""
    launching: bool = False
    """Whether one is being started: an end that is told meanwhile is that of one before."""

    @contextlib.contextmanager
    def launch(self) -> Iterator[None]:
        """While one is started, and what is left of one before makes room for it."""
        self.launching = True
        try:
            yield
        finally:
            self.launching = False

    @property
    def gone(self) -> bool:
        """Whether it was told to end and nothing of it is left."""
        return self.exit is not None and (self.winding_down is None or self.winding_down.done())


class Workloads:
    """The aggregators of one hub."""

    def __init__(
        self,
        *,
        runtime: runtimes.Runtime,
        sessions: Sessions,
        launch: Launch,
        now: Callable[[], float],
        stop_grace_seconds: float,
        on_change: Callable[[], None],
    ) -> None:
        """Wire it; nothing happens before `watch`."""
        self._runtime = runtime
        self._sessions = sessions
        self._launch = launch
        self._now = now
        self._stop_grace_seconds = stop_grace_seconds
        self._on_change = on_change
        self._processes: dict[str, Process] = {}
        self._running: set[str] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._sweeping: set[str] = set()
        self._exits: dict[str, snapshot.Exit] = {}
        self._listed = asyncio.Event()
        self._tidying = tidying.Tidying(runtime)

    def find(self, uid: str) -> Process | None:
        """Return a training's aggregator, if there is one."""
        return self._processes.get(uid)

    async def take_over(self, training: snapshot.Training, *, over: bool) -> None:
        """Know the aggregator that an earlier coordinator started, whatever is wanted of it now.

        over: its training is, so how one ended is of no interest; one that runs still is, and is to end.
        """
        if not self._runtime.durable or training.uid in self._processes:
            return
        await self._listed.wait()
        name = workload_name(training.uid)
        if name in self._running:
            process = self._processes[training.uid] = Process(training.uid)
            self._adopt(process, training)
        elif not over and (ended := self._exits.pop(name, None)) is not None and _is_the_end(ended):
            process = self._processes[training.uid] = Process(training.uid)
            self._found_ended(process, training, ended)

    async def start(self, training: snapshot.Training, clusters: int) -> None:
        """Start a training's aggregator, or take over the one that runs; without its app, only that."""
        process = self._processes[training.uid] = Process(training.uid)
        title = f"{training.namespace}/{training.name}"
        name = workload_name(training.uid)
        try:
            if self._runtime.durable:
                await self._listed.wait()
            ended, process.exit = process.exit or self._exits.pop(name, None), None
            if ended is not None and _is_the_end(ended):
                self._found_ended(process, training, ended)
            elif await self._runs(name):
                self._adopt(process, training)
            elif apps.needed(training.app) is not None:
                del self._processes[training.uid]  # the training waits for its app, and status says so
                return
            else:
                self._sessions.expect(training.uid, training.namespace, training.name)
                failpoints.reach("coordinator.aggregator-starts")
                with process.launch():
                    await self._runtime.start(await self._launch(training, clusters))
                failpoints.reach("coordinator.aggregator-started")
                process.ran, process.began_at = True, self._now()
                _log.info("aggregator started", training=title, uid=training.uid)
        except runtimes.WorkloadExists:
            self._adopt(process, training)
        except (stores.StoreError, runtimes.RuntimeAway):
            self.drop(process)  # nothing is known; it is tried again
            raise
        except (runtimes.RuntimeFailure, OSError) as error:
            process.exit = snapshot.Exit(f"it could not be started, {error}")
            if "startedAt" in training.status:  # there is something to lose
                process.exit, process.ended_at, process.ran = restarts.refused(str(error)), self._now(), True
            _log.warning("aggregator not started", training=title, uid=training.uid, error=str(error))
        self._on_change()

    async def restart(
        self, process: Process, training: snapshot.Training, clusters: int, round_number: int
    ) -> None:
        """Start an aggregator that died in this round, or is not heard, once more; its journal goes on.

        Raises: StoreError, RuntimeAway; it is tried again.
        """
        died, process.exit = process.exit, None
        before = process.restarts
        process.held = None if died is None or died.refused else died.not_now
        if died is not None:
            process.restarts = process.restarts.another(round_number, died)
        try:
            with process.launch():
                await self._runtime.stop(workload_name(process.uid), 0.0)  # what is left of it
                self._sessions.expect_again(training.uid)
                await self._runtime.start(await self._launch(training, clusters))
            process.began_at, process.adopted_at = self._now(), None
            _log.info("aggregator started again", training=f"{training.namespace}/{training.name}")
        except (stores.StoreError, runtimes.RuntimeAway):
            process.exit, process.restarts = died, before
            raise
        except (runtimes.RuntimeFailure, OSError) as error:
            process.exit, process.ended_at = restarts.refused(str(error), died), self._now()
            title = f"{training.namespace}/{training.name}"
            _log.warning("aggregator not started", training=title, uid=training.uid, error=str(error))
        self._on_change()

    def wind_down(self, process: Process, wait_seconds: float) -> None:
        """Let an aggregator end by itself for so long, then end it; asked again, no longer than before."""
        if process.winding_down is not None:
            process.patience = min(process.patience, wait_seconds)
            return
        process.patience = wait_seconds

        async def work() -> None:
            # It ends by itself after its last report or after being told; force comes only after that.
            waited = 0.0
            while process.exit is None and waited < process.patience:
                await asyncio.sleep(0.1)
                waited += 0.1
            await self._stop(workload_name(process.uid))

        process.winding_down = self._in_background(work())

    def drop(self, process: Process) -> None:
        """It has ended and is of no interest any more."""
        if self._processes.get(process.uid) is process:
            del self._processes[process.uid]
            self._sessions.forget(process.uid)

    def forget(self, uid: str, tidy: runtimes.Workload | None = None) -> None:
        """Its training is gone, and it goes now; then `tidy` runs, which removes what it left."""
        process = self._processes.pop(uid, None)
        self._exits.pop(workload_name(uid), None)
        self._sessions.forget(uid)
        if process is not None:
            self.wind_down(process, 0.0)
        if tidy is not None:
            self._in_background(self._tidy(tidy, None if process is None else process.winding_down))

    async def _tidy(self, workload: runtimes.Workload, ending: asyncio.Task[None] | None) -> None:
        if ending is not None:
            await asyncio.wait({ending})
        await self._tidying.tidy(workload)

    def sweep(self, wanted: Collection[str]) -> None:
        """End what runs for a training that is gone, or may not run; `wanted` has the uids of all others."""
        for process in [process for uid, process in self._processes.items() if uid not in wanted]:
            self.forget(process.uid)  # its training was deleted while it was being started, or may not run
        if not self._runtime.durable:
            return
        for name in self._exits.keys() - {workload_name(uid) for uid in wanted}:
            del self._exits[name]
        cared_for = {workload_name(uid) for uid in (*wanted, *self._processes)}
        for name in sorted(self._running - cared_for - self._sweeping):
            if name.startswith(NAME_PREFIX):
                _log.info("aggregator that is not wanted is ended", workload=name)
                self._sweeping.add(name)
                self._in_background(self._stop(name))

    async def watch(self) -> None:
        """Follow what the runtime says, until it is closed."""
        if self._runtime.durable:
            # Also what waits for a node or an image, of which no event tells.
            self._running |= {found.name for found in await self._runtime.list()}
            # What had ended before anybody looked is told next, at once, as started and then as ended.
            self._listed.set()
            self._on_change()
        events: AsyncIterator[runtimes.WorkloadEvent] = self._runtime.events()
        async for event in events:
            process = next((p for p in self._processes.values() if workload_name(p.uid) == event.name), None)
            if isinstance(event, runtimes.Exited):
                self._running.discard(event.name)
                self._sweeping.discard(event.name)
                if event.name.startswith(TIDY_PREFIX):
                    self._tidying.ended(event)
                elif process is not None and process.ran and not process.launching:
                    # Not here: what is told of others meanwhile must not be read late.
                    self._in_background(self._exited_after_drain(process, event))
                elif process is not None and not process.launching:
                    self._exited(process, event)
                elif process is not None:
                    _log.info("aggregator before this one is gone", uid=process.uid)
                elif self._runtime.durable:
                    self._exits[event.name] = exit_of(event)
            elif isinstance(event, runtimes.Waiting):
                if process is not None:
                    process.waiting = snapshot.Problem(event.reason, event.message)
            else:
                self._running.add(event.name)
                if process is not None:
                    process.waiting, process.began_at = None, self._now()
            self._on_change()

    async def _exited_after_drain(self, process: Process, event: runtimes.Exited) -> None:
        await self._sessions.drained(process.uid, DRAIN_SECONDS)
        self._exited(process, event)

    def _exited(self, process: Process, event: runtimes.Exited) -> None:
        process.exit, process.ended_at, process.waiting = exit_of(event), self._now(), None
        process.restarts = process.restarts.after(process.ended_at - process.began_at)
        if process.adopted_at is not None and not _is_the_end(process.exit):
            self.drop(process)  # it was to end for a pause that is over; the next one starts
        _log.info("aggregator ended", uid=process.uid, reason=process.exit.description)

    async def _runs(self, name: str) -> bool:
        if not self._runtime.durable:
            return False
        return name in self._running or any(found.name == name for found in await self._runtime.list())

    def _found_ended(self, process: Process, training: snapshot.Training, ended: snapshot.Exit) -> None:
        # If it is started again, that one is to be known.
        self._sessions.expect(training.uid, training.namespace, training.name, training.created_at)
        process.exit, process.ended_at, process.ran = ended, self._now(), True
        title = f"{training.namespace}/{training.name}"
        _log.info("aggregator had ended", training=title, reason=ended.description)

    def _adopt(self, process: Process, training: snapshot.Training) -> None:
        process.adopted_at, process.ran = self._now(), True
        process.began_at = process.adopted_at
        # Its certificate is from after the training was made; one from before is of an earlier namesake.
        self._sessions.expect(training.uid, training.namespace, training.name, training.created_at)
        _log.info("aggregator taken over", training=f"{training.namespace}/{training.name}", uid=training.uid)

    async def _stop(self, name: str) -> None:
        try:
            await self._runtime.stop(name, self._stop_grace_seconds)
        except runtimes.RuntimeFailure as error:
            _log.warning("aggregator not stopped", workload=name, error=str(error))
            self._sweeping.discard(name)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._ending.discard(task)
        self._on_change()


def exit_of(event: runtimes.Exited) -> snapshot.Exit:
    """Return how an aggregator ended, as the planner knows it."""
    how = f"signal {event.signal}" if event.signal else f"exit status {event.exit_code}"
    finished = last_words.read(event.last_words) if event.last_words else None
    why = event.message if event.reason == restarts.NOT_NOW else ""
    not_now = None if finished is not None else restarts.not_now(event.exit_code, why)
    return snapshot.Exit(
        event.message or how, event.log_tail, event.reason, finished, not_now, disrupted=event.disrupted
    )


def _is_the_end(exit_: snapshot.Exit) -> bool:
    """Whether a training is over with its aggregator; a pause ends the aggregator only."""
    finished = exit_.finished
    return finished is None or finished.reason != reasons.TrainingReason.SUSPEND_REQUESTED


def tidy_name(uid: str) -> str:
    """Return the name of the workload that removes the journal of a training."""
    return f"{TIDY_PREFIX}{uid}"[: runtimes.MAXIMUM_NAME_LENGTH].rstrip("-")


def workload_name(uid: str) -> str:
    """Return the name of the workload that runs a training's aggregator."""
    return f"{NAME_PREFIX}{uid}"[: runtimes.MAXIMUM_NAME_LENGTH].rstrip("-")
