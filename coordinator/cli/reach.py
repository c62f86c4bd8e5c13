"""How a command reaches a cluster: its options, one connection, and one sentence for whatever goes wrong.

This module refuses to know what is asked of the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from coordinator.cli import output
from federation.api import meta
from federation.kube import client, errors

_T = TypeVar("_T")

FIELD_MANAGER = "hanse-cli"
PATIENCE_SECONDS = 5.0
"""A person waits in front of it: an API server that is away is asked again for so long only."""

HUB_NAMESPACE = "hanse-system"

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        help="How to reach the cluster; left out: KUBECONFIG or ~/.kube/config.",
    ),
]
Context = Annotated[
    str | None, typer.Option("--context", metavar="NAME", help="The kubeconfig's context; its current one.")
]
HubNamespace = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="Where the hub is installed.")
]
Form = Annotated[output.Output, typer.Option("-o", "--output", help="text or json.")]


class Refused(Exception):
    """The command cannot do what was asked; the text is one sentence with the next step."""

    def __init__(self, message: str, code: int = output.CANNOT_START) -> None:
        """Keep the sentence and the exit code."""
        super().__init__(message)
        self.code = code


def run(work: Callable[[client.Client], Awaitable[_T]], kubeconfig: Path | None, context: str | None) -> _T:
    """Connect, do the work, and return its result; end the command with a sentence if it cannot be done."""
    try:
        return asyncio.run(_connected(work, kubeconfig, context))
    except Refused as error:
        output.refuse(str(error), error.code)
    except errors.KubernetesError as error:
        output.refuse(sentence(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        output.refuse("interrupted", output.INTERRUPTED)


async def _connected(
    work: Callable[[client.Client], Awaitable[_T]], kubeconfig: Path | None, context: str | None
) -> _T:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    connected = await client.Client.connect(
        chosen(kubeconfig), context, field_manager=FIELD_MANAGER, patience_seconds=PATIENCE_SECONDS
    )
    async with connected:
        return await work(connected)


def chosen(kubeconfig: Path | None) -> Path | None:
    """Return the kubeconfig to use: as said, of KUBECONFIG the first that exists, or a person's own.

    None where there is none and this is a pod. Raises: Refused.
    """
    if kubeconfig is not None:
        if not kubeconfig.is_file():
            raise Refused(f"--kubeconfig {kubeconfig}: no such file")
        return kubeconfig
    named = [Path(part) for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    candidates = named or [Path.home() / ".kube" / "config"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if "KUBERNETES_SERVICE_HOST" in os.environ and not named:
        return None
    raise Refused(
        f"there is no kubeconfig at {', '.join(map(str, candidates))}; name one with --kubeconfig FILE"
    )


def sentence(error: errors.KubernetesError) -> str:
    """Say an error of the API server's in one sentence with the next step."""
    text = " ".join(str(error).split())
    if isinstance(error, errors.Unreachable):
        return f"{text}; check the address with `kubectl cluster-info`, or choose another --context"
    if isinstance(error, errors.NotFound) and _lacks_kind(error):
        return (
            f"this cluster knows no {_kind_of(text)} of {meta.GROUP}; choose the hub with --context, or "
            "install Hanse there with `kubectl apply -k manifests/hub/base`"
        )
    if isinstance(error, errors.Forbidden) and error.status == 403:
        return f"{text}; ask the cluster's administrator for this permission"
    return text


def _lacks_kind(error: errors.NotFound) -> bool:
    """Whether the path itself is unknown: a kind that is not installed, rather than an object."""
    return "page not found" in str(error) or "could not find the requested resource" in str(error)


def _kind_of(text: str) -> str:
    found = re.match(r"\w+ (\w+)", text)
    return found[1] if found else "such resource"


async def absent_is_none(answer: Awaitable[_T]) -> _T | None:
    """Await a get; None if the object does not exist, while a kind that does not exist stays an error."""
    try:
        return await answer
    except errors.NotFound as error:
        if _lacks_kind(error):
            raise
        return None


async def gone(answer: Awaitable[object]) -> bool:
    """Await a deletion; False if there was nothing to delete."""
    with contextlib.suppress(errors.NotFound):
        await answer
        return True
    return False


def namespaced(text: str) -> tuple[str, str]:
    """Return namespace and name of NAMESPACE/NAME. Raises: Refused."""
    namespace, slash, name = text.partition("/")
    wanted = re.compile(meta.LABEL_PATTERN)
    if not slash or not wanted.match(namespace) or not wanted.match(name):
        raise Refused(f"{text[:80]!r}: want NAMESPACE/NAME, such as cardiology/hospitals")
    return namespace, name
