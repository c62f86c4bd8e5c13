"""`hanse app`: a Flower app as one file with a name that follows from its content."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli import edge_manifests, output, reach
from federation.api import manifests as api_manifests
from federation.api.errors import ManifestError
from federation.apps import bundle, errors, on_clusters

app = typer.Typer(name="app", help="Flower apps: pack them for a cluster.", no_args_is_help=True)


@app.callback()
def commands() -> None:
    """Flower apps: pack them for a cluster."""


@app.command("build")
def build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The app: where its pyproject.toml is.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Write the packed app here.")
    ] = None,
    config_map: Annotated[
        str, typer.Option(metavar="NAME", help="Print a ConfigMap with the packed app, to be applied.")
    ] = "",
    namespace: Annotated[
        str, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="The ConfigMap's namespace.")
    ] = "",
    form: reach.Form = output.Output.TEXT,
) -> None:
    """Pack an app: the same files give the same bytes, and so the same digest, on every machine.

    Example: `hanse app build DIR --config-map hospitals-app -n cardiology | kubectl apply --server-side -f -`
    """
    try:
        packed = bundle.pack(directory)
    except errors.AppError as error:
        output.refuse(str(error))
    except OSError as error:
        output.refuse(f"{error.filename or directory}: {error.strerror or error}")
    if config_map:
        try:
            made = on_clusters.config_map(packed, config_map, namespace)
        except errors.BundleTooLarge as error:
            output.refuse(str(error))
        typer.echo(edge_manifests.to_yaml([made]), nl=False)
        typer.echo(f"digest {packed.digest}", err=True)
        return
    where = to or Path(on_clusters.KEY)
    try:
        _write(where, packed.data)
    except OSError as error:
        output.refuse(f"{where}: {error.strerror or error}")
    if form is output.Output.JSON:
        result = {"path": str(where), "digest": packed.digest, "bytes": len(packed.data)}
        typer.echo(json.dumps(result, indent=2))
    else:
        typer.echo(f"{where}  {packed.digest}  {len(packed.data)} bytes")


@app.command("manifests")
def manifests(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A training whose app is a directory beside it.")
    ],
) -> None:
    """Print a simulation's training as a cluster takes it: its app packed into a ConfigMap, pinned by digest.

    Example: `hanse app manifests simulations/hospitals/training.yaml | kubectl apply --server-side -f -`
    """
    try:
        loaded = api_manifests.load_file(file)
        printed = [one for resource in loaded for one in for_cluster(resource.manifest(), file.parent)]
    except (errors.AppError, ManifestError) as error:
        output.refuse(str(error))
    except OSError as error:
        output.refuse(f"{error.filename or file}: {error.strerror or error}")
    typer.echo(edge_manifests.to_yaml(printed), nl=False)


def for_cluster(resource: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    """Return what stands for a resource on a cluster: for a training with a path, its app and namespace too.

    Raises: errors.AppError, OSError.
    """
    source = resource["spec"]["app"]["source"] if resource["kind"] == "FederatedTraining" else {}
    if "path" not in source:
        return [resource]
    app, training = on_clusters.training(resource, bundle.pack(directory / source["path"]))
    return [*on_clusters.namespace(training["metadata"]["namespace"]), app, training]


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        temporary = Path(stream.name)
        stream.write(data)
    try:
        temporary.chmod(0o644)
        os.replace(temporary, path)  # noqa: PTH105
    except OSError:
        temporary.unlink()
        raise
