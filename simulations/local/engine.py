"""A whole federation as processes on this machine, from the first key to the last goodbye.

Why it exists: `hanse simulate` runs the real coordinator, aggregator, edge agents and clients, joined by real
enrollment over mutual TLS. This module starts the first two kinds, follows the training's status that the
coordinator publishes, carries out a drill, and leaves nothing behind but the results.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from federation.runtime import processes as runtime_processes
from simulations.local import memory, processes, results, scenario, story, view
from simulations.local.errors import SimulationError, SimulationFailed

TRUST_DOMAIN = "hanse.local"
TOKEN_LIFETIME = dt.timedelta(minutes=10)
START_SECONDS = 60.0
"""A coordinator that has not opened its ports after this long never will, and an edge that has not joined.

Rounds wait that long for edges that start slowly, for a model should not depend on the machine's load.
"""

STOP_SECONDS = 10.0
"""Twice what an agent gives its clients, so that it can clear up after one that does not end."""

LINK_GRACE_SECONDS = 5.0
MEMORY_INTERVAL_SECONDS = 0.25


AGGREGATOR = "aggregator"
"""What the aggregator's process calls itself, and what a drill calls it; an edge of this name goes first."""


@dataclasses.dataclass(frozen=True)
class Drill:
    """Kill one edge (its agent, its client), or the aggregator, as soon as a round is reached."""

    edge: str
    round: int

    @classmethod
    def parse(cls, text: str) -> Drill:
        """Read `edge-02@3`. Raises: SimulationError."""
        edge, at, number = text.rpartition("@")
        if not at or not edge or not number.isdecimal() or int(number) < 1:
            raise SimulationError(
                f"--drill {text}: write it as EDGE@ROUND, e.g. zurich@3; the first round is 1"
            )
        return cls(edge, int(number))


@dataclasses.dataclass(frozen=True)
class Options:
    """How to run."""

    results: Path
    keep: bool = False
    timeout_seconds: float = 600.0
    drills: tuple[Drill, ...] = ()
    port: int = 0
    log_level: str = "INFO"


NewToken = Callable[[str, dt.datetime], tuple[str, Mapping[str, Any]]]
"""Makes a join token for a cluster, good until a time: the token itself, and the record that the hub
keeps."""


