"""One training's aggregator: composition, and the life of the ServerApp in it.

    main thread          the ServerApp, where user code expects to be; it calls the Grid
    thread "exchange"    an event loop: the clients' sessions, the driver, the link to the coordinator

The ServerApp starts when enough clients are connected and warm. Whatever ends it, there is one report: succeeded with
a model, or failed with one reason and the last lines of the traceback.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import importlib.metadata
import os
import random
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from typing import Any

from federation.flower import host, node_ids, watch  # first: it switches Flower's telemetry off
from federation.trust import authorisation, credentials, interceptors, tls
from coordinator.aggregation import checks, events, rounds
from coordinator.aggregator import config as aggregator_config
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import exchange, grid, hub_link, metrics, model, server_apps, verification
from coordinator.aggregator import progress as progress_module
from coordinator.clients import blobs
from federation.api import reasons, training
from federation.apps import bundle
from federation.apps import config as app_config
from federation.apps import errors as app_errors
from federation.telemetry import logs
from federation.trust import identity as identities
from federation.trust import rotation
from federation.wire import hanse_pb2 as pb
from federation.wire import limits as wire_limits
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp

import grpc.aio  # isort: skip  # after federation.trust, which decides what TLS gRPC speaks

log = logs.get_logger(__name__)

LINK_GRACE_SECONDS = 10.0
"""How long a round waits for a cluster whose link was cut before it goes on without it."""

START_GRACE_SECONDS = 10.0
"""How long the start waits for the other clusters once the quorum is connected."""

GOODBYE_SECONDS = 2.0
DELIVERY_SECONDS = 30.0
"""How long the end of the training waits for the coordinator to hear of it."""

TRACEBACK_LINES = 12


@dataclass(frozen=True)
class Ending:
    """How a training ended."""

    reason: str
    message: str
    log_tail: tuple[str, ...] = ()

    @property
    def succeeded(self) -> bool:
        """Whether there is a model to show for it."""
        return self.reason == reasons.TrainingReason.ALL_ROUNDS_DONE


class _Watcher:
    """Hears what strategies compute: the newest global arrays, and metrics for status."""

    def __init__(self, progress: progress_module.Progress, on_change: Callable[[], None]) -> None:
        self._progress = progress
        self._on_change = on_change
        self.arrays: ArrayRecord | None = None
        """The newest global arrays: a strategy's, else what an app without one sent last."""
        self.round = 0
        self.strategy_runs = False
        self._aggregates = False

    def started(self, strategy: object, num_rounds: int) -> None:
        del strategy
        self.strategy_runs = True
        self._progress.total(num_rounds)

    def sent(self, arrays: ArrayRecord) -> None:
        if not self._aggregates:
            self.arrays, self.round = arrays, self._progress.current_round

    def train_aggregated(self, server_round: int, arrays: ArrayRecord | None, values: Mapping[str, Any] | None) -> None:
        if arrays is not None and len(arrays):
            self.arrays, self.round, self._aggregates = arrays, server_round, True
        self._measured(server_round, "Train", values)

    def evaluate_aggregated(self, server_round: int, values: Mapping[str, Any] | None) -> None:
        self._measured(server_round, "Evaluate", values)

    def server_evaluated(self, server_round: int, values: Mapping[str, Any] | None) -> None:
        self._measured(server_round, "ServerEvaluate", values)

    def _measured(self, server_round: int, phase: str, values: Mapping[str, Any] | None) -> None:
        if values:
            self._progress.measured(server_round, phase, metrics.scalars(values))
            self._on_change()


