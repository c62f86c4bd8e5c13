"""`hanse models`: fetch a training's model and its card from where the hub put them.

A claim can be read from inside the cluster only: a pod that lives for minutes mounts it read-only and hands
the files out through the API server. Everything else is a URL that is opened from here: with the training's
own Secret if whoever runs the command may read it, else with what their environment gives.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from coordinator.cli import output, pods, reach, watch
from coordinator.clients import blobs
from federation.kube import client, containers, errors

READER_SECONDS = 900
START_SECONDS = 120.0
MOUNT = "/models"
COORDINATOR = "hanse-coordinator"
_READ = "import shutil, sys; shutil.copyfileobj(open(sys.argv[1], 'rb'), sys.stdout.buffer)"


def models(
    training: watch.Training,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Put the files here; left out: NAME-ROUND.")
    ] = None,
    namespace: Annotated[
        str, typer.Option("--hub-namespace", metavar="NAMESPACE", help="Where the hub is installed.")
    ] = reach.HUB_NAMESPACE,
    kubeconfig: reach.Kubeconfig = None,
    context: reach.Context = None,
    form: reach.Form = output.Output.TEXT,
) -> None:
    """Fetch the last stored model of a training: model.safetensors and card.json.

    Example: `hanse models cardiology/hospitals --to ./hospitals`
    """

    async def work(api: client.Client) -> tuple[Path, dict[str, Any]]:
        found = await watch.find(api, training)
        model = (found.get("status") or {}).get("model")
        if not model:
            phase = (found.get("status") or {}).get("phase", "Pending")
            raise reach.Refused(
                f"{training} has no model yet, it is {phase}; follow it with `hanse watch {training}`"
            )
        where = to or Path(f"{found['metadata']['name']}-{model['round']}")
        try:
            await _fetch(api, found, model, where, namespace)
        except OSError as error:
            raise reach.Refused(f"{error.filename or where}: {error.strerror or error}") from error
        return where, model

    where, model = reach.run(work, kubeconfig, context)
    if form is output.Output.JSON:
        typer.echo(
            json.dumps({"path": str(where / blobs.MODEL), "card": str(where / blobs.CARD), **model}, indent=2)
        )
    else:
        typer.echo(f"{where / blobs.MODEL}  {model['sha256']}\n{where / blobs.CARD}")


async def _fetch(
    api: client.Client, training: client.Object, model: dict[str, Any], where: Path, hub_namespace: str
) -> None:
    """Put both files into `where`, whole and with the digest that the status names, or neither."""
    with _beside(where) as there:
        claim = claim_of(model["uri"])
        if claim is None:
            key, source = await _key(api, training)
            await asyncio.to_thread(_open, model["uri"], there, key, source)
        else:
            namespace = training["metadata"]["namespace"]
            async with reading_pod(api, namespace, claim[0], hub_namespace) as pod:
                for name in (blobs.MODEL, blobs.CARD):
                    await _copy(api, namespace, pod, f"{claim[1]}/{name}", there / name)
        await asyncio.to_thread(_keep, there, where, model)


@contextlib.contextmanager
def _beside(where: Path) -> Iterator[Path]:
    """Make `where`, and in it a place for files that are not whole yet."""
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=where, prefix=".fetching-") as temporary:
        yield Path(temporary)


def _keep(there: Path, where: Path, model: dict[str, Any]) -> None:
    """Move the files to `where` if they are what the status names. Raises: reach.Refused."""
    with (there / blobs.MODEL).open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != model["sha256"]:
        raise reach.Refused(
            f"the model at {model['uri']} has SHA-256 {got}, and the training's status says "
            f"{model['sha256']}; somebody changed it, or a round ended meanwhile: run this again",
            output.FAILED,
        )
    for name in (blobs.MODEL, blobs.CARD):
        (there / name).replace(where / name)


def claim_of(uri: str) -> tuple[str, str] | None:
    """Return the claim of pvc://CLAIM/PATH and the path inside the reader; None for other URLs."""
    if not uri.startswith("pvc://"):
        return None
    claim, _, path = uri.removeprefix("pvc://").strip("/").partition("/")
    return claim, f"{MOUNT}/{path}".rstrip("/")


