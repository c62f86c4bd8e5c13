"""Pure rooms ask no clock, open no file and draw no random number, by whatever call."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "coordinator/planning",
    "coordinator/aggregation",
    "coordinator/issuing",
    "edge_agent/policy.py",
    "edge_agent/lifecycle.py",
    "edge_agent/buckets.py",
    "edge_agent/owned.py",
    "edge_agent/pods.py",
    "edge_agent/volumes.py",
    "edge_agent/workloads.py",
    "federation/apps/on_clusters.py",
    "federation/wire/codec.py",
    "federation/runtime/pods.py",
    "federation/runtime/pod_states.py",
)

# Generators of documents stand beside the tables that they draw, and are no part of a decision.
COMMANDS = {"coordinator/aggregation/diagrams.py"}

IMPURE_METHODS = {
    "now",
    "utcnow",
    "today",
    "read_text",
    "read_bytes",
    "write_text",
    "write_bytes",
    "random_serial_number",
}
IMPURE_FUNCTIONS = {"open", "print", "input", "uuid4", "uuid1"}


def impure_calls(source: str) -> Iterator[tuple[int, str]]:
    """Line and name of every call that asks the outside world."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in IMPURE_METHODS | {"uuid4", "uuid1"}:
            yield node.lineno, node.func.attr
        elif isinstance(node.func, ast.Name) and node.func.id in IMPURE_FUNCTIONS:
            yield node.lineno, node.func.id


@pytest.mark.parametrize("room", ROOMS)
def test_a_pure_room_asks_nobody(room: str) -> None:
    """The clock, randomness and files come in as arguments, or not at all."""
    path = ROOT / room
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert files
    offences = [
        f"{file.relative_to(ROOT)}:{line} {name}"
        for file in files
        if str(file.relative_to(ROOT)) not in COMMANDS
        for line, name in impure_calls(file.read_text(encoding="utf-8"))
    ]
    assert offences == []


@pytest.mark.parametrize(
    "source", ["datetime.now(tz=UTC)", "open('x')", "uuid.uuid4()", "path.read_text()", "dt.datetime.today()"]
)
def test_an_impure_call_is_found(source: str) -> None:
    """The check sees the usual ways of asking the outside world."""
    assert len(list(impure_calls(source))) == 1
