"""The coordinator's process: its configuration, its signals, and which kind of hub it is."""

from __future__ import annotations

import asyncio
import functools
import pathlib
import signal
import sys

from federation.trust import tls  # before grpc

from coordinator import config, local, parts  # isort: skip
from coordinator import publisher as publishing  # isort: skip
from federation.runtime import hardening, lifeline, tasks
from federation.telemetry import logs

_log = logs.get_logger(__name__)


async def serve(settings: config.CoordinatorConfig) -> None:
    """Run a coordinator until SIGTERM, SIGINT, or the end of the lifeline.

    Raises: StartFailure, ManifestError; on Kubernetes also LeaseLost and KubernetesError.
    """
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    if settings.kubernetes is not None:
        from coordinator import cluster  # kopf and the API's client take half a second

        await cluster.serve(settings, over)
        return
    lifeline.hold(functools.partial(loop.call_soon_threadsafe, over.set), clean_end_seconds=15.0)
    await _serve_processes(settings, over)


async def _serve_processes(settings: config.CoordinatorConfig, over: asyncio.Event) -> None:
    publisher = publishing.Publisher(sys.stdout) if settings.publish_changes else None
    hub = local.coordinator(settings, publish=publisher)
    try:
        await hub.start()
    except BaseException:
        await hub.stop()
        raise
    writing = asyncio.create_task(publisher.run()) if publisher is not None else None
    try:
        await tasks.together(hub.run(), over.wait())
    finally:
        await hub.stop()
        if writing is not None and publisher is not None:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            publisher.flush()


def main(config_path: pathlib.Path) -> int:
    """Read the configuration and serve; the process's exit status."""
    from federation.api import errors
    from federation.kube import errors as kube_errors
    from federation.kube import leases

    tls.require()
    hardening.keep_to_oneself()
    try:
        settings = config.CoordinatorConfig.model_validate_json(config_path.read_bytes())
    except (OSError, ValueError) as error:
        sys.stderr.write(f"coordinator: the configuration {config_path} cannot be used: {error}\n")
        return 2
    logs.configure("coordinator", settings.log_level)
    try:
        asyncio.run(serve(settings))
    except (parts.StartFailure, errors.ManifestError) as error:
        _log.error("coordinator not started", error=str(error))
        return 2
    except (leases.LeaseLost, kube_errors.KubernetesError) as error:
        _log.error("coordinator ends", error=str(error))
        return 1
    return 0
