"""What a training's aggregator wrote, on a cluster: the log of its pod, also of the one before a restart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from coordinator.cli import reach, watch
from federation.kube import client, containers, errors
from federation.runtime import port

JOB_LABEL = "batch.kubernetes.io/job-name"


async def show(
    api: client.Client, training: str, *, tail: int, follow: bool, say: Callable[[str, str], None]
) -> None:
    """Call `say(process, line)` for each line. Raises: reach.Refused if there is no pod."""
    found = await watch.find(api, training)
    namespace = found["metadata"]["namespace"]
    job = f"aggregator-{found['metadata']['uid']}"[: port.MAXIMUM_NAME_LENGTH].rstrip("-")
    listed = (await api.list("Pod", namespace, labels=f"{JOB_LABEL}={job}")).items
    if not listed:
        phase = (found.get("status") or {}).get("phase", "Pending")
        raise reach.Refused(
            f"{training} is {phase} and no pod of its aggregator is there; what it said last is in its "
            f"status: `kubectl -n {namespace} describe ft {found['metadata']['name']}`"
        )
    ordered = sorted(listed, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    for pod in ordered:
        name = pod["metadata"]["name"]
        try:
            if follow and pod is ordered[-1]:
                log = containers.follow_log(api, namespace, name, lines=tail or None)
                async with contextlib.aclosing(log) as written:
                    async for line in written:
                        say("aggregator", line)
                continue
            lines = await containers.log_tail(api, namespace, name, lines=tail or 1_000_000)
        except (errors.NotFound, errors.Invalid):
            lines = ()
        for line in told(name, lines):
            say("aggregator", line)


def told(pod: str, lines: Sequence[str]) -> Sequence[str]:
    """Return what a pod wrote; where that is nothing, a line that says so."""
    return lines or (f"(pod {pod} has written nothing yet)",)
