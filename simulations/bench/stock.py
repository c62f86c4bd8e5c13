"""Measuring stock Flower: the very app that Hanse runs, on flower-superlink, two flower-supernode and `flwr
run`.

As Flower's documentation starts them: TLS with server certificates (client certificates it does not take),
processes for apps started by Flower itself. Telemetry is off, dependencies are not installed, FLWR_HOME and
the app's copy are temporary. The simulation engine runs the hospitals on Ray, four simulated clients.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from simulations.bench import credentials, processes
from simulations.bench.hanse import APP, ARRAYS, HOSPITALS, BenchError

START_SECONDS = 90.0


def no_op(
    directory: Path, *, model_bytes: int, rounds: int, timeout_seconds: float
) -> list[dict[str, float]]:
    """Run the app that trains nothing with two clients; returns what it wrote about its rounds.

    A run that is not done in time gives the rounds that it has done, at least two.
    Raises: BenchError.
    """
    directory.mkdir(parents=True)
    credentials.Authority().loopback_files(directory)
    home, timings = directory / "home", directory / "timings.jsonl"
    home.mkdir()
    port = _free_port()
    authority = str(directory / "ca.crt")
    home.joinpath("config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "localhost:{port}"\n'
        f"root-certificates = {json.dumps(authority)}\n",
        encoding="utf-8",
    )
    shutil.copytree(APP, directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
    tls = ["--ssl-ca-certfile", authority, "--ssl-certfile", str(directory / "tls.crt")]
    tls += ["--ssl-keyfile", str(directory / "tls.key"), "--host", "127.0.0.1"]

    def done() -> bool:
        return timings.exists() and len(_lines(timings)) >= rounds

    with processes.Group(directory, environment(home)) as group:
        superlink = [_tool("flower-superlink"), "--port", str(port), *tls]
        group.start("superlink", [*superlink, "--disable-runtime-dependency-installation"])
        group.wait_until(lambda: _listens(port, authority), "flower-superlink", START_SECONDS)
        for number in (1, 2):
            link = ["--superlink", f"localhost:{port}", "--root-certificates", authority]
            group.start(
                f"supernode-{number}", [_tool("flower-supernode"), *link, "--port", str(_free_port()), *tls]
            )
        config = f"num-server-rounds={rounds} array-count={ARRAYS} array-bytes={model_bytes // ARRAYS}"
        run = [_tool("flwr"), "run", str(directory / "app"), "bench", "--stream", "--run-config"]
        group.start("run", [*run, f"{config} timings-file={json.dumps(str(timings))}"])
        try:
            group.wait_until(done, "stock Flower's rounds", timeout_seconds, may_end=("run",))
        except BenchError:
            if not timings.exists() or len(_lines(timings)) < 2:
                raise
    return [line for line in _lines(timings) if line["replies"] == 2]


def hospitals(directory: Path, *, rounds: int, timeout_seconds: float) -> list[dict[str, float]]:
    """Run the hospitals' app in Flower's own simulation engine, for `rounds` rounds.

    Raises: BenchError, also where the engine (flwr[simulation], Ray) is not installed.
    """
    directory.mkdir(parents=True)
    home = directory / "home"
    home.mkdir()
    shutil.copytree(HOSPITALS / "app", directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
    config = {
        "app": str(directory / "app"),
        "edges": str(HOSPITALS / "edges"),
        "rounds": rounds,
        "timings": str(directory / "timings.jsonl"),
    }
    directory.joinpath("config.json").write_text(json.dumps(config), encoding="utf-8")
    script = Path(__file__).with_name("ray_hospitals.py")
    command = [sys.executable, "-P", str(script), str(directory / "config.json")]
    try:
        ended = subprocess.run(
            command, cwd=directory, env=environment(home), capture_output=True, text=True,
            timeout=timeout_seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"Flower's simulation was not done after {timeout_seconds:g} s") from None
    timings = directory / "timings.jsonl"
    if ended.returncode or not timings.exists():
        last = ended.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise BenchError(f"Flower's simulation ended with {ended.returncode}: {last[0]}")
    return _lines(timings)


def environment(home: Path) -> Mapping[str, str]:
    """The environment of a process of stock Flower: nothing of Hanse in it, no telemetry."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "GRPC_SSL_CIPHER_SUITES")
    }
    tools = str(Path(sys.executable).parent)
    return kept | {
        "FLWR_HOME": str(home),
        "HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": os.pathsep.join((tools, os.environ.get("PATH", os.defpath))),
    }


def _lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def _tool(name: str) -> str:
    found = Path(sys.executable).with_name(name)
    if not found.exists():
        raise BenchError(f"{name} is not installed beside {sys.executable}; install flwr")
    return str(found)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int, authority: str) -> bool:
    context = ssl.create_default_context(cafile=authority)
    try:
        with (
            socket.create_connection(("127.0.0.1", port), 1.0) as link,
            context.wrap_socket(link, server_hostname="localhost"),
        ):
            return True
    except OSError:
        return False
