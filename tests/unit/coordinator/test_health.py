"""kubelet's probes are answered, and nothing else is."""

import asyncio

import pytest

from coordinator import health

pytestmark = pytest.mark.asyncio

CASES = {
    "alive": (b"GET /healthz HTTP/1.1", b"200 OK"),
    "not ready": (b"GET /readyz HTTP/1.1", b"503 Service Unavailable"),
    "another path": (b"GET /metrics HTTP/1.1", b"404 Not Found"),
    "another method": (b"POST /healthz HTTP/1.1", b"404 Not Found"),
}


@pytest.mark.parametrize(("request_line", "want"), CASES.values(), ids=CASES)
async def test_probes(request_line: bytes, want: bytes) -> None:
    """Each case: a request and the status of its answer."""
    probes = health.Health("127.0.0.1:0", why_not_ready=lambda: "the store is away")
    await probes.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", probes.port)
    writer.write(request_line + b"\r\nHost: pod\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 " + want)
    assert answer.endswith(b"not ready: the store is away\n") == (b"readyz" in request_line)
    writer.close()
    await probes.stop()
