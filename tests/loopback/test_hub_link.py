"""The aggregator's conversation with a hub over real gRPC and mutual TLS: dialled again, and ended once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.aggregator import hub_link, progress
from federation.trust import credentials
from federation.trust import identity as identities
from federation.wire import denials
from federation.wire import hanse_pb2 as pb
from simulations.chaos import proxy as proxies
from tests.fakes import certificates, hub

AGGREGATOR = identities.AggregatorIdentity(hub.TRUST_DOMAIN, "demo", "hospitals")
HUB = identities.CoordinatorIdentity(hub.TRUST_DOMAIN)
LIMIT_SECONDS = 60


class Scene:
    """A hub, a proxy before it, and an aggregator's link."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = certificates.Authority()
        self.hub = hub.Hub(directory, self.authority)
        self.told = progress.Progress()
        self.directives: list[pb.AggregatorDirective] = []

    async def start(self) -> Scene:
        host, port = (await self.hub.start()).split(":")
        self.proxy = await proxies.Proxy(host, int(port)).start()
        return self

    def link(self, who: identities.Identity = AGGREGATOR) -> hub_link.HubLink:
        own: credentials.CredentialDirectory = hub.credentials_of(self.authority, who, self.directory / "own")
        return hub_link.HubLink(
            self.proxy.address,
            HUB.server_name,
            own,
            hello=hub_link.hello("127.0.0.1:1", AGGREGATOR.server_name),
            report=self.told.report,
            on_directive=self.directives.append,
            rng=random.Random(1),
        )


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    made = await Scene(tmp_path).start()
    yield made
    await made.proxy.stop()
    await made.hub.stop()


async def test_reports_go_up_and_directives_down(scene: Scene) -> None:
    """Hello first, then the picture at every change; the end is delivered once and ends the run."""
    link = scene.link()
    running = asyncio.create_task(link.run())
    assert await scene.hub.exchange_address == "127.0.0.1:1"
    scene.told.transferred("zurich", sent=5)
    link.changed()
    await asyncio.wait_for(scene.hub.until(lambda report: report.bytes_sent == 5), LIMIT_SECONDS)
    scene.hub.expect(["zurich"])
    link.finish(pb.TrainingFinished(succeeded=True, reason="AllRoundsDone"))
    await asyncio.wait_for(running, LIMIT_SECONDS)
    await asyncio.wait_for(link.delivered(), LIMIT_SECONDS)
    assert (await scene.hub.finished).reason == "AllRoundsDone"
    assert scene.directives[0].WhichOneof("body") == "welcome"


async def test_a_cut_link_is_dialled_again_and_tells_everything_again(scene: Scene) -> None:
    """Metrics whose report may have been lost come with the first report of the next link."""
    link = scene.link()
    running = asyncio.create_task(link.run())
    scene.told.measured(1, "Train", {"loss": 1.0})
    await asyncio.wait_for(scene.hub.until(lambda report: len(report.metrics) == 1), LIMIT_SECONDS)
    scene.proxy.cut()
    scene.told.measured(2, "Train", {"loss": 0.5})
    link.changed()
    await asyncio.wait_for(
        scene.hub.until(lambda report: [m.round for m in report.metrics] == [1, 2]), LIMIT_SECONDS
    )
    scene.proxy.cut()
    link.finish(pb.TrainingFinished(succeeded=False, reason="QuorumLost"))
    await asyncio.wait_for(running, LIMIT_SECONDS)
    assert (await scene.hub.finished).reason == "QuorumLost"


async def test_an_end_that_came_before_the_first_link_is_delivered(scene: Scene) -> None:
    """A training may be over before the hub was ever reached."""
    link = scene.link()
    link.finish(pb.TrainingFinished(reason="AppNotLoadable"))
    await asyncio.wait_for(link.run(), LIMIT_SECONDS)
    assert (await scene.hub.finished).reason == "AppNotLoadable"


async def test_a_denial_that_no_retry_heals_ends_the_run(scene: Scene) -> None:
    """Its reason arrives although the link would write at once."""
    link = scene.link(identities.ClusterIdentity(hub.TRUST_DOMAIN, "zurich"))
    with pytest.raises(denials.Denied) as caught:
        await asyncio.wait_for(link.run(), LIMIT_SECONDS)
    assert caught.value.reason is denials.Reason.NOT_AUTHORISED
