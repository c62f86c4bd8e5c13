"""kopf's handlers: every event of the hub's two kinds goes into the controller's caches, and no more happens.

kopf watches, renews its watches and lists again after a gap. It does not say when a list is whole, nor what
went away during a gap; so whenever it lists, the store is listed once here as well. Handlers are silent ones:
users' objects get no finalizer, no annotation and no Events of kopf's. kopf has a thread and a loop of its
own: at its end it cancels every task of the loop that it is in, and in the main thread it takes the process's
signals. This module refuses to know what the changes mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import pathlib
import threading
from typing import Any, Protocol

import kopf

from federation.api import meta, resources
from federation.kube import connection
from federation.store import port as stores
from federation.telemetry import logs

_log = logs.get_logger(__name__)

KINDS = ("FederatedTraining", "EdgeCluster")

SETTLING_SECONDS = 0.5
"""A list comes from kopf object by object; one list of ours answers them all."""

RETRY_SECONDS = 5.0
STOPPING_SECONDS = 3.0

CLOSING_SECONDS = 31.0
"""TLS connections are closed in the background, and nobody says when they are; from a server that answers no
more asyncio waits 30 s for a last word. kopf's thread stays for so long, and nobody waits for it.
"""

RESYNC_SECONDS = 1800.0
"""A kind whose last object went away during a gap makes kopf say nothing at all: one list in so long finds
that."""


class Sink(Protocol):
    """Who takes what is seen."""

    def observe(self, change: stores.Change) -> None:
        """A resource changed."""
        ...

    def listed(self, kind: str, listing: stores.ResourceList) -> None:
        """All resources of a kind."""
        ...


class Feed:
    """Watches through kopf; whom it feeds is called in the loop of `run`."""

    def __init__(self, store: stores.Store, sink: Sink, *, kubeconfig: pathlib.Path | None) -> None:
        """Wire it; kubeconfig: None in a pod."""
        self._store = store
        self._sink = sink
        self._kubeconfig = kubeconfig
        self._stale = {kind: asyncio.Event() for kind in KINDS}

    async def run(self) -> None:
        """Feed until cancelled, or until kopf gives up."""
        loop = asyncio.get_running_loop()
        ended, stop = asyncio.Event(), threading.Event()

        async def watch() -> None:
            try:
                await kopf.operator(
                    registry=self._registry(loop),
                    settings=_settings(),
                    standalone=True,
                    clusterwide=True,
                    stop_flag=stop,
                )
            except Exception as error:
                _log.exception("kopf failed", error=str(error))
            finally:
                with contextlib.suppress(RuntimeError):  # our loop is closed already
                    loop.call_soon_threadsafe(ended.set)
                await asyncio.sleep(CLOSING_SECONDS)

        threading.Thread(target=lambda: asyncio.run(watch()), name="kopf", daemon=True).start()
        try:
            async with asyncio.TaskGroup() as group:
                for kind in KINDS:
                    group.create_task(self._keep_whole(kind))
                await ended.wait()
                raise RuntimeError("kopf stopped watching")
        finally:
            stop.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOPPING_SECONDS):
                    await ended.wait()

    def _registry(self, loop: asyncio.AbstractEventLoop) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            # Again whenever the server refuses the token: kubelet has put a new one in its place by then.
            own = await connection.access(self._kubeconfig)
            return kopf.ConnectionInfo(
                server=own.server,
                ca_path=own.ca_file,
                certificate_path=own.certificate_file,
                private_key_path=own.key_file,
                token=own.token,
            )

        for kind in KINDS:
            plural = resources.KINDS[kind].INFO.plural

            @kopf.on.event(meta.GROUP, meta.VERSION, plural, registry=registry, id=f"see-{plural}")
            async def seen(event: Any, param: Any = None, kind: str = kind, **_: Any) -> None:
                resource = copy.deepcopy(dict(event["object"]))
                with contextlib.suppress(RuntimeError):  # our loop is closed already
                    loop.call_soon_threadsafe(self._seen, resource, event["type"])

        return registry

    def _seen(self, resource: stores.Resource, type_: str | None) -> None:
        kind = resource["kind"]
        resource["metadata"].pop("managedFields", None)
        if type_ is None:  # of a list
            self._stale[kind].set()
        self._sink.observe(stores.Change(stores.ChangeType(type_ or stores.ChangeType.ADDED), resource))

    async def _keep_whole(self, kind: str) -> None:
        """List the kind at the start, after each list of kopf's, and now and then."""
        pause = 0.0
        while True:
            await asyncio.sleep(pause)
            self._stale[kind].clear()
            try:
                self._sink.listed(kind, await self._store.list(kind))
            except stores.StoreError as error:
                _log.warning("resources not listed", kind=kind, error=str(error))
                pause = RETRY_SECONDS
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESYNC_SECONDS):
                    await self._stale[kind].wait()
            pause = SETTLING_SECONDS


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").addFilter(_is_news)
    return settings


_EXPECTED = ("OS signals are ignored",)
"""What kopf warns of although it is so on purpose."""


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_EXPECTED)
