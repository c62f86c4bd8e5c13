"""`hanse lab`: a hub and edge clusters on this machine, brought up, looked at, disturbed and taken down."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coordinator.cli import lab_images, output

if TYPE_CHECKING:
    from simulations.lab import port

app = typer.Typer(
    name="lab",
    help="Clusters to try Hanse on: a hub and edges behind NAT, real Kubernetes, all on this machine.",
    no_args_is_help=True,
)

app.add_typer(lab_images.app)

NEWEST = "1.36"

_Name = Annotated[
    str,
    typer.Option("--name", envvar="HANSE_LAB", help="The lab's name; several labs may be up at once."),
]
_Form = Annotated[output.Output, typer.Option("-o", "--output", help="text or json.")]
_Edge = Annotated[str, typer.Argument(metavar="EDGE", help="An edge of the lab, such as edge-1.")]
_DEFAULT = "hanse"


@app.command()
def up(
    edges: Annotated[int, typer.Option(help="How many edges: edge-1, edge-2 and so on.", min=0, max=32)] = 3,
    edge: Annotated[
        list[str] | None,
        typer.Option("--edge", metavar="NAME", help="Name the edges yourself; give it once for each."),
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="bare or kind; by default kind where Docker works, else bare.")
    ] = None,
    kubernetes: Annotated[str, typer.Option(help="The minor version of Kubernetes.")] = NEWEST,
    name: _Name = _DEFAULT,
    form: _Form = output.Output.TEXT,
) -> None:
    """Bring a lab up, or what of it is not up, and wait until every node is ready.

    Example: `hanse lab up --edges 3`
    """
    with _refusing():
        from simulations.lab import choose, port

        plan = port.Plan(name, tuple(edge) if edge else port.numbered(edges), kubernetes)
        lab = choose.lab(name, wanted=_provider(provider))
        began = time.monotonic()
        lab.up(plan, _Progress(form))
        _show(lab.status(), name, form, up_seconds=round(time.monotonic() - began, 1))


@app.command()
def status(name: _Name = _DEFAULT, form: _Form = output.Output.TEXT) -> None:
    """Say how each cluster is, and its link. Exit code 1 when something is not well.

    Example: `hanse lab status -o json`
    """
    with _refusing():
        found = _there(name).status()
        _show(found, name, form)
    if found is None or not found.ready:
        raise typer.Exit(output.FAILED)


@app.command()
def down(name: _Name = _DEFAULT, form: _Form = output.Output.TEXT) -> None:
    """Remove a lab and all that it made: processes, networks, mounts, data. Harmless when there is none.

    Example: `hanse lab down --name hanse`
    """
    with _refusing():
        from simulations.lab import choose

        removed = choose.lab(name).down(_Progress(form))
        said = f"lab {name} is gone" if removed else f"there is no lab {name}"
        _say(form, said, {"name": name, "removed": removed})


@app.command()
def kubeconfig(
    cluster: Annotated[str, typer.Argument(metavar="CLUSTER", help="hub, or an edge.")],
    content: Annotated[
        bool, typer.Option("--content", help="Print the file's content, not its path.")
    ] = False,
    name: _Name = _DEFAULT,
    form: _Form = output.Output.TEXT,
) -> None:
    """Print the path of a file with which kubectl reaches a cluster.

    Example: `kubectl --kubeconfig $(hanse lab kubeconfig hub) get nodes`
    """
    with _refusing():
        path = _there(name).kubeconfig(cluster)
        text = path.read_text(encoding="utf-8") if content else str(path)
        _say(form, text.rstrip(), {"cluster": cluster, "path": str(path)})


@app.command()
def cut(edge: _Edge, name: _Name = _DEFAULT, form: _Form = output.Output.TEXT) -> None:
    """Cut an edge's link: its connections stall, its cluster runs on.

    Example: `hanse lab cut edge-1`
    """
    with _refusing():
        _there(name).cut(edge)
        _say(
            form,
            f"{edge} is cut off; `hanse lab restore {edge}{_named(name)}` undoes it",
            {"edge": edge, "link": "cut"},
        )


@app.command()
def limit(
    edge: _Edge,
    mbit: Annotated[float, typer.Option(help="Megabits per second, each way.", min=0.01)] = 8.0,
    name: _Name = _DEFAULT,
    form: _Form = output.Output.TEXT,
) -> None:
    """Let an edge send, and receive, no more than this.

    Example: `hanse lab limit edge-2 --mbit 8`
    """
    with _refusing():
        _there(name).limit(edge, mbit)
        said = f"{edge} has {mbit:g} Mbit/s; `hanse lab restore {edge}{_named(name)}` undoes it"
        _say(form, said, {"edge": edge, "link": f"limited to {mbit:g} Mbit/s"})


@app.command()
def restore(edge: _Edge, name: _Name = _DEFAULT, form: _Form = output.Output.TEXT) -> None:
    """Give an edge its whole link back.

    Example: `hanse lab restore edge-1`
    """
    with _refusing():
        _there(name).restore(edge)
        _say(form, f"{edge} has its whole link again", {"edge": edge, "link": "open"})


@app.command()
def load(
    archives: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="IMAGE.tar…", help="Image archives, Docker's or OCI's; left out: Hanse's own, built here."
        ),
    ] = None,
    cluster: Annotated[
        list[str] | None,
        typer.Option("--cluster", metavar="NAME", help="Only this cluster; may be given again."),
    ] = None,
    name: _Name = _DEFAULT,
    form: _Form = output.Output.TEXT,
) -> None:
    """Bring images into the clusters' nodes, without a registry; Hanse's own unless archives are given.

    Examples: `hanse lab load`, `hanse lab load images.tar --cluster edge-1`
    """
    with _refusing():
        from simulations.lab import images

        lab = _there(name)
        found = lab.status()
        assert found is not None
        if absent := [str(path) for path in archives or () if not path.is_file()]:
            output.refuse(f"there is no file {absent[0]}")
        clusters = cluster or [each.name for each in found.clusters]
        files = [str(path) for path in archives or ()]
        if archives:
            lab.load(archives, clusters)
        else:
            progress = _Progress(form)
            built = images.build(images.DEFAULT, lambda line: progress("images", line))
            progress("images", "loading")
            lab.load([images.together(built)], clusters)
            files = [image.name for image in built]
        said = f"loaded {', '.join(files)} into {', '.join(clusters)}"
        _say(form, said, {"loaded": files, "clusters": clusters})


# --- what the commands share --------------------------------------------------------------------------------


class _Progress:
    """One line for each step, with the seconds since the start, on standard error."""

    def __init__(self, form: output.Output) -> None:
        self._console = None if form is output.Output.JSON else Console(stderr=True, highlight=False)
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, who: str, what: str) -> None:
        if self._console is not None:
            with self._lock:
                self._console.print(f"{time.monotonic() - self._began:6.1f} s  {who}: {what}", markup=False)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn what goes wrong into one sentence and an exit code."""
    from simulations.lab import images, port

    try:
        yield
    except port.LabError as error:
        output.refuse(str(error))
    except (port.LabFailed, images.ImagesMissing) as error:
        output.refuse(str(error), output.FAILED)
    except OSError as error:
        output.refuse(f"{error.filename or 'the lab'}: {error.strerror or error}", output.FAILED)
    except KeyboardInterrupt:
        output.refuse("interrupted; `hanse lab down` removes what was made so far", output.INTERRUPTED)


