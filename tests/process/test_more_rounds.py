"""A training whose rounds are raised while it runs, as `kubectl patch` would: its model is that of one that
had as many from the beginning.

`hanse simulate` has no way to change a manifest, so the hub is in this process, with its resources in memory;
agents, aggregator and clients are processes. A raise comes while a client waits in the last round.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coordinator import config, hub, local
from coordinator.aggregator import compaction
from coordinator.issuing import tokens
from federation.runtime import failpoints
from federation.store import port as stores
from simulations.local import processes
from tests.process import counting, federations

pytestmark = [pytest.mark.process, pytest.mark.slow]

KEY = stores.Key("FederatedTraining", federations.NAMESPACE, federations.NAME)
FEW, MANY = 3, 5
WAIT_SECONDS = 120.0


@dataclasses.dataclass
class Running:
    """A federation at work, and where its clients say what they do."""

    coordinator: hub.Coordinator
    place: Path
    signals: Path

    async def ask_for(self, rounds: int) -> None:
        """Change the number of rounds, and wait until the aggregator knows."""
        training = await self.coordinator.store.get(KEY)
        training["spec"]["strategy"]["rounds"] = rounds
        await self.coordinator.store.apply(training)
        await self.until(lambda status: status["round"]["total"] == rounds)

    async def at_work(self) -> Path:
        """Wait until a client stands before a gate; return the directory of its process."""
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                with contextlib.suppress(OSError):
                    return Path("/proc", (self.signals / "at-work").read_text())
                await asyncio.sleep(0.02)

    async def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the status is so."""
        async with asyncio.timeout(WAIT_SECONDS):
            async for change in stores.follow(self.coordinator.store, KEY.kind):
                status: dict[str, Any] = change.resource.get("status") or {}
                assert status.get("phase") != "Failed", status
                if "round" in status and holds(status):
                    return status
        raise AssertionError("the store ended")

    async def completed(self) -> dict[str, Any]:
        return await self.until(lambda status: status["phase"] == "Completed")

    def kill_aggregator(self) -> None:
        """End it as a node that loses power would."""
        home = self.place / "state" / "aggregators"
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(home):
                    os.kill(int(entry.name), signal.SIGKILL)
                    return
        raise AssertionError("no aggregator runs")


@contextlib.asynccontextmanager
async def federation(
    place: Path, rounds: int, gates: tuple[str, ...] = (), limits: Mapping[str, int] | None = None
) -> AsyncIterator[Running]:
    """Two edges that train with FedAdam; `limits` are the most rounds that an edge's policy allows."""
    signals = place / "signals"
    signals.mkdir()
    for gate in gates:
        (signals / gate).touch()
    spec = {
        "app": {"source": {"path": "app"}, "runConfig": {"signals": str(signals)}},
        "strategy": federations.strategy(rounds),
        "clusters": {"minimum": 1},
    }
    policies = {
        edge: [federations.allow_all() | {"limits": {"rounds": most}}]
        for edge, most in (limits or {}).items()
    }
    written = federations.Federation(
        federations.honest(2),
        spec,
        federations.INITIAL_ARRAYS,
        counting.CLIENT_APP,
        federations.WITHOUT_SERVER_APP,
        policies,
    )
    scenario, logs = written.write(place / "scenario"), place / "logs"
    logs.mkdir()
    invited = {edge: token(edge) for edge in written.edges}
    settings = config.CoordinatorConfig(
        state_directory=place / "state",
        resources=(scenario / "training.yaml",),
        join_tokens=tuple(record for _, record in invited.values()),
        link_grace_seconds=90,
        start_grace_seconds=60,
        stop_grace_seconds=1,
    )
    coordinator = local.coordinator(settings)
    endpoints = await coordinator.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(coordinator.stop)
        working = asyncio.create_task(coordinator.run())
        stack.callback(working.cancel)
        for edge, (text, _) in invited.items():
            agent = await start_agent(place, scenario / "edges" / edge, endpoints, text, logs)
            stack.push_async_callback(agent.stop, 10.0)
        yield Running(coordinator, place, signals)


def token(edge: str) -> tuple[str, config.JoinToken]:
    """An invitation, and what the hub keeps of it."""
    made, record = tokens.create(
        secrets.token_bytes(tokens.ID_BYTES + tokens.SECRET_BYTES),
        expires_at=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
        cluster=edge,
        approves=True,
    )
    return made.text, config.JoinToken.of(record)


