"""The identities of an agent's clients: asked of the hub, and renewed for as long as their clients run.

This module refuses to know what becomes of an assignment; it tells what came of its requests.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from collections.abc import Callable, Coroutine

import grpc.aio

from edge_agent import assignments, backoff, credentials, facts, sites
from federation.api import reasons
from federation.telemetry import logs
from federation.trust import credentials as trust
from federation.trust import directory as trust_directory
from federation.trust import identity as identities
from federation.wire import denials, hanse_pb2, hanse_pb2_grpc

_log = logs.get_logger(__name__)


class ClientCredentials:
    """Requests and renewals, by assignment."""

    def __init__(
        self,
        *,
        cluster: str,
        trust_domain: str,
        channel: trust.ReloadingChannel,
        site: sites.Site,
        rng: random.Random,
        now: Callable[[], dt.datetime],
    ) -> None:
        """Keep the wiring; nothing is asked yet."""
        self._cluster = cluster
        self._trust_domain = trust_domain
        self._channel = channel
        self._site = site
        self._rng = rng
        self._now = now
        self._renewals: dict[str, asyncio.Task[None]] = {}

    async def request(
        self, assignment: assignments.Assignment
    ) -> facts.CertificateIssued | facts.CertificateNotIssued:
        """Have a certificate issued for this assignment's client, and keep it fresh from then on."""
        uid, refused = assignment.uid, reasons.ClusterReason.CREDENTIALS_REFUSED
        path = self._site.credentials(assignment)
        try:
            identity = self._identity(assignment)
            await credentials.obtain(path, identity, self._issuer(assignment))
        except grpc.aio.AioRpcError as error:
            denial = denials.from_rpc_error(error)
            reason = refused if denial else reasons.ClusterReason.LINK_LOST
            message = denial.message if denial else f"the hub is away: {credentials.describe(error)}"
            return facts.CertificateNotIssued(uid, reason, message, denial is None or denial.may_retry)
        except (identities.InvalidIdentity, credentials.NotEnrolled) as error:
            return facts.CertificateNotIssued(uid, refused, str(error), may_retry=False)
        except OSError as error:
            message = f"the client's certificate cannot be stored: {error}; make room at {path}"
            full = reasons.ClusterReason.STORAGE_FULL
            return facts.CertificateNotIssued(uid, full, message, may_retry=True)
        self._begin(assignment, self._renew(assignment, is_new=True))
        return facts.CertificateIssued(uid)

    def take_over(self, assignment: assignments.Assignment) -> None:
        """Keep a client's certificate fresh whose key an earlier agent made: by a new one, soon."""
        self._begin(assignment, self._renew(assignment, is_new=False))

    def end(self, uid: str) -> None:
        """Renew no longer."""
        renewal = self._renewals.pop(uid, None)
        if renewal is not None:
            renewal.cancel()

    def close(self) -> None:
        """Renew nothing any more."""
        for uid in tuple(self._renewals):
            self.end(uid)

    def _begin(self, assignment: assignments.Assignment, renewing: Coroutine[None, None, None]) -> None:
        self.end(assignment.uid)
        self._renewals[assignment.uid] = asyncio.create_task(renewing)

    async def _renew(self, assignment: assignments.Assignment, *, is_new: bool) -> None:
        # As long as it is wanted: a client whose certificate has ended trains on when it gets another one.
        try:
            while True:
                if not is_new:
                    await self._have_another(assignment)
                try:
                    await self._keep_fresh(assignment)
                except (trust_directory.CredentialsUnusable, sites.SiteFailure) as error:
                    _log.warning("certificate not renewed yet", uid=assignment.uid, error=str(error))
                    await asyncio.sleep(backoff.LONGEST_SECONDS)
                    is_new = False
        except (identities.InvalidIdentity, credentials.NotEnrolled) as error:
            _log.warning("client certificate not renewed", uid=assignment.uid, error=str(error))

    async def _have_another(self, assignment: assignments.Assignment) -> None:
        failures = 0
        while True:
            try:
                await credentials.obtain(
                    self._site.credentials(assignment), self._identity(assignment), self._issuer(assignment)
                )
                await self._site.hand_over_credentials(assignment)
                return
            except (grpc.aio.AioRpcError, OSError, sites.SiteFailure) as error:
                failures += 1
                _log.warning(
                    "certificate not renewed yet", uid=assignment.uid, error=credentials.describe(error)
                )
                await asyncio.sleep(backoff.seconds(failures, self._rng))

    async def _keep_fresh(self, assignment: assignments.Assignment) -> None:
        async def hand_over() -> None:
            await self._site.hand_over_credentials(assignment)

        await credentials.keep_fresh(
            self._site.credentials(assignment),
            self._identity(assignment),
            self._issuer(assignment),
            rng=self._rng,
            now=self._now,
            keep=hand_over,
            asked_by_itself=False,
        )

    def _identity(self, assignment: assignments.Assignment) -> identities.ClientIdentity:
        return identities.ClientIdentity(
            self._trust_domain, self._cluster, assignment.namespace, assignment.name, assignment.dataset
        )

    def _issuer(self, assignment: assignments.Assignment) -> credentials.Issue:
        async def issue(csr_pem: bytes) -> hanse_pb2.CertificateReply:
            async with self._channel.use() as channel:
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
