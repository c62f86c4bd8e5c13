"""A training's journal on a cluster: it lies on a claim, so a pod that mounts it read-only reads it there.

The pod is that of `hanse models`, and is removed afterwards. What it says is the same that `hanse journal`
says of a directory.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from coordinator.cli import models, output, reach, watch
from coordinator.planning import model_stores
from federation.kube import client, containers, errors

_TELL = (
    "import json, pathlib, sys; from coordinator.journal import story; "
    "print(json.dumps(story.document(pathlib.Path(sys.argv[1]), arrays=sys.argv[2] == 'arrays')))"
)


async def document(
    api: client.Client, training: str, hub_namespace: str, own_claim: str, *, arrays: bool
) -> dict[str, Any]:
    """Return what `story.document` says of a training's journal. Raises: reach.Refused, KubernetesError."""
    with only_damage_is_failure():
        return await _document(api, training, hub_namespace, own_claim, arrays=arrays)


@contextlib.contextmanager
def only_damage_is_failure() -> Iterator[None]:
    """Let a journal that could not be looked at end the command otherwise than a damaged one."""
    try:
        yield
    except reach.Refused as error:
        raise reach.Refused(str(error), output.CANNOT_START) from error


async def _document(
    api: client.Client, training: str, hub_namespace: str, own_claim: str, *, arrays: bool
) -> dict[str, Any]:
    found = await watch.find(api, training)
    namespace, uid = found["metadata"]["namespace"], found["metadata"]["uid"]
    try:
        claim = model_stores.choose(found["spec"], own_claim).claim or own_claim
    except model_stores.UnusableStore as error:
        raise reach.Refused(str(error)) from error
    path = f"{models.MOUNT}/{model_stores.JOURNALS}/{uid}"
    command = ("python3", "-P", "-c", _TELL, path, "arrays" if arrays else "")
    said = bytearray()
    async with models.reading_pod(api, namespace, claim, hub_namespace) as pod:
        try:
            async with contextlib.aclosing(containers.output_of(api, namespace, pod, command)) as blocks:
                async for data in blocks:
                    said += data
        except errors.CommandFailed as error:
            words = str(error).rstrip().rpartition("\n")[2]
            raise reach.Refused(f"the journal of {training} on claim {claim}: {words}") from error
    try:
        told: dict[str, Any] = json.loads(said)
    except ValueError as error:
        raise reach.Refused(
            f"the journal of {training} on claim {claim}: what pod {pod} said of it has no end; try again"
        ) from error
    return told
