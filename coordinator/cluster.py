"""A hub of pods: resources in the API server, aggregators as Jobs, one leader among the replicas.

A replica waits until it holds the Lease. Only then it opens listeners, labels its pod so that the door's
Service leads to it, and acts. Who loses the Lease to another ends, and its kubelet starts it again as one
that waits. Who only could not renew it, because the API server was away, acts no more, but its door goes on
leading to the aggregators; it stands for election again, and ends if another was faster.
Nothing of importance is on the pod's disk. This module wires and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509

from coordinator import config, health, hub, parts, pod_launcher, workloads
from coordinator.clients import authority, bundles, cluster_objects, secret_shelf
from coordinator.door import envoy, files
from coordinator.gateway import translate
from coordinator.operator import feed
from coordinator.planning import server_images, snapshot
from federation.kube import client, errors, leases
from federation.runtime import jobs, processes, tasks
from federation.store import kubernetes as kubernetes_store
from federation.store import port as stores
from federation.telemetry import logs
from federation.wire import addresses

_log = logs.get_logger(__name__)

FIELD_MANAGER = "hanse-coordinator"

LABEL_SECONDS = 3.0
"""Who ends takes the leader's label off if that is quickly done; the next start does it, too."""

TIDYING_SECONDS = 3600.0
"""So often join tokens that are of no use any more are looked for."""


async def serve(
    settings: config.CoordinatorConfig,
    over: asyncio.Event,
    *,
    on_leading: Callable[[hub.Coordinator], object] = lambda leader: None,
) -> None:
    """Stand for election, lead, until `over`.

    on_leading: called with the hub once it acts.
    Raises: StartFailure, LeaseLost, KubernetesError; none of them while the API server is away.
    """
    assert settings.kubernetes is not None
    if why := settings.kubernetes.unguarded(os.environ):
        raise parts.StartFailure(why)
    settings = settings.model_copy(
        update={"kubernetes": settings.kubernetes.completed(os.environ, socket.gethostname())}
    )
    own = settings.kubernetes
    assert own is not None
    processes.make_private_directory(settings.state_directory.absolute())
    async with await client.Client.connect(own.kubeconfig, field_manager=FIELD_MANAGER) as api:
        elector = leases.Elector(
            api,
            own.namespace,
            own.lease,
            own.pod_name,
            now=lambda: datetime.now(UTC),
            monotonic=asyncio.get_running_loop().time,
            jitter=random.Random().random,  # noqa: S311 - spreads, protects nothing
            timing=leases.Timing(own.lease_seconds, own.renew_seconds, own.retry_seconds),
        )
        replica = Replica(settings, own, elector, cluster_objects.ClusterObjects(api), on_leading)
        probes = health.Health(own.health_listen, why_not_ready=elector.unreachable)
        await probes.start()
        _log.info("probes answered", port=probes.port)
        try:
            await tasks.together(replica.stand(), over.wait())
        finally:
            await probes.stop()


