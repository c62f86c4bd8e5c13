"""`hanse join` and `hanse leave`: an edge cluster's way into a federation and out of it, for its owner."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console

from coordinator.cli import edge_manifests, joining, leaving, output, pods, reach
from federation.api import meta
from federation.kube import client, errors

Hub = Annotated[str, typer.Argument(metavar="HUB", help="HOST:PORT of the hub's door.")]
Namespace = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="Where everything of this edge is.")
]

OWNERS_KINDS = ("EdgeDataset", "EdgePolicy")
_FOR_PEOPLE = ("hanse-datasets-view", "hanse-datasets-edit")
"""ClusterRoles: what they speak of is the owners' of all namespaces, and stays as long as that."""
_MADE_KINDS = ("Job", "NetworkPolicy", "Secret", "ConfigMap", "Pod")
_INSTALLED = (
    ("RoleBinding", edge_manifests.AGENT),
    ("Role", edge_manifests.AGENT),
    ("ServiceAccount", edge_manifests.AGENT),
    ("NetworkPolicy", edge_manifests.AGENT),
    ("NetworkPolicy", edge_manifests.DOOR_POLICY),
    ("ConfigMap", edge_manifests.CONFIGURATION),
    ("Secret", edge_manifests.INVITATION_SECRET),
    ("Secret", edge_manifests.IDENTITY_SECRET),
)


def join(
    hub: Hub,
    token: Annotated[str, typer.Option(metavar="TOKEN", help="What `hanse token create` printed.")],
    ca_hash: Annotated[str, typer.Option("--ca-hash", metavar="SHA256", help="The hub's CA: sha256:HEX.")],
    name: Annotated[
        str, typer.Option("--name", metavar="CLUSTER", help="This edge's name in the federation.")
    ],
    labels: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="KEY=VALUE", help="What trainings may select by; may be repeated."),
    ] = None,
    namespace: Namespace = edge_manifests.NAMESPACE,
    registry: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE", help="Where the images are, such as localhost/hanse; the release's own."
        ),
    ] = None,
    client_state: Annotated[
        edge_manifests.ClientState,
        typer.Option(
            help="Where clients keep their app's state and finished work: a PersistentVolumeClaim for each "
            "training, or the pod, with which it is lost."
        ),
    ] = edge_manifests.ClientState.CLAIM,
    storage_class: Annotated[
        str, typer.Option(metavar="CLASS", help="Of those claims; left out, the cluster's default.")
    ] = "",
    only_invitation: Annotated[
        bool,
        typer.Option(
            "--only-invitation",
            help="Only what manifests/edge/base lacks: a ConfigMap, a Secret, and a NetworkPolicy.",
        ),
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply it to the cluster and wait until the agent is connected.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="With --apply: wait so many seconds.", min=1)] = 300.0,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
) -> None:
    """Join a federation: print the agent's manifests, or apply them and wait.

    The hub gets no credentials for this cluster; nothing runs here until an EdgePolicy allows it.

    Example: `hanse join hub.example.org:443 --token hanse_… --ca-hash sha256:… --name zurich --apply`
    """
    try:
        invitation = edge_manifests.Invitation(
            hub, token.strip(), ca_hash, name, parsed_labels(labels or []), client_state, storage_class
        )
        manifests = (
            edge_manifests.invitation_manifests(invitation, namespace=namespace)
            if only_invitation
            else edge_manifests.agent(invitation, namespace=namespace, registry=registry)
        )
    except edge_manifests.InvalidInvitation as error:
        output.refuse(str(error))
    if not apply:
        typer.echo(edge_manifests.to_yaml(manifests), nl=False)
        if sys.stdout.isatty():
            typer.echo(
                "hanse: the token above is a secret; to apply this, add --apply, or pipe it to "
                "`kubectl apply --server-side -f -`",
                err=True,
            )
        return
    console = Console(stderr=True, soft_wrap=True)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    async def work(api: client.Client) -> None:
        for manifest in manifests:
            await _apply(api, manifest)
        say(f"{len(manifests)} objects applied; the agent starts in namespace {namespace}")
        try:
            async with asyncio.timeout(timeout):
                await joining.wait(api, namespace, invitation.cluster, say)
        except TimeoutError as error:
            raise reach.Refused(
                f"the agent is not connected after {timeout:g} s; it goes on trying: see "
                f"`kubectl -n {namespace} logs deployment/{edge_manifests.AGENT}`",
                output.FAILED,
            ) from error

    reach.run(work, kubeconfig, context)
    say(
        f"{name} is connected. If its token did not approve it, the hub's operator does that with "
        f"`hanse clusters approve {name}`. Next: declare a data set and who may use it (EdgeDataset, "
        "EdgePolicy)."
    )


