"""Kubernetes Events: what `kubectl describe` shows under an object, few however often something repeats.

The same words about the same object are one Event with a count. Many different words for one reason (a
message for each round) become one Event too, with the latest words, after the first few. This module refuses
to know what the reasons mean.
"""

from __future__ import annotations

import collections
import datetime as dt
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from federation.kube import client, errors

REMEMBERED = 1024
"""So many Events can still be counted up; an older one is written anew, which costs an object."""

DISTINCT_MESSAGES = 10
"""So many messages of one reason stand side by side; from then on the last one is rewritten."""

_Series = tuple[str, str, str, str, str]


class Recorder:
    """Writes Events of one component. Not for use from several threads."""

    def __init__(
        self,
        api: client.Client,
        component: str,
        now: Callable[[], dt.datetime],
        instance: str = "",
    ) -> None:
        """Keep who reports: the component's name and the pod that it runs in."""
        self._api = api
        self._component = component
        self._instance = instance
        self._now = now
        self._written: collections.OrderedDict[tuple[_Series, str], client.Object] = collections.OrderedDict()
        self._messages: dict[_Series, list[str]] = {}

    async def record(self, regarding: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        """Write that something happened to the object that `regarding` refers to.

        regarding: apiVersion, kind, namespace, name and, for `kubectl describe` to find it, uid.
        type_: Normal or Warning. An Event that cannot be written is lost without harm: Raises nothing but
        what the API server refuses as invalid.
        """
        series = (regarding["kind"], regarding.get("namespace") or "", regarding["name"], type_, reason)
        message = message[:1024]
        known = self._messages.setdefault(series, [])
        words = message
        if message not in known and len(known) >= DISTINCT_MESSAGES:
            words = known[-1]
        stored = self._written.get((series, words))
        if stored is not None and await self._count_up(series, words, message, stored):
            return
        moment = _timestamp(self._now())
        namespace = regarding.get("namespace") or "default"
        event = await self._api.create(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": f"{regarding['name'][:200]}.{uuid.uuid4().hex[:16]}",
                    "namespace": namespace,
                },
                "involvedObject": {
                    name: regarding[name]
                    for name in ("apiVersion", "kind", "namespace", "name", "uid", "resourceVersion")
                    if regarding.get(name)
                },
                "type": type_,
                "reason": reason,
                "message": message,
                "source": {"component": self._component, "host": self._instance},
                "reportingComponent": self._component,
                "reportingInstance": self._instance,
                "firstTimestamp": moment,
                "lastTimestamp": moment,
                "count": 1,
            }
        )
        self._remember(series, message, event)

    async def _count_up(self, series: _Series, words: str, message: str, stored: client.Object) -> bool:
        """Raise the count of an Event that is still there; return whether it was."""
        metadata = stored["metadata"]
        patch = {
            "count": stored["count"] + 1,
            "lastTimestamp": _timestamp(self._now()),
            "message": message,
        }
        self._forget(series, words)
        try:
            event = await self._api.patch("Event", metadata["name"], metadata["namespace"], patch)
        except errors.NotFound:  # the API server keeps Events for an hour
            return False
        self._remember(series, message, event)
        return True

    def _remember(self, series: _Series, message: str, event: client.Object) -> None:
        self._written[series, message] = event
        known = self._messages.setdefault(series, [])
        if message not in known:
            known.append(message)
        while len(self._written) > REMEMBERED:
            (oldest, words), _ = next(iter(self._written.items()))
            self._forget(oldest, words)

    def _forget(self, series: _Series, message: str) -> None:
        self._written.pop((series, message), None)
        known = self._messages.get(series, [])
        if message in known:
            known.remove(message)
        if not known:
            self._messages.pop(series, None)


def _timestamp(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