class Replica:
    """One replica of the coordinator."""

    def __init__(
        self,
        settings: config.CoordinatorConfig,
        own: config.KubernetesConfig,
        elector: leases.Elector,
        pods: cluster_objects.ClusterObjects,
        on_leading: Callable[[hub.Coordinator], object],
    ) -> None:
        """Wire it; `own` is the completed part of the settings that concerns Kubernetes.

        pods: asks for the pod's label, also while this replica does not lead.
        """
        self._settings = settings
        self._own = own
        self._elector = elector
        self._pods = pods
        self._on_leading = on_leading
        self._door: files.Door | None = None
        if own.door_directory is not None:
            self._door = files.Door(
                own.door_directory,
                envoy.Address(*addresses.split(own.door_listen)),
                aggregator_port=pod_launcher.PORT,
                own_host=False,
            )

    async def stand(self) -> None:
        """Lead whenever that can be, until cancelled.

        Raises: StartFailure, KubernetesError; LeaseLost when another leads in this one's place.
        """
        await self._begin_unlabelled()
        # Whoever led here before; not earlier: without an API server nobody else leads to the aggregators.
        self._close()
        has_led = False
        try:
            while True:
                try:
                    await self._elector.lead(self._act, unless_taken=has_led)
                except (leases.OutOfReach, errors.Unreachable) as error:
                    # As nobody can act now, the label and the routes to aggregators are right as they are.
                    _log.warning("acting no more until the API server answers", error=str(error))
                    has_led = True
                    await asyncio.sleep(self._own.retry_seconds)
        finally:
            self._close()
            with contextlib.suppress(errors.KubernetesError, TimeoutError):
                async with asyncio.timeout(LABEL_SECONDS):
                    await self._label(False)

    async def _act(self) -> None:
        """Be the hub until cancelled."""
        # Nothing that was begun while this replica led goes on when it does not, or when it leads again.
        async with await client.Client.connect(
            self._own.kubeconfig, field_manager=FIELD_MANAGER, allowed=lambda: self._elector.held
        ) as api:
            given, tokens = await self._gather(api)
            leader = hub.Coordinator(self._settings, parts=given)
            try:
                endpoints = await leader.start()
                if self._door is not None:
                    self._door.open(
                        endpoints.control_server_name,
                        _inside(leader.control_address),
                        _inside(leader.enrollment_address),
                    )
                await self._label(True)
                self._on_leading(leader)
                await tasks.together(leader.run(), self._tidy(tokens))
            finally:
                await leader.stop()

    async def _gather(self, api: client.Client) -> tuple[parts.Parts, secret_shelf.SecretShelf]:
        objects = cluster_objects.ClusterObjects(api)
        settings, own = self._settings, self._own
        now = parts.utc(time.time)
        try:
            ca = await objects.ca(
                own.namespace,
                own.ca_secret,
                settings.trust_domain,
                create=own.create_ca,
                now=now(),
                new_serial=x509.random_serial_number,
            )
        except cluster_objects.CaUnusable as error:
            raise parts.StartFailure(str(error)) from error
        issuer = authority.Authority(
            ca, now=now, new_serial=x509.random_serial_number, lifetimes=parts.lifetimes(settings)
        )
        store = kubernetes_store.KubernetesStore(api, component=FIELD_MANAGER, now=now, instance=own.pod_name)
        shelf = bundles.BundleShelf(settings.state_directory.absolute() / "bundles")
        tokens = secret_shelf.SecretShelf(api, own.namespace)
        images = server_images.ServerImages(own.aggregator_image, own.aggregator_images)
        given = parts.Parts(
            authority=issuer,
            store=store,
            runtime=jobs.Jobs(api, None, owner="coordinator"),
            shelf=shelf,
            apps=bundles.Apps(
                shelf,
                lambda *place: _config_map(objects, *place),
                images.refusal,
                lambda namespace, uid: pod_launcher.app_of_aggregator(objects, namespace, uid),
            ),
            tokens=tokens,
            launch=lambda control_address: self._launcher(objects, issuer, shelf, images, control_address),
            terms=translate.Terms(self._door is not None, own.client_image),
            feed=lambda controller: feed.Feed(store, controller, kubeconfig=own.kubeconfig).run(),
            on_routes=self._door.lead if self._door is not None else lambda routes, whole: None,
        )
        return given, tokens

    def _launcher(
        self,
        objects: cluster_objects.ClusterObjects,
        issuer: authority.Authority,
        shelf: bundles.BundleShelf,
        images: server_images.ServerImages,
        control_address: parts.HubAddress,
    ) -> workloads.Launcher:
        settings, own = self._settings, self._own

        async def hub_address() -> str:
            _, port = addresses.split(control_address())
            service = await objects.service_ip(own.namespace, own.control_service)
            return addresses.join(service or own.pod_ip, port)

        return pod_launcher.PodLauncher(
            issuer=issuer,
            shelf=shelf,
            objects=objects,
            hub_address=hub_address,
            hub_namespace=own.namespace,
            images=images,
            model_store=settings.model_store,
            models_claim=own.models_claim,
            models_size=own.models_size,
            models_class=own.models_class,
            limits=snapshot.Limits(settings.link_grace_seconds, settings.start_grace_seconds),
            log_level=settings.log_level,
        )

    async def _begin_unlabelled(self) -> None:
        """Take off the label of an earlier life of this pod, as soon as the API server lets it."""
        while True:
            try:
                return await self._label(False)
            except errors.Unreachable as error:
                _log.warning("waiting for the API server", error=str(error))
                await asyncio.sleep(self._own.retry_seconds)

    def _close(self) -> None:
        if self._door is not None:
            self._door.close()

    async def _label(self, leads: bool) -> None:
        await self._pods.lead(self._own.namespace, self._own.pod_name, leads)

    async def _tidy(self, tokens: secret_shelf.SecretShelf) -> None:
        while True:
            try:
                if removed := await tokens.tidy(datetime.now(UTC)):
                    _log.info("join tokens removed", count=removed)
            except errors.KubernetesError as error:
                _log.warning("join tokens not tidied", error=str(error))
            await asyncio.sleep(TIDYING_SECONDS)


async def _config_map(
    objects: cluster_objects.ClusterObjects, namespace: str, name: str, key: str
) -> bytes | None:
    try:
        return await objects.config_map(namespace, name, key)
    except errors.KubernetesError as error:
        raise stores.UnavailableError(str(error)) from error


def _inside(address: str) -> envoy.Address:
    """Return a listener of this pod as the door beside it reaches it."""
    host, port = addresses.split(address)
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return envoy.Address(own.get(host, host), port)
