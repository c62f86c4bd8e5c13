"""A namespace of the lab's hub with a runtime of Jobs in it, as tests of that runtime use it."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import Callable

from federation.kube import client, containers
from federation.runtime import jobs, pods, port
from tests.cluster import labs

OWNER = "test"


@dataclasses.dataclass
class Place:
    """The namespace admits only restricted pods."""

    hub: labs.Cluster
    api: client.Client
    namespace: str
    runtime: jobs.Jobs

    def workload(self, name: str, script: str, **fields: object) -> port.Workload:
        """A shell that runs this script; `pod` has the fields of its `port.Pod`."""
        pod = {"namespace": self.namespace, "egress": (), **fields.pop("pod", {})}  # type: ignore[dict-item]
        fields = {"argv": ("/bin/busybox", "sh", "-c", script), "image": labs.IMAGE, **fields}
        directory = pathlib.PurePosixPath("/hanse")
        return port.Workload(name=name, directory=directory, pod=port.Pod(**pod), **fields)  # type: ignore[arg-type]

    async def start(self, name: str, script: str, **fields: object) -> None:
        await self.runtime.start(self.workload(name, script, **fields))

    async def next(self, count: int, seconds: float = 90) -> list[port.WorkloadEvent]:
        """The next events; fails when they do not come."""
        events = self.runtime.events()
        async with asyncio.timeout(seconds):
            return [await anext(events) for _ in range(count)]

    async def first_line(self, started: port.WorkloadEvent) -> str:
        """The first line of a running program's output, once it is there."""
        assert isinstance(started, port.Started)
        async with asyncio.timeout(60):
            async for line in containers.follow_log(self.api, self.namespace, started.handle):
                return line
        raise AssertionError(f"{started.name} ended without a word")

    async def until(self, name: str, wanted: Callable[[client.Object], bool], seconds: float = 90) -> None:
        """Wait until the status of the workload's container is as wanted."""
        async with asyncio.timeout(seconds):
            while not any([wanted(container) for container in await self._containers(name)]):  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def _containers(self, name: str) -> list[client.Object]:
        listed = await self.api.list("Pod", self.namespace, labels=f"{pods.WORKLOAD_LABEL}={name}")
        return [
            one for pod in listed.items for one in (pod.get("status") or {}).get("containerStatuses") or ()
        ]

    async def left(self) -> list[str]:
        """What is there of any workload."""
        return [
            f"{kind} {item['metadata']['name']}"
            for kind in ("Job", "Pod", "Secret", "ConfigMap", "NetworkPolicy")
            for item in (await self.api.list(kind, self.namespace, labels=pods.MANAGED_BY)).items
        ]
