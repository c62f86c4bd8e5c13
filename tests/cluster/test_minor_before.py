"""The older of the two minors of Kubernetes: its API server takes the manifests, and a training runs on it.

A scenario brings the lab up, and applies for real what operators and data scientists apply; the lab stays for
a look at it, and goes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.clusters import engine
from simulations.lab import choose, port, programs, releases
from simulations.lab.bare import provider
from tests.cluster import labs, searching
from tests.cluster.conftest import say

NEWEST, BEFORE = releases.KUBERNETES
ROOT = Path(__file__).resolve().parents[2]
HOSPITALS = ROOT / "simulations" / "hospitals"
INSTALLATIONS = {port.HUB: ("hub/base", "hub/lab", "hub/loadbalancer"), "edge": ("edge/base", "edge/lab")}
"""Those without kinds that others bring: Gateway API, cert-manager."""


@pytest.fixture
def alone(
    machine: choose.Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[provider.Bare]:
    """The simulation's lab, in a state directory of this test's own; it is down afterwards.

    Not named `lab`: what uses the session's goes after what brings up its own.
    """
    if reason := machine.missing[port.Provider.BARE]:
        pytest.skip(f"it takes the bare provider: {reason}")
    if lacking := programs.lacking(BEFORE):
        pytest.skip(f"{len(lacking)} programs of Kubernetes {BEFORE} are not in the cache; "
                    "to make them: make test CLUSTERS=1")  # fmt: skip
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    here = provider.Bare(engine.LAB)
    yield here
    here.down(say)


def rows(hospital: str) -> str:
    """A few rows of a hospital that are no other's."""
    lines = (HOSPITALS / "edges" / hospital / "data" / f"{hospital}.csv").read_text().splitlines()
    return "\n".join(lines[40:44])


def simulate(*arguments: str) -> dict[str, object]:
    """Run the hospitals' scenario with two hospitals, the fewest that its app takes; return its report."""
    argv = (
        *(sys.executable, "-m", "coordinator.cli.main", "simulate", str(HOSPITALS)),
        *("--edges", "2", "--set", "spec.clusters.minimum=2", "-o", "json", *arguments),
    )
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_training_runs_on_the_minor_before(alone: provider.Bare, kubectl: Path, tmp_path: Path) -> None:
    """All clusters have that version, pods are ready, every installation is taken; the model is that of the
    process run, to the bit, and each hospital's rows are on its own cluster and nowhere else.
    """
    there = simulate("--on", "bare", "--kubernetes", BEFORE, "--keep-lab", "--keep", str(tmp_path / "run"))
    assert there["state"] == "Completed"
    assert isinstance(there["model"], dict)
    assert Path(there["model"]["path"]).is_file()
    here = simulate("--keep", str(tmp_path / "processes"))
    assert isinstance(here["model"], dict)
    assert there["model"]["sha256"] == here["model"]["sha256"]
    found = alone.status()
    assert found is not None
    assert found.ready, found
    assert {each.version for each in found.clusters} == {f"v{releases.KUBERNETES[BEFORE]}"}
    for each in found.clusters:
        cluster = labs.Cluster(each.name, each.kubeconfig, kubectl)
        role = port.HUB if each.name == port.HUB else "edge"
        deployments = cluster.get("deployments", "-A", "-l", "app.kubernetes.io/name=hanse")["items"]
        assert deployments
        for deployment in deployments:
            assert deployment["status"]["readyReplicas"] == deployment["spec"]["replicas"]
        for installation in INSTALLATIONS[role]:
            overlay = str(ROOT / "manifests" / installation)
            cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-k", overlay)
    hospitals = [each.name for each in found.clusters if each.name != port.HUB]
    assert len(hospitals) == 2
    needles = {hospital: rows(hospital).encode() for hospital in hospitals}
    for each in found.clusters:
        cluster = labs.Cluster(each.name, each.kubeconfig, kubectl)
        held = json.dumps(cluster.get("configmaps", "-A")).replace("\\n", "\n")
        want = {each.name} if each.name in hospitals else set()
        assert {hospital for hospital in hospitals if rows(hospital) in held} == want
        assert searching.found_in(alone.node(each.name).cluster.directory, needles).keys() == want
