"""Being a member: joined or joined again, one session with the hub, and certificates that do not end.

The same in every world; a world brings its site and says where the identity is kept. This module refuses to
know which world it is in.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import pathlib
import random
from collections.abc import Callable

from edge_agent import agent as agents
from edge_agent import config as configs
from edge_agent import credentials, sites
from federation import release
from federation.runtime import tasks
from federation.trust import bundle
from federation.trust import credentials as trust
from federation.trust import identity as identities
from federation.wire import hanse_pb2, hanse_pb2_grpc

CHANNEL_OPTIONS = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000))
"""A link that died without a word (NAT, a pulled cable) is noticed within half a minute."""


async def take_part(
    config: configs.AgentConfig,
    site: sites.Site,
    identity_directory: pathlib.Path,
    *,
    keep: credentials.Keep = credentials.kept_by_the_disk,
    on_connection: Callable[[bool], None] = lambda _: None,
    leaving: asyncio.Event | None = None,
) -> None:
    """Join, and work as a member until cancelled; `on_connection` is told of each session's begin and end.

    Once `leaving` is set the hub is told that this cluster leaves, and ends its membership.

    Raises: credentials.NotEnrolled; link.SentAway.
    """
    rng = random.Random()  # noqa: S311  # spreads retries, guards nothing
    version = release.version()
    try:
        pin = bundle.check_pin(config.pin())
    except (OSError, bundle.InvalidPin) as error:
        raise credentials.NotEnrolled(f"the pin of the hub's CA cannot be used: {error}") from error
    enrollment = await credentials.enroll(
        credentials.Invitation(
            cluster=config.cluster,
            enrollment_address=config.enrollment_address,
            token_file=config.token_file,
            ca_pin=pin,
            trust_domain=config.trust_domain,
            labels=config.labels,
            agent_version=version,
        ),
        identity_directory,
        rng=rng,
        now=_now,
        keep=keep,
    )
    # A hub that names no other address is reached where it was joined.
    address = enrollment.control_address or config.enrollment_address
    channel = trust.CredentialDirectory(identity_directory).reloading_channel(
        address, enrollment.control_server_name, CHANNEL_OPTIONS
    )
    agent = agents.Agent(
        agents.Surroundings(
            cluster=config.cluster,
            trust_domain=enrollment.trust_domain,
            site=site,
            channel=channel,
            stop_grace_seconds=config.stop_grace_seconds,
            rng=rng,
            now=_now,
            hub_address=address,
            on_connection=on_connection,
            leaving=leaving,
        ),
        agent_version=version,
    )
    identity = identities.ClusterIdentity(enrollment.trust_domain, config.cluster)
    renewal = credentials.keep_fresh(
        identity_directory, identity, _renewer(channel), rng=rng, now=_now, keep=keep
    )
    try:
        await tasks.together(renewal, agent.run())
    finally:
        await channel.close()


def _renewer(channel: trust.ReloadingChannel) -> credentials.Issue:
    async def renew(csr_pem: bytes) -> hanse_pb2.CertificateReply:
        async with channel.use() as open_channel:
            stub = hanse_pb2_grpc.EnrollmentStub(open_channel)
            reply = await stub.Renew(
                hanse_pb2.RenewRequest(csr_pem=csr_pem), timeout=credentials.CALL_TIMEOUT_SECONDS
            )
            assert isinstance(reply, hanse_pb2.CertificateReply)
            return reply

    return renew


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
