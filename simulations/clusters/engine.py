"""A scenario on real clusters: lab, images, hub, edges, training, model.

Why it exists: what runs as processes in `hanse simulate DIR` runs here as pods, on clusters that know nothing
of each other, with the same manifests and the same model at the end. This module brings the parts together;
it installs nothing itself (`federation`) and follows the training as the other engine does (`local.story`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from federation.kube import client
from federation.kube import errors as kube_errors
from simulations.clusters import federation, objects
from simulations.lab import choose, images, programs, releases, state
from simulations.lab import port as lab_port
from simulations.local import results, scenario, story, view
from simulations.local.errors import SimulationError, SimulationFailed

LAB = "simulation"
SETTLE_SECONDS = 20.0
"""On a cluster an edge answers after its agent has looked at the policies; half a minute is plenty."""

TRAINING = "FederatedTraining"
TARGETS = ("coordinator", "edge-agent", "client")
"""The images; they share their layers, so one archive of all is no larger than the largest."""

Images = dict[str, str]
"""Their names, by target."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run. `provider` None takes what this machine can; `keep_lab` leaves the clusters up."""

    results: Path
    provider: lab_port.Provider | None = None
    kubernetes: str = releases.NEWEST
    keep_lab: bool = False
    timeout_seconds: float = 600.0


class Simulation:
    """One run of one scenario on clusters."""

    def __init__(self, plan: scenario.Scenario, options: Options, shown: view.View) -> None:
        """Take what to run, how, and where to show it."""
        self._plan = plan
        self._options = options
        self._view = shown
        self._edges = tuple(edge.name for edge in plan.edges)
        self._story = story.Story(plan.title, len(plan.edges), shown, settle_seconds=SETTLE_SECONDS)

    async def run(self) -> results.Outcome:
        """Run to the end of the training or the timeout; afterwards the clusters are gone, unless kept.

        Raises: SimulationFailed, SimulationError.
        """
        with _alone(), _in_sentences():
            lab = choose.lab(LAB, wanted=self._options.provider)
            archive, names = await self._bring_up(lab)
            try:
                self._view.start("loading images into the clusters")
                await _to_its_end(lab.load, [archive], (lab_port.HUB, *self._edges))
                made = await asyncio.to_thread(programs.ensure, self._options.kubernetes, self._view.start)
                here = federation.Federation(lab, made.path("kubectl"), self._view.start)
                await self._install(lab, here)
                return await self._train(lab, here, names)
            finally:
                await self._take_down(lab)

    async def _bring_up(self, lab: lab_port.Lab) -> tuple[Path, Images]:
        """Bring the clusters up and build the images meanwhile; return their archive and their names."""
        building = asyncio.create_task(asyncio.to_thread(self._images))
        try:
            wanted = lab_port.Plan(LAB, self._edges, self._options.kubernetes)
            await _to_its_end(lab.up, wanted, self._progress)
            return await building
        except lab_port.LabError:
            raise  # it was refused, and what is there is not ours to take down
        except BaseException:
            await self._take_down(lab)
            raise
        finally:
            await asyncio.wait({building})

    async def _take_down(self, lab: lab_port.Lab) -> None:
        if not self._options.keep_lab:
            await asyncio.to_thread(lab.down, self._progress)

    def _images(self) -> tuple[Path, Images]:
        more = images.WITH_TORCH if objects.needs_torch(self._plan) else ()
        built = images.build((*TARGETS, *more), self._view.start)
        return images.together(built), {each.target: each.name for each in built}

    async def _install(self, lab: lab_port.Lab, here: federation.Federation) -> None:
        await here.install_hub()
        absent = [edge for edge in self._edges if not await here.has_agent(edge)]
        await here.renew([edge for edge in self._edges if edge not in absent])
        await here.join_all(absent)
        self._view.start("each owner applies data set and policy on the own cluster")
        await asyncio.gather(*(here.apply(edge.name, objects.edge(edge)) for edge in self._plan.edges))

    async def _train(self, lab: lab_port.Lab, here: federation.Federation, names: Images) -> results.Outcome:
        before, manifest = objects.hub(self._plan, names)
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        await here.kubectl(
            lab_port.HUB, "delete", "federatedtraining", name, "-n", namespace, "--ignore-not-found"
        )
        await here.apply(lab_port.HUB, before)
        self._view.start(f"applying the training {namespace}/{name}")
        await here.apply(lab_port.HUB, [manifest])
        async with await client.Client.connect(
            lab.kubeconfig(lab_port.HUB), field_manager="hanse-cli"
        ) as api:
            statuses = _statuses(api, namespace, name)
            outcome = await self._story.follow(statuses, self._options.timeout_seconds)
        if outcome.model is not None:
            await self._fetch(here, namespace, name, outcome)
        outcome.results = str(self._options.results)
        return outcome

    async def _fetch(
        self, here: federation.Federation, namespace: str, name: str, outcome: results.Outcome
    ) -> None:
        """Bring the model here, check it against the hash in status, and take all metrics from its card."""
        self._view.start("fetching the model")
        fetched = self._options.results / "fetched"
        await here.hanse(lab_port.HUB, "models", f"{namespace}/{name}", "--to", str(fetched))
        assert outcome.model is not None
        for file in (results.MODEL_FILE, results.CARD_FILE):
            found = next(fetched.rglob(file), None)
            if found is None:
                raise SimulationFailed(f"hanse models {namespace}/{name}: brought no {file}")
            shutil.move(found, self._options.results / file)
        shutil.rmtree(fetched)
        model = self._options.results / results.MODEL_FILE
        digest = hashlib.sha256(model.read_bytes()).hexdigest()
        if digest != outcome.model["sha256"]:
            raise SimulationFailed(
                f"the model that came has SHA-256 {digest}, and status says {outcome.model['sha256']}"
            )
        outcome.model["path"] = str(model)
        outcome.metrics = json.loads((self._options.results / results.CARD_FILE).read_text())["metrics"]

    def _progress(self, cluster: str, text: str) -> None:
        self._view.start(f"{cluster}: {text}" if cluster else text)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one simulation at a time have the lab; the lock goes with the process. Raises: SimulationError."""
    file = state.home() / f".{LAB}.run"
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SimulationError("another simulation runs on clusters here; wait for its end") from error
        yield


@contextlib.contextmanager
def _in_sentences() -> Iterator[None]:
    """Turn what can go wrong with clusters into a simulation's own errors."""
    try:
        yield
    except lab_port.LabError as error:
        raise SimulationError(str(error)) from error
    except (
        lab_port.LabFailed,
        images.ImagesMissing,
        programs.ProgramsMissing,
        kube_errors.KubernetesError,
    ) as error:
        raise SimulationFailed(str(error)) from error


async def _to_its_end(work: Callable[..., None], *arguments: object) -> None:
    """Do blocking work in a thread; if cancelled, wait for its end: a lab that comes up has no `down`."""
    doing = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(doing)
    finally:
        await asyncio.wait({doing})


async def _statuses(api: client.Client, namespace: str, name: str) -> AsyncIterator[dict[str, Any]]:
    """The training's status at each change, as the hub's API server shows it."""
    listing = await api.list(TRAINING, namespace)
    for item in listing.items:
        if item["metadata"]["name"] == name and item.get("status"):
            yield item["status"]
    async for change in api.watch(TRAINING, listing.resource_version, namespace):
        if change.object["metadata"]["name"] == name and change.object.get("status"):
            yield change.object["status"]
