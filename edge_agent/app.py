"""The edge agent's composition root: configuration, signals, and the world in which it works.

    python -m edge_agent --config FILE

Exit codes: 0 ended as asked; 2 the configuration cannot be used; 3 the hub does not let this agent in, or
sent it away for good; 4 the edge's Kubernetes does not let it work. This module refuses to decide; it wires.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import pathlib
import signal
from collections.abc import Sequence

import pydantic

from edge_agent import config as configs
from edge_agent import credentials, on_processes, sites
from edge_agent import link as links
from federation.runtime import hardening, lifeline, port
from federation.telemetry import logs
from federation.trust import identity as identities
from federation.trust import tls

_log = logs.get_logger(__name__)

EXIT_CONFIGURATION = 2
EXIT_SENT_AWAY = 3
EXIT_SITE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the configuration and run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent", description="The edge agent of Hanse.")
    parser.add_argument("--config", type=pathlib.Path, required=True, help="a JSON file, see AgentConfig")
    path: pathlib.Path = parser.parse_args(arguments).config
    logs.configure("edge-agent")
    try:
        config = configs.AgentConfig.model_validate_json(path.read_bytes())
        identities.ClusterIdentity(config.trust_domain or "unknown", config.cluster)
    except (OSError, pydantic.ValidationError, identities.InvalidIdentity) as error:
        _log.error("configuration not usable", path=str(path), error=str(error))
        return EXIT_CONFIGURATION
    logs.configure("edge-agent", config.log_level)
    logs.bind(cluster=config.cluster)
    tls.require()
    hardening.keep_to_oneself()
    return asyncio.run(run(config))


async def run(config: configs.AgentConfig) -> int:
    """Run one agent until a signal, the end of its parent, or the hub's last word; return the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lifeline.hold(functools.partial(loop.call_soon_threadsafe, stop.set))
    try:
        if config.kubernetes is None:
            await on_processes.run(config, stop)
        else:
            from edge_agent import on_kubernetes  # a simulation need not load a Kubernetes client

            await on_kubernetes.run(config, configs.in_pod(config.kubernetes, os.environ), stop)
    except (credentials.NotEnrolled, links.SentAway) as error:
        _log.error("the hub does not want this agent", error=str(error))
        if config.kubernetes is not None:
            await asyncio.to_thread(_last_words, str(error))
        return EXIT_SENT_AWAY
    except sites.SiteFailure as error:
        _log.error("the edge's Kubernetes does not let the agent work", error=str(error))
        await asyncio.to_thread(_last_words, str(error))
        return EXIT_SITE
    _log.info("stopped as asked")
    return 0


def _last_words(text: str) -> None:
    with contextlib.suppress(OSError):
        pathlib.Path(port.TERMINATION_LOG).write_text(text)
