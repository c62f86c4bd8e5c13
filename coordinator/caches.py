"""The resources that the hub reconciles, as it last saw them.

Whoever watches tells every change; after a gap he lists, and tells the list. Changes may come twice, late or
in any order: the newer version of a resource stays, and what went away stays away. This module refuses to
know who watches and what the kinds mean.

Law: after a list was taken, the cache holds what the store held then, with the changes that came since.
Source: resource versions of one kind are integers that grow (KEP-5504).
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping

from federation.store import port as stores

REMEMBERED_DELETIONS = 1024
"""A list that was asked for before a deletion may be told after it; it must not bring the resource back."""


class Cache(Mapping[stores.Key, stores.Resource]):
    """The resources of one kind."""

    def __init__(self) -> None:
        """Start empty, and with no list taken yet."""
        self._items: dict[stores.Key, stores.Resource] = {}
        self._gone: collections.OrderedDict[str, None] = collections.OrderedDict()
        self.listed = False

    def __getitem__(self, key: stores.Key) -> stores.Resource:
        """Return a resource."""
        return self._items[key]

    def __iter__(self) -> Iterator[stores.Key]:
        """Go through the keys."""
        return iter(self._items)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._items)

    def observe(self, change: stores.Change) -> list[stores.Resource]:
        """Take one change; return the resources that went away with it."""
        resource = change.resource
        key, uid = stores.key_of(resource), str(resource["metadata"].get("uid", ""))
        if change.type is stores.ChangeType.DELETED:
            self._forget(uid)
            known = self._items.get(key)
            if known is None or known["metadata"].get("uid") != resource["metadata"].get("uid"):
                return []
            return [self._items.pop(key)]
        return self._put(key, resource)

    def replace(self, listing: stores.ResourceList) -> list[stores.Resource]:
        """Take a whole list; return the resources that went away unseen."""
        gone = []
        present = {stores.key_of(item): item for item in listing.items}
        for key in sorted(self._items.keys() - present.keys()):
            # What is younger than the list was made after it.
            if not _newer(stores.version_of(self._items[key]), listing.resource_version):
                gone.append(self._items.pop(key))
                self._forget(str(gone[-1]["metadata"].get("uid", "")))
        for key, item in present.items():
            gone += self._put(key, item)
        self.listed = True
        return gone

    def _put(self, key: stores.Key, resource: stores.Resource) -> list[stores.Resource]:
        uid = resource["metadata"].get("uid")
        known = self._items.get(key)
        if uid in self._gone:
            return []
        if known is not None and known["metadata"].get("uid") == uid:
            if not _newer(stores.version_of(known), stores.version_of(resource)):
                self._items[key] = resource
            return []
        self._items[key] = resource
        if known is None:
            return []
        self._forget(str(known["metadata"].get("uid", "")))
        return [known]  # another one of this name: the deletion in between was missed

    def _forget(self, uid: str) -> None:
        self._gone[uid] = None
        while len(self._gone) > REMEMBERED_DELETIONS:
            self._gone.popitem(last=False)


def _newer(version: str, other: str) -> bool:
    """Whether a resource version is later than another one; versions that are no numbers are all alike."""
    return version.isdigit() and other.isdigit() and int(version) > int(other)
