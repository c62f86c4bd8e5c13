"""How commands speak: one sentence for an error, an exit code, and `-o json`."""

from __future__ import annotations

from enum import StrEnum
from typing import NoReturn

import typer
from rich.console import Console

from coordinator.cli import tables

CANNOT_START = 2
FAILED = 1
INTERRUPTED = 130


class Output(StrEnum):
    """The forms of a command's result."""

    TEXT = "text"
    JSON = "json"


def refuse(message: str, code: int = CANNOT_START) -> NoReturn:
    """Print one sentence on standard error, with nothing in it that steers a terminal; end the command."""
    Console(stderr=True, soft_wrap=True).print(
        f"hanse: {tables.plain(message)}", style="red", highlight=False, markup=False
    )
    raise typer.Exit(code)
