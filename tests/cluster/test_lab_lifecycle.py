"""A lab comes, says how it is, and goes without a trace, also when its own program was killed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coordinator.cli import output
from simulations.clusters import engine
from simulations.lab import choose, port, programs, releases
from simulations.lab.bare import layout, provider, system
from tests.cluster import labs
from tests.cluster.conftest import CHECKOUT, say

NAME = f"brief-{CHECKOUT}"
HOSPITALS = Path(__file__).resolve().parents[2] / "simulations" / "hospitals"
HANSE = [sys.executable, "-m", "coordinator.cli.main", "lab"]


@dataclasses.dataclass(frozen=True)
class Trace:
    """What of a lab of this name is on the machine. Other labs, and other programs, come and go meanwhile."""

    processes: set[int]
    namespaces: list[str]
    cgroups: list[Path]
    mounts: list[str]
    rules: str
    state: bool


def trace(name: str, directory: Path) -> Trace:
    groups = [root / layout.cgroup_root(name) for root in system.hierarchies()]
    return Trace(
        system.processes(name, system.namespaces(name)),
        system.namespaces(name),
        [path for path in groups if path.exists()],
        [
            line
            for line in Path("/proc/mounts").read_text().splitlines()
            if f"/{name}" in line or f".{name}." in line
        ],
        _rules_of_the_machine(),
        (directory / name).exists(),
    )


def _rules_of_the_machine() -> str:
    """The first network namespace's own rules and links: a lab has its own, and leaves these alone."""
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    named = sorted(line.split(":")[1].strip() for line in links.splitlines())
    tables = Path("/proc/net/ip_tables_names")
    older = tables.read_text() if tables.exists() else ""
    nft = programs.ensure(releases.NEWEST, lambda line: say("programs", line)).path("nft")
    # Without counters: traffic of others is no trace of a lab.
    rules = subprocess.run([nft, "-s", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    return f"{named}\n{older}\n{rules}"


@pytest.fixture
def state(machine: choose.Machine, tmp_path: Path) -> Iterator[Path]:
    """A state directory of this test's own; what its lab left is removed, whatever happened."""
    if reason := machine.missing[port.Provider.BARE]:
        pytest.skip(f"it looks at what the bare provider leaves: {reason}")
    directory = tmp_path / "hanse" / "lab"
    provider.Bare(NAME, directory).down(say)
    yield directory
    provider.Bare(NAME, directory).down(say)


def hanse(state: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(state.parent.parent)}
    return subprocess.run([*HANSE, *argv, "--name", NAME], capture_output=True, text=True, env=environment)


def test_up_status_down_leave_nothing_behind(state: Path, kubectl: Path) -> None:
    """Processes, namespaces, groups, mounts, rules, files are as before; a second `down` is harmless."""
    before = trace(NAME, state)
    up = hanse(state, "up", "--edges", "1", "--provider", "bare", "-o", "json")
    assert up.returncode == 0, up.stderr
    seconds = json.loads(up.stdout)["upSeconds"]
    assert seconds > 0
    print(f"hub and one edge were up after {seconds:g} s")

    said = json.loads(hanse(state, "status", "-o", "json").stdout)
    assert (said["ready"], [each["name"] for each in said["clusters"]]) == (True, ["hub", "edge-1"])
    path = Path(hanse(state, "kubeconfig", "edge-1").stdout.strip())
    node = labs.Cluster("edge-1", path, kubectl).get("node", "edge-1")
    assert node["status"]["nodeInfo"]["kubeletVersion"] == f"v{releases.KUBERNETES[releases.NEWEST]}"

    again = hanse(state, "up", "--edges", "1", "--provider", "bare")
    assert again.returncode == 0, again.stderr
    assert re.fullmatch(r"up after [0-9.]+ s", again.stdout.splitlines()[-1])

    assert json.loads(hanse(state, "down", "-o", "json").stdout) == {"name": NAME, "removed": True}
    assert trace(NAME, state) == before
    assert json.loads(hanse(state, "down", "-o", "json").stdout) == {"name": NAME, "removed": False}
    assert hanse(state, "status").returncode == 2


@pytest.mark.parametrize("sign", ["making the network", "waiting for the API server", "waiting for the node"])
def test_what_a_killed_up_left_is_removed_by_the_next_down(state: Path, sign: str) -> None:
    """`up` is killed at a point of its work; `down` finds what it had made, and all of it goes."""
    before = trace(NAME, state)
    environment = {**os.environ, "XDG_STATE_HOME": str(state.parent.parent)}
    command = [*HANSE, "up", "--edges", "1", "--provider", "bare", "--name", NAME]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if sign in line:
                break
        else:
            pytest.fail(f"`hanse lab up` never said that it is {sign}")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert trace(NAME, state) != before
    assert hanse(state, "down").returncode == 0
    assert trace(NAME, state) == before


def test_a_simulation_that_is_ended_while_its_clusters_come_up_leaves_nothing(
    state: Path, tmp_path: Path
) -> None:
    """SIGTERM comes while the lab is half up: it is brought to its end, and then taken down."""
    before = trace(engine.LAB, state)
    environment = {**os.environ, "XDG_STATE_HOME": str(state.parent.parent)}
    argv = ("simulate", str(HOSPITALS), "--edges", "1", "--set", "spec.clusters.minimum=1", "--on", "bare")
    command = [*HANSE[:-1], *argv, "--keep", str(tmp_path / "run")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "waiting for the API server" in line:
                break
        else:
            pytest.fail(f"the simulation never brought its clusters up: {process.stderr.read()}")
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert said == "hanse: interrupted; every process was ended\n"
    assert process.returncode == output.INTERRUPTED
    assert trace(engine.LAB, state) == before
