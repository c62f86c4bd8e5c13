"""The lab's little programs, as far as they can be read without a node."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from simulations.lab.bare.inside import init, keeper

PROGRAMS = sorted(Path(init.__file__).parent.glob("[a-z]*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_they_need_the_standard_library_alone(path: Path) -> None:
    """They run by copy, without this package and without an environment."""
    tree = ast.parse(path.read_text())
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {
        (node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert names <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("spec", "status", "want"),
    [
        ({}, {"phase": "Running", "podIP": "10.244.0.5"}, "10.244.0.5"),
        ({}, {"phase": "Pending"}, None),
        ({}, {"phase": "Succeeded", "podIP": "10.244.0.5"}, None),
        ({}, {"phase": "Failed", "podIP": "10.244.0.5"}, None),
        ({"hostNetwork": True}, {"phase": "Running", "podIP": "192.168.50.2"}, None),
    ],
)
def test_an_address_is_a_pods_own_while_it_lives(
    spec: dict[str, Any], status: dict[str, Any], want: str | None
) -> None:
    """An ended pod's address may be the next pod's; the node's is not a pod's."""
    assert keeper.address_of({"spec": spec, "status": status}) == want


def test_a_program_is_started_again_and_one_that_is_done_is_not(tmp_path: Path) -> None:
    """The first process runs the plan: signs are waited for, what ends is started again."""
    plan = {
        "environment": {"PATH": "/usr/bin:/bin"},
        "mark": {},
        "logs": str(tmp_path),
        "report": str(tmp_path / "report.json"),
        "programs": [
            {"name": "first", "argv": ["true"], "after": [], "once": True, "environment": {}},
            {"name": "second", "argv": ["sh", "-c", "echo $WORD"], "after": ["done:first"], "once": False,
             "environment": {"WORD": "again"}},
        ],
    }  # fmt: skip
    script = (
        f"import sys; sys.path.insert(0, {str(Path(init.__file__).parent)!r}); import init, json;"
        f"init.Supervisor({plan!r}).run()"
    )
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", script]) as process:
        log = tmp_path / "second.log"
        while process.poll() is None and (not log.exists() or log.read_text().count("again\n") < 2):
            pass
        process.terminate()
    assert log.read_text().count("again\n") >= 2
    assert '"first": {"state": "done", "starts": 1, "exit": 0' in (tmp_path / "report.json").read_text()
