"""`hanse logs`: what ServerApp and ClientApps wrote, of a simulation or of a training on a cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from coordinator.cli import cluster_logs, output, reach
from federation.kube import client

LATEST = Path("hanse-runs")


def show(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="RUN|NAMESPACE/NAME",
            help="A run's directory, or a training on a cluster; left out: the latest run below hanse-runs/.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option("--from", help="Only this process: aggregator, coordinator, EDGE or EDGE.client.")
    ] = "",
    tail: Annotated[int, typer.Option(help="Only the last lines of each log; 0 shows all.", min=0)] = 0,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Of a training on a cluster: go on as it is written.")
    ] = False,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    form: Annotated[output.Output, typer.Option("-o", "--output", help="text or json.")] = output.Output.TEXT,
) -> None:
    """Show the logs of a simulation, or of a training's aggregator on a cluster.

    An edge's own logs are its owner's: `kubectl logs` there shows them.

    Examples: `hanse logs --from zurich.client --tail 20`, `hanse logs cardiology/hospitals -f`
    """

    def say(process: str, line: str) -> None:
        if form is output.Output.JSON:
            typer.echo(json.dumps({"process": process, "line": line}))
        else:
            typer.echo(f"{process:>18} | {_readable(line)}")

    if run is not None and not run.exists() and _is_training(run):

        async def work(api: client.Client) -> None:
            await cluster_logs.show(api, str(run), tail=tail, follow=follow, say=say)

        reach.run(work, kubeconfig, context)
        return
    directory = run or _latest()
    logs = sorted((directory / "logs").glob("*.log")) if (directory / "logs").is_dir() else []
    if not logs:
        output.refuse(f"{directory}: no logs; give the directory of a run, as hanse simulate prints it")
    chosen = [log for log in logs if not name or log.stem == name]
    if not chosen:
        output.refuse(f"--from {name}: no such process; this run has {', '.join(log.stem for log in logs)}")
    for log in chosen:
        lines = log.read_text(errors="replace").splitlines()
        for line in lines[-tail:] if tail else lines:
            say(log.stem, line)


def _is_training(run: Path) -> bool:
    """Whether the word reads NAMESPACE/NAME; below hanse-runs/ it is a run that is not there."""
    return len(run.parts) == 2 and run.parts[0] not in (LATEST.name, ".", "..", "/")


def _readable(line: str) -> str:
    """A line for people: our own JSON lines as time, level, event and fields; no control characters."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if isinstance(entry, dict) and "event" in entry:
        shown = {key: value for key, value in entry.items() if key not in _SHOWN_OTHERWISE}
        fields = " ".join(f"{key}={value}" for key, value in shown.items())
        line = (
            f"{str(entry.get('timestamp', ''))[11:23]} {entry.get('level', ''):<8} {entry['event']}  {fields}"
        )
        line += "".join(f"\n{part}" for part in str(entry.get("exception", "")).splitlines())
    # An app may write anything, also what would steer the terminal.
    return "".join(character for character in line if character.isprintable() or character in "\n\t")


_SHOWN_OTHERWISE = frozenset(
    {"timestamp", "level", "event", "exception", "logger", "process", "cluster", "training"}
)


def _latest() -> Path:
    runs = (
        sorted((path for path in LATEST.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
        if LATEST.is_dir()
        else []
    )
    if not runs:
        output.refuse(f"no runs below {LATEST}/; run hanse simulate first, or give a run's directory")
    return runs[-1]
