"""`hanse journal`: what a training's journal says, and whether it is whole; nothing of it is changed."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli import cluster_journal, logs, output, reach, tables
from federation.kube import client
from simulations.local import view

app = typer.Typer(
    name="journal",
    help="What happened in a training, as its aggregator wrote it down, and whether that is whole.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Where = Annotated[
    str,
    typer.Argument(
        metavar="[DIR|TRAINING]",
        help="A directory (a journal's, or a run's of `hanse simulate --keep`), or a training: in a kept "
        "run by NAME, NAMESPACE/NAME or uid (--keep DIR), on a cluster by NAMESPACE/NAME; left out: the "
        "latest run.",
    ),
]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep", metavar="DIR", help="The run in which to look for TRAINING; left out: hanse-runs/."
    ),
]
HubNamespace = Annotated[
    str, typer.Option("--hub-namespace", metavar="NAMESPACE", help="Where the hub is installed.")
]
Claim = Annotated[
    str,
    typer.Option(
        "--claim", metavar="CLAIM", help="The hub's claim, where journals lie of models that go elsewhere."
    ),
]
CLAIM = "hanse-models"
Form = Annotated[output.Output, typer.Option("-o", "--output", help="text or json.")]


@app.command("show")
def show(
    where: Where = "",
    keep: Keep = None,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    hub_namespace: HubNamespace = reach.HUB_NAMESPACE,
    claim: Claim = CLAIM,
    form: Form = output.Output.TEXT,
) -> None:
    """Show what happened, round by round: what was sent to whom, the replies and their verdicts, restarts.

    Reads only, also while the aggregator writes. Exit codes: 0, it was read; 2, it could not be.

    Examples: `hanse journal show ./run`, `hanse journal show cardiology/hospitals -o json`
    """
    told = _told(where, keep, kubeconfig, context, hub_namespace, claim, arrays=False)
    if form is output.Output.JSON:
        typer.echo(json.dumps({name: value for name, value in told.items() if name != "damages"}, indent=2))
        return
    facts, size = told["facts"], told["bytes"]
    training, uid, format_ = (facts.get(name, "?") for name in ("training", "uid", "format"))
    typer.echo(tables.plain(f"{training}  uid {uid}  format {format_}"))
    if rows := [row for one in told["happened"] for row in _rows(one)]:
        typer.echo(
            tables.table(("ENTRY", "ROUND", "WHAT", "CLUSTER", "REPLY", "EXAMPLES", "BYTES", "DETAIL"), rows)
        )
    if "diverged" in facts:
        typer.echo(tables.plain(facts["diverged"]))
    dropped = f", dropped: {facts['dropped']}" if "dropped" in facts else ""
    index, arrays = view.format_bytes(size["index"]), view.format_bytes(size["arrays"])
    typer.echo(tables.plain(f"{told['entries']} entries in {index}, arrays {arrays}{dropped}"))


@app.command("verify")
def verify(
    where: Where = "",
    keep: Keep = None,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    hub_namespace: HubNamespace = reach.HUB_NAMESPACE,
    claim: Claim = CLAIM,
    form: Form = output.Output.TEXT,
) -> None:
    """Check every entry and every array, and say what each damage means for a resume.

    Reads only, also while the aggregator writes. Exit codes: 0, it is whole; 1, it is damaged; 2, it could
    not be read.

    Examples: `hanse journal verify ./run`, `hanse journal verify cardiology/hospitals`
    """
    told = _told(where, keep, kubeconfig, context, hub_namespace, claim, arrays=True)
    if form is output.Output.JSON:
        typer.echo(json.dumps({name: value for name, value in told.items() if name != "happened"}, indent=2))
    else:
        for damage in told["damages"]:
            typer.echo(tables.plain(f"{damage['what'][:1].upper()}{damage['what'][1:]}. {damage['resume']}"))
        if not told["damages"]:
            arrays = (
                "the arrays were dropped"
                if "dropped" in told["facts"]
                else (f"{view.format_bytes(told['bytes']['arrays'])} of arrays")
            )
            typer.echo(f"{told['entries']} entries are as they were written, {arrays}")
    if told["damages"]:
        raise typer.Exit(output.FAILED)


def _told(
    where: str,
    keep: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    hub_namespace: str,
    claim: str,
    *,
    arrays: bool,
) -> dict[str, Any]:
    from coordinator.journal import reading, story  # imports Flower, which takes a second

    try:
        if (directory := _directory(where, keep)) is not None:
            return story.document(directory, arrays=arrays)
    except reading.JournalUnreadable as error:
        output.refuse(str(error))

    async def work(api: client.Client) -> dict[str, Any]:
        return await cluster_journal.document(api, where, hub_namespace, claim, arrays=arrays)

    return reach.run(work, kubeconfig, context)


def _directory(where: str, keep: Path | None) -> Path | None:
    """The journal's directory; None if it is to be looked for on a cluster."""
    if where and keep is None and Path(where).exists():
        return _only(_below(Path(where)), where)
    root = keep or logs.LATEST
    if keep is not None and not keep.is_dir():
        output.refuse(f"{keep}: no such directory")
    found = _below(root) if root.is_dir() else []
    if not where:
        if not found:
            output.refuse(f"no journal below {root}/; only a run with --keep leaves one, or name a training")
        return max(found, key=lambda journal: journal.stat().st_mtime)
    named = [journal for journal in found if where in _names(journal)]
    if named:
        return max(named, key=lambda journal: journal.stat().st_mtime)
    if keep is None and len(where.split("/")) == 2 and all(part.strip(".") for part in where.split("/")):
        return None
    output.refuse(
        f"{where}: no such directory, and no training of this name has a journal below {root}/; name a "
        "directory, or a training: in a kept run by NAME, NAMESPACE/NAME or uid (--keep DIR), on a cluster "
        "by NAMESPACE/NAME"
    )


