"""`hanse watch`: follow a training on the hub until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import typer
from rich.console import Console

from coordinator.cli import output, pictures, reach
from federation.kube import client
from simulations.local import view

KIND = "FederatedTraining"
FINAL_PHASES = frozenset({"Completed", "Failed", "Stopped"})

Training = Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="The training.")]


def watch(
    training: Training,
    timeout: Annotated[
        float | None, typer.Option(help="Give up after so many seconds; left out: never.", min=1)
    ] = None,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    form: reach.Form = output.Output.TEXT,
) -> None:
    """Follow a training until it is completed, failed or stopped; exit with 0 if it completed.

    Example: `hanse watch cardiology/hospitals`
    """
    console = Console()
    shown = view.Silent() if form is output.Output.JSON else view.for_console(console)

    async def work(api: client.Client) -> dict[str, Any]:
        namespace, name = reach.namespaced(training)
        last: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout):
                async with contextlib.aclosing(statuses(api, namespace, name)) as stream:
                    async for status in stream:
                        last = status
                        shown.status(status)
                        if status.get("phase") in FINAL_PHASES:
                            return status
        except TimeoutError as error:
            phase, why = last.get("phase", "Pending"), view.running_message(last)
            raise reach.Refused(
                f"{training} is still {phase} after {timeout:g} s" + (f": {why}" if why else ""),
                output.FAILED,
            ) from error
        raise reach.Refused(f"{training} was deleted", output.FAILED)

    try:
        status = reach.run(work, kubeconfig, context)
    finally:
        shown.close()
    if form is output.Output.JSON:
        typer.echo(json.dumps(summary(training, status), indent=2))
    else:
        for line in last_lines(training, status):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if status.get("phase") != "Completed":
        raise typer.Exit(output.FAILED)


async def statuses(api: client.Client, namespace: str, name: str) -> AsyncGenerator[dict[str, Any], None]:
    """Yield a training's status now and after each change, until it is deleted. Raises: reach.Refused."""
    first = True
    async with pictures.following(api, KIND, namespace, fields=f"metadata.name={name}") as seen:
        async for present in seen:
            if name not in present:
                if first:
                    raise reach.Refused(await _missing(api, namespace, name))
                return
            first = False
            yield present[name].get("status") or {}


async def find(api: client.Client, training: str) -> client.Object:
    """Return a training. Raises: reach.Refused."""
    namespace, name = reach.namespaced(training)
    found = await reach.absent_is_none(api.get(KIND, name, namespace))
    if found is None:
        raise reach.Refused(await _missing(api, namespace, name))
    return found


async def _missing(api: client.Client, namespace: str, name: str) -> str:
    others = [f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in (await api.list(KIND)).items]
    known = f"there are {', '.join(others[:10])}" if others else "there are none on this cluster"
    return f"there is no training {namespace}/{name}; {known}"


def summary(training: str, status: dict[str, Any]) -> dict[str, Any]:
    """Return what `-o json` says of a training."""
    return {
        "training": training,
        "state": status.get("phase") or "Pending",
        "message": view.running_message(status),
        "rounds": (status.get("round") or {}).get("current", 0),
        "clusters": status.get("clusters") or [],
        "metrics": status.get("metrics") or [],
        "model": status.get("model"),
    }


def last_lines(training: str, status: dict[str, Any]) -> list[str]:
    """Return how it ended, and what to do next."""
    state, message = status.get("phase") or "Pending", view.running_message(status)
    lines = ["", f"{training}: {state}" + (f": {message}" if message else "")]
    model = status.get("model")
    if model:
        lines += [f"model   {model['uri']}", f"sha256  {model['sha256']}", f"next    hanse models {training}"]
    elif state == "Failed":
        lines.append(f"next    hanse logs {training}")
    return lines
