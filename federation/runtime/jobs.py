"""Kubernetes Jobs behind the runtime port (see `port.Runtime`): durable, watched, never polled.

A Job and all that belongs to it come and go together (`federation.runtime.pods` says how). What is found when
watching begins is taken over; what an earlier process left half made is removed. This module refuses to know
what the workloads do and what a pod's state means.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import structlog

from federation.kube import client, containers, errors
from federation.runtime import mirror, pod_states, pods, port

_log = structlog.get_logger(__name__)

LOG_SECONDS = 10.0
"""A node that does not give its log's tail within this time is taken not to answer."""

CLEAN_UP_SECONDS = 15.0
"""An ended pod is gone within seconds; after so long its node is taken not to answer, and
it goes by force.
"""


@dataclasses.dataclass(slots=True, eq=False)
class _Entry:
    """What is known and was told of one workload."""

    name: str
    namespace: str
    job_seen: bool = False
    started: bool = False
    stopping: bool = False
    waiting: tuple[str, str] | None = None
    ended: pod_states.Ended | None = None
    pod: str = ""
    reading_log: asyncio.Task[tuple[str, ...]] | None = None
    finishing: asyncio.Task[None] | None = None
    changed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Jobs:
    """The runtime port over one API server's Jobs."""

    def __init__(
        self,
        api: client.Client,
        namespaces: Sequence[str] | None,
        *,
        owner: str,
        rng: random.Random | None = None,
    ) -> None:
        """Run and watch in these namespaces (None: all); the client stays the caller's to close.

        owner: a label's value that tells these workloads from those of another runtime in the same cluster,
        such as `coordinator`.
        """
        self._api = api
        self._namespaces = namespaces
        self._owner = owner
        self._mirror = mirror.Mirror(
            api, namespaces, owner, self._look, rng or random.Random()  # noqa: S311 - jitter
        )  # fmt: skip
        self._entries: dict[str, _Entry] = {}
        self._making: set[str] = set()
        self._removing: dict[str, asyncio.Task[None]] = {}
        self._events: collections.deque[port.WorkloadEvent] = collections.deque()
        self._told = asyncio.Event()
        self._moved = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None
        self._closed = False

    @property
    def durable(self) -> bool:
        """Jobs go on when this process ends."""
        return True

    async def start(self, workload: port.Workload) -> None:
        """Start `workload` as a Job (see `port.Runtime.start`)."""
        self._check_open(workload.name)
        name = workload.name
        if name in self._making:
            raise port.WorkloadExists(name)
        self._making.add(name)
        try:
            await self._synced()
            await self._make_room(name)
            await self._make(pods.owned(workload, self._owner))
        finally:
            self._making.discard(name)
            self._look(name)

    async def stop(self, name: str, grace_seconds: float) -> None:
        """End the Job's pod with this grace, then remove everything (see `port.Runtime.stop`)."""
        await self._synced()
        entry = self._entries.get(name)
        if entry is None:
            return
        entry.stopping = True
        finishing = self._ending(entry, grace_seconds)
        await asyncio.wait({finishing})
        if finishing.cancelled():
            raise port.RuntimeClosed(f"workload {name}: the runtime was closed while it was being stopped")
        finishing.result()

    async def list(self) -> tuple[port.RunningWorkload, ...]:
        """Return what was accepted and has not ended, by name; the handle is the pod's name."""
        await self._synced()
        return tuple(
            port.RunningWorkload(entry.name, entry.pod)
            for entry in sorted(self._entries.values(), key=lambda entry: entry.name)
            if entry.ended is None
        )

    async def events(self) -> AsyncIterator[port.WorkloadEvent]:
        """Yield what happened, in order, until the runtime is closed.

        Raises: RuntimeFailure when it sees nothing any more: whoever reads this must not go on blindly.
        """
        self._begin()
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            if self._broken is not None:
                raise port.RuntimeFailure(f"workloads are not seen any more: {self._broken!r}")
            self._told.clear()
            await self._told.wait()

    async def refresh(self, name: str, directory: pathlib.PurePath, files: Mapping[str, bytes]) -> None:
        """Write the Secret behind the directory; kubelet brings it to the pod within about a minute."""
        await self._synced()
        entry = self._entries.get(name)
        if entry is None:
            return
        patch = [{"op": "add", "path": "/data", "value": pods.secret_data(files)}]
        try:
            await self._api.patch("Secret", pods.secret_name(name, directory), entry.namespace, patch)
        except errors.NotFound:
            return
        except errors.KubernetesError as error:
            raise port.RuntimeFailure(f"workload {name}: {directory} not renewed: {error}") from error

    async def close(self, grace_seconds: float) -> None:
        """Stop watching; the Jobs go on."""
        self._closed = True
        entries = self._entries.values()
        working = [task for entry in entries for task in (entry.finishing, entry.reading_log)]
        working += self._removing.values()
        for task in (self._watching, *working):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._told.set()

    # --- beginning

    def _check_open(self, name: str) -> None:
        if self._closed:
            raise port.RuntimeClosed(f"workload {name}: the runtime is closed")

    def _begin(self) -> None:
        if self._watching is None and not self._closed:
            self._watching = asyncio.create_task(self._mirror.run())
            self._watching.add_done_callback(self._watched)

    def _watched(self, watching: asyncio.Task[None]) -> None:
        if not watching.cancelled() and (error := watching.exception()) is not None:
            _log.error("workloads not followed any more", error=repr(error))
            self._broken = error
            self._told.set()

    async def _synced(self) -> None:
        self._begin()
        if not self._closed:
            await self._mirror.synced.wait()

    async def _make_room(self, name: str) -> None:
        """Wait for what ended under this name to be gone. Raises: WorkloadExists when it goes on."""
        if name in self._removing:
            await asyncio.wait({self._removing[name]})
        entry = self._entries.get(name)
        if entry is None:
            return
        if entry.finishing is None:
            raise port.WorkloadExists(name)
        await asyncio.wait({entry.finishing})

    async def _make(self, workload: port.Workload) -> None:
        """Create the Job, then what belongs to it, then let it begin; nothing is left of half a start."""
        namespace = workload.pod.namespace
        if self._namespaces is not None and namespace not in self._namespaces:
            raise port.WorkloadNotStarted(workload.name, f"namespace {namespace} is not watched here")
        try:
            job = await self._create_job(workload)
        except errors.KubernetesError as error:
            raise _not_started(workload.name, error) from error
        self._entries[workload.name] = _Entry(workload.name, namespace)
        try:
            for one in pods.belongings(workload, job["metadata"]["uid"]):
                await self._create_anew(one)
            await self._api.patch("Job", workload.name, namespace, pods.resume())
        except BaseException as error:
            # Cancelled or refused: a suspended Job would also be found and removed by whoever comes next.
            del self._entries[workload.name]
            self._remove(workload.name, job)
            if isinstance(error, errors.KubernetesError):
                raise _not_started(workload.name, error) from error
            raise

    async def _create_job(self, workload: port.Workload) -> client.Object:
        name = workload.name
        try:
            return await self._api.create(pods.job(workload))
        except errors.AlreadyExists as error:
            found = await self._api.get("Job", name, workload.pod.namespace)
            if pods.owner_of(found) != self._owner:
                raise port.WorkloadNotStarted(name, f"{error}, and it is not Hanse's") from error
            if pods.never_began(found):  # made by a request that nobody knew the outcome of; it is removed
                raise port.RuntimeAway(f"workload {name}: half a start of it is there still") from error
            raise port.WorkloadExists(name) from error  # another made it a moment ago

    async def _create_anew(self, obj: client.Object) -> None:
        """Create an object; one of an earlier namesake, which nobody uses any more, gives way."""
        try:
            await self._api.create(obj)
        except errors.AlreadyExists:
            metadata = obj["metadata"]
            if not await self._is_ours(obj["kind"], metadata["name"], metadata["namespace"]):
                raise
            with contextlib.suppress(errors.NotFound):
                await self._api.delete(obj["kind"], metadata["name"], metadata["namespace"])
            await self._api.create(obj)

    async def _is_ours(self, kind: str, name: str, namespace: str) -> bool:
        """Whether an object is of this runtime. A Secret is not read for that, which the rights need not
        allow: it is asked for a patch that does nothing but test the label.
        """
        if kind != "Secret":
            return pods.owner_of(await self._api.get(kind, name, namespace)) == self._owner
        try:
            await self._api.patch(kind, name, namespace, pods.test_of_owner(self._owner))
        except (errors.Invalid, errors.Forbidden):  # another's; who may not even ask has no right to it
            return False
        return True

    def _remove(self, name: str, job: client.Object) -> None:
        """Remove a Job that never began, and what belongs to it, in the background."""
        metadata = job["metadata"]

        async def work() -> None:
            await self._insist(
                lambda: self._api.delete(
                    "Job",
                    metadata["name"],
                    metadata["namespace"],
                    propagation="Foreground",
                    uid=metadata["uid"],
                )
            )
            await self._until_removed(metadata["uid"])

        if name not in self._removing and not self._closed:
            task = self._removing[name] = asyncio.create_task(work())
            task.add_done_callback(lambda _: self._removing.pop(name, None))

    async def _until_removed(self, uid: str) -> None:
        """Wait until a Job is known to be gone; not for ever, since a watch may have missed its end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEAN_UP_SECONDS):
                while uid not in self._mirror.removed:
                    self._moved.clear()
                    await self._moved.wait()

    # --- what the watches say

    def _look(self, name: str) -> None:
        """Something of this workload changed: tell what it means."""
        self._moved.set()
        if name in self._making or self._closed:
            return
        job = self._mirror.jobs.get(name)
        entry = self._entries.get(name)
        if entry is None:
            if job is None or name in self._removing:
                return
            if pods.never_began(job):
                _log.info("half a start is removed", workload=name)
                self._remove(name, job)
                return
            entry = self._entries[name] = _Entry(name, job["metadata"]["namespace"])
        entry.changed.set()
        if job is not None:
            entry.job_seen = True
            self._tell_state(entry, job)
        elif entry.finishing is None and entry.job_seen:
            entry.ended = entry.ended or _removed()
            self._ending(entry, 0)

    def _tell_state(self, entry: _Entry, job: client.Object) -> None:
        pod = self._mirror.pod_of(job)
        warnings = self._mirror.warnings(job, pod)
        state = pod_states.read(job, pod, warnings)
        if pod is not None:
            entry.pod = pod["metadata"]["name"]
        if isinstance(state, pod_states.Running):
            self._tell_started(entry)
            if pod is not None and entry.reading_log is None and pod_states.is_to_end(pod, warnings):
                # Of a pod that it puts out kubelet may have removed the log when the end is seen.
                entry.reading_log = asyncio.create_task(self._log_tail(entry))
        elif isinstance(state, pod_states.Held) and not entry.started and entry.finishing is None:
            if entry.waiting != (state.reason, state.message):
                entry.waiting = (state.reason, state.message)
                self._tell(port.Waiting(entry.name, state.reason, state.message))
        elif isinstance(state, pod_states.Ended):
            # A Job whose pod is gone already says less of the end than the pod did.
            if entry.ended is None or (pod is not None and state.reason != pod_states.REMOVED):
                entry.ended = state
            ran = state.exit_code is not None or state.signal is not None
            if ran and state.reason != pod_states.CONTAINER_NOT_CREATED:
                self._tell_started(entry)
            self._ending(entry, 0)

    def _tell_started(self, entry: _Entry) -> None:
        if not entry.started:
            entry.started = True
            self._tell(port.Started(entry.name, entry.pod))

    def _tell(self, event: port.WorkloadEvent) -> None:
        """Keep an event for the reader; of several that say why one waits the last is enough."""
        last = self._events[-1] if self._events else None
        if isinstance(event, port.Waiting) and isinstance(last, port.Waiting) and last.name == event.name:
            self._events.pop()
        self._events.append(event)
        self._told.set()

    # --- ending

    def _ending(self, entry: _Entry, grace_seconds: float) -> asyncio.Task[None]:
        """Return the one task that ends this workload."""
        if entry.finishing is None:
            entry.finishing = asyncio.create_task(self._finish_or_say(entry, grace_seconds))
        return entry.finishing

    async def _finish_or_say(self, entry: _Entry, grace_seconds: float) -> None:
        try:
            await self._finish(entry, grace_seconds)
        except errors.KubernetesError as error:
            entry.finishing = None  # whoever stops it again tries again
            _log.error("workload not removed", workload=entry.name, error=str(error))
            if entry.stopping:
                raise port.RuntimeFailure(f"workload {entry.name}: not removed: {error}") from error

    async def _finish(self, entry: _Entry, grace_seconds: float) -> None:
        """End what still runs, keep the last lines of its log, remove everything, and tell it."""
        log: tuple[str, ...] = ()
        if entry.ended is None:
            log = await self._log_tail(entry)  # a node may have tidied it up once the pod has ended
            await self._end_pod(entry, grace_seconds)
        ended = entry.ended
        if ended is None or not ended.unreachable:
            log = await self._log_tail(entry) or log
        if entry.reading_log is not None:
            if log:
                entry.reading_log.cancel()
            else:
                log = await entry.reading_log
        await self._insist(
            lambda: self._api.delete("Job", entry.name, entry.namespace, propagation="Foreground")
        )
        patience = 0.0 if ended is not None and ended.unreachable else CLEAN_UP_SECONDS
        if await self._until(entry, lambda: entry.name not in self._mirror.jobs, patience):
            await self._insist(lambda: self._remove_stray_pods(entry))
        else:
            patience = 0.0  # it waited for its pods, which had long enough
        while not await self._until(entry, lambda: self._gone(entry), patience):
            patience = CLEAN_UP_SECONDS
            for pod in self._mirror.pods_of(entry.name, entry.namespace):
                _log.warning("pod removed by force", workload=entry.name, pod=pod["metadata"]["name"])
                await self._delete_pod(pod, 0)
        ended = entry.ended or pod_states.Ended(None, None)
        if entry.stopping and ended.reason == pod_states.REMOVED:
            ended = pod_states.Ended(None, None)  # by us, that is
        if self._entries.get(entry.name) is entry:
            del self._entries[entry.name]
        self._tell(
            port.Exited(
                entry.name,
                ended.exit_code,
                ended.signal,
                log,
                ended.reason,
                ended.message,
                ended.words,
                ended.disrupted and not entry.stopping,
            )
        )

    async def _end_pod(self, entry: _Entry, grace_seconds: float) -> None:
        """Ask the pod to end and wait for that, a little longer than it may take."""
        grace = max(0, round(grace_seconds))
        # A pod without a node has nothing to end, and goes with its Job.
        found = [
            pod for pod in self._mirror.pods_of(entry.name, entry.namespace) if pod["spec"].get("nodeName")
        ]
        for pod in found:
            # Zero would not wait for the node to say that it is gone; one second is the least that does.
            await self._delete_pod(pod, max(1, grace))
        if found:
            await self._until(
                entry,
                lambda: entry.ended is not None or not self._mirror.pods_of(entry.name, entry.namespace),
                grace + 5.0,
            )

    async def _delete_pod(self, pod: client.Object, grace_seconds: int) -> None:
        metadata = pod["metadata"]
        await self._insist(
            lambda: self._api.delete(
                "Pod",
                metadata["name"],
                metadata["namespace"],
                uid=metadata["uid"],
                grace_seconds=grace_seconds,
            )
        )

    async def _remove_stray_pods(self, entry: _Entry) -> None:
        """Remove what the Job's controller made in the moment in which the Job went.

        Garbage collection would do it a little later. The watch may not have told of it yet.
        """
        labels = f"{pods.selector(self._owner)},{pods.WORKLOAD_LABEL}={entry.name}"
        for pod in (await self._api.list("Pod", entry.namespace, labels=labels)).items:
            if not pod["spec"].get("nodeName"):
                await self._delete_pod(pod, 0)

    def _gone(self, entry: _Entry) -> bool:
        return entry.name not in self._mirror.jobs and not self._mirror.pods_of(entry.name, entry.namespace)

    async def _until(self, entry: _Entry, true: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is true of the workload; return whether it is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not true():
                    entry.changed.clear()
                    await entry.changed.wait()
        return true()

    async def _log_tail(self, entry: _Entry) -> tuple[str, ...]:
        if not entry.pod or not entry.started:
            return ()
        try:
            async with asyncio.timeout(LOG_SECONDS):
                return await containers.log_tail(
                    self._api,
                    entry.namespace,
                    entry.pod,
                    lines=port.LOG_TAIL_LINES,
                    previous=entry.ended is not None and entry.ended.started_again,
                )
        except (errors.KubernetesError, TimeoutError) as error:
            _log.info("no log of an ended workload", workload=entry.name, error=str(error))
            return ()

    async def _insist(self, request: Callable[[], Awaitable[object]]) -> None:
        """Send a request until the API server answers; that the object is gone or changed is as good."""
        while True:
            try:
                await request()
                return
            except (errors.NotFound, errors.Conflict):
                return
            except errors.Unreachable as error:
                _log.warning("the API server is away", error=str(error))
                await asyncio.sleep(mirror.AGAIN_SECONDS)


def _not_started(name: str, error: errors.KubernetesError) -> port.RuntimeFailure:
    if isinstance(error, errors.Unreachable):
        return port.RuntimeAway(f"workload {name}: not started yet: {error}")
    return port.WorkloadNotStarted(name, str(error))


def _removed() -> pod_states.Ended:
    return pod_states.Ended(
        None,
        None,
        pod_states.REMOVED,
        "Somebody deleted its Job; it is started again if it is still wanted.",
        disrupted=True,
    )