def leave(
    namespace: Namespace = edge_manifests.NAMESPACE,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge",
            help="Delete the owner's EdgeDatasets and EdgePolicies too, their CRDs and ClusterRoles, and the "
            "namespace with the data sets that were fetched.",
        ),
    ] = False,
    timeout: Annotated[float, typer.Option(help="Wait so many seconds for the pods to end.", min=1)] = 120.0,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
) -> None:
    """Leave the federation: tell the hub, end the agent and its clients, and delete their credentials.

    Data sets and policies stay unless --purge is given: they are the owner's.

    Example: `hanse leave`
    """
    farewell = leaving.Farewell()

    async def work(api: client.Client) -> list[str]:
        found = await reach.absent_is_none(api.get("Namespace", namespace))
        if found is None:
            return []
        try:
            async with asyncio.timeout(timeout):
                await farewell.begin(api, namespace)
                return await _leave(api, namespace, farewell, purge=purge)
        except TimeoutError as error:
            also = f"; {farewell.sentence()}" if farewell.is_member else ""
            raise reach.Refused(
                f"pods of namespace {namespace} still run after {timeout:g} s; see "
                f"`kubectl -n {namespace} get pods`, and run this again{also}",
                output.FAILED,
            ) from error

    gone = reach.run(work, kubeconfig, context)
    if not gone:
        typer.echo(f"there is nothing of Hanse in namespace {namespace}")
        return
    typer.echo(f"left the federation; deleted {', '.join(gone)}")
    if farewell.is_member:
        typer.echo(farewell.sentence())
    if not purge:
        typer.echo(
            "EdgeDatasets, EdgePolicies, their CRDs and ClusterRoles, claims with data sets that were "
            "fetched, and the namespace with its default-deny NetworkPolicy stay; `hanse leave --purge` "
            "deletes them, too"
        )
    typer.echo(
        "the hub still lists this cluster; its operator removes it with `kubectl delete edgecluster "
        f"{farewell.cluster}`"
    )


async def _leave(api: client.Client, namespace: str, farewell: leaving.Farewell, *, purge: bool) -> list[str]:
    """Delete in the order in which nothing is made again: first who makes, then what was made."""
    deleted = []
    if await reach.gone(api.delete("Deployment", edge_manifests.AGENT, namespace)):
        deleted.append("the agent")
    await pods.wait_until_gone(api, namespace, joining.AGENT_PODS)
    await farewell.hear(api, namespace)
    clients = len((await api.list("Job", namespace, labels=_CLIENTS)).items)
    for kind in _MADE_KINDS:
        await api.delete_all(kind, namespace, labels=_MADE)
    await pods.wait_until_gone(api, namespace, _MADE)
    await api.delete_all("PersistentVolumeClaim", namespace, labels=_CLIENT_STATES)
    if clients:
        deleted.append("1 client" if clients == 1 else f"{clients} clients")
    results = [await reach.gone(api.delete(kind, name, namespace)) for kind, name in _INSTALLED]
    if any(results):
        deleted.append("its credentials, permissions and configuration")
    if purge:
        for kind in OWNERS_KINDS:
            try:
                for entry in (await api.list(kind, namespace)).items:
                    await reach.gone(api.delete(kind, entry["metadata"]["name"], namespace))
            except errors.NotFound:
                continue  # its CRD is gone already
            plural = (await api.kind(kind)).plural
            await reach.gone(api.delete("CustomResourceDefinition", f"{plural}.{meta.GROUP}"))
        for name in _FOR_PEOPLE:
            await reach.gone(api.delete("ClusterRole", name))
        await reach.gone(api.delete("Namespace", namespace))
        deleted.append("the owner's data sets and policies, and the namespace")
    return deleted


_MADE = ",".join(f"{key}={value}" for key, value in edge_manifests.MANAGED.items())
_CLIENT_STATES = f"{_MADE},app.kubernetes.io/component=client-state"  # and not data sets that were fetched
_CLIENTS = f"{_MADE},app.kubernetes.io/component=client"  # and not what fetches data sets


def parsed_labels(texts: list[str]) -> Mapping[str, str]:
    """Return the labels of KEY=VALUE texts. Raises: edge_manifests.InvalidInvitation."""
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise edge_manifests.InvalidInvitation(f"--label {text[:80]!r}: want KEY=VALUE")
        labels[key] = value
    return labels


async def _apply(api: client.Client, manifest: edge_manifests.Manifest) -> None:
    """Apply one object; a resource definition is waited for, because the next may be of its kind."""
    await api.apply(manifest)
    if manifest["kind"] == "CustomResourceDefinition":
        await joining.wait_until_served(api, manifest["metadata"]["name"])
