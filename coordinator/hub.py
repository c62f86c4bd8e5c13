"""A hub: its listeners, its controller, and who talks to whom.

Everything is wired here and nothing is decided here. This module refuses to know where resources live and
where aggregators run: that is in the parts that it is given. Heavy libraries (flwr, numpy, torch) stay out of
this process: it must be up within a second, and a user's app must not be able to hurt it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from federation.trust import tls  # noqa: F401  # before grpc

import grpc  # isort: skip
import grpc.aio  # isort: skip

from coordinator import config, controller
from coordinator import parts as hub_parts
from coordinator.clients import members
from coordinator.gateway import control, enrollment, links, progress
from coordinator.planning import snapshot
from federation.runtime import failpoints, processes
from federation.telemetry import logs
from federation.trust import authorisation, credentials, interceptors, rotation
from federation.trust import identity as identities
from federation.wire import denials
from federation.wire import hanse_pb2_grpc as pb_grpc
from federation.wire import limits as wire_limits

_log = logs.get_logger(__name__)

ENDPOINTS = "endpoints.json"

HANDSHAKE_SECONDS = 10
"""Who connects and does not finish TLS within this time keeps others out no longer."""

SERVER_OPTIONS = (
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
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
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
    # Anybody may connect here: a token and a certificate request are small, and joining takes a moment.
    ("grpc.max_receive_message_length", 64 * 1024),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 4),
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.max_connection_age_ms", 60_000),
)

GOODBYE_SECONDS = 1.0
"""Open sessions get so long to take the goodbye; they reconnect anyway."""


class Coordinator:
    """One hub that acts. `start`, then `run` until cancelled, then `stop`."""

    def __init__(
        self,
        settings: config.CoordinatorConfig,
        *,
        parts: hub_parts.Parts,
        publish: Callable[[Mapping[str, Any]], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Wire everything; opens no port.

        Args:
            settings: what to be.
            parts: what to stand on.
            publish: takes the log lines of trainings.
            clock: unix seconds.
        """
        self.settings = settings
        self._clock = clock
        self._publish = publish
        self._parts = parts
        self._state = state = settings.state_directory.absolute()
        self.authority = parts.authority
        self.identity = identities.CoordinatorIdentity(settings.trust_domain)
        self.credentials = credentials.CredentialDirectory(state / "credentials")
        self.store, self.runtime = parts.store, parts.runtime
        self._servers: list[grpc.aio.Server] = []
        self.control_address = ""
        self.enrollment_address = ""
        self._wire()

    def _wire(self) -> None:
        settings, given = self.settings, self._parts
        roll = members.Members(self.store, self._clock)
        limits = snapshot.Limits(settings.link_grace_seconds, settings.start_grace_seconds)
        self.agents = links.AgentLinks(self._clock, lambda: self.controller.notify(), self._route)
        self.aggregators = links.AggregatorLinks(self._changed, self._clock)
        self.control_guard = interceptors.Guard(authorisation.control_scope(settings.trust_domain))
        self.enrollment_guard = interceptors.Guard(authorisation.enrollment_scope(settings.trust_domain))
        lifetimes = settings.certificate_lifetimes
        launcher = given.launch(lambda: self.control_address)
        self.controller = controller.Controller(
            store=self.store,
            runtime=self.runtime,
            agents=self.agents,
            aggregators=self.aggregators,
            apps=given.apps,
            launch=launcher.launch,
            tidy=launcher.tidy,
            revoke=self.control_guard.replace_revocations,
            roll=roll,
            now=self._clock,
            limits=limits,
            stop_grace_seconds=settings.stop_grace_seconds,
            certificate_seconds=max(lifetimes.aggregator_seconds, lifetimes.client_seconds),
            finished_kept=settings.finished_trainings_kept,
        )
        self._enrollment = enrollment.Enrollment(
            given.tokens,
            self.authority,
            roll,
            lambda: "" if given.terms.same_address else self.control_address,
            self._utc_now,
            self.aggregators.find,
        )
        self._control = control.Control(
            hub=settings.hub or settings.trust_domain,
            registry=self.agents,
            roll=roll,
            issuer=self.authority,
            shelf=given.shelf,
            on_log=self._logged,
            now=self._clock,
            heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
            terms=given.terms,
        )
        self._progress = progress.Progress(self.aggregators, self._logged)

    def _changed(self) -> None:
        self.controller.notify()
        self._route()

    def _route(self) -> None:
        self._parts.on_routes(self.aggregators.addresses(), self.agents.is_released)

    async def start(self) -> config.Endpoints:
        """Open both listeners, fill the store, and write `endpoints.json`. Raises: parts.StartFailure."""
        (self._state / ENDPOINTS).unlink(missing_ok=True)  # of a hub that was killed
        self.authority.equip(self.credentials.path, self.identity)
        self.enrollment_address = await self._listen(
            self.settings.enrollment_listen, self.enrollment_guard, require_clients=False
        )
        self.control_address = await self._listen(
            self.settings.control_listen, self.control_guard, require_clients=True
        )
        for resource in self._parts.resources:
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
        failpoints.reach("coordinator.ready")
        _log.info("coordinator ready", address=self.control_address)
        return endpoints

    async def run(self) -> None:
        """Reconcile and renew until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.controller.run(follow=self._parts.feed is None))
            if self._parts.feed is not None:
                group.create_task(self._parts.feed(self.controller))
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
            raise hub_parts.StartFailure(
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