async def _key(api: client.Client, training: client.Object) -> tuple[blobs.Key, str]:
    """What opens the training's store, and where it is from, for a message."""
    model = training["spec"].get("model") or {}
    endpoint, name = model.get("endpoint") or "", (model.get("credentials") or {}).get("secretName")
    if not name:
        return blobs.Key(endpoint=endpoint), "your environment"
    namespace = training["metadata"]["namespace"]
    try:
        secret = await api.get("Secret", name, namespace)
    except errors.Forbidden:
        return blobs.Key(
            endpoint=endpoint
        ), f"your environment, as you may not read Secret {namespace}/{name}"
    except errors.NotFound:
        return blobs.Key(endpoint=endpoint), f"your environment, as there is no Secret {namespace}/{name}"
    data = {name: base64.b64decode(value) for name, value in (secret.get("data") or {}).items()}
    return blobs.Key(data, endpoint), f"Secret {namespace}/{name}"


def _open(uri: str, there: Path, key: blobs.Key, source: str) -> None:
    """Copy from a URL. Raises: reach.Refused."""
    for name in (blobs.MODEL, blobs.CARD):
        try:
            blobs.fetch(uri, name, there / name, key)
        except blobs.PackageMissing as error:
            package = "'hanse[s3]'" if error.package == "obstore" else error.package
            raise reach.Refused(f"{error}; install it with `pip install {package}`") from error
        except blobs.BlobError as error:
            raise reach.Refused(f"{error} (credentials from {source})") from error
        except FileNotFoundError as error:
            raise reach.Refused(
                f"{uri}/{name} is not there any more; somebody removed it, or a newer training of this name "
                "did: see `kubectl get ft`",
                output.FAILED,
            ) from error


async def _copy(api: client.Client, namespace: str, pod: str, path: str, to: Path) -> None:
    with _created(to) as stream:
        source = containers.output_of(api, namespace, pod, ("python3", "-c", _READ, path))
        async with contextlib.aclosing(source) as blocks:
            async for data in blocks:
                stream.write(data)


def _created(path: Path) -> BinaryIO:
    return path.open("wb")


@contextlib.asynccontextmanager
async def reading_pod(
    api: client.Client, namespace: str, claim: str, hub_namespace: str
) -> AsyncIterator[str]:
    """Run a pod that has the claim, and remove it. Yields its name. Raises: reach.Refused."""
    coordinator = await reach.absent_is_none(api.get("Deployment", COORDINATOR, hub_namespace))
    if coordinator is None:
        raise reach.Refused(
            f"there is no Deployment {COORDINATOR} in {hub_namespace}, whose image reads the claim; name the "
            "hub's namespace with --hub-namespace"
        )
    image = coordinator["spec"]["template"]["spec"]["containers"][0]["image"]
    pod = reader(f"hanse-reader-{secrets.token_hex(4)}", namespace, claim, image)
    name = str((await api.create(pod))["metadata"]["name"])
    try:
        await pods.wait_until_running(api, namespace, name, START_SECONDS)
        yield name
    finally:
        await reach.gone(api.delete("Pod", name, namespace, grace_seconds=0))


def reader(name: str, namespace: str, claim: str, image: str) -> client.Object:
    """Return the pod that mounts a claim read-only and waits; it ends by itself if nobody removes it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/component": "reader"},
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": READER_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "reader",
                    "image": image,
                    "command": ["python3", "-c", f"import time; time.sleep({READER_SECONDS})"],
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "32Mi"},
                        "limits": {"memory": "512Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": "models", "mountPath": MOUNT, "readOnly": True},
                        {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108
                    ],
                }
            ],
            "volumes": [
                {"name": "models", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "4Gi"}},
            ],
        },
    }
