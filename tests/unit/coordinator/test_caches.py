"""The hub's caches hold what the store holds, whatever order the news comes in."""

from typing import Any

import pytest

from coordinator import caches
from federation.store import port as stores

KEY = stores.Key("EdgeCluster", "", "zurich")


def resource(version: int, uid: str = "u1", name: str = "zurich") -> dict[str, Any]:
    """One EdgeCluster at one version."""
    return {"kind": "EdgeCluster", "metadata": {"name": name, "uid": uid, "resourceVersion": str(version)}}


def put(version: int, uid: str = "u1") -> stores.Change:
    return stores.Change(stores.ChangeType.MODIFIED, resource(version, uid))


def gone(version: int, uid: str = "u1") -> stores.Change:
    return stores.Change(stores.ChangeType.DELETED, resource(version, uid))


def listing(version: int, *items: dict[str, Any]) -> stores.ResourceList:
    return stores.ResourceList(items, str(version))


News = stores.Change | stores.ResourceList
CASES: dict[str, tuple[list[News], str | None, list[str]]] = {
    "the newer version stays": ([put(2), put(1)], "2", []),
    "what went away stays away": ([put(1), gone(2), put(1)], None, ["u1"]),
    "a list from before a deletion brings nothing back": ([gone(5), listing(4, resource(3))], None, []),
    "a list tells of what went away unseen": ([put(1), listing(5)], None, ["u1"]),
    "a list does not remove what is younger": ([put(7), listing(5)], "7", []),
    "a list does not make older": ([put(7), listing(5, resource(4))], "7", []),
    "another one of the same name": ([put(1), put(4, "u2")], "4", ["u1"]),
    "the end of an earlier one of the same name": ([put(4, "u2"), gone(3)], "4", []),
}


@pytest.mark.parametrize(("news", "want", "want_gone"), CASES.values(), ids=CASES)
def test_the_cache_follows(news: list[News], want: str | None, want_gone: list[str]) -> None:
    """Each case: the news, the version that is held after them, and whose end was noticed."""
    cache = caches.Cache()
    ended = []
    for one in news:
        seen = cache.observe(one) if isinstance(one, stores.Change) else cache.replace(one)
        ended += [entry["metadata"]["uid"] for entry in seen]
    held = cache.get(KEY)
    assert (held and stores.version_of(held), ended) == (want, want_gone)


def test_deletions_are_not_remembered_for_ever() -> None:
    """Memory does not grow with the hub's age."""
    cache = caches.Cache()
    for number in range(2 * caches.REMEMBERED_DELETIONS):
        cache.observe(gone(number, f"u{number}"))
    assert len(cache._gone) == caches.REMEMBERED_DELETIONS
