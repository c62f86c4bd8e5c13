"""What is the memory store's own: publishing, history and following."""

import datetime as dt
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.store import memory, port


def make(on_change: memory.OnChange | None = None, history_changes: int = 100) -> memory.MemoryStore:
    """A store with a fixed clock."""
    uids = (f"uid-{n}" for n in itertools.count(1))
    return memory.MemoryStore(
        lambda: dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC),
        lambda: next(uids),
        on_change,
        history_changes,
    )


def cluster(name: str, **spec: Any) -> port.Resource:
    """A small resource."""
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "EdgeCluster",
        "metadata": {"name": name},
        "spec": spec,
    }


async def test_every_write_is_published() -> None:
    """The callback sees writes and Events, in order, and nothing for a write that changes nothing."""
    lines: list[dict[str, Any]] = []
    store = make(lines.append)
    await store.apply(cluster("zurich"))
    await store.apply(cluster("zurich"))
    key = port.Key("EdgeCluster", "", "zurich")
    await store.patch_status(key, {"agentVersion": "0.1"}, None)
    await store.record_event(port.Event(key, port.EventType.WARNING, "Expelled", "It was expelled."))
    await store.delete(key)
    assert [line["type"] for line in lines] == ["ADDED", "MODIFIED", "EVENT", "DELETED"]
    assert lines[1]["object"]["status"] == {"agentVersion": "0.1"}
    assert lines[2]["object"]["involvedObject"]["name"] == "zurich"
    assert lines[2]["object"]["reason"] == "Expelled"


async def test_watch_from_a_forgotten_version_asks_for_a_resync() -> None:
    """When the changes since a version are no longer kept, the watcher is told to list again."""
    store = make(history_changes=2)
    start = (await store.list("EdgeCluster")).resource_version
    for name in ("a", "b", "c"):
        await store.apply(cluster(name))
    with pytest.raises(port.ResyncRequiredError):
        await anext(store.watch("EdgeCluster", start))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-1, 3), st.booleans()), max_size=25))
async def test_following_adds_up_to_the_store_whatever_gaps(writes: list[tuple[str, int, bool]]) -> None:
    """With a history of one change, the changes that a follower sees still add up to what is stored."""
    store = make(history_changes=1)
    following = port.follow(store, "EdgeCluster")
    mirror: dict[port.Key, port.Resource] = {}

    async def stored() -> dict[port.Key, port.Resource]:
        return {port.key_of(item): item for item in (await store.list("EdgeCluster")).items}

    async def catch_up() -> None:
        while mirror != await stored():
            change = await anext(following)
            if change.type == "DELETED":
                mirror.pop(port.key_of(change.resource))
            else:
                mirror[port.key_of(change.resource)] = change.resource

    for name, value, read in writes:
        key = port.Key("EdgeCluster", "", name)
        if value >= 0:
            await store.apply(cluster(name, value=value))
        elif key in await stored():
            await store.delete(key)
        if read:
            await catch_up()
    await catch_up()
    assert mirror == await stored()
