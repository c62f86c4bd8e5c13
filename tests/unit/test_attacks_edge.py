"""A hub, or an app's author, that turns on an edge; and other users of the machine."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import os
import pathlib
import resource
import subprocess
import sys

import pytest

from edge_agent import assignments, policy, workloads
from federation.api import policy as api
from federation.api import validation
from federation.runtime import port, processes
from federation.telemetry import logs
from federation.wire import hanse_pb2 as pb

DIGEST = "sha256:" + "a" * 64


def assignment(**fields: object) -> pb.Assignment:
    """What a hub asks, well formed unless told otherwise."""
    wanted = {
        "uid": "u",
        "namespace": "cardiology",
        "name": "hospitals",
        "dataset": "heart",
        "app_digest": DIGEST,
        "app": pb.AppSource(bundle=True),
        "aggregator_address": "hub:1",
    }
    return pb.Assignment(**(wanted | fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"aggregator_address": "unix:/run/docker.sock"},
        {"aggregator_address": "dns://8.8.8.8/hub:1"},
        {"aggregator_address": "hub"},
        {"aggregator_address": "hub:1\n"},
        {"app_digest": "sha256:../../identity"},
        {"app_digest": DIGEST + "\n"},
        {"run_config_json": "[" * 100_000},
        {"privacy_json": "[" * 100_000},
        {"privacy_json": "[]"},
        {"run_config_json": "\x00"},
    ],
)
def test_assignments_that_are_none(fields: dict[str, object]) -> None:
    """Foreign schemes of addresses, digests that are paths, JSON that is none: refused in one way."""
    with pytest.raises(assignments.InvalidAssignment):
        assignments.from_wire(assignment(**fields))


def test_names_do_not_become_paths(tmp_path: pathlib.Path) -> None:
    """Whatever uid and name the hub sends, the client's directory lies in its place."""
    places = workloads.Places(tmp_path)
    for uid, name in (("../../x", "../../../etc"), ("/", "/"), ("a\x00b", "é" * 500), ("", "-")):
        read = assignments.Assignment(uid, "cardiology", name, "heart", DIGEST)
        assert places.client(read).parent == tmp_path / "clients"
        assert port.Workload(workloads.name_of(uid, name), ("x",), places.client(read))


def test_an_installed_app_has_no_digest_to_be_allowed_by() -> None:
    """A hub cannot run an installed module under the digest of a bundle that the owner approved."""
    document = {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "EdgePolicy",
        "metadata": {"name": "p", "namespace": "hanse"},
        "spec": {"rules": [{"name": "reviewed", "effect": "Allow", "apps": {"digests": [DIGEST]}}]},
    }
    rules = validation.parse(document, "test")
    assert isinstance(rules, api.EdgePolicy)
    for source, allowed in (
        (pb.AppSource(bundle=True), True),
        (pb.AppSource(installed=pb.InstalledApp(client_app="this:that")), False),
    ):
        read = assignments.from_wire(assignment(app=source))
        request = policy.Request(
            hub="h",
            cluster="zurich",
            namespace=read.namespace,
            training=read.name,
            dataset=read.dataset,
            app_digest=read.proven_digest,
            image="",
        )
        decision = policy.decide(request, [rules], dt.datetime.now(dt.UTC))
        assert isinstance(decision, policy.Allowed) is allowed


async def test_a_clients_environment_holds_no_secret(tmp_path: pathlib.Path) -> None:
    """Of the agent's environment a client gets a short list; keys of clouds and tokens are not on it."""
    mine = {**os.environ, "AWS_SECRET_ACCESS_KEY": "s3cret", "GITHUB_TOKEN": "t0ken", "SSH_AUTH_SOCK": "/x"}
    runtime = processes.Processes(tmp_path / "logs", environment=mine)
    await runtime.start(port.Workload("show", ("/usr/bin/env",), tmp_path / "work"))
    async with asyncio.timeout(60):
        async for event in runtime.events():
            if isinstance(event, port.Exited):
                break
    shown = runtime.log_path("show").read_text()
    assert "PATH=" in shown
    assert not [name for name in ("s3cret", "t0ken", "SSH_AUTH_SOCK") if name in shown]
    assert runtime.log_path("show").stat().st_mode & 0o077 == 0
    await runtime.close(1)


def test_processes_that_hold_keys_keep_to_themselves() -> None:
    """No core files, and files for their user alone; children inherit both."""
    code = (
        "from federation.runtime import hardening; hardening.keep_to_oneself()\n"
        "import subprocess; print(subprocess.check_output(['/bin/sh', '-c', 'umask; ulimit -c']).decode())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [int(said[0], 8), said[1]] == [0o077, "0"]
    assert resource.getrlimit(resource.RLIMIT_CORE)  # this process is left as it was


def test_a_log_line_is_one_line() -> None:
    """Line breaks and escapes of a client stay inside the JSON text of one line."""
    stream = io.StringIO()
    logs.configure("test", stream=stream)
    try:
        logs.get_logger("x").info(
            "said", detail='a\n{"level":"error"}\r\x1b[2J\x00', token="hanse_abc.12345678"
        )
    finally:
        logs.reset()
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert json.loads(line)["token"] == logs.REDACTED
