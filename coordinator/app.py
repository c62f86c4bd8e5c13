"""The coordinator's composition root: clock, randomness, files, listeners, and who talks to whom.

Everything is wired here and nothing is decided here. Heavy libraries (flwr, numpy, torch) stay out of this
process: it must be up within a second, and a user's app must not be able to hurt it.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import json
import pathlib
import random
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from federation.trust import tls  # before grpc

import grpc  # isort: skip
import grpc.aio  # isort: skip

from coordinator import config, controller, launcher
from coordinator.clients import authority, bundles, members
from coordinator.gateway import control, enrollment, links, progress
from coordinator.planning import snapshot
from federation.api import manifests, meta, training
from federation.runtime import hardening, lifeline, processes, tasks
from federation.runtime import port as runtimes
from federation.store import memory
from federation.telemetry import logs
from federation.trust import authorisation, credentials, interceptors, rotation
from federation.trust import identity as identities
from federation.wire import denials
from federation.wire import hanse_pb2_grpc as pb_grpc
from federation.wire import limits as wire_limits

_log = logs.get_logger(__name__)

ENDPOINTS = "endpoints.json"

SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", wire_limits.MAX_FRAME_BYTES),
    # An agent behind a NAT keeps its connection open with pings; the hub must not take them for an attack.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Two hubs on one port is a mistake that must be seen.
    ("grpc.so_reuseport", 0),
    # An agent has one session, an aggregator another; beside them a few short calls.
    ("grpc.max_concurrent_streams", 64),
)

ENROLLMENT_OPTIONS = (
    # Anybody may connect here: a token and a certificate request are small, and joining takes a moment.
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.max_connection_age_ms", 60_000),
)

GOODBYE_SECONDS = 1.0
"""Open sessions get so long to take the goodbye; they reconnect anyway."""


class StartFailure(Exception):
    """The coordinator cannot start; the text is one sentence for whoever starts it."""


class Coordinator:
    """One hub. `start`, then `run` until cancelled, then `stop`."""

    def __init__(
        self,
        settings: config.CoordinatorConfig,
        *,
        publish: Callable[[Mapping[str, Any]], None] | None = None,
        clock: Callable[[], float] = time.time,
        runtime: runtimes.Runtime | None = None,
    ) -> None:
        """Wire everything; opens no port.

        Args:
            settings: what to be.
            publish: takes every change of a resource, Event and log line of a training.
            clock: unix seconds.
            runtime: where aggregators run; local processes if None.

        Raises: StartFailure, federation.api.errors.ManifestError.
        """
        self.settings = settings
        self._clock = clock
        self._publish = publish
        state = settings.state_directory.absolute()
        processes.make_private_directory(state)
        self._state = state
        lifetimes = settings.certificate_lifetimes
        self.authority = authority.Authority(
            state / "ca",
            settings.trust_domain,
            now=self._utc_now,
            new_serial=x509.random_serial_number,
            lifetimes=authority.Lifetimes(
                coordinator=config.lifetime(lifetimes.coordinator_seconds),
                cluster=config.lifetime(lifetimes.cluster_seconds),
                aggregator=config.lifetime(lifetimes.aggregator_seconds),
                client=config.lifetime(lifetimes.client_seconds),
            ),
        )
        self.identity = identities.CoordinatorIdentity(settings.trust_domain)
        self.credentials = credentials.CredentialDirectory(state / "credentials")
        self.store = memory.MemoryStore(self._utc_now, lambda: str(uuid.uuid4()), on_change=publish)
        self.runtime: runtimes.Runtime = runtime or processes.Processes(state / "logs")
        self._servers: list[grpc.aio.Server] = []
        self.control_address = ""
        self.enrollment_address = ""
        self._resources = [entry for path in settings.resources for entry in _read(path)]
        self._wire()

    def _wire(self) -> None:
        settings, state = self.settings, self._state
        roll = members.Members(self.store, self._clock)
        shelf = bundles.BundleShelf(state / "bundles")
        limits = snapshot.Limits(settings.link_grace_seconds, settings.start_grace_seconds)
        self.agents = links.AgentLinks(self._clock, lambda: self.controller.notify())
        self.aggregators = links.AggregatorLinks(lambda: self.controller.notify(), self._clock)
        self.control_guard = interceptors.Guard(authorisation.control_scope(settings.trust_domain))
        self.enrollment_guard = interceptors.Guard(authorisation.enrollment_scope(settings.trust_domain))
        self.controller = controller.Controller(
            store=self.store,
            runtime=self.runtime,
            agents=self.agents,
            aggregators=self.aggregators,
            apps=bundles.Apps(shelf),
            launch=launcher.Launcher(
                directory=state / "aggregators",
                issuer=self.authority,
                shelf=shelf,
                hub_address=lambda: self.control_address,
                listen_address=settings.aggregator_listen,
                model_store=settings.model_store or f"file://{state / 'models'}",
                limits=limits,
                log_level=settings.log_level,
            ).launch,
            revoke=lambda expelled: self.control_guard.replace_revocations(
                authorisation.Revocations(clusters=expelled)
            ),
            roll=roll,
            now=self._clock,
            limits=limits,
            stop_grace_seconds=settings.stop_grace_seconds,
        )
        self._enrollment = enrollment.Enrollment(
            enrollment.TokenShelf(
                (token.record() for token in settings.join_tokens), state / "used-tokens.json"
            ),
            self.authority,
            roll,
            lambda: self.control_address,
            self._utc_now,
            self.aggregators.find,
        )
        self._control = control.Control(
            hub=settings.hub or settings.trust_domain,
            registry=self.agents,
            roll=roll,
            issuer=self.authority,
            shelf=shelf,
            on_log=self._logged,
            now=self._clock,
            heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
        )
        self._progress = progress.Progress(self.aggregators, self._logged)

    async def start(self) -> config.Endpoints:
        """Open both listeners, fill the store, and write `endpoints.json`. Raises: StartFailure."""
        (self._state / ENDPOINTS).unlink(missing_ok=True)  # of a hub that was killed
        self.authority.equip(self.credentials.path, self.identity)
        self.enrollment_address = await self._listen(
            self.settings.enrollment_listen, self.enrollment_guard, require_clients=False
        )
        self.control_address = await self._listen(
            self.settings.control_listen, self.control_guard, require_clients=True
        )
        for resource in self._resources:
            await self.store.apply(resource)
        endpoints = config.Endpoints(
            trust_domain=self.settings.trust_domain,
            enrollment_address=self.enrollment_address,
            control_address=self.control_address,
            control_server_name=self.identity.server_name,
            ca_pin=self.authority.pin,
            ready_at=self._utc_now(),
        )
        processes.write_private_file(self._state / ENDPOINTS, endpoints.model_dump_json(indent=1).encode())
        _log.info("coordinator ready", address=self.control_address)
        return endpoints

    async def run(self) -> None:
        """Reconcile and renew until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.controller.run())
            group.create_task(self._renew())

    async def stop(self) -> None:
        """Say goodbye, end the aggregators, close the listeners."""
        over = denials.denial(denials.Reason.SHUTTING_DOWN)
        self.agents.end_all(over)
        self.aggregators.end_all(over)
        await asyncio.gather(
            *(server.stop(GOODBYE_SECONDS) for server in self._servers),
            self.runtime.close(self.settings.stop_grace_seconds),
        )
        (self._state / ENDPOINTS).unlink(missing_ok=True)

    async def _listen(self, address: str, guard: interceptors.Guard, *, require_clients: bool) -> str:
        options = SERVER_OPTIONS if require_clients else ENROLLMENT_OPTIONS
        server = grpc.aio.server(interceptors=[guard], options=options)
        pb_grpc.add_EnrollmentServicer_to_server(self._enrollment, server)
        if require_clients:
            pb_grpc.add_ControlServicer_to_server(self._control, server)
            pb_grpc.add_ProgressServicer_to_server(self._progress, server)
        own = self.credentials.server_credentials(require_clients=require_clients)
        self._servers.append(server)
        try:
            port = server.add_secure_port(address, own)
        except RuntimeError as error:
            raise StartFailure(
                f"cannot listen at {address}; the port is in use or the address is not ours"
            ) from error
        await server.start()
        host = self.settings.advertised_host or address.rpartition(":")[0]
        return f"{host}:{port}"

    async def _renew(self) -> None:
        """Renew our own server certificate at two thirds of its life; the listeners follow the files."""
        chance = random.SystemRandom()
        while True:
            summary = self.credentials.summary()
            due = rotation.renew_at(summary.not_before, summary.not_after, jitter=chance.random())
            await asyncio.sleep(max(due.timestamp() - self._clock(), 1.0))
            await asyncio.to_thread(self.authority.equip, self.credentials.path, self.identity)
            _log.info("certificate renewed", identity=self.identity.uri)

    def _logged(self, uid: str, source: str, lines: Sequence[str]) -> None:
        if self._publish is not None:
            self._publish({"type": "LOG", "object": {"uid": uid, "source": source, "lines": list(lines)}})

    def _utc_now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


