"""Aggregators that are killed when old rounds are gone from their journal: the model is the same.

A snapshot is taken at the end of each round here, where a real training has one every few hundred megabytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.aggregator import compaction
from federation.runtime import failpoints
from tests.process import counting, federations, running

pytestmark = [pytest.mark.process, pytest.mark.slow]

EACH_ROUND = {compaction.RULE_VARIABLE: "rounds=1"}

SERVER_APP = '''
"""Runs the strategy that the run config names, and writes down all that it returns."""

import json
import os
import pathlib

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import ServerApp, strategy

app = ServerApp()


class Decaying(strategy.FedAvgM):
    """Lowers the clients' learning rate, and counts its rounds."""

    rounds = ()

    def configure_train(self, server_round, arrays, config, grid):
        self.rounds = (*self.rounds, server_round)
        config["lr"] = float(config["lr"]) / 2
        return super().configure_train(server_round, arrays, config, grid)


def built(name):
    ask = {"min_train_nodes": 2, "min_evaluate_nodes": 2, "min_available_nodes": 2}
    match name:
        case "Decaying":
            return Decaying(**ask, server_learning_rate=0.9, server_momentum=0.7)
        case "Private":
            return strategy.DifferentialPrivacyServerSideAdaptiveClipping(
                strategy.FedAdam(**ask), noise_multiplier=0.3, num_sampled_clients=2, clipped_count_stddev=1.0
            )
    return getattr(strategy, name)(**ask)


@app.main()
def main(grid, context):
    best = {"round": -1, "sum": -1e9}
    seen = 0

    def evaluate(number, arrays):
        nonlocal seen
        seen += 1
        total = float(sum(np.abs(array.numpy()).sum() for array in arrays.values()))
        if total > best["sum"]:
            best.update(round=number, sum=total)
        drawn = float(np.random.default_rng(np.random.randint(1 << 30)).random())
        return MetricRecord({"sum": total, "drawn": drawn, "seen": seen})

    made = built(context.run_config["strategy"])
    # Two starts, one after the other: the second goes on from what the first came to.
    arrays = ArrayRecord({"w": Array(np.zeros((40, 30), np.float32)), "large": Array(np.zeros(5000))})
    told = []
    for rounds in (2, int(context.run_config["rounds"])):
        result = made.start(
            grid=grid,
            initial_arrays=arrays,
            num_rounds=rounds,
            train_config=ConfigRecord({"lr": 0.5}),
            evaluate_fn=evaluate,
        )
        arrays = result.arrays
        told += [result.train_metrics_clientapp, result.evaluate_metrics_clientapp]
        told += [result.evaluate_metrics_serverapp]
    told = [{number: dict(record) for number, record in metrics.items()} for metrics in told]
    told += [best, list(getattr(made, "rounds", ())), seen]
    pathlib.Path(context.run_config["signals"], "result.json").write_text(json.dumps(told))
'''

LONG_SERVER_APP = '''
"""Many rounds of a model of 800 kB; writes down how large the journal is, and what is aggregated."""

import pathlib

import numpy as np
from flwr.app import Array, ArrayRecord
from flwr.serverapp import ServerApp, strategy

app = ServerApp()


class Counting(strategy.FedAvg):
    def __init__(self, signals):
        super().__init__(min_train_nodes=2, min_evaluate_nodes=2, min_available_nodes=2)
        self.signals = signals

    def aggregate_train(self, server_round, replies):
        kept = [path.stat().st_size for path in pathlib.Path("../journal").rglob("*") if path.is_file()]
        with pathlib.Path(self.signals, "rounds").open("a") as file:
            file.write(f"{server_round} {sum(kept)}\\n")
        return super().aggregate_train(server_round, replies)


@app.main()
def main(grid, context):
    Counting(context.run_config["signals"]).start(
        grid=grid,
        initial_arrays=ArrayRecord({"large": Array(np.zeros(100_000))}),
        num_rounds=int(context.run_config["rounds"]),
    )
