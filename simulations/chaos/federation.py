"""A federation whose processes may be killed: whoever dies is started again, as a cluster would.

Coordinator and agents are children of the harness; aggregator and clients are started again by these, as
always. Between edges and hub, and between clients and aggregator, everything passes a proxy.
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
import time
from pathlib import Path
from typing import Any

from coordinator import config as coordinator_config
from coordinator.aggregator import compaction
from coordinator.issuing import tokens
from federation.runtime import failpoints
from simulations.chaos import faults, proxy, scenario
from simulations.local import processes, story
from simulations.local import scenario as scenarios

CONTROL_PORT, ENROLLMENT_PORT, EXCHANGE_PORT = 7443, 7444, 7445
START_SECONDS = 60.0
RESTART_SECONDS = 0.3
"""What kubelet or an init system takes at least."""

LEAVE_SECONDS = 45.0
"""After the end aggregator and clients go by themselves; a link that was forgotten may take 30 s of it."""

ROOT = Path(__file__).resolve().parents[2]
CLOCK = ROOT / "simulations" / "chaos" / "clock"

MODULES = {
    "coordinator": "coordinator",
    "aggregator": "coordinator.aggregator",
    "agent": "edge_agent",
    "client": "edge_agent.client",
}


@dataclasses.dataclass(frozen=True)
class Hosts:
    """Addresses of a run's own on the loopback: where processes listen, and what others are told to dial."""

    listening: str
    dialled: str

    @classmethod
    def of(cls, slot: int) -> Hosts:
        """Return those of one of the runs that go on at the same time, up to 60."""
        rest = f"{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
        return cls(f"127.{64 + slot}.{rest}", f"127.{128 + slot}.{rest}")


class FederationLost(Exception):
    """The harness cannot go on; the text says which process is why."""


