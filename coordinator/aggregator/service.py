"""The aggregator's event loop: the Exchange server, the driver, and the link to the coordinator, on one
thread.

Why it exists: the ServerApp owns the main thread and blocks it for as long as it likes; meanwhile clients
come and go, the hub changes its mind, and a certificate has to be renewed. The app's half of the process is
app.py.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime as dt
import random
import socket
import threading
import time
from collections.abc import Callable, Iterable

from coordinator.aggregation import events, rounds
from coordinator.aggregator import config as aggregator_config
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import exchange, hub_link, terms, verification
from coordinator.aggregator import progress as progress_module
from coordinator.journal import book as journal
from federation.api import reasons, training
from federation.flower import node_ids
from federation.telemetry import logs
from federation.trust import authorisation, credentials, interceptors, rotation, tls
from federation.trust import identity as identities
from federation.wire import addresses, denials
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits

import grpc.aio  # isort: skip  # after federation.trust, which decides what TLS gRPC speaks

log = logs.get_logger(__name__)

GOODBYE_SECONDS = 2.0
WINDOWS_BYTES = 4 * 1024 * 1024
"""What all clients together may send ahead of what was read. Left to itself, gRPC grows each client's window
to many megabytes, and memory would grow with their number. Four MiB are 80 MB/s from clients that are 50 ms
away: two thirds of a gigabit link."""

WIDEST_WINDOW_BYTES = 1024 * 1024
NARROWEST_WINDOW_BYTES = 128 * 1024
"""One client's share lies between these: 20 MB/s, and 2.5 MB/s at 50 ms."""


CHUNKS_BYTES = 2 * 1024 * 1024
"""One chunk of every client, together. Python, gRPC and TLS hold several copies of each, and that is what
memory grows by with the number of clients: an idle connection takes 0.1 MB."""

SHORTEST_CHUNK_BYTES = 64 * 1024
"""For 32 clients. On the bare channel 32 KiB take a third longer than 64 and save 4 MB."""