def _provider(text: str | None) -> port.Provider | None:
    from simulations.lab import port

    if text is None:
        return None
    try:
        return port.Provider(text)
    except ValueError as error:
        raise port.LabError(f"there is no provider {text}; there are bare and kind") from error


def _there(name: str) -> port.Lab:
    """The lab of this name, which has to be there."""
    from simulations.lab import choose, port, state

    if state.State(name).read() is None:
        raise port.LabError(f"there is no lab {name}; bring one up with `hanse lab up{_named(name)}`")
    return choose.lab(name)


def _named(name: str) -> str:
    """The option that a command in a hint needs."""
    return "" if name == _DEFAULT else f" --name {name}"


def _say(form: output.Output, text: str, document: dict[str, Any]) -> None:
    typer.echo(json.dumps(document) if form is output.Output.JSON else text)


def _show(
    found: port.LabStatus | None, name: str, form: output.Output, *, up_seconds: float | None = None
) -> None:
    if form is output.Output.JSON:
        took = {} if up_seconds is None else {"upSeconds": up_seconds}
        typer.echo(json.dumps(None if found is None else {**_document(found), **took}, indent=2))
        return
    if found is None:
        typer.echo(f"there is no lab {name}")
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"lab {found.name}, {found.provider}; edges reach the hub at {found.hub_address}", markup=False
    )
    table = Table(box=None, pad_edge=False)
    for title in ("CLUSTER", "READY", "KUBERNETES", "LINK"):
        table.add_column(title, no_wrap=True)
    for each in found.clusters:
        table.add_row(each.name, "yes" if each.ready else "no", each.version, each.link)
    console.print(table)
    for each in found.clusters:
        if each.problem:
            console.print(f"{each.name}: {each.problem}", markup=False)
    if up_seconds is not None:
        console.print(f"up after {up_seconds:g} s", markup=False)


def _document(found: port.LabStatus) -> dict[str, Any]:
    return {
        "name": found.name,
        "provider": found.provider,
        "phase": found.phase,
        "ready": found.ready,
        "directory": str(found.directory),
        "hubAddress": found.hub_address,
        "clusters": [
            {
                "name": each.name,
                "ready": each.ready,
                "version": each.version,
                "link": each.link,
                "kubeconfig": str(each.kubeconfig),
                "problem": each.problem,
            }
            for each in found.clusters
        ],
    }