'''

ROUNDS = 6


def scenario(place: Path, strategy: str, server_app: str = SERVER_APP, rounds: int = ROUNDS) -> Path:
    """Two edges whose app counts its calls, and a ServerApp with that strategy."""
    (place / "signals").mkdir(exist_ok=True)
    config = {"rounds": rounds, "signals": str(place / "signals"), "strategy": strategy}
    spec = {"app": {"source": {"path": "app"}, "runConfig": config}, "clusters": {"minimum": 2}}
    pyproject = federations.PYPROJECT.replace('signals = ""', 'signals = ""\nstrategy = ""')
    written = federations.Federation(
        federations.honest(2), spec, server_app, counting.CLIENT_APP, pyproject=pyproject
    )
    return written.write(place / "scenario")


def killed(place: Path, start: Any, path: Path, deaths: dict[str, int], rule: dict[str, str]) -> running.Run:
    """A run whose aggregator dies at these places."""
    plan = place / "failpoints"
    plan.mkdir()
    for name, number in deaths.items():
        (plan / name).write_text(str(number))
    environment = rule | {failpoints.VARIABLE: str(plan)}
    run: running.Run = start(
        "simulate", path, "-o", "json", "--keep", place / "kept", environment=environment
    )
    assert run.wait() == 0, run.told()
    for name, number in deaths.items():
        assert (plan / f"{name}.visits").stat().st_size >= number, "it was killed there"
    return run


def restored(place: Path) -> list[int]:
    """The rounds that aggregators went on after without aggregating them again."""
    log = (place / "kept" / "logs" / "aggregator.log").read_text()
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return [line["round"] for line in lines if line["event"] == "rounds restored"]


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam", "Decaying", "Private"])
def test_the_same_model_from_a_snapshot(strategy: str, tmp_path: Path, start: Any) -> None:
    """Model, metrics, the Result of each start, and what the app's own variables hold."""
    for name in ("reference", "killed"):
        (tmp_path / name).mkdir()
    whole = running.simulate(tmp_path / "reference", scenario(tmp_path / "reference", strategy))
    assert whole.process.returncode == 0, whole.told()
    deaths = {"aggregator.batch-sent": 8, "aggregator.batch-closed": 13, "aggregator.snapshot-counts": 5}
    path = scenario(tmp_path / "killed", strategy)
    run = killed(tmp_path / "killed", start, path, deaths, EACH_ROUND)
    results = [(tmp_path / name / "signals" / "result.json").read_text() for name in ("reference", "killed")]
    assert results[0] == results[1]
    assert run.report["model"]["sha256"] == whole.report["model"]["sha256"]
    assert run.report["metrics"] == whole.report["metrics"]
    for edge in ("edge-1", "edge-2"):
        calls = [counting.calls(tmp_path / name / "signals", edge) for name in ("reference", "killed")]
        assert calls[0] == calls[1]
    assert len(restored(tmp_path / "killed")) >= 3, "it went on from snapshots"


def test_neither_the_journal_nor_going_on_grows_with_the_rounds(tmp_path: Path, start: Any) -> None:
    """Of 40 rounds with 64 MB of replies the journal never has a third, and few are aggregated again."""
    rounds, mega = 40, 1_000_000
    path = scenario(tmp_path, "", LONG_SERVER_APP, rounds)
    rule = {compaction.RULE_VARIABLE: f"replies_bytes={4 * mega},times_its_size=4,rounds=1000"}
    killed(tmp_path, start, path, {"aggregator.app-ended": 1}, rule)
    lines = (tmp_path / "signals" / "rounds").read_text().splitlines()
    seen = [(int(number), int(size)) for number, size in (line.split() for line in lines)]
    assert [number for number, _ in seen[:rounds]] == list(range(1, rounds + 1))
    assert max(size for _, size in seen) < 21 * mega
    (known,) = restored(tmp_path)
    assert known > rounds / 2
    again = [number for number, _ in seen[rounds:]]
    assert again == list(range(known + 1, rounds + 1))