MAXIMUM_WAITING_LINES = 10_000
"""Changes that wait for a slow reader before log lines are left out; an edge writes as fast as it likes."""


class Publisher:
    """Writes JSON lines to standard output from the loop, and gives up for good once nobody reads them."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lines: collections.deque[str] = collections.deque()
        self._read = True
        self._more = asyncio.Event()

    def __call__(self, change: Mapping[str, Any]) -> None:
        """Take one change; it is written soon, in order."""
        if not self._read:
            return
        if change["type"] == "LOG" and len(self._lines) >= MAXIMUM_WAITING_LINES:
            return  # the log files have them all
        self._lines.append(json.dumps(change, separators=(",", ":"), ensure_ascii=False))
        self._more.set()

    async def run(self) -> None:
        """Write until cancelled, from a thread, so that a slow reader holds nothing up."""
        while True:
            await self._more.wait()
            self._more.clear()
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Write what waits; once nobody reads any more, nothing is kept either."""
        try:
            while self._lines:
                self._stream.write(self._lines.popleft() + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._read = False
            self._lines.clear()


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the hub's resources; an app's path becomes absolute. Raises: ManifestError."""
    found = manifests.read_directory(path) if path.is_dir() else manifests.read_file(path)
    resources = []
    for loaded in found:
        if not isinstance(loaded.resource, meta.Resource) or loaded.resource.kind not in _HUB_KINDS:
            continue
        manifest = loaded.resource.manifest()
        manifest.pop("status", None)
        if isinstance(loaded.resource, training.FederatedTraining):
            source = manifest["spec"]["app"]["source"]
            if "path" in source:
                source["path"] = str((loaded.file.parent / source["path"]).resolve())
        resources.append(manifest)
    return resources


_HUB_KINDS = frozenset({"FederatedTraining", "EdgeCluster"})


async def serve(settings: config.CoordinatorConfig) -> None:
    """Run a coordinator until SIGTERM, SIGINT, or the end of the lifeline. Raises: StartFailure,
    ManifestError.
    """
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    lifeline.hold(functools.partial(loop.call_soon_threadsafe, over.set), clean_end_seconds=15.0)
    publisher = Publisher(sys.stdout) if settings.publish_changes else None
    hub = Coordinator(settings, publish=publisher)
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
    except (StartFailure, errors.ManifestError) as error:
        _log.error("coordinator not started", error=str(error))
        return 2
    return 0
