"""Measuring Hanse: `hanse simulate` on a directory made for the purpose, as a user would run it.

Coordinator, aggregator, edge agents and clients are real processes joined by enrollment over mutual TLS;
each client is a process and a session with a certificate of its own. Rounds are timed by the app, memory by
the kernel.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from simulations import written

ROOT = Path(__file__).resolve().parents[2]
APP = Path(__file__).resolve().parent / "app"
NOTHING_KEPT = Path(__file__).resolve().parent / "nothing_kept"
HOSPITALS = ROOT / "simulations" / "hospitals"
ARRAYS = 10


class BenchError(Exception):
    """A measurement could not be taken; the message says which and why."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One federation that ran to its end."""

    rounds: list[dict[str, float]]
    first_round_seconds: float
    """From the command to the first round."""
    rounds_seconds: float
    """From the first round's beginning to the last one's end."""
    peak_bytes: dict[str, int]
    """By process."""


def no_op(
    directory: Path,
    *,
    clients: int,
    model_bytes: int,
    rounds: int,
    timeout_seconds: float,
    nothing_kept: bool = False,
) -> Run:
    """Run the app that trains nothing, with a model of `model_bytes` in ARRAYS arrays.

    nothing_kept: without the journal and what clients keep, which only a benchmark can do without.
    Raises: BenchError.
    """
    timings = directory / "timings.jsonl"
    write_scenario(directory / "scenario", timings, clients=clients, model_bytes=model_bytes, rounds=rounds)
    began = time.time()
    report = _simulate(directory / "scenario", directory / "run", timeout_seconds, nothing_kept=nothing_kept)
    lines = [json.loads(line) for line in timings.read_text(encoding="utf-8").splitlines()]
    if len(lines) != rounds or any(line["replies"] != clients for line in lines):
        raise BenchError(f"{len(lines)} of {rounds} rounds were whole")
    return Run(
        lines,
        lines[0]["began_unix"] - began,
        lines[-1]["began_unix"] + lines[-1]["seconds"] - lines[0]["began_unix"],
        report["peakMemoryBytes"],
    )


def hospitals(directory: Path, *, timeout_seconds: float = 120.0) -> Run:
    """Run simulations/hospitals as it is; its rounds are timed together, by the aggregator's log.

    Raises: BenchError.
    """
    began = time.time()
    report = _simulate(HOSPITALS, directory / "run", timeout_seconds)
    log = (directory / "run" / "logs" / "aggregator.log").read_text(encoding="utf-8")
    said = {line["event"]: line["timestamp"] for line in map(json.loads, log.splitlines())}
    try:
        started, ended = (
            dt.datetime.fromisoformat(said[event]).timestamp()
            for event in ("server app starts", "training finished")
        )
    except KeyError as error:
        raise BenchError(f"the aggregator's log does not say {error}") from None
    return Run([], started - began, ended - started, report["peakMemoryBytes"])


def write_scenario(directory: Path, timings: Path, *, clients: int, model_bytes: int, rounds: int) -> None:
    """Write the manifests of a federation that moves a model of `model_bytes` to and fro."""
    names = [f"edge-{number:02d}" for number in range(1, clients + 1)]
    directory.mkdir(parents=True)
    shutil.copytree(APP, directory / "app", ignore=shutil.ignore_patterns("__pycache__"))
    training = {
        "app": {
            "source": {"path": "app"},
            "runConfig": {
                "num-server-rounds": rounds,
                "array-count": ARRAYS,
                "array-bytes": model_bytes // ARRAYS,
                "timings-file": str(timings),
            },
        },
        "dataset": "nothing",
        "clusters": {"minimum": clients},
        "round": {"deadlineSeconds": 600},
    }
    clusters = [written.resource("EdgeCluster", name, None, {"acceptance": "Accepted"}) for name in names]
    written.write(
        directory / "training.yaml", [written.resource("FederatedTraining", "no-op", "bench", training)]
    )
    written.write(directory / "clusters.yaml", clusters)
    dataset = {"name": "nothing", "volume": {"configMap": {"name": "nothing"}}, "mountPath": "/data"}
    rule = {
        "name": "bench",
        "effect": "Allow",
        "trainings": [{"namespace": "bench", "name": "*"}],
        "datasets": ["nothing"],
    }
    for name in names:
        edge = directory / "edges" / name
        edge.mkdir(parents=True)
        written.write(
            edge / "edge.yaml",
            [
                written.resource("EdgeDataset", "nothing", "hanse", dataset),
                written.resource("ConfigMap", "nothing", "hanse")
                | {"apiVersion": "v1", "data": {"note": "no data"}},
                written.resource("EdgePolicy", "bench", "hanse", {"rules": [rule]}),
            ],
        )


def _simulate(
    scenario: Path, results: Path, timeout_seconds: float, *, nothing_kept: bool = False
) -> dict[str, Any]:
    command = [sys.executable, "-m", "coordinator.cli.main", "simulate", str(scenario)]
    options = ["--keep", str(results), "--timeout", f"{timeout_seconds:g}", "-o", "json"]
    environment = dict(os.environ)
    if nothing_kept:
        paths = (str(NOTHING_KEPT), os.environ.get("PYTHONPATH", ""))
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    ended = subprocess.run(
        [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    try:
        report: dict[str, Any] = json.loads(ended.stdout)
    except json.JSONDecodeError:
        last = (ended.stderr or ended.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise BenchError(f"hanse simulate ended with {ended.returncode}: {last[0]}") from None
    if report["state"] != "Completed":
        raise BenchError(f"the training ended as {report['state']}: {report['message']}")
    return report
