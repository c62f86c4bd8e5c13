"""One run from its seed to its result, and many of them beside each other."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from federation.runtime import processes
from simulations.chaos import faults, federation, injuries, judging, scenario

LIMIT_SECONDS = 180.0
"""A run takes seconds, and less than 100 with the longest pause; one that takes longer hangs."""


class NoReference(Exception):
    """An undisturbed run did not end as one; the text says how it did."""


class Runner:
    """Runs plans in directories below one; those of failed runs stay."""

    def __init__(self, directory: Path, *, is_kept: bool = False) -> None:
        """is_kept: what a run left stays also where it did not fail."""
        self._directory = directory
        self._is_kept = is_kept
        self._references: dict[faults.Shape, judging.Reference] = {}
        self._asking: dict[faults.Shape, asyncio.Lock] = {}

    async def all(
        self,
        plans: Iterable[faults.Plan],
        *,
        jobs: int,
        ends_at: float,
        on_result: Callable[[judging.Result], None],
    ) -> None:
        """Run plans, `jobs` at a time, until there is none left or the time (monotonic seconds) is over.

        Raises: NoReference.
        """
        waiting = iter(plans)

        async def work(slot: int) -> None:
            for plan in waiting:
                if time.monotonic() >= ends_at:
                    return
                want = await self._reference(plan.shape, slot)
                on_result(await self._run(plan, want, slot))

        workers = [asyncio.create_task(work(slot)) for slot in range(jobs)]
        try:
            for worker in asyncio.as_completed(workers):
                await worker
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _reference(self, shape: faults.Shape, slot: int) -> judging.Reference:
        async with self._asking.setdefault(shape, asyncio.Lock()):
            if shape not in self._references:
                places = self._places(f"undisturbed-{shape.edges}-{shape.rounds}-{shape.model_bytes}")
                seen = await self._play(places, faults.Plan(0, shape), slot)
                try:
                    if seen.trouble or seen.left:
                        raise ValueError(seen.trouble or "; ".join(seen.left))
                    self._references[shape] = judging.reference(places, seen.status)
                except ValueError as error:
                    raise NoReference(f"{error}; what it left is in {places.root}") from error
                self._tidy(places)
            return self._references[shape]

    async def _run(self, plan: faults.Plan, want: judging.Reference, slot: int) -> judging.Result:
        places = self._places(f"seed-{plan.seed}")
        result = judging.judge(places, plan, await self._play(places, plan, slot), want)
        if not result.wrong:
            self._tidy(places)
        return result

    def _places(self, name: str) -> scenario.Places:
        root = self._directory / name
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(mode=0o700, parents=True)
        return scenario.Places(root)

    def _tidy(self, places: scenario.Places) -> None:
        if not self._is_kept:
            processes.remove_tree(places.root)

    async def _play(self, places: scenario.Places, plan: faults.Plan, slot: int) -> judging.Seen:
        began = time.monotonic()
        run = federation.Federation(places, plan, federation.Hosts.of(slot))
        harm = injuries.Injuries(places, plan, run)
        harming: asyncio.Task[None] | None = None
        left: list[str] = []
        trouble = ""
        harm.prepare()
        try:
            async with asyncio.timeout(LIMIT_SECONDS):
                harming = asyncio.create_task(harm.run())
                await run.start()
                await run.ended()
                harming.cancel()
                harm.heal()
                left = await run.left()
        except TimeoutError:
            trouble = f"not over after {LIMIT_SECONDS:g} s"
        except (federation.FederationLost, OSError) as error:
            trouble = str(error)
        finally:
            harm.heal()
            if harming is not None:
                harming.cancel()
                (outcome,) = await asyncio.gather(harming, return_exceptions=True)
                if isinstance(outcome, Exception):
                    trouble = trouble or f"the harness failed: {outcome!r}"
            await run.stop()
        seen = judging.Seen(run.status, harm.struck, run.restarts, left, time.monotonic() - began, trouble)
        harm.remove_disks()
        return seen
