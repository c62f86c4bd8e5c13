"""The edge agent as the process that it is: started by its module, with a real client below it."""

import asyncio
import json
import os
import pathlib
import select
import signal
import sys

import pytest

from federation.trust import tls
from tests.loopback import test_agent_link as loopback

hub = loopback.hub
ROOT = pathlib.Path(__file__).parents[2]
CLIENT = "from flwr.clientapp import ClientApp\n\napp = ClientApp()\n"
PROJECT = """
[project]
name = "x"
version = "1"
[tool.flwr.app]
publisher = "x"
[tool.flwr.app.components]
clientapp = "client:app"
serverapp = "client:app"
"""


def wait_until_gone(pid_descriptor: int) -> None:
    """Block until the process behind a pidfd is gone."""
    assert select.select([pid_descriptor], [], [], loopback.PATIENCE_SECONDS)[0]
    os.close(pid_descriptor)


def write_config(tmp_path: pathlib.Path, the_hub: loopback.Hub, address: str) -> pathlib.Path:
    """Write what the agent needs, and make its app a real Flower app."""
    source = tmp_path / "flower-app"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "client.py").write_text(CLIENT)
    the_hub.app = loopback.bundle.pack(source)
    edge = loopback.Edge(tmp_path, the_hub, address)
    path = tmp_path / "agent.json"
    config = {
        "cluster": "budapest",
        "enrollment_address": address,
        "token_file": str(edge.invitation.token_file),
        "ca_pin": the_hub.authority.pin,
        "trust_domain": "hanse.local",
        "resource_directory": str(edge.declared),
        "state_directory": str(tmp_path / "state"),
    }
    path.write_text(json.dumps(config))
    return path


async def start(config: pathlib.Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "edge_agent", "--config", str(config)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, tls.VARIABLE: ""},  # the agent sets it by itself
    )


async def client_of(agent: asyncio.subprocess.Process) -> int:
    """Read the agent's log up to the start of its client; return a pidfd of it."""
    assert agent.stderr is not None
    async with asyncio.timeout(loopback.PATIENCE_SECONDS):
        async for line in agent.stderr:
            event = json.loads(line)
            if event["event"] == "client started":
                return os.pidfd_open(int(event["pid"]))
    raise AssertionError("the agent's log ended")


@pytest.mark.process
@pytest.mark.parametrize("how", ["terminated", "killed", "lifeline closed", "sent away"])
async def test_no_client_outlives_its_agent(hub, tmp_path: pathlib.Path, how: str) -> None:
    """However the agent ends, its clients end too; asked to end, it ends with 0."""
    the_hub, address = hub
    config = await asyncio.to_thread(write_config, tmp_path, the_hub, address)
    the_hub.want(the_hub.assignment())
    agent = await start(config)
    try:
        client = await client_of(agent)
        await the_hub.hear_state("RUNNING")
        if how == "terminated":
            agent.terminate()
        elif how == "killed":
            agent.kill()
        elif how == "lifeline closed":
            agent.stdin.close()
        else:
            goodbye = loopback.hanse_pb2.Goodbye(reason="Expelled", message="expelled", may_return=False)
            the_hub.to_say.put_nowait(loopback.hanse_pb2.HubMessage(goodbye=goodbye))
        await asyncio.to_thread(wait_until_gone, client)
        await agent.communicate()
        want = {"killed": -signal.SIGKILL, "sent away": 3}.get(how, 0)
        assert agent.returncode == want
        assert how == "killed" or not await asyncio.to_thread((tmp_path / "state" / "data").exists)
    finally:
        if agent.returncode is None:
            agent.kill()
            await agent.wait()
