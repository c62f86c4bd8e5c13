"""`hanse doctor`: what this machine can do, and what to do where it cannot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from coordinator.cli import output

if TYPE_CHECKING:
    from simulations.lab import machine


def doctor(
    form: Annotated[output.Output, typer.Option("-o", "--output", help="text or json.")] = output.Output.TEXT,
) -> None:
    """Say what this machine can do: processes, clusters, and what is missing. Changes nothing.

    Exit code 1 when even `hanse simulate` with processes cannot work here.

    Example: `hanse doctor`
    """
    from simulations.lab import machine

    checks = machine.look()
    if form is output.Output.JSON:
        listed = [
            {
                "name": each.name,
                "wantedFor": each.wanted_for,
                "ok": each.well,
                "found": each.found,
                "toDo": each.to_do,
            }
            for each in checks
        ]
        typer.echo(json.dumps(listed, indent=2))
    else:
        _show(checks)
    if not all(each.well for each in checks if each.wanted_for == machine.PROCESSES):
        raise typer.Exit(output.FAILED)


def _show(checks: Sequence[machine.Check]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for group in dict.fromkeys(each.wanted_for for each in checks):
        console.print(f"for {group}:", markup=False)
        for each in (each for each in checks if each.wanted_for == group):
            console.print(f"  {'ok' if each.well else 'no':3} {each.name}: {each.found}", markup=False)
            if each.to_do:
                console.print(f"      {each.to_do}", markup=False)
