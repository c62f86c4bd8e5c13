"""kubectl, for what only it does: rendering kustomizations, and asking as somebody else."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.fakes import controlplane


def program() -> pathlib.Path:
    """Return kubectl, from where the API server is or from PATH; skip the test where there is none."""
    server = controlplane.programs().get("kube-apiserver")
    beside = server.with_name("kubectl") if server else None
    found = str(beside) if beside and os.access(beside, os.X_OK) else shutil.which("kubectl")
    if found is None:
        pytest.skip("no kubectl; put one into PATH, or run `hanse lab up` once")
    return pathlib.Path(found)


def run(*arguments: str, kubeconfig: pathlib.Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run kubectl; a failure is the caller's to look at."""
    named = [f"--kubeconfig={kubeconfig}"] if kubeconfig else []
    return subprocess.run(
        [str(program()), *named, *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def rendered(directory: pathlib.Path) -> list[dict[str, Any]]:
    """Return the objects of a kustomization."""
    result = run("kustomize", str(directory))
    assert result.returncode == 0, result.stderr
    return [manifest for manifest in yaml.safe_load_all(result.stdout) if manifest]
