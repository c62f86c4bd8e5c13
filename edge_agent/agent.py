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
import pathlib
import random
from collections.abc import Callable, Coroutine, Mapping

import grpc.aio
import pydantic

from edge_agent import (
    assignments,
    bundles,
    credentials,
    facts,
    lifecycle,
    offers,
    policy,
    resources,
    tails,
    workloads,
)
from edge_agent import link as links
from edge_agent.client import config as client_config
from federation.api import reasons
from federation.runtime import port, processes, tasks
from federation.telemetry import logs
from federation.trust import credentials as trust
from federation.trust import directory as trust_directory
from federation.trust import identity as identities
from federation.wire import denials, hanse_pb2, hanse_pb2_grpc

_log = logs.get_logger(__name__)

LOOK_SECONDS = 1.0
"""So often the owner's directory and the logs are looked at, and schedules are decided anew."""


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What the agent stands in; everything that differs between a test, a simulation and a cluster."""

    cluster: str
    trust_domain: str
    places: workloads.Places
    runtime: port.Runtime
    channel: trust.ReloadingChannel
    directory: resources.Directory
    python: str
    environment: Mapping[str, str]
    log_level: client_config.LogLevel
    stop_grace_seconds: float
    rng: random.Random
    now: Callable[[], dt.datetime]
    log_path: Callable[[str], pathlib.Path]


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
        self._renewals: dict[str, asyncio.Task[None]] = {}
        self._uid_of: dict[str, str] = {}
        self._tails: dict[str, tails.Tail] = {}
        self.link = links.Link(
            surroundings.channel,
            agent_version=agent_version,
            rng=surroundings.rng,
            on_assignments=self._assigned,
            reports=self._table.reports,
        )

    async def run(self) -> None:
        """Work until cancelled; clients that run then are the runtime's to stop.

        Raises: link.SentAway.
        """
        self._declared = await asyncio.to_thread(self._at.directory.read)
        self.link.offer(self._declared.offers)
        try:
            await tasks.together(self.link.run(), self._watch_runtime(), self._work(), self._until_broken())
        finally:
            for task in (*self._tasks, *self._renewals.values()):
                task.cancel()

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
        declared = await asyncio.to_thread(self._at.directory.read)
        if declared is not self._declared:
            self._declared = declared
            self.link.offer(declared.offers)
        for name, tail in tuple(self._tails.items()):
            lines = await asyncio.to_thread(tail.read_new)
            if lines and name in self._uid_of:
                self.link.log_lines(self._uid_of[name], lines)

    def _advance(self, now: float) -> None:
        happened = tuple(self._facts)
        self._facts.clear()
        instructions = self._table.handle(now, *happened)
        decided = [facts.Decided(one.uid, self._decide(one)) for one in self._table.assignments()]
        instructions += self._table.handle(now, *decided)
        for instruction in instructions:
            self._execute(instruction)

    def _decide(self, assignment: assignments.Assignment) -> policy.Decision:
        offer = self._offer(assignment.dataset)
        if offer is None or offer.unavailable:
            message = offer.unavailable if offer else None
            message = message or (
                f"{self._at.cluster} offers no data set {assignment.dataset} now; ask its owner to declare it"
            )
            return policy.Refused(reasons.ClusterReason.DATASET_UNAVAILABLE, "", message)
        request = policy.Request(
            hub=self._hub,
            cluster=self._at.cluster,
            namespace=assignment.namespace,
            training=assignment.name,
            dataset=assignment.dataset,
            app_digest=assignment.proven_digest,
            image=assignment.image,
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
                self._spawn(self._in_turn(instruction.uid, self._certify(instruction)))
            case facts.StartClient():
                self._spawn(self._in_turn(instruction.uid, self._start(instruction)))
            case facts.StopClient():
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
            await bundles.fetch(self._at.channel, order.digest, self._at.places.bundle(order.digest))
        except bundles.BundleNotFetched as error:
            self._happened(
                facts.BundleNotFetched(order.uid, order.digest, error.reason, error.message, error.may_retry)
            )
        else:
            self._happened(facts.BundleFetched(order.uid, order.digest))

    async def _certify(self, order: facts.RequestCertificate) -> None:
        refused = reasons.ClusterReason.CREDENTIALS_REFUSED
        assignment = order.assignment
        path = self._at.places.client_credentials(assignment)
        try:
            identity = identities.ClientIdentity(
                self._at.trust_domain,
                self._at.cluster,
                assignment.namespace,
                assignment.name,
                assignment.dataset,
            )
            await credentials.obtain(path, identity, self._issuer(assignment))
        except grpc.aio.AioRpcError as error:
            denial = denials.from_rpc_error(error)
            reason = refused if denial else reasons.ClusterReason.LINK_LOST
            message = denial.message if denial else f"the hub is away: {credentials.describe(error)}"
            may_retry = denial is None or denial.may_retry
            self._happened(facts.CertificateNotIssued(order.uid, reason, message, may_retry))
        except (identities.InvalidIdentity, credentials.NotEnrolled) as error:
            self._happened(facts.CertificateNotIssued(order.uid, refused, str(error), may_retry=False))
        except OSError as error:
            message = f"the client's certificate cannot be stored: {error}; make room at {path}"
            self._happened(
                facts.CertificateNotIssued(
                    order.uid, reasons.ClusterReason.STORAGE_FULL, message, may_retry=True
                )
            )
        else:
            self._keep_fresh(order.uid, path, identity, self._issuer(assignment))
            self._happened(facts.CertificateIssued(order.uid))

    def _issuer(self, assignment: assignments.Assignment) -> credentials.Issue:
        async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
            async with self._at.channel.use() as channel:
                stub = hanse_pb2_grpc.ControlStub(channel)
                reply = await stub.IssueClientCertificate(
                    hanse_pb2.IssueClientCertificateRequest(
                        namespace=assignment.namespace,
                        name=assignment.name,
                        dataset=assignment.dataset,
                        csr_pem=csr_pem,
                    ),
                    timeout=credentials.CALL_TIMEOUT_SECONDS,
                )
                assert isinstance(reply, hanse_pb2.CertificateReply)
                return reply

        return issue

    def _keep_fresh(
        self, uid: str, path: pathlib.Path, identity: identities.ClientIdentity, issue: credentials.Issue
    ) -> None:
        async def renew() -> None:
            try:
                await credentials.keep_fresh(path, identity, issue, rng=self._at.rng, now=self._at.now)
            except (credentials.NotEnrolled, trust_directory.CredentialsUnusable) as error:
                _log.warning("client certificate not renewed", uid=uid, error=str(error))

        self._end_renewal(uid)
        self._renewals[uid] = asyncio.create_task(renew())

    def _end_renewal(self, uid: str) -> None:
        renewal = self._renewals.pop(uid, None)
        if renewal is not None:
            renewal.cancel()

    async def _start(self, order: facts.StartClient) -> None:
        name = workloads.name_of(order.uid, order.assignment.name)
        failed = reasons.ClusterReason.CLIENT_START_FAILED
        try:
            offer = self._offer(order.assignment.dataset)
            if offer is None:
                raise offers.DatasetUnavailable(f"data set {order.assignment.dataset} is no longer offered")
            location = await asyncio.to_thread(offers.place, offer, self._at.places.data)
            workload = workloads.client(
                order.assignment,
                order.decision,
                cluster=self._at.cluster,
                places=self._at.places,
                node_config=offers.node_config(offer, location),
                python=self._at.python,
                environment=self._at.environment,
                log_level=self._at.log_level,
            )
            self._uid_of[name] = order.uid
            self._tails[name] = tails.Tail(self._at.log_path(name))
            await self._at.runtime.start(workload)
        except offers.DatasetUnavailable as error:
            unavailable = reasons.ClusterReason.DATASET_UNAVAILABLE
            self._happened(facts.ClientExited(order.uid, None, str(error), reason=unavailable))
        except (port.RuntimeFailure, pydantic.ValidationError, OSError) as error:
            detail = f"the client could not be started: {error}"
            self._happened(facts.ClientExited(order.uid, None, detail, reason=failed))

    async def _stop(self, order: facts.StopClient) -> None:
        for name in [name for name, uid in self._uid_of.items() if uid == order.uid]:
            await self._at.runtime.stop(name, self._at.stop_grace_seconds)

    async def _discard(self, order: facts.Discard) -> None:
        self._end_renewal(order.uid)
        name = workloads.name_of(order.uid, order.assignment.name)
        self._uid_of.pop(name, None)
        self._tails.pop(name, None)
        await asyncio.to_thread(processes.remove_tree, self._at.places.client(order.assignment))

    async def _watch_runtime(self) -> None:
        async for event in self._at.runtime.events():
            uid = self._uid_of.get(event.name)
            if uid is None:
                continue
            if isinstance(event, port.Started):
                _log.info("client started", uid=uid, name=event.name, pid=event.handle)
                continue
            if isinstance(event, port.Waiting):
                continue
            how = (
                f"ended with exit code {event.exit_code}"
                if event.signal is None
                else f"was ended by {event.signal}"
            )
            _log.info(
                "client ended", uid=uid, name=event.name, exit_code=event.exit_code, signal=event.signal
            )
            tail = self._tails.get(event.name)
            if tail is not None:
                self.link.log_lines(uid, await asyncio.to_thread(tail.read_new))
            self._happened(facts.ClientExited(uid, event.exit_code, f"the client {how}", event.log_tail))
