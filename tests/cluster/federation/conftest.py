"""One federation for the session: a lab with a hub and three edges, and Hanse on them as operators do it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from simulations.clusters import engine, federation
from simulations.lab import choose, images, port, programs, releases
from tests.cluster.federation.trainings import Clusters

LAB = os.environ.get("HANSE_TEST_FEDERATION", "trials")
"""Another name brings up, or with HANSE_KEEP_LAB=1 takes, a lab of one's own."""
EDGES = tuple(os.environ.get("HANSE_TEST_EDGES", "aachen bergen cadiz").split())
BY_HAND = "cadiz"
"""The edge that joins without being approved; an operator approves it."""


@pytest.fixture(scope="session")
def clusters(request: pytest.FixtureRequest) -> Iterator[Clusters]:
    """Bring everything up once; `HANSE_KEEP_LAB=1` leaves the clusters for the next run."""
    keep = os.environ.get("HANSE_KEEP_LAB") == "1"
    lab = choose.lab(LAB)
    plan = port.Plan(LAB, EDGES, releases.NEWEST)
    fresh = lab.status() is None or not keep
    try:
        archive = images.together(images.build(engine.TARGETS, print))
        lab.up(plan, lambda cluster, text: print(cluster, text))
        lab.load([archive], plan.clusters)
        kubectl = programs.ensure(releases.NEWEST, print).path("kubectl")
        here = federation.Federation(lab, kubectl, print)
        if fresh:
            asyncio.run(_federate(here))
        yield Clusters(lab, kubectl, EDGES, here.door)
    finally:
        if not keep:
            lab.down(lambda cluster, text: print(cluster, text))


async def _federate(here: federation.Federation) -> None:
    await here.install_hub()
    await here.join_all([edge for edge in EDGES if edge != BY_HAND])
    if BY_HAND not in EDGES:
        return
    joining = asyncio.create_task(here.join(BY_HAND, approve=False))
    while True:
        listed = await here.hanse(port.HUB, "clusters", "list", "-o", "json")
        if BY_HAND in listed:
            break
        await asyncio.sleep(0.5)
    await here.hanse(port.HUB, "clusters", "approve", BY_HAND)
    await joining
