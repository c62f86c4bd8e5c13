"""Pods as a command needs them: waited for until they run, with a sentence for what keeps them from it."""

from __future__ import annotations

import asyncio

from coordinator.cli import output, pictures, reach
from federation.kube import client

# Reasons of a waiting container that pass by themselves.
_PASSING = frozenset({"", "ContainerCreating", "PodInitializing"})
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


def obstacle(pod: client.Object) -> str:
    """Say what keeps a pod from running, or nothing."""
    status = pod.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"no node takes the pod: {condition.get('message', '')}"
    for container in status.get("containerStatuses") or ():
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason", ""))
        if reason in _IMAGE:
            return f"the image {container['image']} does not come ({reason}); check its name and its registry"
        if reason not in _PASSING:
            return f"the container waits: {reason} {waiting.get('message', '')}".strip()
    return ""


def runs(pod: client.Object) -> bool:
    """Whether one of its containers runs."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any("running" in (container.get("state") or {}) for container in statuses)


def is_ready(pod: client.Object) -> bool:
    """Whether its probes say that it does what it is there for."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


async def wait_until_running(api: client.Client, namespace: str, name: str, seconds: float) -> None:
    """Return when the pod runs. Raises: reach.Refused when it ended, or does not run in time."""
    last: client.Object = {}
    try:
        async with (
            asyncio.timeout(seconds),
            pictures.following(api, "Pod", namespace, fields=f"metadata.name={name}") as seen,
        ):
            async for present in seen:
                last = present.get(name, {})
                if _settled(last, name):
                    return
    except TimeoutError as error:
        why = obstacle(last) or "no node has started it; see `kubectl get nodes`"
        raise reach.Refused(
            f"Pod {namespace}/{name} does not run after {seconds:g} s: {why}", output.FAILED
        ) from error


def _settled(pod: client.Object, name: str) -> bool:
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        raise reach.Refused(
            f"Pod {name} ended at once: {pod['status'].get('message', 'see its log')}", output.FAILED
        )
    return runs(pod)


async def wait_until_gone(api: client.Client, namespace: str, labels: str) -> None:
    """Return when no pod with these labels is left."""
    async with pictures.following(api, "Pod", namespace, labels=labels) as seen:
        async for present in seen:
            if not present:
                return
