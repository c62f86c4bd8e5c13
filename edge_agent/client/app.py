"""The client process: one ClientApp beside its data, for the life of one training.

Why it exists: starting Python and importing an app takes seconds, a round should not. So the app is loaded
once and answers messages until the aggregator says goodbye. The app runs on the main thread, where user code
expects to be; the conversation with the aggregator runs on another.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
import random
import shutil
import sys
import threading

from flwr.app import Message
from flwr.clientapp import ClientApp

from edge_agent.client import answering, keeping, link, network, worker
from edge_agent.client import config as client_config
from federation.api import reasons
from federation.apps import bundle
from federation.apps import config as app_config
from federation.apps import errors as app_errors
from federation.flower import host, node_ids
from federation.runtime import failpoints, port, processes
from federation.telemetry import logs
from federation.trust import credentials, tls

log = logs.get_logger(__name__)

LAST_WORDS_SECONDS = 2.0
"""After goodbye the app may finish what it is doing for so long; nobody waits for its reply any more."""


def run(config: client_config.ClientConfig) -> int:
    """Serve until the training ends; returns the process's exit code: 0 after a goodbye, 1 otherwise."""
    tls.require()
    try:
        network.wait_until_restricted(config.closed_addresses, config.aggregator_address)
    except network.NotRestricted as error:
        return _leave(config, reasons.ClusterReason.NETWORK_NOT_RESTRICTED, str(error))
    training = f"{config.training_namespace}/{config.training_name}"
    node_id = node_ids.node_id(config.training_namespace, config.training_name, config.cluster)
    run_id = node_ids.run_id(config.training_namespace, config.training_name)
    host.prepare_process(run_id, node_id, home=config.state_directory / "flwr")
    logs.adopt("flwr")
    inbox: queue.Queue[Message | link.End] = queue.Queue()
    keep, withdrawn = _keep(config), answering.Withdrawn()
    exchange = link.ExchangeLink(
        config.aggregator_address,
        config.aggregator_server_name,
        credentials.CredentialDirectory(config.credential_directory),
        on_message=inbox.put,
        on_end=lambda end: _end(inbox, end),
        on_confirmed=keep.confirmed if keep is not None else lambda _: None,
        on_withdrawn=withdrawn.add,
        rng=random.Random(),  # noqa: S311  (spreads retries, protects nothing)
    )
    try:
        app, run_config = _load(config)
    except (host.AppNotLoadable, app_errors.AppError) as error:
        log.error("client app not loadable", detail=str(error), exc_info=True)
        return _refuse(exchange, reasons.ClusterReason.APP_NOT_LOADABLE, str(error))
    try:
        state = keep.open() if keep is not None else None
    except (keeping.StateLost, OSError) as error:
        log.error("state of the client app not usable", detail=str(error))
        return _refuse(exchange, reasons.ClusterReason.STORAGE_FULL, str(error))
    context = host.make_context(run_id, node_id, config.node_config, run_config, state)
    desk = answering.Answering(
        worker.Worker(app, context), keep, send=exchange.send, tell=exchange.tell, withdrawn=withdrawn
    )
    log.info("client app loaded", training=training, node_id=node_id)
    failpoints.reach("client.app-loaded")
    exchange.start()
    while isinstance(item := inbox.get(), Message):
        desk.take(item)
    log.info("training over", reason=item.reason, detail=item.message)
    return 1 if item.failed else 0


def _keep(config: client_config.ClientConfig) -> keeping.Keep | None:
    if config.state_key_file is None:
        return None
    return keeping.Keep(config.state_directory / "kept", config.state_key_file.read_bytes())


def _refuse(exchange: link.ExchangeLink, reason: reasons.ClusterReason, message: str) -> int:
    exchange.refuse(reason, message)
    exchange.start()
    exchange.join()
    return 1


def _load(config: client_config.ClientConfig) -> tuple[ClientApp, dict[str, app_config.Value]]:
    """The app and its run config. The working directory is the app's own, as the app expects."""
    if config.app_directory is None and config.app_bundle is None:
        if config.client_app is None:
            raise app_errors.NoSuchComponent("the assignment names no ClientApp and brings no app bundle")
        return host.load_client_app(config.client_app, None), dict(config.run_config)
    # A copy of this client's own: apps write beside their modules, and the unpacked bundle is shared.
    directory = config.state_directory / "app"
    if not directory.exists():
        # Whole or not at all: whoever is started after a death in the middle begins with this again.
        fresh = directory.with_name(".new-app")
        processes.remove_tree(fresh)
        if config.app_directory is not None:
            shutil.copytree(config.app_directory, fresh)
        else:
            _unpack(config, fresh)
        fresh.rename(directory)
    described = app_config.load(directory)
    run_config = app_config.merge(described.defaults, config.run_config)
    os.chdir(directory)
    return host.load_client_app(config.client_app or app_config.client_app(described), directory), run_config


def _unpack(config: client_config.ClientConfig, directory: pathlib.Path) -> None:
    assert config.app_bundle is not None
    parts = sorted(path for path in config.app_bundle.iterdir() if path.is_file())
    data = b"".join(part.read_bytes() for part in parts)
    got = bundle.digest(data)
    if got != config.app_digest:
        raise app_errors.InvalidBundle(
            f"the app that was handed over is {got}, and {config.app_digest} was allowed"
        )
    directory.mkdir(parents=True)
    bundle.unpack(data, directory)


def _leave(config: client_config.ClientConfig, reason: reasons.ClusterReason, message: str) -> int:
    log.error("client cannot work here", reason=reason, detail=message)
    if config.termination_log is not None:
        with contextlib.suppress(OSError):
            config.termination_log.write_text(port.last_words(reason, message))
    return 1


def _end(inbox: queue.Queue[Message | link.End], end: link.End) -> None:
    """Tell the main thread, and end the process even if the app never comes back to it."""
    inbox.put(end)

    def force() -> None:
        log.warning("client app still busy at the end", detail=end.message)
        sys.stderr.flush()
        os._exit(1 if end.failed else 0)

    timer = threading.Timer(LAST_WORDS_SECONDS, force)
    timer.daemon = True
    timer.start()
