"""One training's aggregator: composition, and the life of the ServerApp in it.

    main thread          the ServerApp, where user code expects to be; it calls the Grid
    thread "exchange"    an event loop: the clients' sessions, the driver, the link to the coordinator

The ServerApp starts when enough clients are connected and warm. Whatever ends it, there is one report:
succeeded with a model, or failed with one reason and the last lines of the traceback.
"""

from __future__ import annotations

import functools
import os
import pathlib
import shutil
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from flwr.serverapp import ServerApp

from coordinator.aggregator import (
    compaction,
    grid,
    history,
    quorum,
    server_apps,
    service,
    storing,
    terms,
    total,
    watcher,
)
from coordinator.aggregator import config as aggregator_config
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import progress as progress_module
from coordinator.clients import last_words
from coordinator.journal import book as journal
from coordinator.journal import holding, room
from coordinator.planning import restarts, snapshot
from federation.api import reasons, training
from federation.apps import bundle
from federation.apps import config as app_config
from federation.apps import errors as app_errors
from federation.flower import host, node_ids, watch
from federation.runtime import allocator, failpoints, port
from federation.telemetry import logs
from federation.trust import directory as trust
from federation.wire import hanse_pb2 as pb

log = logs.get_logger(__name__)

TRACEBACK_LINES = 12

WHY_CHARACTERS = 500
"""Of what an aggregator that could not begin says; status has its own sentence before that."""


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


