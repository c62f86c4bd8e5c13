"""The edge agents' side of the hub: one session each, client certificates and app bundles for what they are
assigned.

Thin: what an agent says goes into the registry of links and into its EdgeCluster's status, what the planner
wants goes out. This module refuses to decide which cluster takes part in what.
"""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, NoReturn

from coordinator.clients import authority, bundles, members
from coordinator.gateway import enrollment, links, sessions, translate
from coordinator.planning import desired, membership, snapshot
from federation.api import cluster as api
from federation.api import reasons
from federation.runtime import tasks
from federation.store import port as stores
from federation.telemetry import logs
from federation.trust import identity as identities
from federation.trust import interceptors
from federation.wire import denials, protocol
from federation.wire import hanse_pb2 as pb
from federation.wire import hanse_pb2_grpc as pb_grpc

_log = logs.get_logger(__name__)

Condition = reasons.EdgeClusterCondition
Reason = reasons.EdgeClusterReason
OnLog = Callable[[str, str, Sequence[str]], None]

BUNDLE_CHUNK_BYTES = 256 * 1024
"""Large enough to be fast, small enough that a heartbeat on the same connection does not wait behind it."""

MAXIMUM_DATASETS = 256
"""As many as an EdgeCluster's status can hold."""

MISSED_HEARTBEATS = 3
"""One may be late and one lost; three in a row is a dead link."""

HEARTBEAT_WRITE_SECONDS = 30.0
"""A status write for every heartbeat of every edge would be most of the store's work and tell nobody
anything."""


_EXPELLED = (
    "It was expelled: its certificate is revoked. To let it back in, approve it with "
    "`hanse clusters approve {}` and let its operator join again."
)


