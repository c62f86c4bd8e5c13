"""The agent's identity as a Secret of its own namespace, so that nothing of a pod's disk is needed.

The files of `credentials.IDENTITY_FILES` are the Secret's keys. This module refuses to know what they mean.
"""

from __future__ import annotations

import asyncio
import base64
import pathlib

from edge_agent import credentials
from federation.kube import client, errors
from federation.runtime import processes
from federation.trust import credentials as trust
from federation.trust import directory

SECRET_NAME = "hanse-agent-identity"  # noqa: S105  # a name


class Vault:
    """Moves an identity between its directory and its Secret."""

    def __init__(self, api: client.Client, namespace: str, identity_directory: pathlib.Path) -> None:
        """Nothing is asked yet."""
        self._api = api
        self._namespace = namespace
        self._directory = identity_directory

    async def fetch(self) -> None:
        """Write the Secret's files into the directory, unless it holds an identity already.

        Raises: federation.kube.errors.KubernetesError; OSError.
        """
        store = trust.CredentialDirectory(self._directory)
        if await asyncio.to_thread(store.exists):
            return
        try:
            secret = await self._api.get("Secret", SECRET_NAME, self._namespace)
        except errors.NotFound:
            return
        files = {name: base64.b64decode(text) for name, text in (secret.get("data") or {}).items()}
        await asyncio.to_thread(self._write, files)

    async def keep(self) -> None:
        """Write the directory's files into the Secret; what is no longer there goes from it too.

        Raises: OSError.
        """
        files = await asyncio.to_thread(self._read)
        try:
            await self._api.apply(
                {
                    "apiVersion": "v1",
                    "kind": "Secret",
                    "metadata": {
                        "name": SECRET_NAME,
                        "namespace": self._namespace,
                        "labels": {
                            "app.kubernetes.io/name": "hanse",
                            "app.kubernetes.io/component": "agent",
                            "app.kubernetes.io/managed-by": "hanse",
                        },
                    },
                    "data": {name: base64.b64encode(content).decode() for name, content in files.items()},
                }
            )
        except errors.KubernetesError as error:
            raise OSError(f"the agent's identity cannot be kept: {error}") from error

    def _read(self) -> dict[str, bytes]:
        found = {}
        for name in credentials.IDENTITY_FILES:
            path = self._directory / name
            if path.is_file():
                found[name] = path.read_bytes()
        return found

    def _write(self, files: dict[str, bytes]) -> None:
        processes.make_private_directory(self._directory)
        material = [
            files.pop(name, b"") for name in (directory.KEY_NAME, directory.CHAIN_NAME, directory.BUNDLE_NAME)
        ]
        if all(material):
            try:
                trust.CredentialDirectory(self._directory).write(*material)
            except directory.CredentialsUnusable:
                return  # as good as none: the agent joins anew
        for name in credentials.IDENTITY_FILES:
            if name in files:
                processes.write_private_file(self._directory / name, files[name])
