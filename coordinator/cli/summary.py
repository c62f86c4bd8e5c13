"""What `hanse simulate` says at the end: how it went, where things are, and what to try next."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from simulations.local import curve, results, view

_SHOWN_METRICS = 4
_LABEL_WIDTH = 13


def curves(outcome: results.Outcome) -> dict[str, list[tuple[int, float]]]:
    """The metrics that were measured on data, by name, as (round, value) in round order."""
    phases = {entry["phase"] for entry in outcome.metrics}
    phase = next((name for name in ("ServerEvaluate", "Evaluate", "Train") if name in phases), None)
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in sorted(outcome.metrics, key=lambda entry: entry["round"]):
        if entry["phase"] == phase:
            for name, value in entry["values"].items():
                if value is not None and math.isfinite(value):  # a gap, where an app measured NaN
                    series.setdefault(name, []).append((entry["round"], value))
    return dict(sorted(series.items())[:_SHOWN_METRICS])


def show(console: Console, outcome: results.Outcome, directory: Path, *, drilled: bool = False) -> None:
    """Print the summary of a run of the scenario in `directory`; drilled: the run had a drill."""
    console.print()
    style = "bold green" if outcome.succeeded else "bold red"
    console.print(f"{outcome.training}: {outcome.state}", style=style, highlight=False, markup=False)
    if outcome.message:
        console.print(outcome.message, highlight=False, markup=False)
    if not outcome.succeeded:
        for cluster in outcome.clusters:
            told = (f"{cluster['name']}:", cluster["state"], cluster.get("reason"), cluster.get("message"))
            line = " ".join(part for part in told if part)
            console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    series = curves(outcome)
    drawn = next((name for name in series if name.startswith(("acc", "auc"))), next(iter(series), None))
    if drawn is not None:
        console.print()
        console.print(curve.terminal(drawn, series[drawn]), highlight=False, markup=False)
    console.print()
    for label, text in (*_lines(outcome, series), ("", ""), *_next(outcome, directory, drilled)):
        console.print(f"{label:<{_LABEL_WIDTH}}{text}", highlight=False, markup=False, soft_wrap=True)


def _lines(outcome: results.Outcome, series: dict[str, list[tuple[int, float]]]) -> Iterator[tuple[str, str]]:
    if series:
        yield "last round", "  ".join(f"{name} {points[-1][1]:.4f}" for name, points in series.items())
    seconds, moved = outcome.seconds, outcome.bytes
    if outcome.rounds:
        rounds = f"{seconds['rounds']:.1f} s for {outcome.rounds} rounds"
        yield "time", f"{seconds['start']:.1f} s to the first round, {rounds}"
        down, up = view.format_bytes(moved["down"]), view.format_bytes(moved["up"])
        yield "travelled", f"{down} to the edges, {up} back; no row of data"
    else:
        yield "time", f"{seconds['total']:.1f} s, without a round"
    if outcome.model:
        yield "model", outcome.model["path"]
        yield "sha256", outcome.model["sha256"]
        yield "results", f"{outcome.results} ({results.CARD_FILE}, {results.CURVE_FILE}, report.json, logs/)"
    else:
        yield "results", f"{outcome.results} (report.json, logs/)"


def _next(outcome: results.Outcome, directory: Path, drilled: bool) -> Iterator[tuple[str, str]]:
    if not outcome.succeeded:
        yield "next", f"{_tool('hanse')} logs {outcome.results} --tail 20"
        return
    commands = []
    if (directory / "report.py").exists():
        commands.append(f"{_tool('python')} {directory / 'report.py'}    what each edge gains by taking part")
    again = f"{_tool('hanse')} simulate {directory}"
    if outcome.clusters and not drilled:
        commands.append(f"{again} --drill {outcome.clusters[-1]['name']}@3    kill an edge")
    elif outcome.clusters:
        commands.append(f"{again} --edges {2 * len(outcome.clusters)}    twice as many edges")
    yield from zip(("next", "or"), commands, strict=False)


def _tool(name: str) -> str:
    """How to call a program of this environment from here: by name where PATH finds it, else by path."""
    place = Path(sys.executable).with_name(name)
    if not place.exists() or shutil.which(name) == str(place):
        return name
    return str(place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place)
