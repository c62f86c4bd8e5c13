"""The hub's watches on a real API server, while what happens to objects does not come through."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import itertools
import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest
import yaml

from coordinator import caches
from coordinator.operator import feed
from federation.kube import client
from federation.store import kubernetes as kubernetes_store
from federation.store import port as stores
from simulations.chaos.proxy import Proxy
from tests.fakes import controlplane

pytestmark = [pytest.mark.controlplane, pytest.mark.asyncio]
_numbers = itertools.count(1)
WAIT_SECONDS = 60.0
KIND = "EdgeCluster"


class Seen:
    """The hub's caches, which the feed fills, and what they hold of one test's members."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._caches = {kind: caches.Cache() for kind in feed.KINDS}
        self.lists = 0

    def observe(self, change: stores.Change) -> None:
        self._caches[change.resource["kind"]].observe(change)

    def listed(self, kind: str, listing: stores.ResourceList) -> None:
        self._caches[kind].replace(listing)
        self.lists += 1

    def members(self) -> dict[str, str]:
        """Where each member is, by the end of its name."""
        return {
            key.name.removeprefix(self._prefix): resource["spec"]["labels"]["place"]
            for key, resource in self._caches[KIND].items()
            if key.name.startswith(self._prefix)
        }

    async def until(self, **want: str) -> None:
        """Wait until the caches hold these members and no other, however they learn it."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while self.members() != want:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"want {want}, got {self.members()}")


class Scene:
    """Members on an API server, and a feed that reaches it through a link that can be spoilt."""

    def __init__(self, api: client.Client, plane: controlplane.ControlPlane, directory: pathlib.Path) -> None:
        self.prefix = f"gap-{next(_numbers)}-"
        self.seen = Seen(self.prefix)
        self.api = api
        host, _, port = plane.server.removeprefix("https://").rpartition(":")
        self._target = (host, int(port))
        self._plane = plane
        self._kubeconfig = directory / "through-the-link.kubeconfig"

    async def put(self, name: str, place: str) -> None:
        """Make a member, or move it."""
        await self.api.apply(
            {
                "apiVersion": "hanse.dev/v1alpha1",
                "kind": KIND,
                "metadata": {"name": f"{self.prefix}{name}"},
                "spec": {"labels": {"place": place}},
            }
        )

    async def remove(self, name: str) -> None:
        await self.api.delete(KIND, f"{self.prefix}{name}")

    async def link(self, port: int = 0) -> Proxy:
        """Open the link; on the port that it had before, the feed finds it again by itself."""
        proxy = await Proxy(*self._target).start(port=port)
        text = yaml.safe_load(self._plane.kubeconfig.read_text())
        for one in text["clusters"]:
            one["cluster"]["server"] = f"https://{proxy.address}"
        self._kubeconfig.write_text(yaml.safe_dump(text))
        return proxy

    @contextlib.asynccontextmanager
    async def feeding(self) -> AsyncIterator[None]:
        """Watch through the link. The whole lists are asked for past it."""
        store = kubernetes_store.KubernetesStore(
            self.api, component="test", now=lambda: dt.datetime.now(dt.UTC)
        )
        running = asyncio.create_task(feed.Feed(store, self.seen, kubeconfig=self._kubeconfig).run())
        try:
            yield
            assert not running.done(), running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for name in self.seen.members():
                await self.remove(name)


@pytest.fixture(scope="module")
def plane() -> Iterator[controlplane.ControlPlane]:
    """An API server of this module's own, which a test may start again."""
    if lacking := controlplane.missing():
        pytest.skip(lacking)
    started = controlplane.start(controllers=False)
    yield started
    started.stop()


@pytest.fixture
async def scene(plane: controlplane.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[Scene]:
    async with await client.Client.connect(plane.kubeconfig) as api:
        yield Scene(api, plane, tmp_path)


@pytest.mark.parametrize("forgets", [False, True], ids=["the server remembers", "the server forgets"])
async def test_what_happens_while_the_watch_is_cut_is_seen_when_it_is_back(
    scene: Scene, plane: controlplane.ControlPlane, forgets: bool
) -> None:
    """An object that went, one that changed, one that came, also where no watch can begin where the last one
    ended: then nothing but a list says what went.
    """
    await scene.put("gone", "zurich")
    await scene.put("moved", "zurich")
    link = await scene.link()
    async with scene.feeding():
        await scene.seen.until(gone="zurich", moved="zurich")
        await scene.put("watched", "zurich")
        await scene.seen.until(gone="zurich", moved="zurich", watched="zurich")
        await link.stop()  # nobody listens there now
        await scene.remove("gone")
        await scene.put("moved", "basel")
        await scene.put("came", "geneva")
        if forgets:
            plane.restart_server()
        link = await scene.link(int(link.address.rpartition(":")[2]))
        await scene.seen.until(moved="basel", watched="zurich", came="geneva")
    await link.stop()


async def test_what_a_watch_that_hears_nothing_misses_is_found_by_listing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that a NAT forgot ends nothing and brings nothing: a list now and then finds it."""
    monkeypatch.setattr(feed, "RESYNC_SECONDS", 0.5)
    await scene.put("gone", "zurich")
    link = await scene.link()
    async with scene.feeding():
        await scene.put("watched", "zurich")
        await scene.seen.until(gone="zurich", watched="zurich")
        link.freeze()
        carried = dict(link.carried)
        await scene.remove("gone")
        await scene.put("watched", "basel")
        await scene.seen.until(watched="basel")
        assert link.carried == carried, "nothing came by the watch"
        link.thaw()  # TLS is closed by both ends
    await link.stop()
