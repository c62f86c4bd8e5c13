"""What every store of resources must do, whichever stands behind the port.

The Kubernetes store runs against a real API server with Hanse's own kinds, so the resources here are valid.
"""

import asyncio
import contextlib
import datetime as dt
import itertools
from collections.abc import AsyncIterator

import pytest

from federation.kube import client
from federation.store import kubernetes, memory, port
from tests.fakes import controlplane

KIND = "FederatedTraining"
KEY = port.Key(KIND, "cardiology", "hospitals")
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def memory_store() -> port.Store:
    """A store in memory with a fixed clock and counted uids."""
    uids = (f"uid-{n}" for n in itertools.count(1))
    return memory.MemoryStore(now=lambda: NOW, new_uid=lambda: next(uids))


@contextlib.asynccontextmanager
async def kubernetes_store(plane: controlplane.ControlPlane) -> AsyncIterator[port.Store]:
    """A store over the session's API server, empty: what an earlier test left is removed first."""
    async with await client.Client.connect(plane.kubeconfig) as api:
        for name in ("cardiology", "aaa"):
            await api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        for kind in (KIND, "EdgeCluster"):
            for item in (await api.list(kind)).items:
                metadata = item["metadata"]
                await api.delete(kind, metadata["name"], metadata.get("namespace", ""))
        yield kubernetes.KubernetesStore(api, component="test", now=lambda: NOW)


@pytest.fixture(params=["memory", pytest.param("kubernetes", marks=pytest.mark.controlplane)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[port.Store]:
    """Every implementation of the port, one after the other."""
    if request.param == "memory":
        yield memory_store()
        return
    async with kubernetes_store(request.getfixturevalue("control_plane")) as made:
        yield made


def training(name: str = "hospitals", rounds: int = 3) -> port.Resource:
    """A small resource."""
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": KIND,
        "metadata": {"name": name, "namespace": "cardiology", "labels": {"team": "a"}},
        "spec": {
            "app": {"source": {"path": "app"}},
            "dataset": "heart-disease",
            "round": {"deadlineSeconds": rounds * 10},
        },
    }


def rounds_of(resource: port.Resource) -> int:
    """What `training` was given."""
    return int(resource["spec"]["round"]["deadlineSeconds"]) // 10


async def test_get_of_a_missing_resource_names_it(store: port.Store) -> None:
    """A missing resource is a typed error that names it."""
    with pytest.raises(port.NotFoundError, match="FederatedTraining cardiology/hospitals does not exist"):
        await store.get(KEY)


async def test_create_gives_uid_generation_and_version(store: port.Store) -> None:
    """A created resource has what Kubernetes would give it, and can be read back."""
    created = await store.create(training())
    assert created["metadata"]["generation"] == 1
    assert created["metadata"]["uid"]
    assert created["metadata"]["creationTimestamp"]
    assert await store.get(KEY) == created


async def test_create_twice_is_refused(store: port.Store) -> None:
    """The second creation of a name fails."""
    await store.create(training())
    with pytest.raises(port.AlreadyExistsError):
        await store.create(training())


async def test_returned_resources_are_copies(store: port.Store) -> None:
    """Changing a returned resource does not change the stored one."""
    created = await store.create(training())
    created["spec"]["round"]["deadlineSeconds"] = 990
    assert rounds_of(await store.get(KEY)) == 3


async def test_generation_counts_spec_changes_only(store: port.Store) -> None:
    """Labels and status leave the generation alone; a new spec raises it by one."""
    created = await store.apply(training())
    labelled = training()
    labelled["metadata"]["labels"] = {"team": "b"}
    assert (await store.apply(labelled))["metadata"]["generation"] == 1
    with_status = await store.patch_status(KEY, {"phase": "Running"}, None)
    assert with_status["metadata"]["generation"] == 1
    changed = await store.apply(training(rounds=4))
    assert changed["metadata"]["generation"] == 2
    assert changed["status"] == {"phase": "Running"}
    assert changed["metadata"]["uid"] == created["metadata"]["uid"]


async def test_writing_what_is_stored_writes_nothing(store: port.Store) -> None:
    """Applying the same spec or patching the same status keeps the resource version."""
    await store.apply(training())
    first = await store.patch_status(KEY, {"phase": "Running"}, None)
    assert await store.apply(training()) == first
    assert await store.patch_status(KEY, {"phase": "Running"}, None) == first


async def test_status_write_against_an_old_version_conflicts(store: port.Store) -> None:
    """A writer that decided on an old state must read again."""
    created = await store.create(training())
    await store.apply(training(rounds=5))
    with pytest.raises(port.ConflictError):
        await store.patch_status(KEY, {"phase": "Running"}, port.version_of(created))
    assert "status" not in await store.get(KEY)


async def test_list_is_ordered_and_filtered(store: port.Store) -> None:
    """A list is ordered by namespace and name and holds one kind only."""
    other = training("zebra")
    other["metadata"]["namespace"] = "aaa"
    for resource in (training("b"), training("a"), other):
        await store.create(resource)
    cluster = {"apiVersion": "hanse.dev/v1alpha1", "kind": "EdgeCluster", "metadata": {"name": "zurich"}}
    await store.create(cluster | {"spec": {"acceptance": "Accepted"}})
    listing = await store.list(KIND)
    assert [item["metadata"]["name"] for item in listing.items] == ["zebra", "a", "b"]
    assert [i["metadata"]["name"] for i in (await store.list(KIND, "cardiology")).items] == ["a", "b"]


async def test_watch_yields_every_change_after_the_list(store: port.Store) -> None:
    """A watch from a list's version misses nothing, in order."""
    listing = await store.list(KIND)
    await store.create(training())
    await store.apply(training(rounds=4))
    await store.delete(KEY)
    watch = store.watch(KIND, listing.resource_version)
    seen = [await anext(watch) for _ in range(3)]
    assert [change.type for change in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert rounds_of(seen[1].resource) == 4


async def test_watch_waits_for_the_next_change(store: port.Store) -> None:
    """A watch with nothing to say waits, and wakes with the next write."""
    listing = await store.list(KIND)
    waiting = asyncio.ensure_future(anext(store.watch(KIND, listing.resource_version)))
    await asyncio.sleep(0)
    assert not waiting.done()
    await store.create(training())
    assert (await asyncio.wait_for(waiting, 30)).type == "ADDED"


async def test_delete_of_a_missing_resource_is_an_error(store: port.Store) -> None:
    """Deleting twice says so."""
    await store.create(training())
    await store.delete(KEY)
    with pytest.raises(port.NotFoundError):
        await store.delete(KEY)


async def test_events_may_regard_a_resource_that_is_gone(store: port.Store) -> None:
    """An Event never fails for want of its resource."""
    await store.record_event(port.Event(KEY, port.EventType.NORMAL, "Deleted", "The training was deleted."))


async def test_following_adds_up_to_what_is_stored(store: port.Store) -> None:
    """What was there comes as ADDED, then each change, over every implementation alike."""
    await store.create(training("before"))
    seen = port.follow(store, KIND)
    assert (await anext(seen)).resource["metadata"]["name"] == "before"
    coming = asyncio.ensure_future(anext(seen))
    await store.apply(training("after"))
    assert (await asyncio.wait_for(coming, 30)).type is port.ChangeType.ADDED
    await store.delete(port.Key(KIND, "cardiology", "before"))
    assert (await asyncio.wait_for(anext(seen), 5)).type is port.ChangeType.DELETED