class Simulation:
    """One run of one scenario."""

    def __init__(
        self, plan: scenario.Scenario, options: Options, shown: view.View, new_token: NewToken
    ) -> None:
        """Take what to run, how, where to show it, and the hub operator's way to make join tokens."""
        self._plan = plan
        self._new_token = new_token
        self._options = options
        self._view = shown
        self._story = story.Story(plan.title, len(plan.edges), shown, on_round=self._reached)
        self._memory = memory.PeakMemory()
        self._agents: dict[str, processes.Child] = {}
        self._drilled: set[Drill] = set()

    async def run(self) -> results.Outcome:
        """Run to the end of the training, the timeout, or cancellation; afterwards nothing runs any more.

        Raises: SimulationError for a drill on an unknown edge; SimulationFailed if Hanse itself could not go
        on.
        """
        for drill in self._options.drills:
            if drill.edge not in {AGGREGATOR, *(edge.name for edge in self._plan.edges)}:
                raise SimulationError(f"--drill {drill.edge}@{drill.round}: there is no edge {drill.edge}")
        state = (
            self._options.results / "state" if self._options.keep else Path(tempfile.mkdtemp(prefix="hanse-"))
        )
        state.mkdir(mode=0o700, exist_ok=True)
        logs = self._options.results / results.LOGS
        logs.mkdir(mode=0o700, exist_ok=True)
        janitor = None if self._options.keep else await processes.Janitor.watch(state)
        try:
            outcome = await self._run(state, logs)
            outcome.peakMemoryBytes = self._memory.by_process()
            self._collect(outcome, state, logs)
            return outcome
        finally:
            if not self._options.keep:
                runtime_processes.remove_tree(state)
            if janitor is not None:
                await janitor.dismiss()

    async def _run(self, state: Path, logs: Path) -> results.Outcome:
        self._view.start("starting the coordinator")
        async with contextlib.AsyncExitStack() as stack:
            coordinator = await self._start_coordinator(state, logs)
            stack.push_async_callback(coordinator.stop, STOP_SECONDS)
            endpoints = await self._endpoints(coordinator, state / "coordinator")
            self._view.start(f"joining {len(self._plan.edges)} edges")
            stack.push_async_callback(self._stop_agents)
            await asyncio.gather(
                *(self._start_agent(edge, endpoints, state, logs) for edge in self._plan.edges)
            )
            sampler = asyncio.create_task(self._sample_memory())
            stack.callback(sampler.cancel)
            outcome = await self._story.follow(self._statuses(coordinator), self._options.timeout_seconds)
            self._add_late_drills(outcome)
            self._memory.sample_children()
        return outcome

    async def _start_coordinator(self, state: Path, logs: Path) -> processes.Child:
        directory = state / "coordinator"
        directory.mkdir(mode=0o700)
        scenario.write_hub(self._plan, directory / "hub.yaml")
        expires_at = dt.datetime.now(dt.UTC) + TOKEN_LIFETIME
        tokens = []
        for edge in self._plan.edges:
            token, record = self._new_token(edge.name, expires_at)
            _write_private(state / f"{edge.name}.token", token + "\n")
            tokens.append(record)
        config = {
            "trust_domain": TRUST_DOMAIN,
            "state_directory": str(directory / "state"),
            "control_listen": f"127.0.0.1:{self._options.port}",
            "resources": [str(directory / "hub.yaml")],
            "join_tokens": tokens,
            # A simulation has all its edges at hand: it waits for each of them, and not long for a lost one.
            "link_grace_seconds": LINK_GRACE_SECONDS,
            "start_grace_seconds": START_SECONDS,
            "model_store": self._options.results.joinpath("models").as_uri(),
            "publish_changes": True,
            "log_level": self._options.log_level,
        }
        _write_private(directory / "config.json", json.dumps(config))
        return await processes.start(
            "coordinator", "coordinator", directory / "config.json", logs, read_stdout=True
        )

    async def _endpoints(self, coordinator: processes.Child, directory: Path) -> Mapping[str, str]:
        """Wait for the coordinator to say where it listens."""
        path = directory / "state" / "endpoints.json"
        deadline = time.monotonic() + START_SECONDS
        while not path.exists():
            if not coordinator.running or time.monotonic() > deadline:
                raise _died(coordinator)
            await asyncio.sleep(0.02)
        found: dict[str, str] = json.loads(path.read_text())
        return found

    async def _start_agent(
        self, edge: scenario.Edge, endpoints: Mapping[str, str], state: Path, logs: Path
    ) -> None:
        directory = state / "edges" / edge.name
        scenario.write_edge(edge, directory / "resources")
        config = {
            "cluster": edge.name,
            "enrollment_address": endpoints["enrollment_address"],
            "token_file": str(state / f"{edge.name}.token"),
            "ca_pin": endpoints["ca_pin"],
            "trust_domain": endpoints["trust_domain"],
            "resource_directory": str(directory / "resources"),
            "state_directory": str(directory / "state"),
            "log_level": self._options.log_level,
        }
        _write_private(directory / "config.json", json.dumps(config))
        self._agents[edge.name] = await processes.start(
            edge.name, "edge_agent", directory / "config.json", logs
        )

    async def _stop_agents(self) -> None:
        await asyncio.gather(*(agent.stop(STOP_SECONDS) for agent in self._agents.values()))

    # -- following the training ------------------------------------------------------------------

    async def _statuses(self, coordinator: processes.Child) -> AsyncIterator[dict[str, Any]]:
        """The training's status at each change, as the coordinator publishes it."""
        assert coordinator.process.stdout is not None
        while line := await coordinator.process.stdout.readline():
            change = json.loads(line)
            resource = change.get("object", {})
            if resource.get("kind") == "FederatedTraining" and resource.get("status"):
                yield resource["status"]
        raise _died(coordinator)

    def _reached(self, round_number: int) -> None:
        for drill in self._options.drills:
            if round_number >= drill.round and drill not in self._drilled:
                self._drilled.add(drill)
                self._view.note(f"drill: {drill.edge} is killed in round {round_number}")
                if drill.edge in self._agents:
                    self._agents[drill.edge].kill_group()
                else:
                    _kill(drill.edge)

    def _add_late_drills(self, outcome: results.Outcome) -> None:
        for drill in self._options.drills:
            if drill not in self._drilled:
                late = f"--drill {drill.edge}@{drill.round} came too late, the training was over before"
                outcome.message = f"{outcome.message}; {late}" if outcome.message else late

    async def _sample_memory(self) -> None:
        while True:
            self._memory.sample_children()
            await asyncio.sleep(MEMORY_INTERVAL_SECONDS)

    # -- results ---------------------------------------------------------------------------------

    def _collect(self, outcome: results.Outcome, state: Path, logs: Path) -> None:
        """Put model, card and logs where the user finds them."""
        if outcome.model is not None:
            stored = Path(outcome.model["path"].removeprefix("file://"))
            for name in (results.MODEL_FILE, results.CARD_FILE):
                shutil.copyfile(stored / name, self._options.results / name)
            shutil.rmtree(self._options.results / "models", ignore_errors=True)
            outcome.model["path"] = str(self._options.results / results.MODEL_FILE)
            # Status keeps the last metrics only, and a fast training outruns it; the card has all of them.
            outcome.metrics = json.loads((self._options.results / results.CARD_FILE).read_text())["metrics"]
        # Where the two runtimes write, and nowhere else: data sets and apps may have files of this name too.
        for log in state.glob("coordinator/state/logs/*.log"):
            shutil.copyfile(log, logs / "aggregator.log")
        for log in state.glob("edges/*/state/logs/*.log"):
            shutil.copyfile(log, logs / f"{log.parents[2].name}.client.log")
        outcome.results = str(self._options.results)


def _died(child: processes.Child) -> SimulationFailed:
    tail = child.log_tail(1)
    said = f": {tail[0]}" if tail else ""
    return SimulationFailed(f"the {child.name} ended before the training did{said}; its log is {child.log}")


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _kill(name: str) -> None:
    """End a process below this one at once, by what it calls itself."""
    for pid in list(memory.descendants(os.getpid())):
        if memory.process_name(pid) == name:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