class Aggregator:
    """One training, from the first client to the model."""

    def __init__(self, config: aggregator_config.AggregatorConfig) -> None:
        """Read the configuration; nothing is opened yet."""
        self._config = config
        self._spec = training.FederatedTrainingSpec.model_validate(config.spec, extra="ignore")  # as `read`
        self._name = f"{config.namespace}/{config.name}"
        self._progress = progress_module.Progress()
        self._spool = config.work_directory / "spool"
        self._run_id = node_ids.run_id(config.namespace, config.name)

    def run(self) -> int:
        """Run the training to its end; returns the process's exit code, 0 if there is a model."""
        config = self._config
        for directory in (config.work_directory, self._spool):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        host.prepare_process(self._run_id, host.SERVER_NODE_ID, home=config.work_directory / "flwr")
        logs.adopt("flwr")
        if config.initial_credentials is not None and not config.credential_directory.exists():
            trust.write(config.credential_directory, trust.read(config.initial_credentials))
        restarts_round = self._spec.server.on_divergence is training.OnDivergence.RESTART_ROUND
        try:
            self._book = self._open_journal()
            self._history = history.History(
                self._book, restarts_round=restarts_round, on_divergence=self._diverged
            )
            self._total = self._declared_total()
        except (journal.JournalUnusable, holding.Held, OSError) as error:
            # What is there may be the training's only memory: the hub tries again, and says what is wrong.
            log.error("journal not opened", error=str(error))
            self._say_why(str(error))
            if isinstance(error, journal.NoRoom) or room.is_full(error):
                return restarts.NO_ROOM
            if isinstance(error, journal.JournalDamaged):
                return restarts.DAMAGED
            if isinstance(error, journal.JournalOfAnotherApp):
                return restarts.OTHER_APP
            return restarts.HELD if isinstance(error, holding.Held) else restarts.UNREADABLE
        failpoints.reach("aggregator.journal-opened")
        self._progress.resumed(self._history.round)
        self._progress.diverged(self._history.diverged)
        self._service = service.Service(
            config,
            self._spec,
            self._progress,
            self._book,
            on_rounds=self._raised,
            on_refusal=self._end_refused,
        )
        self._watcher = watcher.Watcher(self._progress, self._service.changed)
        self._service.start()
        self._history.attach(self._service.driver)
        store = storing.Storing(config, self._spec, self._progress, self._service.changed)
        # One that goes on has something to lose, and the store may be back when it is needed.
        refused = "" if self._history.resumes else store.refusal()
        ending = Ending(reasons.TrainingReason.STORAGE_UNAVAILABLE, refused) if refused else self._play()
        finished = pb.TrainingFinished(
            succeeded=ending.succeeded, reason=ending.reason, message=ending.message, log_tail=ending.log_tail
        )
        as_wanted = ending.succeeded or ending.reason == reasons.TrainingReason.STOP_REQUESTED
        goes_on = ending.reason == reasons.TrainingReason.SUSPEND_REQUESTED
        # Whatever ended the training, the rounds before were trained.
        if as_wanted or (self._watcher.trained and not goes_on):
            number = self._watcher.round or self._progress.current_round
            store.store(finished, self._watcher.arrays, number)
            if finished.model_uri and not as_wanted:
                finished.message += f" The model of round {finished.model_round} is kept."
        failpoints.reach("aggregator.model-stored")
        log.info("training finished", reason=finished.reason, detail=finished.message)
        self._leave_word(finished)
        told = self._service.leave(finished)
        failpoints.reach("aggregator.hub-told")
        # A hub that does not know starts another, which must come to the same end without any client; and the
        # word that is left may go with the pod before any hub has read it.
        if told and not goes_on:
            self._book.drop_arrays()
        failpoints.reach("aggregator.arrays-dropped")
        self._book.close()
        return 0 if finished.succeeded else 1

    def _diverged(self, what: str) -> None:
        self._progress.diverged(what)
        self._service.changed()

    def _declared_total(self) -> total.Total | None:
        """How many rounds spec.strategy asks for; None where the app's ServerApp has a number of its own."""
        declared = self._spec.strategy
        return None if declared is None else total.Total(declared.rounds, self._book, self._progress)

    def _raised(self, rounds: int) -> None:
        declared = self._total  # which the app's thread may take away
        if declared is not None:
            declared.raised(rounds)

    def _more_rounds(self, declared: total.Total, played: int) -> int:
        try:
            return declared.after(played)
        except journal.JournalUnusable as error:
            reason = reasons.TrainingReason.STORAGE_UNAVAILABLE
            self._service.driver.end(reason, f"The training was ended, since {error}.")

    def _open_journal(self) -> journal.Book:
        """Open the training's journal; one of another training, or of no use, makes room."""
        directory = self._config.journal_directory or self._config.work_directory / "journal"
        facts = {"training": self._name, "uid": self._config.uid, "app": self._config.app_digest}
        try:
            return journal.Book(directory, facts)
        except journal.JournalObsolete as error:
            log.warning("journal not used, the training begins anew", detail=str(error))
            holding.empty(directory)
            return journal.Book(directory, facts)

    def _leave_word(self, finished: pb.TrainingFinished) -> None:
        """Write the end down where the next coordinator finds it, should none be there to be told."""
        if self._config.termination_log is None:
            return
        words = snapshot.Finished(
            finished.succeeded,
            finished.reason,
            finished.message,
            finished.model_uri,
            finished.model_sha256,
            finished.model_round,
            tuple(finished.log_tail),
        )
        try:
            self._config.termination_log.write_text(last_words.write(words))
        except (OSError, ValueError) as error:
            log.warning("last words not written", error=str(error))

    def _say_why(self, why: str) -> None:
        """Leave what an exit status cannot say, unless the end of the training stands there."""
        log_file = self._config.termination_log
        if log_file is None or (log_file.exists() and log_file.stat().st_size):
            return
        try:
            log_file.write_text(port.last_words(restarts.NOT_NOW, why[:WHY_CHARACTERS]))
        except OSError as error:
            log.warning("last words not written", error=str(error))

    def _end_refused(self, why: str) -> None:
        """End at once and as one that is killed does, with all that a resume needs.

        Neither the app nor the clients hear of it: the hub starts another one if it wants the training.
        """
        self._say_why(why)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(restarts.REFUSED)

    def _play(self) -> Ending:
        """Load the app, wait for clients, run it."""
        try:
            app, run_config = self._load()
        except (host.AppNotLoadable, app_errors.AppError) as error:
            return Ending(reasons.TrainingReason.APP_NOT_LOADABLE, unloadable(error), _tail())
        except server_apps.StrategyInvalid as error:
            return _of_the_strategy(error)
        try:
            if self._history.resumes:
                log.info("server app runs again, the journal answers")
            else:
                self._service.driver.app_may_start.result()
            self._service.changed()
            if terms.asks_for_quorum(self._spec):
                rules = terms.rules_of(self._spec, self._config)
                self._watcher.judge = quorum.Judge(self._name, rules, self._service.driver.end)
            self._watcher.refused = self._service.refused
            watch.install(self._watcher, self._compaction())
            log.info("server app starts")
            context = host.make_context(self._run_id, host.SERVER_NODE_ID, {}, run_config)
            host.seed(self._run_id)
            failpoints.reach("aggregator.app-starts")
            app(self._grid(app), context)
            failpoints.reach("aggregator.app-ended")
            self._history.finish()
            self._service.driver.finished()
        except driver_module.TrainingOver as over:
            return Ending(over.reason, over.message)
        except server_apps.StrategyInvalid as error:
            return _of_the_strategy(error)
        except SystemExit as exit_call:
            message = f"The ServerApp called exit({exit_call.code}) before it returned."
            return Ending(reasons.TrainingReason.SERVER_APP_EXITED, message, _tail())
        except BaseException as error:  # a user's app may raise anything; all of it is one condition
            if (ended := self._service.driver.over) is not None:  # what it raised follows from that
                return Ending(ended.reason, ended.message)
            log.exception("server app failed")
            return Ending(reasons.TrainingReason.SERVER_APP_FAILED, self._failure(error), _tail())
        if self._service.driver.over is not None:
            return Ending(self._service.driver.over.reason, self._service.driver.over.message)
        return Ending(reasons.TrainingReason.ALL_ROUNDS_DONE, _all_done(self._progress.current_round))

    def _failure(self, error: BaseException) -> str:
        left = host.app_exit(error)
        if left is not None:
            return f"The ServerApp ended with Flower's exit code {left.code} ({left.name}): {left.message}"
        return f"The ServerApp raised {type(error).__name__}: {error}"

    def _load(self) -> tuple[ServerApp, dict[str, Any]]:
        """The ServerApp and its run config; the working directory is the app's own copy."""
        directory = self._config.work_directory / "app"
        # As it was at first: an app that runs again writes its files again.
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        spec = self._spec
        overrides = dict(spec.app.run_config)
        reference: str | None
        if self._config.app_bundle is not None:
            packed = bundle.read_file(self._config.app_bundle, self._config.app_digest)
            bundle.unpack(packed, directory)
            described = app_config.load(directory)
            reference, run_config = described.server_app, app_config.merge(described.defaults, overrides)
            sys.path.insert(0, str(directory))
        else:
            installed = self._config.installed_app
            reference, run_config = (installed.server_app if installed else None), overrides
        os.chdir(directory)
        if reference is not None:
            self._total = None
            if isinstance(rounds := run_config.get("num-server-rounds"), int):
                self._progress.total(rounds)
            return host.load_server_app(reference, directory if self._config.app_bundle else None), run_config
        if spec.strategy is None or self._total is None:
            raise app_errors.NoSuchComponent(
                "the app has no ServerApp and the spec names no strategy; add spec.strategy"
            )
        self._progress.total(self._total.rounds)
        wanted = server_apps.StrategySpec(
            spec.strategy.name, self._total.rounds, dict(spec.strategy.parameters)
        )
        return server_apps.from_strategy(wanted, directory), run_config

    def _grid(self, app: ServerApp) -> grid.HanseGrid:
        return grid.HanseGrid(
            self._service.driver,
            self._progress,
            self._history,
            run=host.make_run(
                self._run_id, fab_hash=self._config.app_digest, override_config=self._spec.app.run_config
            ),
            judged=lambda: self._judged(app),
            on_arrays=self._watcher.sent,
            spool_directory=self._spool,
            tidy=allocator.return_free_pages,
        )

    def _compaction(self) -> compaction.Compaction:
        installed = (self._config.installed_app and self._config.installed_app.server_app) or ""
        directory = pathlib.Path.cwd()  # the app's own copy
        own = directory if self._config.app_bundle is not None else None
        return compaction.Compaction(
            self._history,
            self._book,
            self._progress,
            self._watcher,
            directory=directory,
            is_of_app=compaction.whose(own, installed),
            more=None if self._total is None else functools.partial(self._more_rounds, self._total),
        )

    def _judged(self, app: ServerApp) -> bool:
        """Whether the quorum rules apply to a batch of messages.

        An app of the older API sends one message at a time from many threads, which makes no round. An app
        with a loop of its own may well live with errors from everywhere; it is judged if the manifest asks
        for more than the default quorum. A strategy is always judged: it would go on with a model that nobody
        trained.
        """
        asks = terms.asks_for_quorum(self._spec)
        return not host.is_legacy(app) and (asks or self._watcher.strategy_runs)


def _of_the_strategy(error: server_apps.StrategyInvalid) -> Ending:
    if isinstance(error, server_apps.StrategyUnknown):
        return Ending(reasons.TrainingReason.STRATEGY_UNKNOWN, str(error))
    return Ending(reasons.TrainingReason.STRATEGY_PARAMETERS_INVALID, str(error))


def unloadable(error: Exception) -> str:
    """Say what is wrong with an app and, where a module is not there, what brings it."""
    if not isinstance(error.__cause__, ModuleNotFoundError):
        return str(error)
    return f"{error}; mend the import, or name an image that has the module in spec.server.image"


def _all_done(rounds: int) -> str:
    return f"All {rounds} rounds are done." if rounds > 1 else "The training is done."


def _tail() -> tuple[str, ...]:
    return tuple(traceback.format_exc().rstrip().splitlines()[-TRACEBACK_LINES:])
