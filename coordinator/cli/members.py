"""`hanse clusters`: the members of the federation, and the operator's word on each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from coordinator.cli import output, reach, spans, tables
from coordinator.planning import membership
from federation.api import cluster as api_cluster
from federation.kube import client, errors

KIND = "EdgeCluster"

Name = Annotated[str, typer.Argument(metavar="NAME", help="The cluster, as `hanse clusters list` shows it.")]

app = typer.Typer(
    name="clusters", help="The federation's members: list, approve, expel.", no_args_is_help=True
)


@app.command("list")
def show(
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    form: reach.Form = output.Output.TEXT,
) -> None:
    """List the members, with what they offer and how they stand.

    Example: `hanse clusters list`
    """

    async def work(api: client.Client) -> tuple[client.Object, ...]:
        return (await api.list(KIND)).items

    found = reach.run(work, kubeconfig, context)
    if form is output.Output.JSON:
        typer.echo(json.dumps([_entry(member) for member in found], indent=2))
    elif not found:
        typer.echo("No cluster has joined; invite one with: hanse token create", err=True)
    else:
        typer.echo(listing(found, datetime.now(UTC)))


@app.command("approve")
def approve(name: Name, kubeconfig: reach.Kubeconfig = None, context: reach.Context = None) -> None:
    """Let a cluster take part in trainings.

    Example: `hanse clusters approve zurich`
    """
    _decide(name, api_cluster.Acceptance.ACCEPTED, kubeconfig, context)
    typer.echo(f"{name} is accepted and takes part in trainings from now on")


@app.command("expel")
def expel(name: Name, kubeconfig: reach.Kubeconfig = None, context: reach.Context = None) -> None:
    """Revoke a cluster's certificate and cut its streams at once.

    Example: `hanse clusters expel zurich`
    """
    _decide(name, api_cluster.Acceptance.EXPELLED, kubeconfig, context)
    typer.echo(f"{name} is expelled: its certificate is revoked and its streams are cut")


def _decide(
    name: str, acceptance: api_cluster.Acceptance, kubeconfig: reach.Kubeconfig, context: reach.Context
) -> None:
    async def work(api: client.Client) -> None:
        try:
            await api.patch(KIND, name, "", {"spec": {"acceptance": str(acceptance)}})
        except errors.NotFound as error:
            members = [member["metadata"]["name"] for member in (await api.list(KIND)).items]
            known = f"the members are {', '.join(members)}" if members else "no cluster has joined yet"
            raise reach.Refused(f"{name} is no member; {known}") from error

    reach.run(work, kubeconfig, context)


def listing(found: Sequence[client.Object], now: datetime) -> str:
    """Return the table of members."""
    rows = []
    for member in found:
        entry = _entry(member)
        rows.append(
            (
                entry["name"],
                entry["acceptance"],
                "Left" if entry["left"] else entry["connected"],
                ",".join(dataset["name"] for dataset in entry["datasets"]),
                (member.get("status") or {}).get("summary", {}).get("trainings") or "",
                entry["version"],
                spans.age(entry["certificateExpiresAt"], now),
                spans.age(member["metadata"].get("creationTimestamp"), now),
            )
        )
    heads = ("NAME", "ACCEPTED", "CONNECTED", "DATASETS", "TRAININGS", "VERSION", "CERT-EXPIRES", "AGE")
    return tables.table(heads, rows)


def _entry(member: client.Object) -> dict[str, Any]:
    status = member.get("status") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or ()}
    return {
        "name": member["metadata"]["name"],
        "acceptance": member["spec"].get("acceptance", ""),
        "connected": conditions.get("Connected", {}).get("status", ""),
        "left": membership.has_left(status),
        "labels": {**(status.get("agentLabels") or {}), **(member["spec"].get("labels") or {})},
        "datasets": status.get("datasets") or [],
        "trainings": status.get("trainings") or [],
        "version": (status.get("agent") or {}).get("version", ""),
        "certificateExpiresAt": (status.get("certificate") or {}).get("expiresAt", ""),
        "lastHeartbeatAt": status.get("lastHeartbeatAt", ""),
    }
