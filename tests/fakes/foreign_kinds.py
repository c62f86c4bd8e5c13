"""The definitions of kinds that others bring: Gateway API's TLSRoute, cert-manager's Issuer and Certificate.

They are read out of those projects' own Go modules, which modules/go.sum names by version and checksum, and
stay in the cache of the lab's programs. This module refuses to know what is checked against them.
"""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import shutil
import subprocess
from collections.abc import Mapping

import yaml

from federation.kube import client
from simulations.lab import cache, gobuild
from tests.fakes import controlplane

MODULES = pathlib.Path(__file__).with_name("modules")
FILES = {
    "sigs.k8s.io/gateway-api": ("config/crd/standard/gateway.networking.k8s.io_tlsroutes.yaml",),
    "github.com/cert-manager/cert-manager": (
        "deploy/crds/cert-manager.io_issuers.yaml",
        "deploy/crds/cert-manager.io_certificates.yaml",
    ),
}
ATTEMPTS = 2
"""A proxy that fails once often answers the next time."""
ATTEMPT_SECONDS = 180.0


class NotToBeHad(Exception):
    """A module could not be fetched; the text is a sentence that says what to do."""


def versions() -> Mapping[str, str]:
    """Return the version of each module, as go.sum pins it."""
    words = (line.split() for line in (MODULES / "go.sum").read_text().splitlines())
    return {module: version for module, version, _ in words if not version.endswith("/go.mod")}


def files(variables: Mapping[str, str] = os.environ) -> list[pathlib.Path]:
    """Return the definitions' files, fetched if they are not in the cache. Raises: NotToBeHad."""
    root = cache.directory(variables)
    found: list[pathlib.Path] = []
    for module, version in versions().items():
        directory = root / f"{module.rpartition('/')[2]}-{version}"
        if not directory.exists():
            with cache.locked(root, "definitions", print):
                if not directory.exists():  # another process may have been here
                    _fetch(module, version, directory, variables)
        found += [directory / pathlib.PurePosixPath(path).name for path in FILES[module]]
    return found


def _fetch(module: str, version: str, directory: pathlib.Path, variables: Mapping[str, str]) -> None:
    try:
        go = gobuild.toolchain(directory.parent, variables, print)
    except gobuild.BuildFailed as failure:
        raise NotToBeHad(f"the definitions of {module} are not to be had: {failure}") from failure
    for _ in range(ATTEMPTS):
        source, why = _downloaded(go, f"{module}@{version}", variables)
        if source is not None:
            break
    else:
        raise NotToBeHad(f"{module} {version} is not to be had ({why}); set GOPROXY to a proxy that has it")
    with cache.new_directory(directory) as partial:
        for path in FILES[module]:
            shutil.copyfile(source / path, partial / pathlib.PurePosixPath(path).name)


def _downloaded(go: pathlib.Path, what: str, variables: Mapping[str, str]) -> tuple[pathlib.Path | None, str]:
    """Where Go has unpacked the module, whose checksum it has compared with go.sum; else why not."""
    command = [str(go), "mod", "download", "-json", what]
    try:
        done = subprocess.run(
            command,
            cwd=MODULES,
            env=gobuild.environment(variables),
            capture_output=True,
            text=True,
            timeout=ATTEMPT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {ATTEMPT_SECONDS:.0f} s"
    if done.returncode == 0:
        return pathlib.Path(json.loads(done.stdout)["Dir"]), ""
    said = json.loads(done.stdout)["Error"] if done.stdout.startswith("{") else done.stderr
    return None, " ".join(said.split())


def apply(plane: controlplane.ControlPlane) -> None:
    """Put the kinds into an API server, and wait until it serves them. Raises: NotToBeHad."""
    documents = [yaml.safe_load(path.read_text()) for path in files()]

    async def work() -> None:
        async with await client.Client.connect(plane.kubeconfig) as api:
            await controlplane.define(api, documents)

    asyncio.run(asyncio.wait_for(work(), controlplane.START_SECONDS))