class Federation:
    """One run's processes. `start`, `ended`, `left`, `stop`."""

    def __init__(self, places: scenario.Places, plan: faults.Plan, hosts: Hosts) -> None:
        """Write the manifests; nothing runs yet."""
        self._places = places
        self._plan = plan
        self._hosts = hosts
        self._scenario = scenario.write(places, plan.shape)
        self.status: dict[str, Any] = {}
        """The training's, as the coordinator published it last."""
        self.restarts = {"coordinator": 0, "agent": 0}
        ports = {"control": CONTROL_PORT, "exchange": EXCHANGE_PORT}
        self.links = {name: proxy.Proxy(hosts.listening, port) for name, port in ports.items()}
        self._final = asyncio.Event()
        self._children: dict[str, processes.Child] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._pin = ""

    @property
    def edges(self) -> list[str]:
        """The names of the edges."""
        return [edge.name for edge in self._scenario.edges]

    async def start(self) -> None:
        """Start coordinator and agents. Raises: FederationLost, OSError."""
        self._places.logs.mkdir(exist_ok=True)
        for link in self.links.values():
            await link.start(self._hosts.dialled, link.port)
        self._write_coordinator()
        await self._start("coordinator")
        endpoints = await self._endpoints()
        self._pin = endpoints["ca_pin"]
        for edge in self._scenario.edges:
            self._write_agent(edge)
            await self._start(edge.name)

    async def ended(self) -> None:
        """Return when the training's status is final. Raises: FederationLost."""
        final = asyncio.create_task(self._final.wait())
        try:
            while not final.done():
                watching = {task for task in self._tasks if not task.done()}
                done, _ = await asyncio.wait({final, *watching}, return_when=asyncio.FIRST_COMPLETED)
                for task in done - {final}:
                    task.result()
        finally:
            final.cancel()

    async def left(self) -> list[str]:
        """Wait until aggregator and clients have gone by themselves; return what has not."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while found := [*self.pids("aggregator"), *self.pids("client")]:
            if time.monotonic() > deadline:
                return [f"process {pid} is left after the end" for pid in found]
            await asyncio.sleep(0.05)
        return []

    async def stop(self) -> None:
        """End everything at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(200):
            found = [pid for role in MODULES for pid in self.pids(role)]
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not found:
                break
            await asyncio.sleep(0.02)
        for child in self._children.values():
            await child.process.wait()
        for link in self.links.values():
            await link.stop()

    def pids(self, role: str) -> list[int]:
        """The living processes of a role, those of the first edge first."""
        tag = f"{failpoints.VARIABLE}={self._places.failpoints}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                if b"-m" not in arguments or MODULES[role].encode() not in arguments:
                    continue
                zombie = (entry / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if tag in (entry / "environ").read_bytes().split(b"\0") and not zombie:
                    found.append((arguments, int(entry.name)))
        return [pid for _, pid in sorted(found)]

    # -- processes -------------------------------------------------------------------------------

    async def _start(self, name: str) -> None:
        extra = {failpoints.VARIABLE: str(self._places.failpoints)}
        if self._plan.snapshots:
            extra[compaction.RULE_VARIABLE] = "rounds=1"
        if any(fault.kind == "clock" for fault in self._plan.faults):
            extra["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, CLOCK)))
        is_hub = name == "coordinator"
        directory = self._places.coordinator if is_hub else self._places.edge(name)
        module = MODULES["coordinator" if is_hub else "agent"]
        self._children[name] = await processes.start(
            name, module, directory / "config.json", self._places.logs, read_stdout=is_hub, extra=extra
        )
        self._tasks.append(asyncio.create_task(self._watch_hub() if is_hub else self._watch_agent(name)))

    async def _watch_agent(self, name: str) -> None:
        await self._children[name].process.wait()
        await self._start_again("agent", name)

    async def _watch_hub(self) -> None:
        child = self._children["coordinator"]
        assert child.process.stdout is not None
        while line := await child.process.stdout.readline():
            try:
                resource = json.loads(line).get("object", {})
            except ValueError:  # it was killed in the middle of a line
                continue
            if resource.get("kind") == "FederatedTraining" and resource.get("status"):
                self.status = resource["status"]
                if self.status.get("phase") in story.FINAL_PHASES:
                    self._final.set()
        await child.process.wait()
        await self._start_again("coordinator", "coordinator")

    async def _start_again(self, role: str, name: str) -> None:
        if self._final.is_set():  # a hub of processes would begin the training anew
            return
        self.restarts[role] += 1
        if self.restarts[role] > scenario.MAXIMUM_RESTARTS:
            tail = self._children[name].log_tail(1)
            raise FederationLost(f"{name} ends again and again: {tail[0] if tail else 'it said nothing'}")
        await asyncio.sleep(RESTART_SECONDS)
        await self._start(name)

    async def _endpoints(self) -> dict[str, str]:
        path = self._places.coordinator / "state" / "endpoints.json"
        deadline = time.monotonic() + START_SECONDS
        while not path.exists():
            if time.monotonic() > deadline:
                raise FederationLost("the coordinator opens no port")
            await asyncio.sleep(0.02)
        found: dict[str, str] = json.loads(path.read_text())
        return found

    # -- configurations --------------------------------------------------------------------------

    def _write_coordinator(self) -> None:
        directory = self._places.coordinator
        directory.mkdir(mode=0o700, exist_ok=True)
        scenarios.write_hub(self._scenario, directory / "hub.yaml")
        expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
        records = []
        for edge in self.edges:
            random_bytes = secrets.token_bytes(tokens.ID_BYTES + tokens.SECRET_BYTES)
            token, record = tokens.create(random_bytes, expires_at=expires_at, cluster=edge, approves=True)
            _write_private(self._places.root / f"{edge}.token", token.text + "\n")
            records.append(coordinator_config.JoinToken.of(record).model_dump(mode="json"))
        config = {
            "trust_domain": "hanse.local",
            "state_directory": str(directory / "state"),
            "enrollment_listen": f"{self._hosts.listening}:{ENROLLMENT_PORT}",
            "control_listen": f"{self._hosts.listening}:{CONTROL_PORT}",
            "aggregator_listen": f"{self._hosts.listening}:{EXCHANGE_PORT}",
            "advertised_host": self._hosts.dialled,
            "resources": [str(directory / "hub.yaml")],
            "join_tokens": records,
            "link_grace_seconds": self._plan.grace_seconds,
            "model_store": self._places.models.as_uri(),
            "publish_changes": True,
        }
        _write_private(directory / "config.json", json.dumps(config))

    def _write_agent(self, edge: scenarios.Edge) -> None:
        directory = self._places.edge(edge.name)
        scenarios.write_edge(edge, directory / "resources")
        config = {
            "cluster": edge.name,
            "enrollment_address": f"{self._hosts.listening}:{ENROLLMENT_PORT}",
            "token_file": str(self._places.root / f"{edge.name}.token"),
            "ca_pin": self._pin,
            "trust_domain": "hanse.local",
            "resource_directory": str(directory / "resources"),
            "state_directory": str(directory / "state"),
            "log_level": "DEBUG",  # the clients' too: what they were asked and have kept is judged by it
        }
        _write_private(directory / "config.json", json.dumps(config))


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
