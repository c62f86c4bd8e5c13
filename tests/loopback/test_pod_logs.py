"""Pods' logs through a real API server; the node that has the log is played by the test."""

from __future__ import annotations

import asyncio
import datetime as dt
import pathlib
import ssl
import uuid
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federation.kube import client, containers, errors
from tests.fakes import controlplane

pytestmark = pytest.mark.controlplane
PATIENCE_SECONDS = 60


class Node:
    """One node's log endpoint, and one pod of a Job on it."""

    def __init__(self, api: client.Client, namespace: str) -> None:
        self.api = api
        self.namespace = namespace
        self.open: list[asyncio.Queue[str | None]] = []
        self.closed = False
        self.asked: asyncio.Queue[tuple[web.Request, asyncio.Queue[str | None]]] = asyncio.Queue()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Send what the test says, until it says None."""
        response = web.StreamResponse()
        await response.prepare(request)
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        if self.closed:
            return response
        self.open.append(lines)
        self.asked.put_nowait((request, lines))
        while (line := await lines.get()) is not None:
            await response.write(f"{line}\n".encode())
        return response

    async def asked_for(self) -> tuple[web.Request, asyncio.Queue[str | None]]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.asked.get()

    async def make_pod(self, node: str) -> None:
        container = {"name": "main", "image": "i"}
        await self.api.create(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "client-x",
                    "namespace": self.namespace,
                    "labels": {"batch.kubernetes.io/job-name": "client"},
                },
                "spec": {"nodeName": node, "containers": [container], "automountServiceAccountToken": False},
            }
        )

    async def runs(self) -> None:
        status = {"phase": "Running"}
        await self.api.patch("Pod", "client-x", self.namespace, {"status": status}, subresource="status")


def certificate(directory: pathlib.Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / "node.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.fixture
async def node(control_plane: controlplane.ControlPlane, tmp_path: pathlib.Path) -> AsyncIterator[Node]:
    """Give a node that the API server can ask for logs, and a pod on it that is not running yet."""
    async with await client.Client.connect(control_plane.kubeconfig) as api:
        name = f"logs-{uuid.uuid4().hex[:8]}"
        await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        made = Node(api, name)
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", made.answer)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=certificate(tmp_path))
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]
        await api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        await api.patch("Node", name, "", {"status": status}, subresource="status")
        await made.make_pod(name)
        yield made
        made.closed = True
        for lines in made.open:
            lines.put_nowait(None)
        await runner.cleanup()
        await api.delete("Pod", "client-x", name, grace_seconds=0)
        await api.delete("Node", name)
        await api.delete("Namespace", name)


async def test_a_line_without_an_end_comes_in_pieces(node: Node) -> None:
    """A pod that never ends its line does not fill the memory of who reads it."""
    await node.runs()
    reading = asyncio.create_task(read(node))
    request, lines = await node.asked_for()
    assert request.query["follow"] == "true"
    lines.put_nowait("x" * (3 * containers.LINE_BYTES + 5))
    lines.put_nowait("next")
    lines.put_nowait(None)
    taken = await reading
    assert "".join(taken) == "x" * (3 * containers.LINE_BYTES + 5) + "next"
    assert max(len(line) for line in taken) == containers.LINE_BYTES


async def read(node: Node) -> list[str]:
    """Follow the log to its end."""
    return [line async for line in containers.follow_log(node.api, node.namespace, "client-x")]


@pytest.mark.parametrize(
    "said",
    [
        "the last line",
        "failed to find a column",
        "unable to retrieve container logs for containerd://526f41f3d3",
        'failed to try resolving symlinks in path "/var/log/pods/hanse_client-x_70a6/main/0.log": lstat '
        "/var/log/pods/hanse_client-x_70a6: no such file or directory",
    ],
)
async def test_a_log_that_the_node_has_removed_is_none(node: Node, said: str) -> None:
    """Kubelet answers with a sentence as if it were the log."""
    await node.runs()
    reading = asyncio.create_task(containers.log_tail(node.api, node.namespace, "client-x"))
    _, lines = await node.asked_for()
    lines.put_nowait(said)
    lines.put_nowait(None)
    if said in ("the last line", "failed to find a column"):
        assert await reading == (said,)
    else:
        with pytest.raises(errors.NotFound, match="its node has removed it"):
            await reading
