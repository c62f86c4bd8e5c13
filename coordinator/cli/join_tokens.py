"""`hanse token`: join tokens, made, listed and revoked by the hub's operator."""

from __future__ import annotations

import base64
import json
import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from coordinator.cli import edge_manifests, output, reach, spans, tables
from coordinator.issuing import token_secrets, tokens
from federation.kube import client, errors
from federation.trust import bundle, certificates

CA_SECRET = "hanse-ca"  # noqa: S105  # a name
DOOR = "hanse-door"
COORDINATOR = "hanse-coordinator"

app = typer.Typer(
    name="token", help="Join tokens: what an edge needs to join this hub.", no_args_is_help=True
)


@app.command("create")
def create(
    cluster: Annotated[
        str, typer.Option("--cluster", metavar="NAME", help="Good for this name only; left out: for any.")
    ] = "",
    expires: Annotated[
        str, typer.Option(metavar="SPAN", help="How long it is good, such as 30m, 24h, 7d.")
    ] = "24h",
    approve: Annotated[
        bool, typer.Option("--approve", help="Accept the cluster at once, without `hanse clusters approve`.")
    ] = False,
    hub: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="How edges reach the door; left out: what its Service says of itself."
        ),
    ] = "",
    namespace: reach.HubNamespace = reach.HUB_NAMESPACE,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    form: reach.Form = output.Output.TEXT,
) -> None:
    """Make a token for one join, and print the command with which an edge joins.

    Example: `hanse token create --cluster zurich --approve --hub hub.example.org:443`
    """
    try:
        lifetime = spans.parse(expires)
    except ValueError as error:
        output.refuse(f"--expires {error}")
    now = datetime.now(UTC).replace(microsecond=0)
    random_bytes = secrets.token_bytes(tokens.ID_BYTES + tokens.SECRET_BYTES)
    token, record = tokens.create(random_bytes, expires_at=now + lifetime, cluster=cluster, approves=approve)

    async def work(api: client.Client) -> tuple[str, str, str]:
        where = hub or await _door(api, namespace)
        ca_hash = await _ca_hash(api, namespace)
        try:  # what the edge would refuse is refused here
            edge_manifests.Invitation(where, token.text, ca_hash, cluster or "any")
        except edge_manifests.InvalidInvitation as error:
            raise reach.Refused(str(error).replace("--name", "--cluster")) from error
        deployment = await reach.absent_is_none(api.get("Deployment", COORDINATOR, namespace))
        await api.create(token_secrets.secret_of(record, namespace))
        return where, ca_hash, registry_of(deployment) if deployment else ""

    where, ca_hash, registry = reach.run(work, kubeconfig, context)
    command = command_line(where, token.text, ca_hash, cluster, registry)
    if form is output.Output.JSON:
        typer.echo(
            json.dumps(
                {
                    **_public(record, now),
                    "token": token.text,
                    "hub": where,
                    "caHash": ca_hash,
                    "command": command,
                },
                indent=2,
            )
        )
        return
    typer.echo(explanation(record, expires), err=True)
    typer.echo(command)


@app.command("list")
def show(
    namespace: reach.HubNamespace = reach.HUB_NAMESPACE,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    form: reach.Form = output.Output.TEXT,
) -> None:
    """List the tokens; their secrets are known to nobody any more.

    Example: `hanse token list`
    """

    async def work(api: client.Client) -> tuple[client.Object, ...]:
        return (await api.list("Secret", namespace, labels=token_secrets.LABEL)).items

    now = datetime.now(UTC)
    records = []
    for secret in reach.run(work, kubeconfig, context):
        try:
            records.append(token_secrets.record_of(secret))
        except token_secrets.InvalidTokenSecret as error:
            typer.echo(f"hanse: {error}; it is left out", err=True)
    if form is output.Output.JSON:
        typer.echo(json.dumps([_public(record, now) for record in records], indent=2))
    elif not records:
        typer.echo("There are no join tokens; make one with: hanse token create", err=True)
    else:
        typer.echo(listing(records, now))


@app.command("revoke")
def revoke(
    token_id: Annotated[str, typer.Argument(metavar="ID", help="As `hanse token list` shows it.")],
    namespace: reach.HubNamespace = reach.HUB_NAMESPACE,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
) -> None:
    """Delete a token; who joined with it stays (see `hanse clusters expel`).

    Example: `hanse token revoke k7wq2xyz`
    """
    wanted = token_id.removeprefix(tokens.PREFIX).partition(".")[0]

    async def work(api: client.Client) -> None:
        if not await reach.gone(api.delete("Secret", token_secrets.name_of(wanted), namespace)):
            raise reach.Refused(f"there is no token {wanted}; `hanse token list` shows those there are")

    reach.run(work, kubeconfig, context)
    typer.echo(f"token {wanted} is revoked")


