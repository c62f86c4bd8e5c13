"""Sees to it that the objects of data sets in buckets lie in claims: makes the claim, has it filled, marks it
as filled, and removes what no data set wants any more.

Level-triggered: what is on the API server says how far things are, so an agent that starts anew goes on. The
owner's Secret is mounted by kubelet where the objects are fetched and read nowhere else. This module refuses
to know S3; `buckets` says what to make and what it means, `fetch` does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import Callable, Mapping

from edge_agent import buckets, owned, resolving
from federation.api import dataset as datasets
from federation.api import reasons
from federation.kube import client, errors
from federation.runtime import port
from federation.telemetry import logs

_log = logs.get_logger(__name__)

OWNER = "edge-agent-fetch"
"""Tells what fetches from clients, which the same agent runs in the same namespace."""

FIRST_RETRY_SECONDS = 10.0
LONGEST_RETRY_SECONDS = 300.0
RESOLVE_SECONDS = 5.0
STOP_GRACE_SECONDS = 1.0
"""What is stopped is not wanted, and loses nothing."""

Reason = reasons.EdgeDatasetReason


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for all that one agent fetches."""

    namespace: str
    image: str
    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class _Progress:
    """What this agent knows of one fetch besides its claim."""

    running: bool = False
    claim_uid: str = ""
    mark: str = ""
    waiting: str = ""
    failure: str = ""
    failures: int = 0
    due: float = 0.0


