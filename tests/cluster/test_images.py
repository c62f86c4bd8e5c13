"""Hanse's images in a real containerd: imported from the archive, run as nobody, on a read-only root."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.lab import choose, images, port, programs, releases
from simulations.lab.images.targets import DEFAULT, TARGETS

CONFIG = """version = 3
root = "{root}/root"
state = "{root}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images",
  "io.containerd.nri.v1.nri",
]
[grpc]
address = "{root}/socket"
"""

LOOKS = """
import importlib.metadata, json, os, pathlib
import coordinator.app, edge_agent.app, edge_agent.client.app, flwr, grpc, kubernetes, numpy

def writable(path):
    try:
        pathlib.Path(path, "probe").write_text("x")
    except OSError:
        return False
    return True

print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "hanse": importlib.metadata.version("hanse"),
    "writable": [path for path in ("/", "/etc", "/usr", "/var", "/tmp") if writable(path)],
    "compiled": pathlib.Path(coordinator.app.__cached__).exists(),
    "root_certificates": pathlib.Path(os.environ["SSL_CERT_FILE"]).stat().st_size > 100_000,
}))
"""


class Containerd:
    """One containerd of the test's own, and `ctr` on it."""

    def __init__(self, root: Path, found: programs.Programs) -> None:
        self._ctr = [str(found.path("ctr")), "--address", str(root / "socket"), "--namespace", "k8s.io"]
        self._environment = {**os.environ, **found.environment}
        self._cgroup = f"/hanse-images-{os.getpid()}"

    def ctr(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._ctr, *arguments], capture_output=True, text=True, env=self._environment, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, image: str, *command: str) -> str:
        """What a container of this image prints; without a command, its own."""
        name = f"test-{time.monotonic_ns()}"
        where = ("--rm", "--read-only", "--cgroup", f"{self._cgroup}/{name}")
        return self.ctr("run", *where, image, name, *command)

    def remove_cgroups(self) -> None:
        """Containers' own are gone with them; what held them is in each hierarchy."""
        hierarchies = Path("/sys/fs/cgroup")
        for root in (hierarchies, *(each for each in hierarchies.iterdir() if each.is_dir())):
            held = root / self._cgroup.lstrip("/")
            if held.is_dir():
                for each in [*(inside for inside in held.iterdir() if inside.is_dir()), held]:
                    each.rmdir()


@pytest.fixture(scope="module")
def built(machine: choose.Machine) -> list[images.Built]:
    if reason := machine.missing[port.Provider.BARE]:
        pytest.skip(f"it starts a containerd of its own: {reason}")
    return images.build(DEFAULT, print)


@pytest.fixture(scope="module")
def containerd(built: list[images.Built], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    """With the images imported from their one archive."""
    found = programs.ensure(releases.NEWEST, print)
    root = tmp_path_factory.mktemp("containerd")
    (root / "config.toml").write_text(CONFIG.format(root=root))
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            [found.path("containerd"), "--config", root / "config.toml"],
            stdout=log, stderr=log, env={**os.environ, **found.environment},
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while "successfully booted" not in (root / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (root / "log").read_text()
            time.sleep(0.05)
        there = Containerd(root, found)
        try:
            there.ctr("images", "import", str(images.together(built)))
            yield there
        finally:
            process.terminate()
            process.wait(30)
            there.remove_cgroups()


def test_the_archive_brings_every_image_under_the_name_that_pods_use(
    containerd: Containerd, built: list[images.Built]
) -> None:
    """With the digest that the build has said."""
    listed = [line.split() for line in containerd.ctr("images", "list").splitlines()[1:]]
    assert {(row[0], row[2]) for row in listed} >= {(each.name, each.digest) for each in built}


@pytest.mark.parametrize("target", DEFAULT)
def test_an_image_runs_as_nobody_on_a_read_only_root(
    containerd: Containerd, built: list[images.Built], target: str
) -> None:
    """All of Hanse imports, compiled ahead, and nothing can be written."""
    (image,) = (each for each in built if each.target == target)
    seen = json.loads(containerd.run(image.name, "python3", "-P", "-c", LOOKS))
    assert seen == {
        "uid": 65532,
        "gid": 65532,
        "hanse": image.name.rpartition(":")[2],
        "writable": [],
        "compiled": True,
        "root_certificates": True,
    }


@pytest.mark.parametrize("target", DEFAULT)
def test_every_first_command_is_there(containerd: Containerd, built: list[images.Built], target: str) -> None:
    """The entry point, and the commands that manifests name."""
    (image,) = (each for each in built if each.target == target)
    for command in (TARGETS[target].entrypoint, ("python", "-P", "-m", "coordinator.aggregator")):
        assert "--config" in containerd.run(image.name, *command, "--help")
    assert "hanse" in containerd.run(image.name, "hanse", "--help")
    if target == "coordinator":
        assert "envoy" in containerd.run(image.name, "envoy", "--version")
