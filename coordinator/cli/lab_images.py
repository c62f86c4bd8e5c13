"""`hanse lab images`: this checkout's images as archives, for nodes without a registry."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer

from coordinator.cli import output

app = typer.Typer(name="images", help="Hanse's own images, built without Docker.", no_args_is_help=True)


@app.callback()
def commands() -> None:
    """Hanse's own images, built without Docker."""


@app.command()
def build(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET…",
            help="coordinator, edge-agent, client, client-torch, aggregator-torch; by default those without "
            "torch.",
        ),
    ] = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Fetch the Debian packages again.")] = False,
    form: Annotated[output.Output, typer.Option("-o", "--output", help="text or json.")] = output.Output.TEXT,
) -> None:
    """Build images, or take them from the cache when nothing in them has changed; one archive holds them all.

    Example: `hanse lab images build coordinator client`
    """
    from simulations.lab import images, port

    began = time.monotonic()

    def say(line: str) -> None:
        if form is output.Output.TEXT:
            typer.echo(f"{time.monotonic() - began:6.1f} s  {line}", err=True)

    try:
        built = images.build(targets or images.DEFAULT, say, refresh=refresh)
        say("writing the archive")
        archive = images.together(built)
    except ValueError as error:
        output.refuse(str(error))
    except (images.ImagesMissing, port.LabError) as error:
        output.refuse(str(error), output.FAILED)
    except OSError as error:
        output.refuse(f"{error.filename or 'the images'}: {error.strerror or error}", output.FAILED)
    except KeyboardInterrupt:
        output.refuse("interrupted; what is whole stays in the cache", output.INTERRUPTED)
    if form is output.Output.JSON:
        typer.echo(json.dumps(images.document(built, archive), indent=2))
        return
    for each in built:
        typer.echo(f"{each.name}  {each.size_bytes / 2**20:.0f} MiB")
    typer.echo(f"in one archive: {archive}")
