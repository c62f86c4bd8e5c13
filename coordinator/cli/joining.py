"""What happens to an agent between `apply` and its first session, told in sentences.

It reads pods' states and the agent's log, and decides from both when the edge is connected. This module
refuses to know what was applied.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

from coordinator.cli import output, pictures, pods, reach
from federation.kube import client, containers, errors

AGENT_PODS = "app.kubernetes.io/name=hanse,app.kubernetes.io/component=agent"

Say = Callable[[str], None]


async def wait(api: client.Client, namespace: str, cluster: str, say: Say) -> None:
    """Return when the agent's session with the hub is open, saying what happens meanwhile.

    Raises: reach.Refused if the hub sends the agent away, which trying again does not change.
    """
    said: set[str] = set()

    def once(text: str) -> None:
        if text and text not in said:
            said.add(text)
            say(text)

    async with pictures.following(api, "Pod", namespace, labels=AGENT_PODS) as seen:
        async for present in seen:
            for pod in present.values():
                once(pods.obstacle(pod))
                ended = last_words(pod)
                if ended:
                    raise reach.Refused(f"the agent ended: {ended}", output.FAILED)
                if pod["metadata"].get("deletionTimestamp") or not pods.runs(pod):
                    continue
                if pods.is_ready(pod):  # its session is open, says its probe
                    return
                if await _follow(api, namespace, pod["metadata"]["name"], cluster, once):
                    return


async def _follow(api: client.Client, namespace: str, pod: str, cluster: str, say: Say) -> bool:
    try:
        log = containers.follow_log(api, namespace, pod, container="agent")
        async with contextlib.aclosing(log) as lines:
            async for line in lines:
                text, connected = heard(line, cluster)
                say(text)
                if connected:
                    return True
    except (errors.NotFound, errors.Invalid, errors.Unreachable):
        pass  # the container has just ended, or not begun to write
    return False


def heard(line: str, cluster: str) -> tuple[str, bool]:
    """Say what a line of the agent's log means (nothing, for most), and whether it is connected now."""
    try:
        entry = json.loads(line)
    except ValueError:
        return "", False
    if not isinstance(entry, dict):
        return "", False
    error = " ".join(str(entry.get("error", "")).split())
    match entry.get("event"):
        case "joined the federation":
            return f"{cluster} joined: the hub issued its certificate", False
        case "identity reused":
            return f"{cluster} is a member already", False
        case "join failed":
            return f"the hub does not let it in yet: {error}; the agent tries again", False
        case "hub is away":
            return f"the hub does not answer: {error}; the agent tries again", False
        case "session open":
            return "", True
    return "", False


def last_words(pod: client.Object) -> str:
    """Return why the hub does not want this agent, as the agent left it; empty if it runs or tries again."""
    for container in (pod.get("status") or {}).get("containerStatuses") or ():
        for state in (container.get("state") or {}, container.get("lastState") or {}):
            ended: dict[str, Any] = state.get("terminated") or {}
            if ended.get("exitCode") in (2, 3, 4):
                return str(ended.get("message") or f"exit status {ended['exitCode']}, see its log").strip()
    return ""


async def wait_until_served(api: client.Client, name: str) -> None:
    """Return when a CustomResourceDefinition's resources can be written."""
    kind, selector = "CustomResourceDefinition", f"metadata.name={name}"
    async with pictures.following(api, kind, fields=selector) as seen:
        async for present in seen:
            if any(_established(definition) for definition in present.values()):
                return


def _established(definition: client.Object) -> bool:
    conditions = (definition.get("status") or {}).get("conditions") or ()
    return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)
