"""What a training's aggregator wrote, on a cluster: the log of its pod, also of the one before a restart."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

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
            for line in await containers.log_tail(api, namespace, name, lines=tail or 1_000_000):
                say("aggregator", line)
        except (errors.NotFound, errors.Invalid):
            say("aggregator", f"(pod {name} has written nothing yet)")
