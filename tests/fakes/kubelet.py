"""What a kubelet says of pods, where there is none: a test tells it what their programs do.

Pods are bound, run and end as on a node; a pod that is deleted ends and goes, unless the node is away.
Everything else (Jobs, finalizers, garbage collection) is done by the real control plane.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Self

from federation.kube import client, errors

NODE = "fake-node"
NOW = "2026-03-01T12:00:00Z"


class Kubelet:
    """The node of one namespace. `away`: it does not notice deletions."""

    def __init__(self, api: client.Client, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._pods: dict[str, client.Object] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.away = False
        self.exit_code_when_asked = 143

    async def __aenter__(self) -> Self:
        listing = await self._api.list("Pod", self._namespace)
        self._task = asyncio.create_task(self._run(listing))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def pod_of(self, workload: str) -> client.Object:
        """Wait for a workload's pod that is not being deleted, and return it."""
        while True:
            for pod in self._pods.values():
                metadata = pod["metadata"]
                ours = metadata["labels"].get("hanse.dev/workload") == workload
                if ours and "deletionTimestamp" not in metadata:
                    return pod
            self._changed.clear()
            await self._changed.wait()

    async def run(self, workload: str) -> str:
        """Bind the workload's pod and say that its container runs; return the pod's name."""
        pod = await self.pod_of(workload)
        name = pod["metadata"]["name"]
        known = await self._api.kind("Pod")
        await self._api._call(
            "POST", known.path(self._namespace, name, "binding"), what="bind", verb="create",
            body={
                "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"kind": "Node", "name": NODE},
            },
        )  # fmt: skip
        await self.say(name, phase="Running", state={"running": {"startedAt": NOW}})
        return str(name)

    async def end(self, workload: str, exit_code: int, *, reason: str = "", message: str = "") -> None:
        """Say that the workload's container ended."""
        pod = await self.pod_of(workload)
        await self._terminated(pod["metadata"]["name"], exit_code, reason, message)

    async def wait(self, workload: str, reason: str, message: str) -> None:
        """Say why the workload's container does not run yet."""
        pod = await self.pod_of(workload)
        await self.say(
            pod["metadata"]["name"],
            phase="Pending",
            state={"waiting": {"reason": reason, "message": message}},
        )

    async def unschedulable(self, workload: str, message: str) -> None:
        """Say, as the scheduler does, that no node takes the pod."""
        pod = await self.pod_of(workload)
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        await self._patch(pod["metadata"]["name"], {"phase": "Pending", "conditions": [condition]})

    async def warn(self, workload: str, reason: str, message: str) -> None:
        """Write an Event about the workload's pod."""
        metadata = (await self.pod_of(workload))["metadata"]
        await self._api.create(
            {
                "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message,
                "metadata": {"generateName": "kubelet-", "namespace": self._namespace},
                "involvedObject": {
                    "apiVersion": "v1", "kind": "Pod", "namespace": self._namespace,
                    "name": metadata["name"], "uid": metadata["uid"],
                },
            }
        )  # fmt: skip

    async def say(self, pod: str, *, phase: str, state: dict[str, Any]) -> None:
        """Write the state of a pod's one container."""
        container = {
            "name": "main", "image": "image", "imageID": "", "ready": "running" in state, "restartCount": 0,
            "state": state,
        }  # fmt: skip
        await self._patch(pod, {"phase": phase, "containerStatuses": [container]})

    async def _terminated(self, pod: str, exit_code: int, reason: str = "", message: str = "") -> None:
        ended = {
            "exitCode": exit_code, "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": message, "startedAt": NOW, "finishedAt": NOW,
        }  # fmt: skip
        phase = "Succeeded" if exit_code == 0 else "Failed"
        await self.say(pod, phase=phase, state={"terminated": ended})

    async def _patch(self, pod: str, status: dict[str, Any]) -> None:
        await self._api.patch("Pod", pod, self._namespace, {"status": status}, subresource="status")

    async def _run(self, listing: client.Listing) -> None:
        for item in listing.items:
            self._pods[item["metadata"]["name"]] = item
        async for change in self._api.watch("Pod", listing.resource_version, self._namespace):
            metadata = change.object["metadata"]
            self._pods[metadata["name"]] = change.object
            if change.type == "DELETED":
                del self._pods[metadata["name"]]
            elif "deletionTimestamp" in metadata and not self.away:
                await self._end_deleted(change.object)
            self._changed.set()

    async def _end_deleted(self, pod: client.Object) -> None:
        name, status = pod["metadata"]["name"], pod.get("status", {})
        with contextlib.suppress(errors.NotFound, errors.Conflict):
            if status.get("phase") == "Running":
                await self._terminated(name, self.exit_code_when_asked)
            if pod["metadata"].get("deletionGracePeriodSeconds"):
                await self._api.delete("Pod", name, self._namespace, grace_seconds=0)