def command_line(hub: str, token: str, ca_hash: str, cluster: str, registry: str = "") -> str:
    """Return the one line with which an edge joins; `registry` is named where it is not the release's."""
    place = f" --registry {registry}" if registry else ""
    return f"hanse join {hub} --token {token} --ca-hash {ca_hash} --name {cluster or 'NAME'}{place} --apply"


def registry_of(deployment: client.Object) -> str:
    """Return where the hub's own images are; empty for the release's place, or another image's name."""
    images = [
        container["image"]
        for container in deployment["spec"]["template"]["spec"]["containers"]
        if container["name"] == "coordinator"
    ]
    place, _, name = (images or [""])[0].partition("@")[0].rpartition("/")
    released = edge_manifests.client_images()["hanse/coordinator"].rpartition("/")[0]
    return place if name.partition(":")[0] == "coordinator" and place != released else ""


def explanation(record: tokens.TokenRecord, expires: str) -> str:
    """Say what a fresh token is good for."""
    who = f"by {record.cluster}" if record.cluster else "by any one cluster; put its name for NAME"
    then = (
        "it is accepted at once"
        if record.approves
        else "it then waits for `hanse clusters approve " + (record.cluster or "NAME") + "`"
    )
    return (
        f"Token {record.token_id} is good for one join {who}, within {expires}; {then}.\n"
        "Run this with the kubeconfig of the edge:"
    )


def listing(records: list[tokens.TokenRecord], now: datetime) -> str:
    """Return the table of tokens."""
    ordered = sorted(records, key=lambda record: (record.expires_at, record.token_id))
    rows = [
        (
            record.token_id,
            record.cluster or "(any)",
            "yes" if record.approves else "no",
            state(record, now),
            record.used_by,
            spans.age(record.expires_at, now),
        )
        for record in ordered
    ]
    return tables.table(("ID", "CLUSTER", "APPROVES", "STATE", "USED-BY", "EXPIRES"), rows)


def state(record: tokens.TokenRecord, now: datetime) -> str:
    """Return Used, Expired or Fresh."""
    if record.used_at is not None:
        return "Used"
    return "Expired" if now >= record.expires_at else "Fresh"


def _public(record: tokens.TokenRecord, now: datetime) -> dict[str, Any]:
    return {
        "id": record.token_id,
        "cluster": record.cluster,
        "approves": record.approves,
        "state": state(record, now),
        "usedBy": record.used_by,
        "expiresAt": record.expires_at.isoformat(),
    }


async def _ca_hash(api: client.Client, namespace: str) -> str:
    secret = await reach.absent_is_none(api.get("Secret", CA_SECRET, namespace))
    if secret is None:
        raise reach.Refused(
            f"the hub has no CA yet (Secret {CA_SECRET} in {namespace}); it makes one at its first start: "
            f"see `kubectl -n {namespace} get pods`"
        )
    try:
        return bundle.pin(certificates.load(base64.b64decode(secret["data"]["tls.crt"]))[0])
    except (KeyError, ValueError, certificates.InvalidCertificate) as error:
        raise reach.Refused(f"Secret {CA_SECRET} in {namespace} holds no CA certificate: {error}") from error


async def _door(api: client.Client, namespace: str) -> str:
    """Return how the door's Service says that it is reached from outside. Raises: Refused."""
    service = await reach.absent_is_none(api.get("Service", DOOR, namespace))
    if service is None:
        raise reach.Refused(
            f"there is no hub in namespace {namespace} of this cluster (Service {DOOR}); choose it with "
            "--context, or install it with `kubectl apply -k manifests/hub/base`"
        )
    nodes: tuple[client.Object, ...] = ()
    if service["spec"].get("type") == "NodePort":
        try:
            nodes = (await api.list("Node")).items
        except errors.Forbidden:
            nodes = ()
    found = door_address(service, nodes)
    if found is None:
        raise reach.Refused(
            f"Service {DOOR} does not say how it is reached from outside; say it with --hub HOST:PORT"
        )
    return found


def door_address(service: client.Object, nodes: tuple[client.Object, ...]) -> str | None:
    """Return HOST:PORT of a Service of type LoadBalancer or NodePort; None if it does not say."""
    port = service["spec"]["ports"][0]
    balanced = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    for entry in balanced:
        host = entry.get("hostname") or entry.get("ip")
        if host:
            return _joined(host, port["port"])
    if service["spec"].get("type") != "NodePort":
        return None
    for kind in ("ExternalIP", "InternalIP"):
        for node in nodes:
            for address in node["status"].get("addresses", ()):
                if address["type"] == kind:
                    return _joined(address["address"], port["nodePort"])
    return None


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