async def start_agent(
    place: Path, resources: Path, endpoints: config.Endpoints, invitation: str, logs: Path
) -> processes.Child:
    """An edge agent, which joins by itself."""
    edge = resources.name
    (place / f"{edge}.token").write_text(invitation)
    (place / f"{edge}.token").chmod(0o600)
    path = place / f"{edge}.json"
    path.write_text(
        json.dumps(
            {
                "cluster": edge,
                "enrollment_address": endpoints.enrollment_address,
                "token_file": str(place / f"{edge}.token"),
                "ca_pin": endpoints.ca_pin,
                "trust_domain": endpoints.trust_domain,
                "resource_directory": str(resources),
                "state_directory": str(place / f"{edge}-state"),
            }
        )
    )
    return await processes.start(edge, "edge_agent", path, logs)


CALLS = [
    (f"{what}-{number}", 2 * (number - 1) + (what == "evaluate"))
    for number in range(1, MANY + 1)
    for what in ("train", "evaluate")
]


def assert_same(running: Running, status: dict[str, Any], reference: dict[str, Any]) -> None:
    """Model and metrics are those of the reference, and each client was asked once for each round."""
    assert status["model"]["sha256"] == reference["model"]["sha256"]
    assert status["metrics"] == reference["metrics"]
    assert status["summary"]["round"] == f"{MANY}/{MANY}"
    for edge in ("edge-1", "edge-2"):
        assert counting.calls(running.signals, edge) == CALLS


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The status of a training that had all rounds from the beginning."""

    async def play() -> dict[str, Any]:
        async with federation(tmp_path_factory.mktemp("reference"), MANY) as running:
            return await running.completed()

    return asyncio.run(play())


async def test_more_rounds_in_the_last_one(reference: dict[str, Any], tmp_path: Path) -> None:
    """The same model, from the strategy's own state on; no client is started again."""
    async with federation(tmp_path, FEW, ("edge-1.train-3",)) as running:
        client = await running.at_work()
        await running.ask_for(MANY)
        assert await asyncio.to_thread(client.exists)
        (running.signals / "edge-1.train-3").unlink()
        assert_same(running, await running.completed(), reference)


DEATHS = {
    "before it is acted upon": ("aggregator.batch-closed", 6),
    "when it is written": ("aggregator.fact-written", 3),
    "before the first message that follows": ("aggregator.batch-written", 7),
    "after more rounds": ("aggregator.batch-sent", 9),
    "after the last one": ("aggregator.app-ended", 1),
}


@pytest.mark.parametrize("rule", ["", "rounds=1"], ids=["no snapshots", "a snapshot of each round"])
@pytest.mark.parametrize(("place", "visit"), DEATHS.values(), ids=DEATHS)
async def test_an_aggregator_that_dies_after_a_raise(
    place: str,
    visit: int,
    rule: str,
    reference: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another goes on to the same model, and takes the raise for no divergence."""
    plan = tmp_path / "failpoints"
    plan.mkdir()
    (plan / place).write_text(str(visit))
    monkeypatch.setenv(failpoints.VARIABLE, str(plan))
    monkeypatch.setenv(compaction.RULE_VARIABLE, rule)
    async with federation(tmp_path, FEW, ("edge-1.train-3",)) as running:
        await running.at_work()
        await running.ask_for(MANY)
        (running.signals / "edge-1.train-3").unlink()
        assert_same(running, await running.completed(), reference)
    assert (plan / f"{place}.visits").stat().st_size >= visit, "it was killed there"
    log = "".join(path.read_text() for path in (tmp_path / "state" / "logs").glob("aggregator-*"))
    assert ("rounds restored" in log) == bool(rule)


async def test_an_aggregator_that_dies_with_nothing_done_yet(
    reference: dict[str, Any], tmp_path: Path
) -> None:
    """It had only heard of the raise; the next one is told again."""
    async with federation(tmp_path, FEW, ("edge-1.train-3",)) as running:
        await running.at_work()
        await running.ask_for(MANY)
        running.kill_aggregator()
        (running.signals / "edge-1.train-3").unlink()
        assert_same(running, await running.completed(), reference)


async def test_more_rounds_than_an_edge_allows(tmp_path: Path) -> None:
    """It leaves at once, with its policy's reason; the others play them."""
    async with federation(tmp_path, FEW, ("edge-1.train-3",), {"edge-2": FEW}) as running:
        await running.at_work()
        await running.ask_for(MANY)

        def left(status: dict[str, Any]) -> bool:
            return any(entry.get("reason") == "LimitExceeded" for entry in status["clusters"])

        (entry,) = (each for each in (await running.until(left))["clusters"] if each["name"] == "edge-2")
        assert f"allows {FEW} rounds, and the training asks for {MANY}" in entry["message"]
        (running.signals / "edge-1.train-3").unlink()
        status = await running.completed()
        assert status["summary"]["round"] == f"{MANY}/{MANY}"
        assert counting.calls(running.signals, "edge-1") == CALLS