def _read_chunk(path: pathlib.Path, start: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(BUNDLE_CHUNK_BYTES)


class Control(pb_grpc.ControlServicer):
    """Serves edge agents on the control listener."""

    def __init__(
        self,
        *,
        hub: str,
        registry: links.AgentLinks,
        roll: members.Members,
        issuer: authority.Authority,
        shelf: bundles.BundleShelf,
        on_log: OnLog,
        now: Callable[[], float],
        heartbeat_interval_seconds: float = 10.0,
        terms: translate.Terms = translate.ONE_ADDRESS_EACH,
    ) -> None:
        """Serve; `on_log(uid, source, lines)` takes client logs; `now` is unix seconds."""
        self._hub = hub
        self._registry = registry
        self._roll = roll
        self._issuer = issuer
        self._shelf = shelf
        self._on_log = on_log
        self._now = now
        self._heartbeat_seconds = heartbeat_interval_seconds
        self._terms = terms

    async def Session(self, requests: AsyncIterator[pb.AgentMessage], context: Any) -> None:
        """One agent, until either side ends it."""
        name = await self._member(context)
        first = await sessions.hello(requests)
        if first.WhichOneof("body") != "hello":
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="the first message is no hello")
        version = protocol.agree(first.hello.protocol)
        if isinstance(version, denials.Denial):
            raise denials.Denied(version)
        link = self._registry.open(name)
        reason, message = (
            Reason.SESSION_CLOSED,
            "Its agent's session ended; the agent connects again by itself.",
        )
        try:
            _log.info("agent connected", cluster=name, protocol=version)
            await self._opened(name, first.hello.agent_version, version)
            welcome = pb.AgentWelcome(
                protocol=version, heartbeat_interval_seconds=self._heartbeat_seconds, hub=self._hub
            )
            await context.write(pb.HubMessage(welcome=welcome))
            await tasks.together(
                self._read(name, requests), self._write(link, context), sessions.over(link.ending)
            )
        except sessions.SilentError as error:
            reason = Reason.HEARTBEAT_MISSED
            message = f"Heartbeats are missing: {error}. Its agent connects again; if not, look at its log."
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="heartbeats are missing") from error
        finally:
            if self._registry.close(link):
                _log.info("agent disconnected", cluster=name, reason=str(reason))
                # Whatever ends the session, the status says so; the store's own write is not to be cut short.
                await asyncio.shield(self._closed(name, reason, message))

    async def IssueClientCertificate(
        self, request: pb.IssueClientCertificateRequest, context: Any
    ) -> pb.CertificateReply:
        """A certificate for one client process of a training that this cluster is asked to take part in."""
        name = await self._member(context)
        for assignment in self._assigned(name):
            if (assignment.namespace, assignment.name, assignment.dataset) == (
                request.namespace,
                request.name,
                request.dataset,
            ):
                identity = identities.ClientIdentity(
                    self._issuer.trust_domain, name, request.namespace, request.name, request.dataset
                )
                chain = self._issuer.issue(request.csr_pem, identity)
                _log.info("client certificate issued", cluster=name, peer=identity.uri)
                return pb.CertificateReply(chain_pem=chain, trust_bundle_pem=self._issuer.bundle_pem)
        raise denials.Denied(
            denials.Reason.UNKNOWN_ASSIGNMENT,
            cluster=name,
            training=f"{request.namespace}/{request.name}",
            dataset=request.dataset,
        )

    async def FetchBundle(self, request: pb.FetchBundleRequest, context: Any) -> None:
        """The app bundle of an assignment, from an offset on."""
        name = await self._member(context)
        assigned = {entry.app.digest for entry in self._assigned(name) if entry.app.bundled}
        path = self._shelf.path(request.digest) if request.digest in assigned else None
        if path is None:
            raise denials.Denied(denials.Reason.UNKNOWN_BUNDLE, digest=request.digest[:80], cluster=name)
        size = path.stat().st_size
        if request.offset > size:
            detail = f"the bundle has {size} bytes, offset {request.offset} is beyond"
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail=detail)
        # Chunk by chunk from the disk: one that asks many times and reads nothing costs a chunk each time.
        for start in range(request.offset, size, BUNDLE_CHUNK_BYTES):
            await context.write(pb.BundleChunk(data=await asyncio.to_thread(_read_chunk, path, start)))

    def _assigned(self, name: str) -> tuple[desired.Assignment, ...]:
        """What the cluster is asked to do. Raises: Denied(BUSY) before that is known."""
        if not self._registry.is_released:
            raise denials.Denied(denials.Reason.BUSY, detail=links.NOT_YET)
        return self._registry.assigned(name)

    async def _member(self, context: Any) -> str:
        identity = interceptors.peer_identity(context)
        if not isinstance(identity, identities.ClusterIdentity):
            raise denials.Denied(denials.Reason.NOT_AUTHORISED, identity=identity.uri, method="Control")
        resource = await self._roll.find(identity.cluster)
        if resource is None:
            raise denials.Denied(
                denials.Reason.UNKNOWN_IDENTITY, detail=f"cluster {identity.cluster} is no member"
            )
        enrollment.refuse_who_is_out(resource, identity)
        return identity.cluster

    async def _read(self, name: str, requests: AsyncIterator[pb.AgentMessage]) -> None:
        deadline = MISSED_HEARTBEATS * self._heartbeat_seconds
        heard_at = self._now()
        while (message := await sessions.receive(requests, deadline)) is not None:
            match message.WhichOneof("body"):
                case "datasets":
                    await self._offered(name, message.datasets)
                    self._registry.offered(name)
                case "assignment":
                    status = message.assignment
                    self._registry.report(name, status.uid, translate.report(status))
                case "heartbeat":
                    if self._now() - heard_at >= HEARTBEAT_WRITE_SECONDS:
                        heard_at = self._now()
                        await self._roll.update(name, self._heard)
                case "log":
                    if any(entry.uid == message.log.uid for entry in self._registry.assigned(name)):
                        self._on_log(message.log.uid, f"client/{name}", translate.lines(message.log.lines))
                case "leaving":
                    await self._left(name)
                case _:  # a second hello, or something of a newer agent
                    raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="unexpected message in a session")

    async def _write(self, link: links.Link, context: Any) -> None:
        sent: tuple[desired.Assignment, ...] | None = None
        await self._registry.released()
        while True:
            await link.news.wait()
            link.news.clear()
            if link.goodbye is not None:
                over = link.goodbye
                goodbye = pb.Goodbye(
                    reason=over.reason.value, message=over.message, may_return=over.may_retry
                )
                await context.write(pb.HubMessage(goodbye=goodbye))
                return
            wanted = self._registry.assigned(link.name)
            if wanted != sent:
                sent = wanted
                await context.write(pb.HubMessage(assignments=translate.assignments(wanted, self._terms)))

    async def _opened(self, name: str, agent_version: str, version: int) -> None:
        def change(status: members.Status) -> None:
            status["agent"] = {
                "version": translate.text(agent_version, 128) or "unknown",
                "protocol": version,
            }
            self._heard(status)
            self._roll.set_condition(
                status,
                Condition.CONNECTED,
                True,
                Reason.SESSION_OPEN,
                "Its agent has a session with the hub.",
            )

        await self._roll.update(name, change)

    async def _closed(self, name: str, reason: Reason, message: str) -> None:
        def change(status: members.Status) -> None:
            self._roll.set_condition(status, Condition.CONNECTED, False, reason, message)

        try:
            member = await self._roll.find(name)
            if member is not None and member["spec"].get("acceptance") == api.Acceptance.EXPELLED:
                reason, message = Reason.EXPELLED, _EXPELLED.format(name)
            elif member is not None and membership.has_left(member.get("status") or {}):
                reason, message = Reason.LEFT, membership.left(name)
            await self._roll.update(name, change)
        except stores.StoreError as error:
            _log.warning("cluster's status not written", error=str(error), cluster=name)

    async def _left(self, name: str) -> NoReturn:
        """Write down that the edge's operator takes it out. Raises: Denied(REVOKED), once that is stored."""

        def change(status: members.Status) -> None:
            message = membership.left(name)
            for type_ in (Condition.JOINED, Condition.CONNECTED):
                self._roll.set_condition(status, type_, False, Reason.LEFT, message)
            status["datasets"] = []

        await self._roll.update(name, change)
        _log.info("cluster left", cluster=name)
        identity = identities.ClusterIdentity(self._issuer.trust_domain, name)
        revoked = denials.denial(denials.Reason.REVOKED, identity=identity.uri)
        self._registry.send_away(name, revoked)
        raise denials.Denied(revoked)

    async def _offered(self, name: str, offered: pb.OfferedDatasets) -> None:
        if len(offered.datasets) > MAXIMUM_DATASETS:
            detail = f"{len(offered.datasets)} data sets are offered, at most {MAXIMUM_DATASETS} are listed"
            raise denials.Denied(denials.Reason.BAD_MESSAGE, detail=detail)
        listed: dict[str, dict[str, Any]] = {}
        for entry in offered.datasets:
            if not identities.is_label(entry.name):
                raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="a data set's name is no DNS label")
            listed[entry.name] = {"name": entry.name}
            if entry.HasField("examples"):
                listed[entry.name]["examples"] = translate.big_count(entry.examples)
            if entry.labels:
                listed[entry.name]["labels"] = enrollment.checked_labels(dict(entry.labels))

        def change(status: members.Status) -> None:
            status["datasets"] = [listed[dataset] for dataset in sorted(listed)]

        await self._roll.update(name, change)

    def _heard(self, status: members.Status) -> None:
        status["lastHeartbeatAt"] = snapshot.timestamp(self._now())
