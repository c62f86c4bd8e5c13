"""An agent in a cluster: clients are Jobs that go on without it, the owner's objects are watched, and its
identity is a Secret.

This module refuses to decide; it wires.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
import os
import pathlib
import random
from collections.abc import Callable

from edge_agent import (
    bucket_claims,
    credentials,
    departure,
    kubernetes_site,
    membership,
    pods,
    sites,
    state_claims,
    vault,
    watching,
    workloads,
)
from edge_agent import config as configs
from edge_agent import link as links
from federation.kube import client, connection, errors
from federation.runtime import jobs, port, processes, tasks
from federation.telemetry import logs
from federation.trust import credentials as trust
from federation.wire import denials

_log = logs.get_logger(__name__)

OWNER = "edge-agent"
"""Tells the agent's Jobs from others of Hanse in the same namespace."""

RESOLV_CONF = pathlib.Path("/etc/resolv.conf")

STILL_A_MEMBER = frozenset({denials.Reason.SESSION_REPLACED.value, denials.Reason.UNSUPPORTED_PROTOCOL.value})
"""Why an agent must go although its cluster stays: another agent has its place and its clients; or hub and
agent are of versions too far apart, and the clients outlive that until one of the two is another."""


async def run(config: configs.AgentConfig, kubernetes: configs.KubernetesConfig, stop: asyncio.Event) -> None:
    """Run until `stop`; clients go on, unless the hub has sent this cluster away or its owner leaves.

    Raises: credentials.NotEnrolled; link.SentAway; sites.SiteFailure.
    """
    places = workloads.Places(config.state_directory.absolute())
    await asyncio.to_thread(processes.make_private_directory, places.state_directory)
    leaving = asyncio.Event()
    try:
        # Clients and their aggregators go on without the API server: where there is nothing better to do than
        # wait, `patient` does. Who can say what is wrong, or see to something else meanwhile, has `api`.
        async with await _connect(kubernetes, math.inf) as patient, await _connect(kubernetes) as api:
            await tasks.together(
                _run(config, kubernetes, places, patient, api, leaving),
                _until_stopped(kubernetes, places, api, stop, leaving),
            )
    except links.SentAway as error:
        if not _is_farewell(error, leaving):
            raise
        _log.info("left the federation", cluster=config.cluster)
    except errors.KubernetesError as error:
        raise sites.SiteFailure(str(error)) from error


async def _until_stopped(
    kubernetes: configs.KubernetesConfig,
    places: workloads.Places,
    api: client.Client,
    stop: asyncio.Event,
    leaving: asyncio.Event,
) -> None:
    """Wait until the agent is to end; if its owner leaves the federation, also for the hub to hear of it."""
    await stop.wait()
    if not await departure.is_asked(api, kubernetes.namespace, kubernetes.pod):
        return
    if not await asyncio.to_thread(trust.CredentialDirectory(places.identity).exists):
        return  # it never joined
    leaving.set()
    await asyncio.sleep(departure.TELLING_SECONDS)
    _log.warning("hub not told that this edge leaves")


def _is_farewell(error: Exception, leaving: asyncio.Event) -> bool:
    """Whether the hub sent the agent away because this edge leaves."""
    return leaving.is_set() and isinstance(error, links.SentAway) and error.reason in departure.IS_KNOWN


async def _connect(
    kubernetes: configs.KubernetesConfig, patience_seconds: float = connection.PATIENCE_SECONDS
) -> client.Client:
    return await client.Client.connect(
        kubernetes.kubeconfig,
        field_manager="hanse-agent",
        user_agent="hanse-agent",
        patience_seconds=patience_seconds,
    )


async def _run(
    config: configs.AgentConfig,
    kubernetes: configs.KubernetesConfig,
    places: workloads.Places,
    patient: client.Client,
    api: client.Client,
    leaving: asyncio.Event,
) -> None:
    closed = (*pods.closed_addresses(os.environ, _resolv_conf()), *kubernetes.closed_addresses)
    runtime = jobs.Jobs(patient, [kubernetes.namespace], owner=OWNER)
    fetching = jobs.Jobs(patient, [kubernetes.namespace], owner=bucket_claims.OWNER)
    owner = watching.Owner(
        api,
        kubernetes.namespace,
        buckets=bucket_claims.BucketClaims(
            api,
            fetching,
            bucket_claims.Settings(kubernetes.namespace, kubernetes.agent_image, kubernetes.node_selector),
            random.Random(),  # noqa: S311 - spreads retries, protects nothing
        ),
        now=lambda: dt.datetime.now(dt.UTC),
    )
    site = kubernetes_site.KubernetesSite(
        patient,
        runtime=runtime,
        owner=owner,
        places=places,
        settings=pods.Settings(
            cluster=config.cluster,
            namespace=kubernetes.namespace,
            default_image=kubernetes.client_image,
            log_level=config.log_level,
            node_selector=kubernetes.node_selector,
            closed_addresses=closed,
            scratch_size=kubernetes.scratch_size,
            hub_host=config.enrollment_address.rpartition(":")[0],
        ),
        claims=_claims(patient, kubernetes),
        stop_grace_seconds=config.stop_grace_seconds,
    )
    identity = vault.Vault(patient, kubernetes.namespace, places.identity)
    await identity.fetch()

    async def leave_nothing() -> None:
        """End all clients and remove what is theirs: their aggregators do not let them in any more."""
        await _end_all(runtime, config.stop_grace_seconds)
        await site.tidy(lambda _: False)

    if await asyncio.to_thread(credentials.lapsed, places.identity, dt.datetime.now(dt.UTC)):
        # No agent was there when it ended. The hub may be away for good, so this does not wait for it.
        _log.warning("membership lapsed", cluster=config.cluster)
        await leave_nothing()
    try:
        await tasks.together(
            owner.run(),
            membership.take_part(
                config,
                site,
                places.identity,
                keep=identity.keep,
                on_connection=_shower(places.session_open),
                leaving=leaving,
            ),
        )
    except (credentials.NotEnrolled, links.SentAway) as error:
        if _is_farewell(error, leaving):
            await departure.leave_receipt(api, kubernetes.namespace)
        if not (isinstance(error, links.SentAway) and error.reason in STILL_A_MEMBER):
            await leave_nothing()
        raise
    finally:
        await runtime.close(0)
        await fetching.close(0)


def _claims(api: client.Client, kubernetes: configs.KubernetesConfig) -> state_claims.StateClaims | None:
    if kubernetes.client_state == "pod":
        return None
    return state_claims.StateClaims(
        api,
        state_claims.Settings(kubernetes.namespace, kubernetes.scratch_size, kubernetes.client_state_class),
    )


def _shower(path: pathlib.Path) -> Callable[[bool], None]:
    """Return what lets a readiness probe see whether there is a session."""
    path.unlink(missing_ok=True)  # of an earlier container in this pod

    def show(connected: bool) -> None:
        with contextlib.suppress(OSError):
            if connected:
                path.touch()
            else:
                path.unlink(missing_ok=True)

    return show


async def _end_all(runtime: port.Runtime, grace_seconds: float) -> None:
    running = await runtime.list()
    _log.warning("ending all clients", count=len(running))
    await asyncio.gather(*(runtime.stop(one.name, grace_seconds) for one in running))


def _resolv_conf() -> str:
    with contextlib.suppress(OSError):
        return RESOLV_CONF.read_text()
    return ""