class BucketClaims:
    """The claims of one namespace's data sets in buckets."""

    def __init__(
        self, api: client.Client, runtime: port.Runtime, settings: Settings, rng: random.Random
    ) -> None:
        """Nothing is asked yet; `runtime` is for fetches alone."""
        self._api = api
        self._runtime = runtime
        self._settings = settings
        self._rng = rng
        self._progress: dict[str, _Progress] = {}
        self._used = asyncio.Event()
        self._tidied: frozenset[str] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    async def run(self, on_change: Callable[[], None]) -> None:
        """Hear what becomes of fetches, until cancelled; `on_change`: there is something new to look at."""
        try:
            await self._used.wait()  # most edges have no bucket, and need not watch for it
            async for event in self._runtime.events():
                self._heard(event)
                on_change()
        finally:
            for task in self._stopping:
                task.cancel()

    async def volume(self, dataset: datasets.EdgeDataset) -> owned.Volume:
        """Return how it stands, after the next step towards all objects being there.

        Raises: errors.KubernetesError when the API server does not answer.
        """
        fetch = buckets.of(dataset)
        assert fetch is not None
        try:
            return await self._volume(fetch)
        except buckets.NotFetchable as error:
            return owned.Volume(False, str(error), Reason.FETCH_FAILED, fetch.name)
        except errors.Forbidden as error:
            return owned.Volume(
                False, buckets.not_allowed(fetch, str(error)), Reason.FETCH_FAILED, fetch.name
            )

    async def tidy(self, objects: owned.Owned) -> None:
        """Remove claims and end fetches that no data set wants now; those of unreadable ones stay."""
        found = (buckets.of(dataset) for dataset in objects.datasets if dataset.name not in objects.shadowed)
        wanted = frozenset(fetch.name for fetch in found if fetch is not None)
        if wanted == self._tidied:
            return
        for name in self._progress.keys() - wanted:
            del self._progress[name]
        try:
            claims = await self._list("PersistentVolumeClaim", buckets.CLAIM_LABELS)
            jobs = await self._list("Job", buckets.FETCH_LABELS)
            for one in (*jobs, *claims):
                name, of = one["metadata"]["name"], one["metadata"]["labels"].get(buckets.DATASET_LABEL)
                if name in wanted or f"EdgeDataset {of}" in objects.unreadable:
                    continue
                if one["kind"] == "Job":
                    self._stop(name)
                else:
                    _log.info("claim removed", name=name, dataset=of)
                    with contextlib.suppress(errors.NotFound, errors.Conflict):
                        await self._api.delete(
                            one["kind"], name, self._settings.namespace, uid=one["metadata"]["uid"]
                        )
        except errors.KubernetesError as error:
            _log.warning("claims not tidied", error=str(error))
            return
        self._tidied = wanted

    async def _list(self, kind: str, labels: Mapping[str, str]) -> tuple[client.Object, ...]:
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        return (await self._api.list(kind, self._settings.namespace, labels=selector)).items

    def _stop(self, name: str) -> None:
        async def work() -> None:
            try:
                await self._runtime.stop(name, STOP_GRACE_SECONDS)
            except port.RuntimeFailure as error:
                _log.warning("fetch not ended", workload=name, error=str(error))

        self._used.set()
        task = asyncio.create_task(work())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _volume(self, fetch: buckets.Fetch) -> owned.Volume:
        progress = self._progress.setdefault(fetch.name, _Progress())
        claim = await self._claim(fetch)
        uid = claim["metadata"]["uid"]
        if trouble := buckets.claim_trouble(fetch, claim):
            going = bool(claim["metadata"].get("deletionTimestamp"))
            reason = Reason.FETCHING if going else Reason.FETCH_FAILED
            return owned.Volume(False, trouble, reason, fetch.name, coming=going)
        if progress.mark and progress.claim_uid == uid and not buckets.fetched(claim):
            claim = await self._mark(fetch, uid, progress.mark)
        if words := buckets.fetched(claim):
            return owned.Volume(True, words, Reason.VOLUME_FOUND, fetch.name)
        if not progress.running and asyncio.get_running_loop().time() >= progress.due:
            await self._start(fetch, progress, uid)
        if progress.waiting:
            message = buckets.no_volume(fetch, claim, await self._warning(claim))
            message = message or buckets.held(fetch, progress.waiting)
            return owned.Volume(False, message, Reason.FETCHING, fetch.name, coming=True)
        if progress.failure:
            return owned.Volume(
                False, buckets.failed(fetch, progress.failure), Reason.FETCH_FAILED, fetch.name
            )
        return owned.Volume(False, buckets.being_fetched(fetch), Reason.FETCHING, fetch.name, coming=True)

    async def _claim(self, fetch: buckets.Fetch) -> client.Object:
        namespace = self._settings.namespace
        try:
            return await self._api.get("PersistentVolumeClaim", fetch.name, namespace)
        except errors.NotFound:
            pass
        try:
            made = await self._api.create(buckets.claim(fetch, namespace))
        except errors.Invalid as error:  # a size that is none
            raise buckets.NotFetchable(buckets.not_claimed(fetch, str(error))) from error
        _log.info("claim made", name=fetch.name, dataset=fetch.dataset)
        return made

    async def _mark(self, fetch: buckets.Fetch, uid: str, mark: str) -> client.Object:
        metadata = {"uid": uid, "annotations": {buckets.FETCHED_ANNOTATION: mark}}
        return await self._api.patch(
            "PersistentVolumeClaim", fetch.name, self._settings.namespace, {"metadata": metadata}
        )

    async def _warning(self, claim: client.Object) -> str:
        """Return the cluster's last warning about a claim that has no volume yet."""
        if (claim.get("status") or {}).get("phase") == "Bound":
            return ""
        fields = f"type=Warning,involvedObject.uid={claim['metadata']['uid']}"
        found = (await self._api.list("Event", self._settings.namespace, fields=fields)).items
        latest = max(found, key=lambda event: str(event.get("lastTimestamp") or ""), default={})
        return str(latest.get("message") or "")

    async def _start(self, fetch: buckets.Fetch, progress: _Progress, claim_uid: str) -> None:
        settings = self._settings
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                ips = await resolving.ips(fetch.host, fetch.port)
        except (OSError, UnicodeError):  # a timeout is an OSError, too
            raise buckets.NotFetchable(buckets.not_resolved(fetch)) from None
        workload = buckets.workload(fetch, settings.namespace, settings.image, ips, settings.node_selector)
        self._used.set()
        progress.running, progress.claim_uid, progress.mark = True, claim_uid, ""
        try:
            await self._runtime.start(workload)
        except port.WorkloadExists:
            return  # an earlier agent's: it is heard of, too
        except port.RuntimeFailure as error:
            self._failed(progress, str(error))
            return
        _log.info("fetch started", workload=fetch.name, dataset=fetch.dataset, uri=fetch.volume.url)

    def _heard(self, event: port.WorkloadEvent) -> None:
        progress = self._progress.get(event.name)
        if progress is None:
            return
        if isinstance(event, port.Waiting):
            progress.waiting = event.message
            return
        progress.waiting = ""
        if isinstance(event, port.Started):
            progress.running = True
        elif event.succeeded:
            progress.running, progress.failure, progress.failures = False, "", 0
            progress.mark = buckets.mark(event.last_words)
            _log.info("fetch ended", workload=event.name)
        else:
            why = buckets.why_ended(event)
            _log.warning("fetch failed", workload=event.name, message=why, detail="\n".join(event.log_tail))
            self._failed(progress, why)

    def _failed(self, progress: _Progress, why: str) -> None:
        progress.running, progress.failure = False, why
        seconds = min(FIRST_RETRY_SECONDS * 2.0**progress.failures, LONGEST_RETRY_SECONDS)
        progress.failures = min(progress.failures + 1, 16)
        progress.due = asyncio.get_running_loop().time() + seconds * self._rng.uniform(0.8, 1.2)