def _below(directory: Path) -> list[Path]:
    from coordinator.journal import book

    return sorted(path.parent for path in directory.rglob(book.INDEX))


def _only(found: list[Path], where: str) -> Path:
    if not found:
        output.refuse(f"{where}: no journal there; a run leaves one if it was started with --keep")
    if len(found) > 1:
        listed = ", ".join(str(journal) for journal in found[:5])
        output.refuse(f"{where}: {len(found)} journals, name one: {listed}")
    return found[0]


def _names(journal: Path) -> set[str]:
    """What a training may be called: NAMESPACE/NAME, NAME, uid."""
    from coordinator.journal import reading

    with contextlib.suppress(reading.JournalUnreadable):
        facts = reading.read(journal).facts
        training = facts.get("training", "")
        return {training, training.rpartition("/")[2], facts.get("uid", "")} - {""}
    return set()


def _rows(one: dict[str, Any]) -> list[tuple[str, ...]]:
    entry = str(one["entry"])
    match one["what"]:
        case "Batch":
            number = "" if one["round"] is None else str(one["round"])
            return [
                (entry, number, one["kind"], message["cluster"], _reply(message),
                 "" if message["examples"] is None else str(message["examples"]),
                 view.format_bytes(message["bytes"]) if message["bytes"] else "", message["detail"])
                for message in one["messages"]
            ]  # fmt: skip
        case "Nodes":
            return [(entry, "", "Nodes", ", ".join(one["clusters"]), "", "", "", "")]
        case "Restart":
            return [(entry, "", "Restart", "", "", "", "", f"at {one['at']}, after all that stands above")]
        case "Snapshot":
            detail = f"stands for the rounds up to this one, {view.format_bytes(one['bytes'])}"
            return [(entry, str(one["round"]), "Snapshot", "", "", "", "", detail)]
        case other:
            detail = "" if one["known"] else "this version cannot read it"
            return [(entry, "", other, "", "", "", "", detail)]


def _reply(message: dict[str, Any]) -> str:
    if message["outcome"] == "Waiting":
        return "not yet"
    words = message["verdict"] or (
        "none" if message["outcome"] in ("Missing", "Error") else message["outcome"]
    )
    return f"{words}, late" if message["late"] else words
