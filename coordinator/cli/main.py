"""The `hanse` command.

Why it exists: one door for people. Each command is a thin shell: it reads options, calls the part that does
the work, and turns errors into one sentence and an exit code (2: something to mend before it can start; 1: it
ran and failed).
"""

from __future__ import annotations

from typing import Annotated

import typer

from coordinator.cli import (
    apps,
    doctor,
    join,
    join_tokens,
    journal,
    lab,
    logs,
    members,
    models,
    simulate,
    watch,
)
from federation import release

app = typer.Typer(
    name="hanse",
    help="Federated learning for Kubernetes edge clusters: data stays where it is, models travel.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("simulate")(simulate.simulate)
app.command("logs")(logs.show)
app.add_typer(journal.app)
app.add_typer(lab.app)
app.command("watch")(watch.watch)
app.command("models")(models.models)
app.command("join")(join.join)
app.command("leave")(join.leave)
app.add_typer(members.app)
app.add_typer(join_tokens.app)
app.add_typer(apps.app)
app.command("doctor")(doctor.doctor)


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hanse {release.version()}")
        raise typer.Exit


@app.callback()
def hanse(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_say_version, is_eager=True)
    ] = False,
) -> None:
    """Take what is common to all commands."""


def main() -> None:
    """Entry point of the `hanse` command."""
    app()


if __name__ == "__main__":
    main()
