"""One federation for the session: a lab with a hub and three edges, and Hanse on them as operators do it.

`HANSE_TEST_FEDERATION=NAME` takes the lab of this name, brings it up if it is not, and leaves it up for the
next run; `HANSE_TEST_EDGES="a b"` names its edges. Images are made anew from this checkout and loaded in any
case.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.clusters import engine, federation
from simulations.lab import choose, images, port, releases
from tests.cluster import conftest as cluster
from tests.cluster.federation.trainings import Clusters

GIVEN = os.environ.get("HANSE_TEST_FEDERATION", "")
EDGES = tuple(os.environ.get("HANSE_TEST_EDGES", "budapest cleveland long-beach").split())
BY_HAND = EDGES[-1]
"""The edge that joins without being approved; an operator approves it."""


@pytest.fixture(scope="session")
def clusters(machine: choose.Machine, kubectl: Path) -> Iterator[Clusters]:
    """Bring everything up once."""
    name = GIVEN or f"trials-{cluster.CHECKOUT}"
    lab = choose.lab(name)
    plan = port.Plan(name, EDGES, releases.NEWEST)
    here = federation.Federation(lab, kubectl, lambda text: cluster.say("federation", text))
    try:
        archive = images.together(images.build(engine.TARGETS, lambda text: cluster.say("images", text)))
        if not GIVEN:
            lab.down(cluster.say)
        lab.up(plan, cluster.say)
        lab.load([archive], plan.clusters)
        asyncio.run(_federate(here))
        yield Clusters(lab, kubectl, EDGES, here.door)
    finally:
        if not GIVEN:
            lab.down(cluster.say)


async def _federate(here: federation.Federation) -> None:
    """Install the hub and join the edges that have not joined: all by token, one approved by hand."""
    await here.install_hub()
    absent = [edge for edge in EDGES if not await here.has_agent(edge)]
    await here.renew([edge for edge in EDGES if edge not in absent])
    await here.join_all([edge for edge in absent if edge != BY_HAND])
    if BY_HAND not in absent:
        return
    joining = asyncio.create_task(here.join(BY_HAND, approve=False))
    assert (await _seen(here, BY_HAND))["acceptance"] == "Pending"
    await here.hanse(port.HUB, "clusters", "approve", BY_HAND)
    await joining


async def _seen(here: federation.Federation, name: str) -> dict[str, str]:
    """Return what the hub's operator sees of a member, as soon as it is there."""
    while True:
        listed = json.loads(await here.hanse(port.HUB, "clusters", "list", "-o", "json"))
        for member in listed:
            if member["name"] == name:
                return dict(member)
        await asyncio.sleep(0.5)
