"""Measuring the bare channel: its processes started, its rounds read."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from simulations.bench import channel, credentials, processes
from simulations.bench.hanse import ROOT

CLIENTS = 2
_START_SECONDS = 60.0


def rounds(
    directory: Path, *, model_bytes: int, number: int, timeout_seconds: float
) -> list[dict[str, float]]:
    """Move the bytes of `number` rounds over gRPC with mutual TLS, between a server and CLIENTS client
    processes.

    Raises: BenchError.
    """
    directory.mkdir(parents=True)
    authority = credentials.Authority()
    authority.server(directory / "server", channel.SERVER_NAME)
    port_file = directory / "port"
    config = {
        "clients": CLIENTS,
        "rounds": number,
        "model_bytes": model_bytes,
        "credentials": str(directory / "server"),
        "port_file": str(port_file),
    }
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    with processes.Group(directory, environment) as group:

        def start(name: str, role: str, settings: dict[str, object]) -> None:
            file = directory / f"{name}.json"
            file.write_text(json.dumps(settings), encoding="utf-8")
            group.start(name, [sys.executable, "-m", "simulations.bench.channel", role, str(file)])

        start("server", "server", config)
        group.wait_until(
            lambda: port_file.exists() and bool(port_file.read_text()), "the channel", _START_SECONDS
        )
        address = f"127.0.0.1:{port_file.read_text(encoding='ascii')}"
        names = [f"client-{index}" for index in range(1, CLIENTS + 1)]
        for name in names:
            authority.client(directory / name, name)
            start(name, "client", config | {"credentials": str(directory / name), "address": address})
        group.wait_until(
            lambda: len(_lines(group.said("server"))) >= number,
            "the channel's rounds",
            timeout_seconds,
            may_end=("server", *names),
        )
        return _lines(group.said("server"))


def _lines(said: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in said.splitlines() if line.startswith("{") and line.endswith("}")]
