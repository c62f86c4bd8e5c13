"""A lab as tests use it: a cluster's objects by kubectl, and waiting for what comes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from simulations.lab import port

IMAGE = "hanse.dev/lab/busybox:1"  # the small image with a shell that the fixture loads everywhere
HUB_API = 6443


def wait_for(
    look: Callable[[], Any], what: str | Callable[[], str], *, seconds: float = 60.0, every: float = 0.2
) -> Any:
    """What `look` returns once that is something; an assertion that says what did not come."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:g} s: no {what if isinstance(what, str) else what()}")
        time.sleep(every)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One cluster of a lab."""

    name: str
    kubeconfig: Path
    kubectl_program: Path

    def kubectl(self, *argv: str, given: str = "", check: bool = True) -> str:
        done = subprocess.run(
            [self.kubectl_program, f"--kubeconfig={self.kubeconfig}", *argv],
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{self.name}: kubectl {' '.join(argv)}: {done.stderr}"
        return done.stdout

    def apply(self, *documents: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=yaml.safe_dump_all(documents))

    def get(self, *argv: str) -> dict[str, Any]:
        """The object, or the list; empty when there is none."""
        text = self.kubectl("get", *argv, "-o", "json", "--ignore-not-found")
        return dict(json.loads(text)) if text.strip() else {}

    def namespace(self, name: str) -> str:
        """A fresh namespace of this name, with the service account that pods need."""
        self.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait")
        self.kubectl("create", "namespace", name)
        wait_for(lambda: self.get("serviceaccount", "default", "-n", name), f"service account in {name}")
        return name

    def ended(self, namespace: str, pod: str, *, seconds: float = 60.0) -> str:
        """The log of a pod that has ended, well or not."""

        def phase() -> str:
            return str(self.get("pod", pod, "-n", namespace)["status"].get("phase"))

        wait_for(
            lambda: phase() in ("Succeeded", "Failed"),
            lambda: f"end of pod {pod}: it is {phase()}",
            seconds=seconds,
        )
        return self.kubectl("logs", pod, "-n", namespace)


@dataclasses.dataclass(frozen=True)
class TestLab:
    """The lab that a session's tests share; what a test makes in it, it takes away."""

    __test__ = False
    lab: port.Lab
    hub: Cluster
    edges: Sequence[Cluster]

    @property
    def clusters(self) -> tuple[Cluster, ...]:
        return (self.hub, *self.edges)


def shell_pod(name: str, script: str, *, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    """A pod that runs a script once, as Pod Security `restricted` wants it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 1000,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "shell",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "args": ["-c", script],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    **spec.pop("container", {}),
                }
            ],
            **spec,
        },
    }
