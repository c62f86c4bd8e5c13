"""Following the logs of clients' pods: one task for each, whole lines kept until somebody asks.

What comes too fast is dropped from its beginning; the cluster's own log has it. This module refuses to know
where lines go.
"""

from __future__ import annotations

import asyncio
import collections

from federation.kube import client, containers, errors
from federation.telemetry import logs

_log = logs.get_logger(__name__)

MAXIMUM_LINES = 1000
"""Lines kept for one client between two questions."""

AGAIN_SECONDS = 2.0

_HAS_LOG = ("Running", "Succeeded", "Failed")


class PodLogs:
    """The new lines of each followed client."""

    def __init__(self, api: client.Client, namespace: str) -> None:
        """Nothing is followed yet."""
        self._api = api
        self._namespace = namespace
        self._lines: dict[str, collections.deque[str]] = {}
        self._following: dict[str, asyncio.Task[None]] = {}

    def follow(self, name: str, *, from_the_beginning: bool) -> None:
        """Follow the pod of this Job; of one that runs already only what comes from now on, if so wished."""
        self.end(name)
        lines = self._lines[name] = collections.deque(maxlen=MAXIMUM_LINES)
        self._following[name] = asyncio.create_task(
            self._follow(name, lines, None if from_the_beginning else 0)
        )

    def take(self, name: str) -> list[str]:
        """Return the lines since the last call."""
        lines = self._lines.get(name)
        if not lines:
            return []
        taken = list(lines)
        lines.clear()
        return taken

    def end(self, name: str) -> None:
        """Follow no longer."""
        self._lines.pop(name, None)
        following = self._following.pop(name, None)
        if following is not None:
            following.cancel()

    def close(self) -> None:
        """Follow nothing any more."""
        for name in tuple(self._following):
            self.end(name)

    async def _follow(self, name: str, lines: collections.deque[str], tail: int | None) -> None:
        while True:
            try:
                pod = await self._pod(name)
                async for line in containers.follow_log(self._api, self._namespace, pod, lines=tail):
                    lines.append(line)
                if not await self._runs(name, pod):
                    return  # else the node broke off, and the API server said that this was all
            except errors.KubernetesError as error:
                _log.debug("log cannot be followed yet", name=name, error=str(error))
            tail = 0  # what was read before the connection broke is not read twice
            await asyncio.sleep(AGAIN_SECONDS)

    async def _runs(self, name: str, pod: str) -> bool:
        listing = await self._api.list("Pod", self._namespace, labels=_labels(name))
        phases = {one["metadata"]["name"]: one.get("status", {}).get("phase") for one in listing.items}
        return phases.get(pod) == "Running"

    async def _pod(self, name: str) -> str:
        """Return the name of the Job's pod, once its container has a log."""
        labels = _labels(name)
        listing = await self._api.list("Pod", self._namespace, labels=labels)
        for pod in listing.items:
            if pod.get("status", {}).get("phase") in _HAS_LOG:
                return str(pod["metadata"]["name"])
        async for change in self._api.watch("Pod", listing.resource_version, self._namespace, labels=labels):
            if change.type != "DELETED" and change.object.get("status", {}).get("phase") in _HAS_LOG:
                return str(change.object["metadata"]["name"])
        raise errors.NotFound(f"the pod of {name} was not seen")


def _labels(job: str) -> str:
    return f"batch.kubernetes.io/job-name={job}"
