"""The edge agent's composition root: configuration, clock, chance, files and processes are chosen here.

    python -m edge_agent --config FILE

Exit codes: 0 ended as asked; 2 the configuration cannot be used; 3 the hub does not let this agent in, or
sent it away for good. This module refuses to decide; it wires.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import functools
import importlib.metadata
import os
import pathlib
import random
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import pydantic

from edge_agent import agent as agents
from edge_agent import credentials, resources, workloads
from edge_agent import link as links
from edge_agent.client import config as client_config
from federation.runtime import hardening, lifeline, processes, tasks
from federation.telemetry import logs
from federation.trust import credentials as trust
from federation.trust import identity as identities
from federation.trust import tls
from federation.wire import hanse_pb2, hanse_pb2_grpc

_log = logs.get_logger(__name__)

EXIT_CONFIGURATION = 2
EXIT_SENT_AWAY = 3

CHANNEL_OPTIONS = (("grpc.keepalive_time_ms", 20_000), ("grpc.keepalive_timeout_ms", 10_000))
"""A link that died without a word (NAT, a pulled cable) is noticed within half a minute."""


class AgentConfig(pydantic.BaseModel):
    """What an edge agent is told at its start."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    cluster: str
    """The name under which this edge is a member."""
    enrollment_address: str
    """host:port of the hub's enrollment listener."""
    token_file: pathlib.Path
    """Holds the one-time join token; read only to join."""
    ca_pin: str
    """sha256:HEX of the hub's CA key."""
    trust_domain: str
    resource_directory: pathlib.Path
    """The owner's EdgeDataset, EdgePolicy and ConfigMap manifests."""
    state_directory: pathlib.Path
    """Keys, apps, data from ConfigMaps, logs; made private (0700)."""
    labels: dict[str, str] = pydantic.Field(default_factory=dict)
    log_level: Annotated[client_config.LogLevel, pydantic.BeforeValidator(lambda text: str(text).upper())] = (
        "INFO"
    )
    stop_grace_seconds: Annotated[float, pydantic.Field(ge=0, le=600)] = 5.0
    """A client may take so long to end when asked."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the configuration and run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent", description="The edge agent of Hanse.")
    parser.add_argument("--config", type=pathlib.Path, required=True, help="a JSON file, see AgentConfig")
    path: pathlib.Path = parser.parse_args(arguments).config
    logs.configure("edge-agent")
    try:
        config = AgentConfig.model_validate_json(path.read_bytes())
        identities.ClusterIdentity(config.trust_domain, config.cluster)
    except (OSError, pydantic.ValidationError, identities.InvalidIdentity) as error:
        _log.error("configuration not usable", path=str(path), error=str(error))
        return EXIT_CONFIGURATION
    logs.configure("edge-agent", config.log_level)
    logs.bind(cluster=config.cluster)
    tls.require()
    hardening.keep_to_oneself()
    return asyncio.run(run(config))


async def run(config: AgentConfig) -> int:
    """Run one agent until a signal, the end of its parent, or the hub's last word; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline.hold(functools.partial(loop.call_soon_threadsafe, stop.set))
    places = workloads.Places(config.state_directory.absolute())
    await asyncio.to_thread(processes.make_private_directory, places.state_directory)
    runtime = processes.Processes(places.logs)
    try:
        # Its session ends before the clients do: that they end with their agent is no news of theirs.
        await tasks.together(_work(config, places, runtime), _asked_to(stop))
        return 0
    except (credentials.NotEnrolled, links.SentAway) as error:
        _log.error("the hub does not want this agent", error=str(error))
        return EXIT_SENT_AWAY
    finally:
        await runtime.close(config.stop_grace_seconds)
        await asyncio.to_thread(processes.remove_tree, places.data)  # copies of data do not stay


async def _asked_to(stop: asyncio.Event) -> None:
    await stop.wait()
    _log.info("stopping as asked")


async def _work(config: AgentConfig, places: workloads.Places, runtime: processes.Processes) -> None:
    rng = random.Random()  # noqa: S311  # spreads retries, guards nothing
    version = _version()
    directory = resources.Directory(config.resource_directory)
    reading = asyncio.create_task(asyncio.to_thread(directory.read))  # the first takes as long as joining
    enrollment = await credentials.enroll(
        credentials.Invitation(
            cluster=config.cluster,
            enrollment_address=config.enrollment_address,
            token_file=config.token_file,
            ca_pin=config.ca_pin,
            trust_domain=config.trust_domain,
            labels=config.labels,
            agent_version=version,
        ),
        places.identity,
        rng=rng,
        now=_now,
    )
    await reading
    channel = trust.CredentialDirectory(places.identity).reloading_channel(
        enrollment.control_address, enrollment.control_server_name, CHANNEL_OPTIONS
    )
    agent = agents.Agent(
        agents.Surroundings(
            cluster=config.cluster,
            trust_domain=config.trust_domain,
            places=places,
            runtime=runtime,
            channel=channel,
            directory=directory,
            python=sys.executable,
            environment=_environment(),
            log_level=config.log_level,
            stop_grace_seconds=config.stop_grace_seconds,
            rng=rng,
            now=_now,
            log_path=runtime.log_path,
        ),
        agent_version=version,
    )
    identity = identities.ClusterIdentity(config.trust_domain, config.cluster)
    renewal = credentials.keep_fresh(places.identity, identity, _renewer(channel), rng=rng, now=_now)
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


def _environment() -> dict[str, str]:
    """Let clients import the same Hanse as this process, installed or not."""
    root = str(pathlib.Path(__file__).resolve().parent.parent)
    return {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}


def _version() -> str:
    try:
        return importlib.metadata.version("hanse")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
