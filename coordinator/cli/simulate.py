"""`hanse simulate`: a whole federation on this machine, from the manifests that real clusters take."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import os
import secrets
import signal
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from coordinator import config as coordinator_config
from coordinator.cli import output, summary
from coordinator.issuing import tokens
from federation.api.errors import ManifestError
from simulations.local import curve, engine, preflight, results, scenario, view
from simulations.local.errors import SimulationError, SimulationFailed

RUNS = Path("hanse-runs")


class Where(enum.StrEnum):
    """On what a simulation runs."""

    PROCESS = "process"
    BARE = "bare"
    KIND = "kind"


def simulate(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A directory with the manifests of a federation.")
    ],
    edges: Annotated[
        int | None, typer.Option(help="Run this many edges: copies of DIR's, or the first ones.", min=1)
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="PATH=VALUE", help="Change the training, e.g. spec.clusters.minimum=2."
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep results here, and all that the processes wrote.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Give up after so many seconds.", min=1)] = 600.0,
    drills: Annotated[
        list[str] | None,
        typer.Option(
            "--drill",
            metavar="EDGE@ROUND",
            help="Kill this edge, or `aggregator`, once this round is seen to have begun.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(help="The coordinator's port; 0 takes any that is free.", min=0, max=65535)
    ] = 0,
    on: Annotated[
        Where, typer.Option("--on", help="process: no Kubernetes; bare, kind: real clusters of this machine.")
    ] = Where.PROCESS,
    kubernetes: Annotated[
        str, typer.Option(metavar="MINOR", help="With --on bare or kind: which Kubernetes.")
    ] = "",
    keep_lab: Annotated[
        bool,
        typer.Option("--keep-lab", help="With --on bare or kind: leave the clusters up for the next run."),
    ] = False,
    form: Annotated[output.Output, typer.Option("-o", "--output", help="text or json.")] = output.Output.TEXT,
) -> None:
    """Run a whole federation on this machine: enrollment, mutual TLS, and the same model wherever it runs.

    Example: `hanse simulate simulations/hospitals --drill zurich@3`
    """
    console = Console()
    quiet = form is output.Output.JSON
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # while it is read and checked; later see _run
    try:
        plan = scenario.with_settings(scenario.read(directory), settings or [])
        plan = scenario.with_edges(plan, edges) if edges else plan
        where = (keep or _new_run(plan)).resolve()
        if on is Where.PROCESS:
            if kubernetes or keep_lab:
                output.refuse("--kubernetes and --keep-lab are for --on bare and --on kind")
            options = engine.Options(
                results=where,
                keep=keep is not None,
                timeout_seconds=timeout,
                drills=tuple(engine.Drill.parse(text) for text in drills or []),
                port=port,
            )
        elif drills or port:
            output.refuse(
                "--drill and --port are for --on process; `hanse lab cut EDGE` cuts a cluster's link"
            )
        with results.claim(where):
            preflight.check(plan, results=where, port=port)
            shown = view.Silent() if quiet else view.for_console(console)
            if on is Where.PROCESS:
                run = engine.Simulation(plan, options, shown, _new_token).run
            else:
                run = _on_clusters(plan, where, on, kubernetes, keep_lab, timeout, shown)
            outcome = asyncio.run(_to_the_end(run, shown))
            (where / results.REPORT_FILE).write_text(outcome.to_json() + "\n", encoding="utf-8")
            if quiet:
                typer.echo(outcome.to_json())  # a program need not wait for a picture
            else:
                summary.show(console, outcome, directory, drilled=bool(drills))
                _draw(outcome, where)  # last: it takes a second, and nobody needs to wait for it
    except (SimulationError, ManifestError) as error:
        output.refuse(str(error))
    except SimulationFailed as error:
        output.refuse(str(error), output.FAILED)
    except OSError as error:
        output.refuse(f"{error.filename or where}: {error.strerror or error}")
    except (KeyboardInterrupt, asyncio.CancelledError):
        output.refuse("interrupted; every process was ended", output.INTERRUPTED)
    if not outcome.succeeded:
        raise typer.Exit(output.FAILED)


Run = Callable[[], Coroutine[Any, Any, results.Outcome]]


def _on_clusters(
    plan: scenario.Scenario,
    where: Path,
    on: Where,
    kubernetes: str,
    keep_lab: bool,
    timeout: float,
    shown: view.View,
) -> Run:
    """Return the run on clusters; its parts are imported only when they are needed."""
    from simulations.clusters import engine as clusters
    from simulations.lab import port as labs

    options = clusters.Options(
        results=where, provider=labs.Provider(on.value), keep_lab=keep_lab, timeout_seconds=timeout
    )
    if kubernetes:
        options = dataclasses.replace(options, kubernetes=kubernetes)
    return clusters.Simulation(plan, options, shown).run


async def _to_the_end(run: Run, shown: view.View) -> results.Outcome:
    """Run, and let SIGTERM end it as Ctrl-C does: with everything cleaned up."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await run()
    finally:
        shown.close()


def _new_token(cluster: str, expires_at: dt.datetime) -> tuple[str, Mapping[str, Any]]:
    random_bytes = secrets.token_bytes(tokens.ID_BYTES + tokens.SECRET_BYTES)
    token, record = tokens.create(random_bytes, expires_at=expires_at, cluster=cluster, approves=True)
    return token.text, coordinator_config.JoinToken.of(record).model_dump(mode="json")


def _new_run(plan: scenario.Scenario) -> Path:
    now = dt.datetime.now(dt.UTC)
    return RUNS / f"{plan.training.metadata.name}-{now:%Y%m%d-%H%M%S}-{os.getpid()}"


def _draw(outcome: results.Outcome, where: Path) -> None:
    series = summary.curves(outcome)
    if series:
        curve.picture(where / results.CURVE_FILE, outcome.training, series)