def chunk_bytes(clusters: int) -> int:
    """The longest chunk of a session, either way, where so many clients take part."""
    return min(max(CHUNKS_BYTES // clusters, SHORTEST_CHUNK_BYTES), wire_limits.CHUNK_BYTES)


def server_options(clusters: int) -> list[tuple[str, int]]:
    """GRPC's options for a server with so many clients.

    Frames are bounded, half-open links are noticed, and no other process may take the port.
    """
    window = min(max(WINDOWS_BYTES // clusters, NARROWEST_WINDOW_BYTES), WIDEST_WINDOW_BYTES)
    return [
        ("grpc.max_receive_message_length", wire_limits.MAX_FRAME_BYTES),
        ("grpc.max_send_message_length", wire_limits.MAX_FRAME_BYTES),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.max_ping_strikes", 0),
        ("grpc.so_reuseport", 0),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", window),
        ("grpc.experimental.tcp_max_read_chunk_size", 256 * 1024),
    ]


EVERYWHERE = frozenset({"0.0.0.0", "[::]"})  # noqa: S104


def own_address(peer: str) -> str:
    """Return the address of this machine that a peer (host:port) sees, without sending anything.

    Raises: OSError if there is no way to it.
    """
    host, _, port = peer.rpartition(":")
    for family, kind, protocol, _, target in socket.getaddrinfo(
        host.strip("[]"), int(port), type=socket.SOCK_DGRAM
    ):
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(target)
            own = str(probe.getsockname()[0])
            return f"[{own}]" if family == socket.AF_INET6 else own
    raise OSError(f"no address for {peer}")


class Service:
    """Serves one training's clients, from `start` to `leave`."""

    driver: driver_module.Driver

    def __init__(
        self,
        config: aggregator_config.AggregatorConfig,
        spec: training.FederatedTrainingSpec,
        progress: progress_module.Progress,
        book: journal.Book,
        *,
        on_rounds: Callable[[int], None] = lambda _: None,
        on_refusal: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Take what to serve; nothing is opened yet.

        on_rounds: hears on the event loop how many rounds spec.strategy asks for, whenever rules come.
        on_refusal: hears there why the hub will not have this aggregator, unless its training is over.
        """
        self._config = config
        self._spec = spec
        self._progress = progress
        self._book = book
        self._on_rounds = on_rounds
        self._on_refusal = on_refusal
        self._run_id = node_ids.run_id(config.namespace, config.name)
        self._credentials = credentials.CredentialDirectory(config.credential_directory)
        self._loop = asyncio.new_event_loop()
        # Its own, for what an app draws from Python's must not depend on when a certificate is renewed.
        self._rng = random.Random()  # noqa: S311 - spreads retries, protects nothing
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._hub: hub_link.HubLink | None = None
        self._leaving = False
        self._thread = threading.Thread(target=self._run_loop, name="exchange", daemon=True)

    def start(self) -> None:
        """Open the port and dial the coordinator; `driver` is there afterwards.

        Raises: whatever kept the server from starting.
        """
        self._thread.start()
        self._ready.result()

    def changed(self) -> None:
        """There is something new for the coordinator; may be called from any thread."""
        self._loop.call_soon_threadsafe(self._tell_hub)

    def refused(self, node: int, round_number: int, how: str) -> None:
        """A reply that had been accepted turned out to be of no use; may be called from any thread."""
        self._loop.call_soon_threadsafe(self.driver.refused, node, round_number, how)

    def leave(self, finished: pb.TrainingFinished) -> bool:
        """Report the end, say goodbye to the clients, close the port; return whether the hub knows."""
        return asyncio.run_coroutine_threadsafe(self._leave(finished), self._loop).result()

    # -- on the loop -----------------------------------------------------------------------------

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._opening = self._loop.create_task(self._open())
        self._loop.run_forever()

    async def _open(self) -> None:
        try:
            await self._serve()
        except Exception as error:
            self._ready.set_exception(error)
        else:
            self._ready.set_result(None)

    async def _serve(self) -> None:
        tls.require()
        config, spec = self._config, self._spec
        machine = rounds.RoundMachine(
            f"{config.namespace}/{config.name}", terms.rules_of(spec, config), time.monotonic()
        )
        self.driver = driver_module.Driver(
            machine,
            self._progress,
            self._book,
            loop=self._loop,
            on_change=self._tell_hub,
            one_refusal_ends=spec.update_checks.on_violation is training.OnViolation.FAIL_TRAINING,
        )
        self._exchange = exchange.Exchange(
            self.driver,
            self._progress,
            verification.Verifier(terms.limits_of(spec)),
            node_of=self._node_of,
            run_id=self._run_id,
            book=self._book,
            message_limits=wire_limits.MessageLimits(message_bytes=spec.communication.maximum_message_bytes),
            chunk_bytes=chunk_bytes(config.expected_clusters),
        )
        scope = authorisation.exchange_scope(config.trust_domain, config.namespace, config.name)
        self._guard = interceptors.Guard(scope)
        self._server = grpc.aio.server(
            interceptors=[self._guard], options=server_options(config.expected_clusters)
        )
        self._exchange.add_to_server(self._server)
        port = self._bind()
        await self._server.start()
        host = config.advertised_host or config.listen_address.rpartition(":")[0]
        if host in EVERYWHERE:
            host = own_address(config.hub_address)
        address = f"{host}:{port}"
        identity = identities.AggregatorIdentity(config.trust_domain, config.namespace, config.name)
        self._hub = hub_link.HubLink(
            config.hub_address,
            config.hub_server_name,
            self._credentials,
            hello=hub_link.hello(address, identity.server_name),
            report=self._progress.report,
            on_directive=self._directed,
            rng=self._rng,
        )
        self._hub_task = self._loop.create_task(self._converse())
        self._renewal_task = self._loop.create_task(self._renew())

    def _bind(self) -> int:
        """Listen where an earlier process did, if the port was free to choose: clients dial that again."""
        host, asked = addresses.split(self._config.listen_address)
        remembered = self._config.work_directory / "port"
        credentials = self._credentials.server_credentials()
        if not asked and remembered.exists():
            with contextlib.suppress(RuntimeError, ValueError):
                port = int(remembered.read_text())
                return int(self._server.add_secure_port(addresses.join(host, port), credentials))
        port = int(self._server.add_secure_port(self._config.listen_address, credentials))
        remembered.write_text(str(port))
        return port

    async def _converse(self) -> None:
        try:
            assert self._hub is not None
            await self._hub.run()
        except denials.Denied as denied:
            # The hub may be a newer one, or not know yet what runs: that says nothing of the training.
            log.error("the hub refuses this aggregator", denial=denied.reason, detail=str(denied))
            if not self._leaving:
                self._on_refusal(str(denied))
        except Exception as error:  # a bug: without a hub there is nobody to train for
            log.exception("hub link failed")
            self.driver.handle(
                events.StopAsked(
                    reasons.TrainingReason.INTERNAL_ERROR, f"the link to the hub failed: {error}"
                )
            )

    async def _renew(self) -> None:
        """Renew the aggregator's own certificate at two thirds of its life; open streams go on."""
        while True:
            summary = self._credentials.summary()
            now = dt.datetime.now(dt.UTC)
            due = rotation.renew_at(summary.not_before, summary.not_after, jitter=self._rng.random())
            await asyncio.sleep(max(1.0, (due - now).total_seconds()))
            with contextlib.suppress(Exception):
                await hub_link.renew(
                    self._credentials, self._config.hub_address, self._config.hub_server_name
                )

    def _directed(self, directive: pb.AggregatorDirective) -> None:
        now = self.driver.now()
        match directive.WhichOneof("body"):
            case "roster":
                members = directive.roster.members
                self._exchange.expect(member.cluster for member in members if member.expected)
                self._guard.replace_revocations(_revoked(members))
                self.driver.handle(
                    events.RosterChanged(
                        tuple(
                            events.Member(
                                self._node_of(m.cluster), m.cluster, m.expected, m.reason, m.message
                            )
                            for m in members
                        ),
                        now,
                    )
                )
            case "stop":
                self.driver.handle(events.StopAsked(directive.stop.reason, directive.stop.message))
            case "rules":
                self.driver.handle(
                    events.RulesChanged(terms.changed_rules(directive.rules, self._config), now)
                )
                self._on_rounds(directive.rules.rounds)
                self._tell_hub()

    async def _leave(self, finished: pb.TrainingFinished) -> bool:
        assert self._hub is not None
        self._leaving = True
        self._hub.finish(finished)
        told = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.delivery_seconds):
                await self._hub.delivered()
            told = True
        self.driver.close(denials.Reason.TRAINING_ENDED, finished.message)
        await self._server.stop(GOODBYE_SECONDS)
        for task in (self._hub_task, self._renewal_task):
            task.cancel()
        return told

    def _tell_hub(self) -> None:
        if self._hub is not None:
            self._hub.changed()

    def _node_of(self, cluster: str) -> int:
        return node_ids.node_id(self._config.namespace, self._config.name, cluster)


def _revoked(members: Iterable[pb.RosterMember]) -> authorisation.Revocations:
    """Whose certificates count no longer: of clusters that were expelled, and of those that left."""
    by_reason: dict[str, set[str]] = {}
    for member in members:
        by_reason.setdefault(member.reason, set()).add(member.cluster)
    return authorisation.Revocations(
        clusters=frozenset(by_reason.get(reasons.ClusterReason.EXPELLED, ())),
        left=frozenset(by_reason.get(reasons.ClusterReason.CLUSTER_LEFT, ())),
    )
