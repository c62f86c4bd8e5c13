"""Check docs/promises.md: every promise names what shows it, and what it names exists.

A row is `| promise | where promised | shown by | last figure |`. `shown by` holds, each in backticks, tests
as `tests/path/test_file.py::test_name` (or a whole file) or commands as `make target` or `hanse command`;
or the words `not yet`. This checks names only; that the tests pass is for the tests to say.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HEADING = ["promise", "where promised", "shown by", "last figure"]


@dataclass(frozen=True)
class Promise:
    """One row of the table, with the line that it stands on."""

    line: int
    text: str
    promised: str
    shown_by: str
    figure: str

    @property
    def is_open(self) -> bool:
        """Whether nothing shows it so far."""
        return self.shown_by == "not yet"


def read(text: str) -> list[Promise]:
    """The rows of every promise table in this page."""
    rows: list[Promise] = []
    inside = False
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.startswith("|"):
            inside = False
            continue
        first = number == 1 or not lines[number - 2].startswith("|")
        if first and not (number < len(lines) and lines[number].startswith("| -")):
            raise ValueError(f"line {number}: a row that belongs to no table; remove the empty line above it")
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
        if cells == HEADING:
            inside = True
        elif inside and not set("".join(cells)) <= set("-: "):
            if len(cells) != len(HEADING):
                raise ValueError(f"line {number}: {len(cells)} cells, want {len(HEADING)}")
            rows.append(Promise(number, *cells))
    return rows


def problems(rows: list[Promise], root: Path = ROOT) -> list[str]:
    """What is wrong with these rows, one sentence each; nothing if all is well."""
    found = []
    targets = set(re.findall(r"^([a-z][a-z-]*):", (root / "Makefile").read_text(), re.MULTILINE))
    for row in rows:
        if row.is_open:
            continue
        names = re.findall(r"`([^`]+)`", row.shown_by)
        if not names:
            found.append(
                f"line {row.line}: names neither a test nor a command; write `not yet` without backticks"
            )
        for name in names:
            if name.startswith("make "):
                if name.split()[1] not in targets:
                    found.append(f"line {row.line}: the Makefile has no target {name.split()[1]}")
            elif name.startswith("hanse "):
                if not is_command(name):
                    found.append(f"line {row.line}: there is no command {name}")
            elif not exists(name, root):
                found.append(f"line {row.line}: there is no test {name}")
    return found


def exists(name: str, root: Path = ROOT) -> bool:
    """Whether `tests/file.py`, `tests/file.py::test` or `tests/file.py::Class::test` is there to be run."""
    path, *inner = name.split("::")
    file = root / path
    if not path.startswith("tests/") or not file.is_file():
        return False
    body: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    for part in inner:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == part:
                body = node.body
                break
        else:
            return False
    return True


def is_command(name: str) -> bool:
    """Whether `hanse lab up --edges 3` is a command with such options."""
    import typer.main

    from coordinator.cli import main as cli

    words = name.split()[1:]
    here: Any = typer.main.get_command(cli.app)
    while words and hasattr(here, "commands"):
        here = here.commands.get(words.pop(0))
    options = {option for parameter in getattr(here, "params", ()) for option in parameter.opts}
    return here is not None and {word for word in words if word.startswith("-")} <= options


def main() -> None:
    """Say how many promises are shown; fail if a row names what does not exist."""
    rows = read((ROOT / "docs/promises.md").read_text(encoding="utf-8"))
    for problem in (found := problems(rows)):
        print(f"docs/promises.md {problem}")
    still_open = sum(row.is_open for row in rows)
    print(f"{len(rows)} promises: {len(rows) - still_open} shown, {still_open} not yet.")
    if found or not rows:
        sys.exit(1)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
