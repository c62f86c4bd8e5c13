"""Carries out what the lifecycle decides: the thin shell around the agent's pure parts.

Facts from the link, the runtime and the owner's directory go into the table; instructions come out and are
executed, those of one assignment in order. This module refuses to decide anything itself.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime as dt
import json
import random
from collections.abc import Callable, Coroutine

import pydantic

from edge_agent import (
    assignments,
    bundles,
    client_credentials,
    facts,
    lifecycle,
    offers,
    policy,
    resources,
    sites,
    workloads,
)
from edge_agent import link as links
from federation.api import reasons
from federation.runtime import failpoints, port, tasks
from federation.telemetry import logs
from federation.trust import credentials as trust

_log = logs.get_logger(__name__)

AGAIN_SECONDS = 2.0
"""A client is started after so long when what would run it did not answer."""

TOLD_AFTER_SECONDS = 30.0
"""Then the hub is told why the client does not come: an API server that starts again is back before."""

LOOK_SECONDS = 1.0
"""So often the owner's directory and the logs are looked at, and schedules are decided anew."""


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What the agent stands in; what differs between a simulation and a cluster is its `site`."""

    cluster: str
    trust_domain: str
    site: sites.Site
    channel: trust.ReloadingChannel
    stop_grace_seconds: float
    rng: random.Random
    now: Callable[[], dt.datetime]
    hub_address: str = ""
    on_connection: Callable[[bool], None] = lambda _: None
    leaving: asyncio.Event | None = None


class Agent:
    """One edge agent at work; `run` until cancelled."""

    def __init__(self, surroundings: Surroundings, *, agent_version: str) -> None:
        """Wire the table to the link; nothing runs yet."""
        self._at = surroundings
        self._table = lifecycle.Table()
        self._facts: collections.deque[facts.Fact] = collections.deque()
        self._wake = asyncio.Event()
        self._hub = ""
        self._declared = resources.Resources()
        self._locks: dict[str, asyncio.Lock] = {}
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._uid_of: dict[str, str] = {}
        self._starting: set[str] = set()
        self._unwanted: set[str] = set()
        """Assignments whose stop waits for a start before it."""
        self._credentials = client_credentials.ClientCredentials(
            cluster=surroundings.cluster,
            trust_domain=surroundings.trust_domain,
            channel=surroundings.channel,
            site=surroundings.site,
            rng=surroundings.rng,
            now=surroundings.now,
        )
        self.link = links.Link(
            surroundings.channel,
            agent_version=agent_version,
            rng=surroundings.rng,
            on_assignments=self._assigned,
            reports=self._table.reports,
            hub_address=surroundings.hub_address,
            on_connection=surroundings.on_connection,
            leaving=surroundings.leaving,
        )

    async def run(self) -> None:
        """Work until cancelled; clients that run then are the runtime's to stop.

        Raises: link.SentAway.
        """
        self._declared = await self._at.site.declared()
        self.link.offer(self._declared.offers)
        for found in await self._at.site.found():
            self._take_over(found)
        try:
            await tasks.together(self.link.run(), self._watch_runtime(), self._work(), self._until_broken())
        finally:
            self._credentials.close()
            for task in self._tasks:
                task.cancel()

    def _take_over(self, found: sites.Found) -> None:
        uid = found.assignment.uid
        _log.info("client found running", uid=uid, name=found.name)
        self._hub = self._hub or found.hub
        self._uid_of[found.name] = uid
        self._at.site.follow_log(found.name)
        self._credentials.take_over(found.assignment)
        self._happened(facts.ClientFound(found.assignment))

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = self._table.due_at()
            wait = LOOK_SECONDS if due is None else min(LOOK_SECONDS, max(0.0, due - loop.time()))
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                await self._look()
            self._wake.clear()
            self._advance(loop.time())

    async def _look(self) -> None:
        declared = await self._at.site.declared()
        if declared is not self._declared:
            self._declared = declared
            self.link.offer(declared.offers)
        for name, uid in tuple(self._uid_of.items()):
            if lines := await self._at.site.new_lines(name):
                self.link.log_lines(uid, lines)
        in_use: dict[str, list[str]] = {}
        for assignment in self._table.using_data():
            in_use.setdefault(assignment.dataset, []).append(assignment.training)
        await self._at.site.show_use(in_use)

    def _advance(self, now: float) -> None:
        happened = tuple(self._facts)
        self._facts.clear()
        instructions = self._table.handle(now, *happened)
        decided = [facts.Decided(one.uid, self._decide(one)) for one in self._table.assignments()]
        instructions += self._table.handle(now, *decided)
        for instruction in instructions:
            self._execute(instruction)
        if any(isinstance(fact, facts.AssignmentsReceived) for fact in happened):
            self._spawn(self._at.site.tidy(self._table.has_client))

    def _decide(self, assignment: assignments.Assignment) -> policy.Decision:
        offer = self._offer(assignment.dataset)
        if offer is None or offer.unavailable:
            message = offer.unavailable if offer else None
            message = message or (
                f"{self._at.cluster} offers no data set {assignment.dataset} now; ask its owner to declare it"
            )
            if offer is not None and offer.coming:
                return policy.Waiting(reasons.ClusterReason.DATASET_UNAVAILABLE, "", None, message)
            return policy.Refused(reasons.ClusterReason.DATASET_UNAVAILABLE, "", message)
        request = policy.Request(
            hub=self._hub,
            cluster=self._at.cluster,
            namespace=assignment.namespace,
            training=assignment.name,
            dataset=assignment.dataset,
            app_digest=assignment.proven_digest,
            image=assignment.image or self._at.site.default_image,
            strategy=assignment.strategy,
            rounds=assignment.rounds,
            requests=assignment.requests,
            limits=assignment.limits,
            privacy=json.loads(assignment.privacy),
            declared_examples=offer.examples,
        )
        return policy.decide(request, self._declared.policies, self._at.now())

    def _offer(self, dataset: str) -> offers.Offer | None:
        return next((offer for offer in self._declared.offers if offer.name == dataset), None)

    def _assigned(self, hub: str, wanted: tuple[assignments.Assignment, ...]) -> None:
        failpoints.reach("agent.assigned")
        self._hub = hub
        self._happened(facts.AssignmentsReceived(wanted))

    def _happened(self, fact: facts.Fact) -> None:
        self._facts.append(fact)
        self._wake.set()

    def _execute(self, instruction: facts.Instruction) -> None:
        match instruction:
            case facts.Report():
                _log.info(
                    "assignment reported",
                    uid=instruction.uid,
                    state=instruction.state.value,
                    reason=instruction.reason,
                    message=instruction.message,
                )
                self.link.report(instruction)
            case facts.FetchBundle():
                self._spawn(self._fetch(instruction))
            case facts.RequestCertificate():
                self._spawn(self._in_turn(instruction.uid, self._certify(instruction.assignment)))
            case facts.StartClient():
                self._spawn(self._in_turn(instruction.uid, self._start(instruction)))
            case facts.StopClient():
                self._unwanted.add(instruction.uid)
                self._spawn(self._in_turn(instruction.uid, self._stop(instruction)))
            case facts.Discard():
                self._spawn(self._in_turn(instruction.uid, self._discard(instruction)))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._broken.done():
            self._broken.set_exception(error)

    async def _until_broken(self) -> None:
        # An instruction whose outcome never came would leave its assignment hanging; better to end loudly.
        await self._broken

    async def _in_turn(self, uid: str, work: Coroutine[None, None, None]) -> None:
        # A lock serves those that wait in order, so that a stop never overtakes the start that it is for.
        # Locks are kept: dropping one while somebody waits would let another pass.
        async with self._locks.setdefault(uid, asyncio.Lock()):
            await work

    async def _fetch(self, order: facts.FetchBundle) -> None:
        try:
            await bundles.fetch(self._at.channel, order.digest, self._at.site.shelf)
        except bundles.BundleNotFetched as error:
            self._happened(
                facts.BundleNotFetched(order.uid, order.digest, error.reason, error.message, error.may_retry)
            )
        else:
            self._happened(facts.BundleFetched(order.uid, order.digest))

    async def _certify(self, assignment: assignments.Assignment) -> None:
        outcome = await self._credentials.request(assignment)
        failpoints.reach("agent.client-certified")
        self._happened(outcome)

    async def _start(self, order: facts.StartClient) -> None:
        begun, told = asyncio.get_running_loop().time(), ""
        while True:
            try:
                return await self._start_now(order)
            except (port.RuntimeAway, sites.SiteAway) as error:
                # No trouble of the client's: it counts as no restart of it.
                _log.warning("client waits to be started", uid=order.uid, error=str(error))
                reason, who = _what_is_away(error)
                if reason != told and asyncio.get_running_loop().time() - begun >= TOLD_AFTER_SECONDS:
                    told, why = reason, f"{who} does not let the client start, which is tried again: {error}"
                    self._happened(facts.ClientWaiting(order.uid, reason, why))
                await asyncio.sleep(AGAIN_SECONDS)
                if order.uid in self._unwanted:  # there is nothing to stop
                    detail = f"the client was not started: {error}"
                    failed = reasons.ClusterReason.CLIENT_START_FAILED
                    self._happened(facts.ClientExited(order.uid, None, detail, reason=failed))
                    return

    async def _start_now(self, order: facts.StartClient) -> None:
        name = workloads.name_of(order.uid, order.assignment.name)
        failed = reasons.ClusterReason.CLIENT_START_FAILED
        try:
            offer = self._offer(order.assignment.dataset)
            if offer is None:
                raise offers.DatasetUnavailable(f"data set {order.assignment.dataset} is no longer offered")
            workload = await self._at.site.workload(self._hub, order.assignment, order.decision, offer)
            self._uid_of[name] = order.uid
            self._at.site.follow_log(name)
            failpoints.reach("agent.client-starts")
            self._starting.add(name)
            try:
                await self._at.site.runtime.start(workload)
            finally:
                self._starting.discard(name)
            failpoints.reach("agent.client-started")
        except (port.RuntimeAway, sites.SiteAway):
            raise
        except offers.DatasetUnavailable as error:
            unavailable = reasons.ClusterReason.DATASET_UNAVAILABLE
            self._happened(facts.ClientExited(order.uid, None, str(error), reason=unavailable))
        except (port.RuntimeFailure, sites.SiteFailure, pydantic.ValidationError, OSError) as error:
            detail = f"the client could not be started: {error}"
            self._happened(facts.ClientExited(order.uid, None, detail, reason=failed))

    async def _stop(self, order: facts.StopClient) -> None:
        self._unwanted.discard(order.uid)
        for name in [name for name, uid in self._uid_of.items() if uid == order.uid]:
            await self._at.site.runtime.stop(name, self._at.stop_grace_seconds)

    async def _discard(self, order: facts.Discard) -> None:
        self._credentials.end(order.uid)
        self._uid_of.pop(workloads.name_of(order.uid, order.assignment.name), None)
        await self._at.site.forget(order.assignment)
        failpoints.reach("agent.client-forgotten")

    async def _watch_runtime(self) -> None:
        async for event in self._at.site.runtime.events():
            uid = self._uid_of.get(event.name)
            if uid is None:
                continue
            if isinstance(event, port.Started):
                _log.info("client started", uid=uid, name=event.name, pid=event.handle)
                self._happened(facts.ClientStarted(uid))
            elif isinstance(event, port.Waiting):
                _log.info("client waits", uid=uid, name=event.name, reason=event.reason)
                self._happened(facts.ClientWaiting(uid, _reason(event.reason), event.message))
            elif event.name in self._starting:
                # Of an earlier agent's client, which makes room for the one that starts.
                _log.info("client before this one is gone", uid=uid, name=event.name)
            else:
                await self._ended(uid, event)

    async def _ended(self, uid: str, event: port.Exited) -> None:
        how = (
            f"ended with exit code {event.exit_code}"
            if event.signal is None
            else f"was ended by {event.signal}"
        )
        _log.info(
            "client ended",
            uid=uid,
            name=event.name,
            exit_code=event.exit_code,
            signal=event.signal,
            reason=event.reason,
        )
        failpoints.reach("agent.client-ended")
        self.link.log_lines(uid, await self._at.site.new_lines(event.name))
        detail = f"the client {how}" + (f": {event.message}" if event.message else "")
        self._happened(
            facts.ClientExited(uid, event.exit_code, detail, event.log_tail, _reason(event.reason))
        )


def _what_is_away(error: Exception) -> tuple[reasons.ClusterReason, str]:
    if isinstance(error, sites.NameWithoutAnswer):
        return reasons.ClusterReason.NETWORK_NOT_READY, "The edge's network"
    return reasons.ClusterReason.NOT_ADMITTED, "The edge's Kubernetes"


def _reason(text: str) -> reasons.ClusterReason:
    """Return the catalogue's word for a runtime's; what it does not have is told by the message."""
    try:
        return reasons.ClusterReason(text)
    except ValueError:
        return reasons.ClusterReason.CLIENT_EXITED
