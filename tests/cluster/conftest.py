"""The lab that a session's cluster tests share: a hub and two edges, up once, down at the end.

`HANSE_TEST_LAB=NAME` uses a lab that is up already and leaves it up, which saves half a minute a run.
Where a lab cannot run, these tests are skipped with a sentence that says why; in CI that is a failure.
Where both providers work, the tests take the bare one: some of them look into its nodes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from federation.kube import client
from federation.runtime import jobs
from simulations.lab import choose, port, programs, releases
from simulations.lab.bare import busybox
from tests.cluster import labs, places

EDGES = 2
# A lab of this checkout: two checkouts may test at once, and what a killed run left is found again.
CHECKOUT = hashlib.sha256(str(Path(__file__).resolve()).encode()).hexdigest()[:6]
_places = itertools.count(1)


def say(who: str, what: str) -> None:
    """Progress of bringing a lab up, for who runs pytest with -s."""
    print(f"  {who}: {what}", file=sys.stderr, flush=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this directory is a cluster test, also where nobody has written so.

    Tests that bring clusters of their own up go before those on the shared lab, which is not up then.
    """
    ours = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    for item in ours:
        item.add_marker("cluster")
    first = iter(sorted(ours, key=lambda item: "lab" in getattr(item, "fixturenames", ())))
    items[:] = [next(first) if item in ours else item for item in items]


@pytest.fixture(scope="session")
def machine() -> choose.Machine:
    """This machine, where a lab can run on it."""
    found = choose.look()
    try:
        choose.provider(found, None)
    except port.LabError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture(scope="session")
def kubectl(machine: choose.Machine) -> Path:
    return programs.ensure(releases.NEWEST, lambda line: say("programs", line)).path("kubectl")


@pytest.fixture(scope="session")
def small_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with the image `labs.IMAGE`: a shell and a few tools."""
    path = tmp_path_factory.mktemp("image") / "busybox.tar"
    path.write_bytes(busybox.small_image(busybox.read(lambda line: say("busybox", line)), labs.IMAGE))
    return path


@pytest.fixture(scope="session")
def lab(machine: choose.Machine, kubectl: Path, small_image: Path) -> Iterator[labs.TestLab]:
    """A hub and two edges, ready, with the small image on every node."""
    given = os.environ.get("HANSE_TEST_LAB")
    name = given or f"test-{CHECKOUT}"
    bare = given is None and not machine.missing[port.Provider.BARE]
    wanted = choose.lab(name, wanted=port.Provider.BARE if bare else None)
    if given is None:
        wanted.down(say)
        wanted.up(port.Plan(name, port.numbered(EDGES), releases.NEWEST), say)
    try:
        found = wanted.status()
        assert found is not None, f"HANSE_TEST_LAB names no lab: {name}"
        assert found.ready, found
        clusters = [labs.Cluster(each.name, each.kubeconfig, kubectl) for each in found.clusters]
        wanted.load([small_image], [each.name for each in clusters])
        yield labs.TestLab(wanted, clusters[0], clusters[1:])
    finally:
        if given is None:
            wanted.down(say)


@pytest.fixture
async def place(lab: labs.TestLab) -> AsyncIterator[places.Place]:
    """A namespace of the hub that admits only restricted pods, and a runtime of Jobs in it."""
    name = lab.hub.namespace(f"jobs-{next(_places)}")
    async with await client.Client.connect(lab.hub.kubeconfig) as api:
        restricted = {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        await api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, **restricted}})
        runtime = jobs.Jobs(api, [name], owner=places.OWNER)
        yield places.Place(lab.hub, api, name, runtime)
        await runtime.close(0)
        await api.delete("Namespace", name)
