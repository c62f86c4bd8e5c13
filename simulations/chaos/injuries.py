"""Carrying out the faults of a plan on a federation that runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

from federation.runtime import failpoints
from simulations.chaos import disks, faults, federation, scenario

LOOK_SECONDS = 0.01
APPEAR_SECONDS = 20.0
"""A process that is to be injured may be on its way back from the injury before."""

MB = 1024 * 1024


class Injuries:
    """The faults of one run. `prepare` before anything starts, `run` beside it, `heal` at the end."""

    def __init__(self, places: scenario.Places, plan: faults.Plan, run: federation.Federation) -> None:
        """Nothing happens yet."""
        self._places = places
        self._plan = plan
        self._federation = run
        self._stopped: set[int] = set()
        self._disks: dict[str, Path] = {}
        self.struck: list[str] = []
        """What was injured, but for places, whose visits tell."""

    def prepare(self) -> None:
        """Write down what happens at which place and to which clock; make small disks. Raises: OSError."""
        directory = self._places.failpoints
        directory.mkdir()
        for name in failpoints.NAMES:
            (directory / name).write_text("0")
        for fault in self._plan.faults:
            match fault.kind:
                case "point":
                    (directory / fault.target).write_text(f"{fault.value:g} {fault.how}".strip())
                case "clock":
                    module = federation.MODULES[fault.target]
                    (directory / "clock").write_text(f"{module} {fault.value:g}")
                    self.struck.append(str(fault))
                case "disk":
                    first = self._federation.edges[0]
                    at = self._places.aggregators
                    self._disks[fault.target] = (
                        at if fault.target == "aggregator" else self._places.clients(first)
                    )
                    disks.mount(self._disks[fault.target], 32 * MB + 20 * self._plan.shape.model_bytes)

    async def run(self) -> None:
        """Let each of the other faults happen at its time."""
        async with asyncio.TaskGroup() as group:
            for fault in self._plan.faults:
                if fault.kind in ("kill", "stop", "link", "disk"):
                    group.create_task(self._at_its_time(fault))

    def heal(self) -> None:
        """Let what was stopped go on, so that it can end."""
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def remove_disks(self) -> None:
        """Take small disks away when nobody uses them any more."""
        for directory in self._disks.values():
            disks.unmount(directory)

    async def _at_its_time(self, fault: faults.Fault) -> None:
        if fault.how == "cut-at-byte":
            link = self._federation.links[fault.target]
            link.cut_after(**{"upward" if int(fault.value) % 2 else "downward": int(fault.value)})
            await _until(lambda: link.cuts > 0)
            self.struck.append(str(fault))
            return
        await _until(lambda: _lines(self._places.calls) >= fault.after_call)
        await asyncio.sleep(fault.after_seconds)
        match fault.kind:
            case "kill":
                await self._signal(fault, signal.SIGKILL)
            case "stop":
                await self._stop(fault)
            case "link":
                await self._spoil(fault)
            case "disk":
                disks.fill(self._disks[fault.target])
                self.struck.append(str(fault))
                await asyncio.sleep(fault.value)
                disks.make_room(self._disks[fault.target])

    async def _signal(self, fault: faults.Fault, number: signal.Signals) -> int | None:
        for _ in range(round(APPEAR_SECONDS / LOOK_SECONDS)):
            if found := self._federation.pids(fault.target):
                pid = found[fault.after_call % len(found)]
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                    self.struck.append(str(fault))
                    return pid
            await asyncio.sleep(LOOK_SECONDS)
        return None

    async def _stop(self, fault: faults.Fault) -> None:
        pid = await self._signal(fault, signal.SIGSTOP)
        if pid is None:
            return
        self._stopped.add(pid)
        await asyncio.sleep(fault.value)
        self._stopped.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    async def _spoil(self, fault: faults.Fault) -> None:
        link = self._federation.links[fault.target]
        self.struck.append(str(fault))
        match fault.how:
            case "cut":
                link.cut()
            case "double":
                link.double()
            case "forget":
                link.forget()
            case "delay":
                link.delay_seconds = fault.value
                await asyncio.sleep(3.0)
                link.delay_seconds = 0.0
            case "half-open":
                link.freeze()
                await asyncio.sleep(fault.value)
                link.thaw()


async def _until(happened: Callable[[], bool]) -> None:
    # What is waited for is another process's file or another object's count: nobody tells.
    while not happened():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_SECONDS)


def _lines(file: Path) -> int:
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
