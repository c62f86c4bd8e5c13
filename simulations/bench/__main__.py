"""`python -m simulations.bench [--quick] [-o json]`: everything side by side, in one run, on this machine.

Why it exists: figures of different days and machines say little; ratios of one run do. Repetitions of the
peers are taken in turn, so that a busy minute does not fall on one of them. A measurement that cannot be
taken is left out and named, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulations.bench import bare, figures, hanse, machine, report, stock

PAGE = hanse.ROOT / "docs" / "benchmarks.md"
RESULTS = hanse.ROOT / "bench-results" / "bench.json"
MB = report.MB


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured: rounds by model size, repetitions, (model, clients) for memory."""

    rounds: dict[int, int]
    stock_rounds: dict[int, int]
    repetitions: int
    memory: tuple[tuple[int, int], ...]
    hospitals: int
    simulation: bool


FULL = Plan(
    rounds={1 * MB: 60, 100 * MB: 8},
    stock_rounds={1 * MB: 4, 100 * MB: 3},
    repetitions=3,
    memory=((10 * MB, 2), (10 * MB, 8), (10 * MB, 32), (100 * MB, 2), (100 * MB, 8)),
    hospitals=3,
    simulation=True,
)
QUICK = Plan(
    rounds={1 * MB: 40, 100 * MB: 4},
    stock_rounds={1 * MB: 2},
    repetitions=1,
    memory=((10 * MB, 8),),
    hospitals=1,
    simulation=False,
)


