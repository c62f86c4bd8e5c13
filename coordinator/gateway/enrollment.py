"""How an edge becomes a member and stays one: Join with a one-time token, Renew with the certificate in
force.

This module refuses to know what members do; it hands out certificates and writes who joined.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pydantic

from coordinator.clients import authority, members, token_shelf
from coordinator.issuing import certificate_authority, tokens
from coordinator.planning import membership, snapshot
from federation.api import cluster as api
from federation.api import meta, reasons
from federation.store import port as stores
from federation.telemetry import logs
from federation.trust import certificates, interceptors
from federation.trust import identity as identities
from federation.wire import denials
from federation.wire import hanse_pb2 as pb
from federation.wire import hanse_pb2_grpc as pb_grpc

_log = logs.get_logger(__name__)
_T = TypeVar("_T")

_LABELS: pydantic.TypeAdapter[dict[str, str]] = pydantic.TypeAdapter(meta.Labels)
_LABEL_KEY = re.compile(meta.LABEL_KEY_PATTERN)
MAXIMUM_KEY_CHARACTERS = 317


class Enrollment(pb_grpc.EnrollmentServicer):
    """Serves Join on the enrollment listener and Renew on the control listener."""

    def __init__(
        self,
        shelf: token_shelf.TokenShelf,
        issuer: authority.Authority,
        roll: members.Members,
        control_address: Callable[[], str],
        now: Callable[[], datetime],
        running: Callable[[str, str, float], object] = lambda namespace, name, issued_at: None,
    ) -> None:
        """Wire it; `running(namespace, name, issued_at)` raises Denied for an unwanted aggregator."""
        self._shelf = shelf
        self._issuer = issuer
        self._roll = roll
        self._joining = asyncio.Lock()
        self._running = running
        self._control_address = control_address
        self._now = now

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:
        """Redeem the token, sign the certificate, write the member."""
        name = request.cluster
        try:
            identity = identities.ClusterIdentity(self._issuer.trust_domain, name)
        except identities.InvalidIdentity as error:
            raise denials.Denied(denials.Reason.CLUSTER_NAME_INVALID, detail=str(error)) from error
        labels = checked_labels(dict(request.labels))
        used = await self._shelf.redeem(request.token, name, self._now())
        # One at a time: of two tokens for one new name, the second finds the name taken.
        async with self._joining:
            chain = await self._or_give_back(used, self._admit(used, identity, request, labels))
        _log.info("cluster joined", cluster=name, token_id=used.token_id, peer=identity.uri)
        return pb.JoinReply(
            certificate=pb.CertificateReply(chain_pem=chain, trust_bundle_pem=self._issuer.bundle_pem),
            control_address=self._control_address(),
            control_server_name=identities.CoordinatorIdentity(self._issuer.trust_domain).server_name,
        )

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.CertificateReply:
        """Sign a new certificate for the identity that calls."""
        identity = interceptors.peer_identity(context)
        if isinstance(identity, identities.ClusterIdentity):
            member = await self._roll.find(identity.cluster)
            if member is None:
                raise denials.Denied(
                    denials.Reason.UNKNOWN_IDENTITY, detail=f"{identity.cluster} is no member"
                )
            refuse_who_is_out(member, identity)
        elif isinstance(identity, identities.AggregatorIdentity):
            caller = interceptors.peer(context)
            assert caller is not None  # it has an identity
            self._running(identity.namespace, identity.training, issued_at(caller))
        chain = self._issuer.issue(request.csr_pem, identity)
        if isinstance(identity, identities.ClusterIdentity):
            await self._roll.update(identity.cluster, lambda status: self._certificate(status, chain))
        _log.info("certificate renewed", peer=identity.uri)
        return pb.CertificateReply(chain_pem=chain, trust_bundle_pem=self._issuer.bundle_pem)

    async def _admit(
        self,
        used: tokens.TokenRecord,
        identity: identities.ClusterIdentity,
        request: pb.JoinRequest,
        labels: dict[str, str],
    ) -> bytes:
        name = identity.cluster
        known = await self._roll.find(name)
        if known is not None:
            if known["spec"].get("acceptance") == api.Acceptance.EXPELLED:
                raise denials.Denied(denials.Reason.EXPELLED, cluster=name)
            # A token for this very name is the operator's word that its holder takes the member's place.
            if (known.get("status") or {}).get("joinedAt") and used.cluster != name:
                raise denials.Denied(denials.Reason.CLUSTER_NAME_TAKEN, cluster=name)
        chain = self._issuer.issue(request.csr_pem, identity)
        acceptance = api.Acceptance.ACCEPTED if used.approves else api.Acceptance.PENDING
        stored = await self._roll.ensure(name, acceptance)
        pending = stored["spec"].get("acceptance") == api.Acceptance.PENDING

        def joined(status: members.Status) -> None:
            status["joinedAt"] = snapshot.timestamp(self._now().timestamp())
            status["agentLabels"] = labels
            reason = (
                reasons.EdgeClusterReason.AWAITING_ACCEPTANCE
                if pending
                else reasons.EdgeClusterReason.ENROLLED
            )
            message = (
                f"It joined and waits to be accepted; approve it with `hanse clusters approve {name}`."
                if pending
                else "It joined with a token and holds a certificate."
            )
            self._roll.set_condition(status, reasons.EdgeClusterCondition.JOINED, True, reason, message)
            self._certificate(status, chain)

        await self._roll.update(name, joined)
        return chain

    async def _or_give_back(self, used: tokens.TokenRecord, attempt: Awaitable[_T]) -> _T:
        try:
            return await attempt
        except BaseException:
            await asyncio.shield(self._shelf.give_back(used))
            raise

    def _certificate(self, status: members.Status, chain: bytes) -> None:
        summary = certificates.summarise(chain)
        expires = summary.not_after.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status["certificate"] = {"sha256": summary.fingerprint.removeprefix("sha256:"), "expiresAt": expires}
        self._roll.set_certificate(status, membership.issued(expires))


def refuse_who_is_out(member: stores.Resource, identity: identities.ClusterIdentity) -> None:
    """Refuse a member that was expelled or has left. Raises: Denied.

    Read in the resource and not in the guard's list: one that has just joined again is heard at once.
    """
    if member["spec"].get("acceptance") == api.Acceptance.EXPELLED:
        raise denials.Denied(denials.Reason.EXPELLED, cluster=identity.cluster)
    if membership.has_left(member.get("status") or {}):
        raise denials.Denied(denials.Reason.REVOKED, identity=identity.uri)


def issued_at(summary: certificates.Summary) -> float:
    """When a certificate of ours was issued, unix seconds: it is good from a little earlier."""
    return (summary.not_before + certificate_authority.CLOCK_SKEW).timestamp()


def checked_labels(labels: dict[str, str]) -> dict[str, str]:
    """Return labels that are of Kubernetes' form and number. Raises: Denied(BAD_MESSAGE)."""
    if not all(len(key) <= MAXIMUM_KEY_CHARACTERS and _LABEL_KEY.fullmatch(key) for key in labels):
        raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="a label's key is not of Kubernetes' form")
    try:
        return _LABELS.validate_python(labels)
    except pydantic.ValidationError as error:
        raise denials.Denied(
            denials.Reason.BAD_MESSAGE, detail="a label is not one of Kubernetes' form"
        ) from error
