"""Only federation/flower knows flwr below its public modules."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("coordinator", "edge_agent", "federation", "simulations")

# What Flower documents for apps; server and client are its older API, which it still ships.
PUBLIC = ("flwr.app", "flwr.serverapp", "flwr.clientapp", "flwr.common", "flwr.server", "flwr.client")
# The second measures Flower's own simulation beside us, which is not an app's matter.
INSIDERS = ("federation/flower/", "simulations/bench/ray_hospitals.py")


def flwr_imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import from flwr in this file, also those inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            if node.module == "flwr":
                yield from ((node.lineno, f"flwr.{alias.name}") for alias in node.names)
            elif node.module is not None and node.module.startswith("flwr."):
                yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name) for alias in node.names if alias.name.split(".")[0] == "flwr"
            )


def is_public(module: str) -> bool:
    return module == "flwr" or any(module == name or module.startswith(f"{name}.") for name in PUBLIC)


def test_only_one_room_reaches_below_flowers_public_modules() -> None:
    """Every other file imports flwr's public modules only, so that a release of flwr moves one room."""
    offences = [
        f"{path.relative_to(ROOT)}:{line} {module}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not str(path.relative_to(ROOT)).startswith(INSIDERS)
        for line, module in flwr_imports(path)
        if not is_public(module)
    ]
    assert offences == []


def test_what_counts_as_public() -> None:
    """The documented modules and what lies below them are public, flwr's insides are not."""
    assert is_public("flwr.serverapp.strategy")
    assert is_public("flwr.app")
    assert not is_public("flwr.supercore.logger")
    assert not is_public("flwr.application")