class Bench:
    """One run of the benchmark."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        """Take what to measure and where to put what the processes write."""
        self._plan = plan
        self._directory = directory
        self._runs = 0
        self._left_out: list[str] = []
        self._peaks: dict[tuple[int, int], int] = {}

    def run(self) -> dict[str, Any]:
        """Measure everything; the result is what `-o json` prints.

        Keys: machine; round_seconds (hanse, nothing_kept, flower, channel: entries with model_bytes, median,
        lowest, highest, number); aggregator_peak_bytes (model_bytes, clients, peak_bytes); hospitals;
        targets; left_out.
        """
        described = machine.describe(dt.datetime.now(dt.UTC))
        rounds = self._rounds()
        results: dict[str, Any] = {
            "machine": described,
            "round_seconds": rounds,
            "aggregator_peak_bytes": self._memory(),
            "hospitals": self._hospitals(),
            "left_out": self._left_out,
        }
        results["targets"] = [
            {**dataclasses.asdict(target), "verdict": target.verdict} for target in report.targets(results)
        ]
        return results

    def _rounds(self) -> dict[str, list[dict[str, Any]]]:
        taken: dict[tuple[str, int], list[dict[str, float]]] = {}

        def take(name: str, size: int, number: int, at: Path) -> None:
            match name:
                case "channel":
                    lines = bare.rounds(at, model_bytes=size, number=number, timeout_seconds=120)
                case "hanse" | "nothing_kept":
                    run = hanse.no_op(
                        at,
                        clients=2,
                        model_bytes=size,
                        rounds=number,
                        timeout_seconds=300,
                        nothing_kept=name == "nothing_kept",
                    )
                    lines = run.rounds
                    if name == "hanse":
                        self._remember(size, 2, run)
                case _:
                    lines = stock.no_op(at, model_bytes=size, rounds=number, timeout_seconds=60.0 * number)
            taken.setdefault((name, size), []).extend(lines[1:])

        for repetition in range(1, self._plan.repetitions + 1):
            for size, number in self._plan.rounds.items():
                of = f"{size // MB} MB, {repetition} of {self._plan.repetitions}"
                for name, words in (
                    ("channel", "the bare channel"),
                    ("hanse", "Hanse"),
                    ("nothing_kept", "Hanse that keeps nothing for a crash"),
                ):
                    self._measure(f"{words}, {of}", functools.partial(take, name, size, number))
        for size, number in self._plan.stock_rounds.items():
            what = f"stock Flower, {size // MB} MB (its rounds take long)"
            self._measure(what, functools.partial(take, "flower", size, number))
        for size in self._plan.rounds.keys() - self._plan.stock_rounds.keys():
            self._left_out.append(f"stock Flower, {size // MB} MB: not part of --quick")
        found: dict[str, list[dict[str, Any]]] = {
            name: [] for name in ("hanse", "nothing_kept", "flower", "channel")
        }
        for (name, size), lines in sorted(taken.items()):
            with contextlib.suppress(ValueError):
                measured = figures.spread([line["seconds"] for line in lines])
                found[name].append({"model_bytes": size} | dataclasses.asdict(measured))
        return found

    def _remember(self, size: int, clients: int, run: hanse.Run) -> None:
        key, peak = (size, clients), run.peak_bytes["aggregator"]
        self._peaks[key] = max(self._peaks.get(key, 0), peak)

    def _memory(self) -> list[dict[str, int]]:
        """Peaks by model and clients; what the rounds' own runs have shown already is not run again."""

        def measure(size: int, clients: int, at: Path) -> None:
            run = hanse.no_op(at, clients=clients, model_bytes=size, rounds=4, timeout_seconds=600)
            self._remember(size, clients, run)

        for size, clients in self._plan.memory:
            # Each client process holds a few models, each agent and client about 100 MB besides.
            needed, there = clients * (200 * MB + 7 * size), machine.available_bytes()
            what = f"the aggregator's memory, {clients} clients, {size // MB} MB"
            if (size, clients) in self._peaks:
                continue
            if there is not None and there < needed:
                short = f"{needed / 1e9:.0f} GB of memory are needed, {there / 1e9:.0f} are free"
                self._left_out.append(f"{what}: {short}")
            else:
                self._measure(what, functools.partial(measure, size, clients))
        return [
            {"model_bytes": size, "clients": clients, "peak_bytes": peak}
            for (size, clients), peak in sorted(self._peaks.items())
        ]

    def _hospitals(self) -> dict[str, Any]:
        first: list[float] = []
        rounds: list[float] = []
        found: dict[str, Any] = {}

        def measure(at: Path) -> None:
            run = hanse.hospitals(at)
            first.append(run.first_round_seconds)
            rounds.append(run.rounds_seconds)

        for repetition in range(1, self._plan.hospitals + 1):
            self._measure(
                f"hanse simulate simulations/hospitals, {repetition} of {self._plan.hospitals}", measure
            )
        if first:
            found["first_round_seconds"] = dataclasses.asdict(figures.spread(first))
            found["rounds_seconds"] = dataclasses.asdict(figures.spread(rounds))
        if self._plan.simulation:

            def simulate(at: Path) -> None:
                lines = stock.hospitals(at, rounds=20, timeout_seconds=300)
                one = figures.after_the_first(lines)
                found["flower_simulation_round_seconds"] = dataclasses.asdict(one)
                begun = figures.spread([lines[0]["seconds"]])
                found["flower_simulation_first_round_seconds"] = dataclasses.asdict(begun)

            self._measure("Flower's own simulation of the hospitals (Ray)", simulate)
        else:
            self._left_out.append("Flower's own simulation (Ray): not part of --quick")
        return found

    def _measure(self, what: str, measure: Callable[[Path], object]) -> None:
        self._runs += 1
        began = time.monotonic()
        print(f"{what} ...", end=" ", file=sys.stderr, flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="hanse-bench-", dir=self._directory) as temporary:
                measure(Path(temporary) / "run")
        except (hanse.BenchError, OSError, ValueError) as error:
            self._left_out.append(f"{what}: {error}")
            print(f"left out: {error}", file=sys.stderr, flush=True)
        else:
            print(f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, write docs/benchmarks.md and bench-results/bench.json, print the table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m simulations.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="within two minutes; docs/benchmarks.md is left as it is"
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text", help="what to print")
    parser.add_argument("--note", default="", help="a remark on the machine, e.g. what else ran on it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hanse-bench-") as directory:
        results = Bench(QUICK if arguments.quick else FULL, Path(directory)).run()
    if arguments.note:
        results["machine"]["note"] = arguments.note
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    table = report.markdown(results)
    if not arguments.quick:
        PAGE.write_text(report.put_between_markers(PAGE.read_text(encoding="utf-8"), table), encoding="utf-8")
    print(json.dumps(results, indent=2) if arguments.output == "json" else table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
