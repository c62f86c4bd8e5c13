"""kopf's handlers: every event of the hub's two kinds goes into the controller's caches, and no more happens.

kopf watches, renews its watches and lists again after a gap. It does not say when a list is whole, nor what
went away during a gap; so whenever it lists, the store is listed once here as well. Handlers are silent ones:
users' objects get no finalizer, no annotation and no Events of kopf's. kopf has a thread and a loop of its
own: at its end it cancels every task of the loop that it is in, and in the main thread it takes the process's
signals. This module refuses to know what the changes mean.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import logging
import os
import pathlib
import threading
from typing import Any, Protocol

import kopf
import yaml

from federation.api import meta, resources
from federation.store import port as stores
from federation.telemetry import logs

_log = logs.get_logger(__name__)

KINDS = ("FederatedTraining", "EdgeCluster")

SETTLING_SECONDS = 0.5
"""A list comes from kopf object by object; one list of ours answers them all."""

RETRY_SECONDS = 5.0
STOPPING_SECONDS = 3.0
SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")

CLOSING_SECONDS = 0.3
"""aiohttp closes TLS connections in the background, and does not say when it has."""

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
            await kopf.operator(
                registry=self._registry(loop),
                settings=_settings(),
                standalone=True,
                clusterwide=True,
                stop_flag=stop,
            )
            await asyncio.sleep(CLOSING_SECONDS)

        def work() -> None:
            try:
                asyncio.run(watch())
            except Exception as error:
                _log.exception("kopf failed", error=str(error))
            finally:
                with contextlib.suppress(RuntimeError):  # our loop is closed already
                    loop.call_soon_threadsafe(ended.set)

        threading.Thread(target=work, name="kopf", daemon=True).start()
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
        def login(**_: Any) -> kopf.ConnectionInfo | None:
            return _of_the_pod() if self._kubeconfig is None else _connection(self._kubeconfig)

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


def _of_the_pod() -> kopf.ConnectionInfo:
    """Where the API server is, for a hub in a pod: by address, since a cluster may have no DNS.

    The token is replaced hourly by kubelet; kopf logs in again when the old one is refused.
    """
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return kopf.ConnectionInfo(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca_path=str(SERVICE_ACCOUNT / "ca.crt"),
        token=(SERVICE_ACCOUNT / "token").read_text().strip(),
    )


def _connection(kubeconfig: pathlib.Path) -> kopf.ConnectionInfo:
    """Read where the API server is, for a hub that runs outside the cluster."""
    content = yaml.safe_load(kubeconfig.read_text())
    context = next(c["context"] for c in content["contexts"] if c["name"] == content["current-context"])
    cluster = next(c["cluster"] for c in content["clusters"] if c["name"] == context["cluster"])
    user = next(u["user"] for u in content["users"] if u["name"] == context["user"])

    def pem(of: dict[str, Any], name: str) -> bytes | None:
        if data := of.get(f"{name}-data"):
            return base64.b64decode(data)
        return (kubeconfig.parent / of[name]).read_bytes() if name in of else None

    return kopf.ConnectionInfo(
        server=cluster["server"],
        ca_data=pem(cluster, "certificate-authority"),
        token=user.get("token"),
        certificate_data=pem(user, "client-certificate"),
        private_key_data=pem(user, "client-key"),
    )
