"""Fields of log lines are named in one catalogue."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from federation.telemetry import fields

ROOT = Path(__file__).resolve().parents[4]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def logged() -> Iterator[tuple[str, str, ast.Call]]:
    """Where, on which logger variable, and how the packages write log lines."""
    for package in ("coordinator", "edge_agent", "federation", "simulations"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if "_pb2" in path.name or "app" in path.relative_to(ROOT / package).parts[:-1]:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                base = node.func.value
                name = base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")
                if name in {"log", "_log"} and node.func.attr in LEVELS:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", name, node


def test_every_logged_field_is_in_the_catalogue() -> None:
    """A field that a log call sets is one that fields.py describes."""
    unknown = [
        f"{where} {keyword.arg}"
        for where, _, call in logged()
        for keyword in call.keywords
        if keyword.arg is not None and keyword.arg not in fields.CATALOGUE
    ]
    assert unknown == []


def test_an_event_is_constant_text() -> None:
    """What varies is a field: events are no f-strings and no formatted text."""
    varying = [
        where for where, _, call in logged() if call.args and not isinstance(call.args[0], ast.Constant)
    ]
    assert varying == []


def test_names_are_snake_case_and_described() -> None:
    """Each name is lower case with underscores, each description is there."""
    for name, description in fields.CATALOGUE.items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
        assert description
