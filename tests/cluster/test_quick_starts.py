"""README's quick starts, typed as they stand there, by three people on a lab of their own.

Nothing of a command is changed but what README tells its reader to change: the line with the token comes
from the hub, and cleveland's owner does as zurich's. Where README says to wait, the test waits for what is
waited for. It refuses to know how any of it is done.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulations.lab import choose, releases
from tests.cluster import labs
from tests.cluster.conftest import CHECKOUT, say

ROOT = Path(__file__).resolve().parents[2]
NAME = f"quick-{CHECKOUT}"
EDGES = ("zurich", "cleveland")
PATIENCE_SECONDS = 180.0


def blocks(heading: str) -> list[str]:
    """The commands below a heading of README, block by block; what they print is fenced, and is left out."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, found, below = readme.partition(f"\n{heading}\n")
    assert found, f"README has no {heading}"
    section = re.split(r"^#{2,3} ", below, maxsplit=1, flags=re.MULTILINE)[0]
    prose = re.sub(r"^```.*?^```$", "", section, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block).strip() for block in re.findall(r"(?:^ {4}.*\n)+", prose, re.MULTILINE)]


@dataclasses.dataclass
class Shell:
    """A shell in which somebody types: what one command exports, the next ones see."""

    directory: Path
    environment: dict[str, str]

    def type(self, commands: str) -> str:
        """Type commands, and return what they printed; the first that fails, fails the test."""
        exported = self.directory / "environment"
        script = f"{commands}\nenv -0 > {shlex.quote(str(exported))}"
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        entries = exported.read_text(encoding="utf-8").split("\0")
        self.environment = dict(entry.split("=", 1) for entry in entries if entry)
        return done.stdout


@pytest.fixture
def shell(machine: choose.Machine, kubectl: Path, tmp_path: Path) -> Iterator[Shell]:
    """A shell where a reader has it, in a clone with its environment; its lab is down afterwards.

    Not named `lab`: what uses the session's goes after what brings up its own.
    """
    for path in ROOT.iterdir():
        if not path.name.startswith(".venv"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    environment = os.environ | {
        "HANSE_LAB": NAME,
        "PYTHONPATH": str(ROOT),  # whichever checkout the environment was made for
        "PATH": f"{os.environ['PATH']}:{kubectl.parent}",  # where the programs are not in the cache
    }
    lab = choose.lab(NAME)
    lab.down(say)
    yield Shell(tmp_path, environment)
    lab.down(say)


def test_the_quick_starts_work_as_written(shell: Shell, kubectl: Path) -> None:
    """Hub, edges and data scientist: from an empty machine to a model, a suspension and a refusal."""
    _, lab_up = blocks("## On real clusters")
    install, approve = blocks("### Hub operator")
    join, change_of_mind = blocks("### Edge operator")
    apply, lower_and_fetch, apply_longer, suspend, resume = blocks("### Data scientist")
    assert f"/v{releases.KUBERNETES[releases.NEWEST]}-bin" in lab_up

    shell.type(lab_up)
    hub = dataclasses.replace(shell)
    printed = hub.type(install)
    owners = {edge: dataclasses.replace(shell) for edge in EDGES}
    for edge, owner in owners.items():
        (line,) = re.findall(rf"^hanse join .* --name {edge} .*$", printed, re.MULTILINE)
        (written,) = re.findall(r"^hanse join .*$", join, re.MULTILINE)
        assert shape(line) == shape(written).replace("zurich", edge), "README's line is as it is printed"
        owner.type(join.replace(written, line).replace("zurich", edge))
    hub.type(approve)
    for edge in EDGES:
        row = re.compile(rf"^{edge} +Accepted +True +heart-disease ", re.MULTILINE)
        labs.wait_for(lambda row=row: row.search(hub.type("hanse clusters list")), f"member {row.pattern}")

    scientist = dataclasses.replace(shell)
    assert re.search(r"^cardiology +hospitals ", scientist.type(apply), re.MULTILINE)
    waits = re.compile(r"^cardiology +hospitals +Waiting +2/2 ", re.MULTILINE)  # not yet at once
    labs.wait_for(lambda: waits.search(scientist.type("kubectl get ft -A")), f"row {waits.pattern}")
    until(scientist, lambda status: condition(status, "QuorumReached").startswith("2 of 3 needed clusters "))
    ended = scientist.type(lower_and_fetch)
    assert "cardiology/hospitals: Completed: All 20 rounds are done." in ended
    assert (shell.directory / "hospitals" / "model.safetensors").is_file()

    scientist.type(apply_longer)
    before = until(scientist, lambda status: rounds(status) > 1)
    assert "aggregator |" in scientist.type(suspend)
    until(scientist, lambda status: status.get("phase") == "Suspended")
    labs.wait_for(lambda: not pods(scientist, "cardiology"), "end of the pods on the hub")
    scientist.type(resume)
    until(scientist, lambda status: status.get("phase") == "Running" and rounds(status) >= rounds(before))

    deny, *look_and_undo = change_of_mind.splitlines()
    zurich = owners["zurich"]
    zurich.type(deny)
    (sentence,) = re.findall(r"`(policy not-today of zurich [^`]+)`", (ROOT / "README.md").read_text())
    until(scientist, lambda status: sentence in of_cluster(status, "zurich"))
    labs.wait_for(lambda: pods(zurich, "hanse") == ["hanse-agent"], "end of the client")
    zurich.type("\n".join(look_and_undo))
    policy = json.loads(zurich.type("kubectl -n hanse get edgepolicy cardiology -o json"))
    assert [rule["name"] for rule in policy["spec"]["rules"]] == ["cardiology-only"]


def shape(line: str) -> str:
    """A line to join with, without what is another in each lab."""
    return re.sub(r"(hanse join|--token|--ca-hash) \S+", r"\1 …", line)


def until(scientist: Shell, wanted: Any) -> dict[str, Any]:
    """The first status of the training that is as wanted."""
    last: list[dict[str, Any]] = [{}]

    def reached() -> bool:
        last[0] = json.loads(scientist.type("kubectl -n cardiology get ft hospitals -o json")).get(
            "status", {}
        )
        return bool(last[0]) and bool(wanted(last[0]))

    labs.wait_for(
        reached, lambda: f"wanted status: {json.dumps(last[0], indent=1)}", seconds=PATIENCE_SECONDS
    )
    return last[0]


def condition(status: dict[str, Any], type_: str) -> str:
    """The sentence of a condition."""
    return next((entry["message"] for entry in status.get("conditions", []) if entry["type"] == type_), "")


def rounds(status: dict[str, Any]) -> int:
    """The round that is played."""
    return int(status.get("round", {}).get("current", 0))


def of_cluster(status: dict[str, Any], name: str) -> str:
    """What a status says of a cluster; empty if nothing."""
    return next(
        (entry.get("message", "") for entry in status.get("clusters", []) if entry["name"] == name), ""
    )


def pods(person: Shell, namespace: str) -> list[str]:
    """The names of the pods that this person's cluster has in a namespace, without what is random in them."""
    listed = json.loads(person.type(f"kubectl -n {namespace} get pods -o json"))["items"]
    return ["-".join(pod["metadata"]["name"].split("-")[:2]) for pod in listed]
