"""The agent's own identity and its clients': made here, certified by the hub, renewed before they end.

Keys are generated at the edge and never leave it; only certificate requests travel. This module refuses to
know what the identities are used for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import pathlib
import random
from collections.abc import Awaitable, Callable, Mapping

import grpc
import grpc.aio
import pydantic

from edge_agent import backoff
from federation.runtime import processes
from federation.telemetry import logs
from federation.trust import bundle, certificates, credentials, directory, keys, pinning, rotation
from federation.trust import identity as identities
from federation.wire import denials, hanse_pb2, hanse_pb2_grpc

_log = logs.get_logger(__name__)

CALL_TIMEOUT_SECONDS = 20.0
"""A hub that does not answer within this time is treated as away."""

KEEP_SECONDS = 60.0
"""Whoever keeps a renewed certificate and does not get to it is no reason not to renew it again."""

_ENROLLMENT_NAME = "enrollment.json"
_PENDING_KEY_NAME = "pending.key"

IDENTITY_FILES = (
    directory.KEY_NAME,
    directory.CHAIN_NAME,
    directory.BUNDLE_NAME,
    _ENROLLMENT_NAME,
    _PENDING_KEY_NAME,
)
"""All that an agent has to keep of its membership; those that are there at a moment belong together."""

Issue = Callable[[bytes], Awaitable[hanse_pb2.CertificateReply]]
"""Sends a certificate request (PEM) to the hub."""


Keep = Callable[[], Awaitable[None]]
"""Takes what lies in the identity's directory to where it outlives this process's disk. Raises: OSError."""


class NotEnrolled(Exception):
    """The agent cannot become or stay a member; the text says why and what to do."""


class Enrollment(pydantic.BaseModel):
    """What joining told the agent, kept for its restarts."""

    model_config = pydantic.ConfigDict(frozen=True)

    control_address: str
    control_server_name: str
    trust_domain: str


@dataclasses.dataclass(frozen=True, slots=True)
class Invitation:
    """How to join: where, with which one-time token, and which CA to believe.

    trust_domain: None to take the one that the pinned CA names.
    """

    cluster: str
    enrollment_address: str
    token_file: pathlib.Path
    ca_pin: str
    trust_domain: str | None
    labels: Mapping[str, str]
    agent_version: str


async def kept_by_the_disk() -> None:
    """Do nothing: what is written to the identity's directory stays there."""


async def enroll(
    invitation: Invitation,
    identity_directory: pathlib.Path,
    *,
    rng: random.Random,
    now: Callable[[], dt.datetime],
    keep: Keep = kept_by_the_disk,
) -> Enrollment:
    """Return the membership: the stored one if its certificate still holds, else joined anew.

    `keep` is awaited whenever the directory has changed.
    Tries again while the hub is away or the operator has not approved the cluster yet.
    Raises: NotEnrolled when trying again cannot help.
    """
    stored = await asyncio.to_thread(_stored, invitation, identity_directory, now())
    if stored is not None:
        _log.info("identity reused", cluster=invitation.cluster, address=stored.control_address)
        return stored
    failures = 0
    while True:
        try:
            return await _join(invitation, identity_directory, keep)
        except (pinning.HubUnreachable, grpc.aio.AioRpcError) as error:
            denial = denials.from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else None
            if denial is not None and not denial.may_retry:
                raise NotEnrolled(
                    f"the hub refused to let {invitation.cluster} join: {denial.message}"
                ) from error
            failures += 1
            delay = backoff.seconds(failures, rng)
            reason = denial.message if denial else describe(error)
            _log.warning("join failed", error=reason, attempt=failures, delay_seconds=round(delay, 3))
        except (pinning.HubNotTrusted, bundle.InvalidPin, bundle.PinNotFound, OSError) as error:
            raise NotEnrolled(str(error)) from error
        await asyncio.sleep(delay)


async def _join(invitation: Invitation, identity_directory: pathlib.Path, keep: Keep) -> Enrollment:
    # One key for all tries: a hub that answered a try whose reply was lost sees the same request again.
    key_pem = await asyncio.to_thread(_pending_key, identity_directory)
    await keep()
    token = (await asyncio.to_thread(invitation.token_file.read_text)).strip()
    hub = await pinning.dial(
        invitation.enrollment_address, invitation.ca_pin, trust_domain=invitation.trust_domain
    )
    try:
        identity = identities.ClusterIdentity(hub.trust_domain, invitation.cluster)
        stub = hanse_pb2_grpc.EnrollmentStub(hub.channel)
        reply: hanse_pb2.JoinReply = await stub.Join(
            hanse_pb2.JoinRequest(
                token=token,
                cluster=invitation.cluster,
                csr_pem=keys.request(keys.from_pem(key_pem), identity),
                agent_version=invitation.agent_version,
                labels=invitation.labels,
            ),
            timeout=CALL_TIMEOUT_SECONDS,
        )
    finally:
        await hub.channel.close()
    bundle.verify_contains(reply.certificate.trust_bundle_pem, invitation.ca_pin)
    enrollment = Enrollment(
        control_address=reply.control_address,
        control_server_name=reply.control_server_name,
        trust_domain=hub.trust_domain,
    )
    await asyncio.to_thread(_accept, identity_directory, identity, key_pem, reply.certificate)
    await asyncio.to_thread(
        processes.write_private_file,
        identity_directory / _ENROLLMENT_NAME,
        enrollment.model_dump_json().encode(),
    )
    await asyncio.to_thread((identity_directory / _PENDING_KEY_NAME).unlink, missing_ok=True)
    await keep()
    _log.info("joined the federation", cluster=invitation.cluster, address=enrollment.control_address)
    return enrollment


