"""Trainings on real clusters, as their three people see them: applied with kubectl, followed by status.

The federation is the session's (`conftest.py`); each test takes a name of its own for training and data
set, so that tests do not meet.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from federation.apps import bundle
from simulations.clusters import federation
from simulations.lab import port as labs
from tests.cluster import labs as cluster_labs
from tests.process import federations

NAMESPACE = "trials"
HUB = labs.HUB
PATIENCE_SECONDS = 180.0
"""Longer than anything takes on two busy cores; a test that waits so long has failed."""

Manifest = dict[str, Any]


class Clusters:
    """A hub and its edges with Hanse on them."""

    def __init__(self, lab: labs.Lab, kubectl: Path, edges: Sequence[str], door: str) -> None:
        self.lab = lab
        self.edges = tuple(edges)
        self.door = door
        self._kubectl = kubectl

    def kubectl(self, cluster: str, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl on a cluster and return what it printed."""
        argv = [str(self._kubectl), "--kubeconfig", str(self.lab.kubeconfig(cluster)), *arguments]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=300)
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(arguments)} on {cluster}: {done.stderr.strip()}")
        return done.stdout

    def get(self, cluster: str, kind: str, namespace: str, *flags: str) -> list[Manifest]:
        """Return the objects of a kind."""
        text = self.kubectl(cluster, "get", kind, "-n", namespace, "-o", "json", *flags)
        items: list[Manifest] = json.loads(text)["items"]
        return items

    def apply(self, cluster: str, *objects: Manifest) -> None:
        """Apply objects on a cluster."""
        text = yaml.safe_dump_all(objects, sort_keys=False)
        self.kubectl(cluster, "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    # -- the edge's owner ----------------------------------------------------------------------------

    def offer(
        self,
        edge: str,
        dataset: str,
        node_config: Mapping[str, Any] | None = None,
        *,
        files: Mapping[str, str] | None = None,
        rules: Sequence[Mapping[str, Any]] | None = None,
        volume: Manifest | None = None,
    ) -> None:
        """Declare a data set of small files, or in this volume, and a policy for it that allows all, or these
        rules.
        """
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": dataset, "namespace": "hanse"},
            "data": dict(files or {"numbers.csv": "1\n2\n3\n"}),
        }
        spec = {
            "name": dataset,
            "volume": volume or {"configMap": {"name": dataset}},
            "mountPath": "/data",
            "nodeConfig": {"name": edge, "place": "$(MOUNT_PATH)"} | dict(node_config or {}),
        }
        allowed = rules or [{"name": "trials", "effect": "Allow", "datasets": [dataset]}]
        self.apply(
            edge,
            config_map,
            _own("EdgeDataset", dataset, "hanse", spec),
            _own("EdgePolicy", dataset, "hanse", {"rules": list(allowed)}),
        )

    def join(self, edge: str) -> None:
        """Join again with a new token, as the two operators do."""
        asyncio.run(federation.Federation(self.lab, self._kubectl, print).join(edge))

    # -- the data scientist --------------------------------------------------------------------------

    def train(
        self,
        name: str,
        *,
        rounds: int = 2,
        client_app: str = federations.CLIENT_APP,
        server_app: str = federations.SERVER_APP,
        pyproject: str = federations.PYPROJECT,
        run_config: Mapping[str, Any] | None = None,
        **spec: Any,
    ) -> None:
        """Apply a training of this name over the data set of this name; `spec` is laid over the defaults."""
        app = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{name}-app", "namespace": NAMESPACE},
            "binaryData": {"app.fab": base64.b64encode(packed(client_app, server_app, pyproject)).decode()},
        }
        defaults = {
            "app": {
                "source": {"configMap": {"name": f"{name}-app", "key": "app.fab"}},
                "runConfig": {"rounds": rounds} | dict(run_config or {}),
            },
            "dataset": name,
            "clusters": {"minimum": len(self.edges)},
            "round": {"deadlineSeconds": 120},
        }
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.apply(HUB, namespace)
        self.kubectl(HUB, "delete", "ft", name, "-n", NAMESPACE, "--ignore-not-found", "--timeout=60s")
        self.apply(HUB, app)
        self.apply(HUB, _own("FederatedTraining", name, NAMESPACE, defaults | spec))

    def change(self, name: str, patch: Mapping[str, Any]) -> None:
        """Change a training, as `kubectl edit` would."""
        self.kubectl(HUB, "patch", "ft", name, "-n", NAMESPACE, "--type=merge", "-p", json.dumps(patch))

    def status(self, name: str, namespace: str = NAMESPACE) -> Manifest:
        """Return a training's status; empty before there is one."""
        resource = json.loads(self.kubectl(HUB, "get", "ft", name, "-n", namespace, "-o", "json"))
        status: Manifest = resource.get("status") or {}
        return status

    def until(
        self,
        name: str,
        wanted: Callable[[Manifest], bool],
        namespace: str = NAMESPACE,
        seconds: float = PATIENCE_SECONDS,
    ) -> Manifest:
        """Return the first status that is as wanted; fail with the last one if none comes."""
        last: list[Manifest] = []

        def reached() -> bool:
            last[:] = [self.status(name, namespace)]
            return wanted(last[0])

        def why() -> str:
            return f"wanted status of {namespace}/{name}: {json.dumps(last, indent=1)}"

        cluster_labs.wait_for(reached, why, seconds=seconds, every=0.3)
        return last[0]

    def ended(self, name: str, namespace: str = NAMESPACE, seconds: float = PATIENCE_SECONDS) -> Manifest:
        """Return the status once the training is over."""
        return self.until(name, over, namespace, seconds)

    def in_round(self, name: str, number: int, seconds: float = PATIENCE_SECONDS) -> Manifest:
        """Return the status once this round has begun."""
        return self.until(
            name, lambda status: status.get("round", {}).get("current", 0) >= number, seconds=seconds
        )

    def let_go(self, name: str, edges: Sequence[str] = ()) -> None:
        """End the wait of the clients on these edges, on all unless named, that behave as "held"."""
        python = ("python3", "-c", "open('/tmp/let-go', 'w'); print('told')")

        def told(edge: str) -> bool:
            pods = self.get(edge, "pods", "hanse", "-l", f"hanse.dev/training={name}")
            there = [pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
            said = [
                self.kubectl(edge, "exec", "-n", "hanse", pod, "--", *python, check=False) for pod in there
            ]
            return said == ["told\n"]

        for edge in edges or self.edges:
            eventually(lambda edge=edge: told(edge), f"client on {edge} that can be let go")


def eventually(wanted: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Return the first true answer; fail with `what` if none comes."""
    return cluster_labs.wait_for(wanted, what, seconds=seconds, every=0.3)


def hanse(*arguments: object, kubeconfig: Path | None = None) -> str:
    """Run the command as a person does; fail with what it said."""
    chosen = ["--kubeconfig", str(kubeconfig)] if kubeconfig else []
    argv = [sys.executable, "-m", "coordinator.cli.main", *map(str, arguments), *chosen]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def over(status: Mapping[str, Any]) -> bool:
    """Whether a training has ended."""
    return status.get("phase") in ("Completed", "Failed")


def condition(status: Mapping[str, Any], type_: str) -> Manifest:
    """Return one condition; empty if there is none."""
    return next((entry for entry in status.get("conditions", []) if entry["type"] == type_), {})


def of_cluster(status: Mapping[str, Any], name: str) -> Manifest:
    """Return what a status says of a cluster; empty if nothing."""
    return next((entry for entry in status.get("clusters", []) if entry["name"] == name), {})


def packed(client_app: str, server_app: str, pyproject: str = federations.PYPROJECT) -> bytes:
    """Return the bundle of an app made of these two modules."""
    with tempfile.TemporaryDirectory() as directory:
        app = Path(directory) / "tiny"
        app.mkdir()
        (app.parent / "pyproject.toml").write_text(textwrap.dedent(pyproject))
        (app / "__init__.py").touch()
        (app / "server_app.py").write_text(server_app)
        (app / "client_app.py").write_text(client_app)
        return bundle.pack(app.parent).data


def _own(kind: str, name: str, namespace: str, spec: Mapping[str, Any]) -> Manifest:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": federations.API, "kind": kind, "metadata": metadata, "spec": dict(spec)}