class Aggregator:
    """One training, from the first client to the model."""

    def __init__(self, config: aggregator_config.AggregatorConfig) -> None:
        """Read the configuration; nothing is opened yet."""
        self._config = config
        self._spec = training.FederatedTrainingSpec.model_validate(config.spec)
        self._name = f"{config.namespace}/{config.name}"
        self._progress = progress_module.Progress()
        self._loop = asyncio.new_event_loop()
        self._ready: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._credentials = credentials.CredentialDirectory(config.credential_directory)
        self._spool = config.work_directory / "spool"
        self._watcher = _Watcher(self._progress, self._changed)
        self._run_id = node_ids.run_id(config.namespace, config.name)

    # -- the main thread -------------------------------------------------------------------------

    def run(self) -> int:
        """Run the training to its end; returns the process's exit code, 0 if there is a model."""
        for directory in (self._config.work_directory, self._spool):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        host.prepare_process(self._run_id, host.SERVER_NODE_ID, home=self._config.work_directory / "flwr")
        logs.adopt("flwr")
        thread = threading.Thread(target=self._run_loop, name="exchange", daemon=True)
        thread.start()
        self._ready.result()
        ending = self._play()
        finished = pb.TrainingFinished(
            succeeded=ending.succeeded, reason=ending.reason, message=ending.message, log_tail=ending.log_tail
        )
        if ending.succeeded:
            ending = self._store(finished) or ending
        log.info("training finished", reason=ending.reason, detail=ending.message)
        asyncio.run_coroutine_threadsafe(self._leave(finished, ending), self._loop).result()
        return 0 if finished.succeeded else 1

    def _play(self) -> Ending:
        """Load the app, wait for clients, run it."""
        try:
            app, run_config = self._load()
        except (host.AppNotLoadable, app_errors.AppError) as error:
            return Ending(reasons.TrainingReason.APP_NOT_LOADABLE, str(error), _tail())
        except server_apps.StrategyInvalid as error:
            return Ending(reasons.TrainingReason.STRATEGY_PARAMETERS_INVALID, str(error))
        try:
            self._driver.app_may_start.result()
            self._changed()
            watch.install(self._watcher)
            log.info("server app starts")
            context = host.make_context(self._run_id, host.SERVER_NODE_ID, {}, run_config)
            app(self._grid(app), context)
            self._driver.finished()
        except driver_module.TrainingOver as over:
            return Ending(over.reason, over.message)
        except server_apps.StrategyInvalid as error:
            return Ending(reasons.TrainingReason.STRATEGY_PARAMETERS_INVALID, str(error))
        except SystemExit as exit_call:
            message = f"the ServerApp called exit({exit_call.code}) before it returned"
            return Ending(reasons.TrainingReason.SERVER_APP_EXITED, message, _tail())
        except BaseException as error:  # a user's app may raise anything; all of it is one condition
            log.exception("server app failed")
            return Ending(reasons.TrainingReason.SERVER_APP_FAILED, self._failure(error), _tail())
        if self._driver.over is not None:
            return Ending(self._driver.over.reason, self._driver.over.message)
        return Ending(reasons.TrainingReason.ALL_ROUNDS_DONE, f"round {self._progress.current_round} was the last")

    def _failure(self, error: BaseException) -> str:
        left = host.app_exit(error)
        if left is not None:
            return f"the ServerApp ended with Flower's exit code {left.code} ({left.name}): {left.message}"
        return f"the ServerApp raised {type(error).__name__}: {error}"

    def _load(self) -> tuple[ServerApp, dict[str, Any]]:
        """The ServerApp and its run config; the working directory is the app's own copy."""
        directory = self._config.work_directory / "app"
        directory.mkdir(exist_ok=True, mode=0o700)
        spec = self._spec
        overrides = dict(spec.app.run_config)
        reference: str | None
        if self._config.app_bundle is not None:
            bundle.unpack(self._config.app_bundle.read_bytes(), directory)
            described = app_config.load(directory)
            reference, run_config = described.server_app, app_config.merge(described.defaults, overrides)
            sys.path.insert(0, str(directory))
        else:
            installed = self._config.installed_app
            reference, run_config = (installed.server_app if installed else None), overrides
        os.chdir(directory)
        if spec.strategy is not None:
            self._progress.total(spec.strategy.rounds)
        elif isinstance(total := run_config.get("num-server-rounds"), int):
            self._progress.total(total)
        if reference is not None:
            return host.load_server_app(reference, directory if self._config.app_bundle else None), run_config
        if spec.strategy is None:
            raise app_errors.NoSuchComponent("the app has no ServerApp and the spec names no strategy; add spec.strategy")
        wanted = server_apps.StrategySpec(spec.strategy.name, spec.strategy.rounds, dict(spec.strategy.parameters))
        return server_apps.from_strategy(wanted, directory), run_config

    def _grid(self, app: ServerApp) -> grid.HanseGrid:
        return grid.HanseGrid(
            self._driver,
            self._progress,
            run=host.make_run(self._run_id, fab_hash=self._config.app_digest, override_config=self._spec.app.run_config),
            prefix=secrets.token_hex(4),
            judged=lambda: self._judged(app),
            on_arrays=self._watcher.sent,
            spool_directory=self._spool,
        )

    def _judged(self, app: ServerApp) -> bool:
        """Whether the quorum rules apply to a batch of messages.

        An app of the older API sends one message at a time from many threads, which makes no round. An app with a
        loop of its own may well live with errors from everywhere; it is judged if the manifest asks for more than
        the default quorum. A strategy is always judged: it would go on with a model that nobody trained.
        """
        spec = self._spec
        asks = spec.clusters.minimum > 1 or Fraction(spec.round.minimum_fraction) > 0
        return not host.is_legacy(app) and (asks or self._watcher.strategy_runs)

    def _store(self, finished: pb.TrainingFinished) -> Ending | None:
        """Write the model and its card; returns an Ending only if that failed."""
        arrays = self._watcher.arrays
        if arrays is None:
            finished.message = f"{finished.message}; the ServerApp made no arrays, so there is no model"
            return None
        config, number = self._config, self._watcher.round or self._progress.current_round
        try:
            file = config.work_directory / model.MODEL_FILE
            digest = model.write(arrays, file)
            card = model.Card(
                training=self._name,
                round=number,
                app_digest=config.app_digest,
                dataset=self._spec.dataset,
                examples=self._progress.examples(),
                metrics=self._progress.metrics(),
                sha256=digest,
                arrays=model.describe(arrays),
                hanse_version=importlib.metadata.version("hanse") if _installed() else "",
            )
            url = blobs.round_url(config.model_store, config.namespace, config.name, number)
            finished.model_uri = blobs.save(url, {model.MODEL_FILE: file, model.CARD_FILE: card.to_json()})
            file.unlink()
        except (OSError, ValueError, blobs.BlobError) as error:
            log.exception("model not stored")
            full = isinstance(error, OSError) and error.errno == 28
            reason = reasons.TrainingReason.STORAGE_FULL if full else reasons.TrainingReason.STORAGE_UNAVAILABLE
            message = f"all rounds are done, but the model could not be stored in {config.model_store}: {error}"
            finished.succeeded, finished.reason, finished.message = False, reason, message
            return Ending(reason, message)
        finished.model_sha256, finished.model_round = digest, number
        return None

    # -- the event loop --------------------------------------------------------------------------

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._open())
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
        machine = rounds.RoundMachine(self._name, rules_of(spec), time.monotonic())
        self._driver = driver_module.Driver(machine, self._progress, loop=self._loop, on_change=self._changed)
        self._exchange = exchange.Exchange(
            self._driver,
            self._progress,
            verification.Verifier(limits_of(spec)),
            node_of=self._node_of,
            run_id=self._run_id,
            spool_directory=self._spool,
            message_limits=wire_limits.MessageLimits(message_bytes=spec.communication.maximum_message_bytes),
        )
        scope = authorisation.exchange_scope(config.trust_domain, config.namespace, config.name)
        self._guard = interceptors.Guard(scope)
        self._server = grpc.aio.server(interceptors=[self._guard], options=SERVER_OPTIONS)
        self._exchange.add_to_server(self._server)
        port = self._server.add_secure_port(config.listen_address, self._credentials.server_credentials())
        await self._server.start()
        listening_host = config.listen_address.rpartition(":")[0]
        address = f"{config.advertised_host or listening_host}:{port}"
        identity = identities.AggregatorIdentity(config.trust_domain, config.namespace, config.name)
        self._hub = hub_link.HubLink(
            config.hub_address,
            config.hub_server_name,
            self._credentials,
            hello=hub_link.hello(address, identity.server_name),
            report=self._progress.report,
            on_directive=self._directed,
            rng=random.Random(),  # noqa: S311  (spreads retries, protects nothing)
        )
        self._hub_task = self._loop.create_task(self._converse())
        self._renewal_task = self._loop.create_task(self._renew())

    async def _converse(self) -> None:
        try:
            await self._hub.run()
        except Exception as error:  # denied for good, or a bug: without a hub there is nobody to train for
            log.exception("hub link failed")
            self._driver.handle(events.StopAsked(reasons.TrainingReason.INTERNAL_ERROR, f"the hub refuses this aggregator: {error}"))

    async def _renew(self) -> None:
        """Renew the aggregator's own certificate at two thirds of its life; open streams go on."""
        while True:
            summary = self._credentials.summary()
            now = datetime.datetime.now(datetime.UTC)
            due = rotation.renew_at(summary.not_before, summary.not_after, jitter=random.random())  # noqa: S311
            await asyncio.sleep(max(1.0, (due - now).total_seconds()))
            with contextlib.suppress(Exception):
                await hub_link.renew(self._credentials, self._config.hub_address, self._config.hub_server_name)

    def _directed(self, directive: pb.AggregatorDirective) -> None:
        now = self._driver.now()
        match directive.WhichOneof("body"):
            case "roster":
                members = directive.roster.members
                self._exchange.expect(member.cluster for member in members if member.expected)
                self._driver.handle(
                    events.RosterChanged(
                        tuple(
                            events.Member(self._node_of(m.cluster), m.cluster, m.expected, m.reason, m.message)
                            for m in members
                        ),
                        now,
                    )
                )
            case "stop":
                self._driver.handle(events.StopAsked(directive.stop.reason, directive.stop.message))
            case "rules":
                self._driver.handle(events.RulesChanged(_rules(directive.rules), now))

    async def _leave(self, finished: pb.TrainingFinished, ending: Ending) -> None:
        """Report the end, then say goodbye to the clients and close."""
        self._hub.finish(finished)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hub.delivered(), DELIVERY_SECONDS)
        self._driver.close("TrainingEnded", ending.message)
        await self._server.stop(GOODBYE_SECONDS)
        for task in (self._hub_task, self._renewal_task):
            task.cancel()

    def _changed(self) -> None:
        """Something is new for the coordinator; may be called from any thread."""
        self._loop.call_soon_threadsafe(lambda: self._hub.changed() if hasattr(self, "_hub") else None)

    def _node_of(self, cluster: str) -> int:
        return node_ids.node_id(self._config.namespace, self._config.name, cluster)


SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", wire_limits.MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", wire_limits.MAX_FRAME_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),
)
"""Frames are bounded, half-open links are noticed, and no other process may take the port."""


def rules_of(spec: training.FederatedTrainingSpec) -> events.RoundRules:
    """The round machine's rules, from the manifest."""
    return events.RoundRules(
        quorum=spec.clusters.minimum,
        minimum_fraction=Fraction(spec.round.minimum_fraction),
        deadline_seconds=spec.round.deadline_seconds,
        late_replies=events.LateReplies(spec.round.late_replies),
        link_grace_seconds=LINK_GRACE_SECONDS,
        start_grace_seconds=START_GRACE_SECONDS,
    )


def _rules(rules: pb.RoundRules) -> events.RoundRules:
    return events.RoundRules(
        quorum=max(1, rules.quorum),
        minimum_fraction=Fraction(rules.minimum_fraction or "0"),
        deadline_seconds=rules.deadline_seconds or None,
        late_replies=events.LateReplies(rules.late_replies or "Discard"),
        link_grace_seconds=LINK_GRACE_SECONDS,
        start_grace_seconds=START_GRACE_SECONDS,
    )


def limits_of(spec: training.FederatedTrainingSpec) -> checks.Limits:
    """The bounds of an update, from the manifest."""
    bounds = spec.update_checks
    return checks.Limits(
        maximum_update_bytes=bounds.maximum_update_bytes,
        maximum_examples=bounds.maximum_examples,
        maximum_norm=float(bounds.maximum_norm) if bounds.maximum_norm else None,
        structure=checks.Structure(bounds.structure),
    )


def _tail() -> tuple[str, ...]:
    return tuple(traceback.format_exc().rstrip().splitlines()[-TRACEBACK_LINES:])


def _installed() -> bool:
    try:
        importlib.metadata.version("hanse")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