async def obtain(path: pathlib.Path, identity: identities.Identity, issue: Issue) -> None:
    """Make a key, have it certified as `identity`, and put both in force at `path`.

    Raises: what `issue` raises; NotEnrolled if the hub certified something else.
    """
    key = await asyncio.to_thread(keys.generate)
    reply = await issue(keys.request(key, identity))
    await asyncio.to_thread(_accept, path, identity, keys.to_pem(key), reply)


async def keep_fresh(
    path: pathlib.Path,
    identity: identities.Identity,
    issue: Issue,
    *,
    rng: random.Random,
    now: Callable[[], dt.datetime],
    keep: Keep = kept_by_the_disk,
    asked_by_itself: bool = True,
) -> None:
    """Renew the certificate at `path` at two thirds of its life, for ever; a renewal is a new key too.

    `keep` is awaited after each renewal. asked_by_itself: the hub is asked with this very certificate, which
    is of no use once it has ended; with another, a renewal is as good later.
    Raises: NotEnrolled when a certificate that is asked by itself ended before a renewal succeeded, or the
    hub refuses for good.
    """
    store = credentials.CredentialDirectory(path)
    while True:
        summary = await asyncio.to_thread(store.summary)
        due = rotation.renew_at(summary.not_before, summary.not_after, jitter=rng.random())
        failures = 0
        while True:
            await asyncio.sleep(max(0.0, (due - now()).total_seconds()))
            try:
                await obtain(path, identity, issue)
                async with asyncio.timeout(KEEP_SECONDS):  # its end is an OSError
                    await keep()
            except (grpc.aio.AioRpcError, OSError) as error:  # a full disk may have room again
                denial = denials.from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else None
                if denial is not None and not denial.may_retry:
                    raise NotEnrolled(f"the hub does not renew {identity.uri}: {denial.message}") from error
                failures += 1
                again = rotation.retry_at(now(), summary.not_after, failures=failures, jitter=rng.random())
                _log.warning("renewal failed", identity=identity.uri, error=describe(error), attempt=failures)
                if again is None and asked_by_itself:
                    raise NotEnrolled(
                        f"the certificate of {identity.uri} ended at {summary.not_after:%Y-%m-%d %H:%M} UTC "
                        "before it was renewed; join again with a new token"
                    ) from error
                due = again or now() + dt.timedelta(seconds=backoff.seconds(failures, rng))
            else:
                _log.info("certificate renewed", identity=identity.uri)
                break


def lapsed(path: pathlib.Path, now: dt.datetime) -> bool:
    """Say whether a membership is kept at `path` whose certificate has ended: only joining again helps."""
    try:
        return now >= credentials.CredentialDirectory(path).summary().not_after
    except (OSError, directory.CredentialsUnusable):
        return False


def describe(error: Exception) -> str:
    """Return one line about a failed call."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)


def _accept(
    path: pathlib.Path, identity: identities.Identity, key_pem: bytes, reply: hanse_pb2.CertificateReply
) -> None:
    try:
        got = certificates.summarise(reply.chain_pem).identity
        if got != identity:
            raise NotEnrolled(
                f"the hub certified {got.uri}, and {identity.uri} was asked for; ask its operator"
            )
        credentials.CredentialDirectory(path).write(key_pem, reply.chain_pem, reply.trust_bundle_pem)
    except (certificates.InvalidCertificate, directory.CredentialsUnusable) as error:
        raise NotEnrolled(f"the hub's certificate cannot be used: {error}; ask its operator") from error


def _stored(invitation: Invitation, path: pathlib.Path, now: dt.datetime) -> Enrollment | None:
    try:
        enrollment = Enrollment.model_validate_json((path / _ENROLLMENT_NAME).read_bytes())
        summary = credentials.CredentialDirectory(path).summary()
        wanted = identities.ClusterIdentity(
            invitation.trust_domain or enrollment.trust_domain, invitation.cluster
        )
    except (OSError, ValueError, directory.CredentialsUnusable):
        return None
    return enrollment if summary.identity == wanted and now < summary.not_after else None


def _pending_key(path: pathlib.Path) -> bytes:
    processes.make_private_directory(path)
    file = path / _PENDING_KEY_NAME
    try:
        return keys.to_pem(keys.from_pem(file.read_bytes()))
    except (OSError, keys.InvalidKey):
        key_pem = keys.to_pem(keys.generate())
        processes.write_private_file(file, key_pem)
        return key_pem
