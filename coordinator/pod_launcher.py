"""What an aggregator needs to start as a pod: configuration, credentials, app, claim, who may speak to it.

Between the controller, which wants one running, and the runtime, which makes a Job of it. Everything that the
pod has comes with it; it asks the API server for nothing and has no token to ask with. This module refuses to
know when one is wanted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Awaitable, Callable
from typing import Literal

from coordinator import launcher, workloads
from coordinator.aggregator import config
from coordinator.clients import authority, bundles, cluster_objects
from coordinator.planning import model_stores, server_images, snapshot
from federation.kube import errors
from federation.runtime import pods
from federation.runtime import port as runtimes
from federation.store import port as stores
from federation.trust import identity as identities
from federation.wire import addresses

PORT = 7443
"""Where every aggregator listens."""

CONFIGURATION = pathlib.PurePosixPath("/run/hanse/aggregator")
CREDENTIALS = pathlib.PurePosixPath("/run/hanse/credentials")
APP = pathlib.PurePosixPath("/run/hanse/app")
STORE_CREDENTIALS = pathlib.PurePosixPath("/run/hanse/model-store")
WORK = pathlib.PurePosixPath("/var/lib/hanse/work")

SCRATCH = pathlib.PurePosixPath("/tmp")  # noqa: S108

WORK_SIZE, SCRATCH_SIZE = "32Gi", "8Gi"
"""A ServerApp that writes more is put out by its node, which others share."""

COORDINATOR_LABELS = {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/component": "coordinator"}
"""Of the pods that an aggregator may dial, whichever of them leads."""

DELIVERY_SECONDS = 600.0
"""A hub that is moved to another node is away for a minute; the end of a training waits for it."""


@dataclasses.dataclass(frozen=True)
class PodLauncher:
    """Makes the workloads of aggregators.

    hub_address: gives host:port of the control listener as pods of other namespaces reach it.
    """

    issuer: authority.Authority
    shelf: bundles.BundleShelf
    objects: cluster_objects.ClusterObjects
    hub_address: Callable[[], Awaitable[str]]
    hub_namespace: str
    images: server_images.ServerImages
    model_store: str
    models_claim: str
    models_size: str
    models_class: str
    limits: snapshot.Limits
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"]

    async def launch(self, training: snapshot.Training, clusters: int) -> runtimes.Workload:
        """Make what a training's aggregator needs beside its Job, and return its workload.

        clusters: how many take part as things stand; more may come later.
        Raises: WorkloadNotStarted; StoreError when the API server does not answer.
        """
        name = workloads.workload_name(training.uid)
        if training.namespace == self.hub_namespace or training.namespace.startswith("kube-"):
            # Its app could have any Secret of the namespace mounted; the federation's CA is one.
            raise runtimes.WorkloadNotStarted(
                name,
                f"namespace {training.namespace} is not for trainings; create it in a namespace of its own",
            )
        try:
            store = model_stores.choose(training.spec, self.models_claim, self.model_store)
            if store.made or not store.claim:  # the journal needs a place in any case
                await self.objects.ensure_claim(
                    training.namespace, self.models_claim, self.models_size, self.models_class
                )
            await self.objects.ensure_account(training.namespace)
            address = await self.hub_address()
        except model_stores.UnusableStore as error:
            raise runtimes.WorkloadNotStarted(name, str(error)) from error
        except errors.Unreachable as error:
            raise stores.UnavailableError(str(error)) from error
        except errors.KubernetesError as error:
            raise runtimes.WorkloadNotStarted(name, str(error)) from error
        if not self.images.choose(training.spec):
            raise runtimes.WorkloadNotStarted(
                name, "the hub does not know the aggregators' image; set HANSE_AGGREGATOR_IMAGE"
            )
        return await self._workload(name, training, clusters, store, address)

    async def _workload(
        self,
        name: str,
        training: snapshot.Training,
        clusters: int,
        store: model_stores.ModelStore,
        hub_address: str,
    ) -> runtimes.Workload:
        identity = identities.AggregatorIdentity(self.issuer.trust_domain, training.namespace, training.name)
        material = await asyncio.to_thread(self.issuer.material, identity)
        blobs: dict[pathlib.PurePath, bytes] = {}
        assert isinstance(training.app, snapshot.App)
        if training.app.bundled:
            packed = self.shelf.path(training.app.digest)
            if packed is None:
                raise runtimes.WorkloadNotStarted(name, f"the app {training.app.digest} is not on the shelf")
            blobs[APP] = await asyncio.to_thread(packed.read_bytes)
        settings = self._config(training, clusters, store, hub_address)
        return runtimes.Workload(
            name=name,
            argv=("python3", "-P", "-m", "coordinator.aggregator", "--config",
                  str(CONFIGURATION / "aggregator.json")),
            directory=CONFIGURATION,
            environment={"PYTHONUNBUFFERED": "1", "HANSE_PROCESS": "aggregator", "HOME": str(WORK)},
            files={"aggregator.json": settings.model_dump_json(indent=1).encode()},
            resources=launcher.resources_of(training),
            image=self.images.choose(training.spec),
            pod=runtimes.Pod(
                namespace=training.namespace,
                labels=_labels(training, "aggregator"),
                mounts=_mounts(store, self.models_claim),
                secret_directories={CREDENTIALS: material.files},
                blobs=blobs,
                egress=self._egress(store, addresses.split(hub_address)[1]),
                ingress_port=PORT,
                service_account=cluster_objects.AGGREGATOR_ACCOUNT,
            ),
        )  # fmt: skip

    def tidy(self, training: snapshot.Training) -> runtimes.Workload:
        """Return the workload that removes the journal of a training that was deleted while it ran.

        Raises: UnusableStore.
        """
        store = model_stores.choose(training.spec, self.models_claim, self.model_store)
        journal = str(_journal_of(training))
        return runtimes.Workload(
            name=workloads.tidy_name(training.uid),
            argv=("python3", "-P", "-m", "coordinator.journal.removal", journal, training.uid),
            directory=CONFIGURATION,
            environment={"PYTHONUNBUFFERED": "1", "HOME": str(SCRATCH)},
            files={"training": f"{training.namespace}/{training.name}".encode()},
            image=self.images.own,  # which can read the journals of all that ran here
            pod=runtimes.Pod(
                namespace=training.namespace,
                labels=_labels(training, "tidy"),
                mounts=_mounts(dataclasses.replace(store, secret=""), self.models_claim),
                egress=(),
                service_account=cluster_objects.AGGREGATOR_ACCOUNT,
            ),
        )

    def _egress(
        self, store: model_stores.ModelStore, hub_port: int
    ) -> tuple[runtimes.Destination | runtimes.PodDestination, ...] | None:
        hub = runtimes.PodDestination(self.hub_namespace, COORDINATOR_LABELS, hub_port)
        if store.claim:
            return (hub,)
        if store.address is not None:
            return hub, runtimes.Destination(*store.address)
        return None  # it has a name, which must be resolved and may lead anywhere

    def _config(
        self,
        training: snapshot.Training,
        clusters: int,
        store: model_stores.ModelStore,
        hub_address: str,
    ) -> config.AggregatorConfig:
        return config.AggregatorConfig(
            **launcher.settings_of(training, clusters, self.issuer.trust_domain, self.limits),
            **launcher.app_of(training, lambda _: pathlib.Path(APP)),
            hub_address=hub_address,
            credential_directory=pathlib.Path(WORK / "credentials"),
            initial_credentials=pathlib.Path(CREDENTIALS),
            listen_address=f"0.0.0.0:{PORT}",
            work_directory=pathlib.Path(WORK),
            # The process makes this directory: one that kubelet made would be root's.
            journal_directory=_journal_of(training),
            model_store=store.url,
            model_store_name=store.name,
            model_store_credentials=pathlib.Path(STORE_CREDENTIALS) if store.secret else None,
            delivery_seconds=DELIVERY_SECONDS,
            termination_log=pathlib.Path(runtimes.TERMINATION_LOG),
            log_level=self.log_level,
        )


async def app_of_aggregator(
    objects: cluster_objects.ClusterObjects, namespace: str, uid: str
) -> bytes | None:
    """Return the app that the aggregator of a training was given, as long as its Job is there.

    Raises: StoreError.
    """
    name, parts = workloads.workload_name(uid), list[bytes]()
    try:
        while part := await objects.config_map(
            namespace, pods.blob_name(name, APP, len(parts)), pods.blob_key(len(parts))
        ):
            parts.append(part)
    except errors.KubernetesError as error:
        raise stores.UnavailableError(str(error)) from error
    return b"".join(parts) or None


def _labels(training: snapshot.Training, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "hanse",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "hanse",
        "hanse.dev/training": training.name,
    }


def _journal_of(training: snapshot.Training) -> pathlib.Path:
    return pathlib.Path(model_stores.MOUNT, model_stores.JOURNALS, training.uid)


def _mounts(store: model_stores.ModelStore, own_claim: str) -> tuple[runtimes.Mount, ...]:
    mounts = [
        runtimes.Mount(WORK, {"emptyDir": {"sizeLimit": WORK_SIZE}}, read_only=False),
        runtimes.Mount(SCRATCH, {"emptyDir": {"sizeLimit": SCRATCH_SIZE}}, read_only=False),
    ]
    claim = {"persistentVolumeClaim": {"claimName": store.claim or own_claim}}
    mounts.append(runtimes.Mount(pathlib.PurePosixPath(model_stores.MOUNT), claim, read_only=False))
    if store.secret:
        # kubelet reads it; the coordinator could not. While it is missing, the pod waits and status says so.
        secret = {"secretName": store.secret, "defaultMode": 0o440}
        mounts.append(runtimes.Mount(STORE_CREDENTIALS, {"secret": secret}))
    return tuple(mounts)
