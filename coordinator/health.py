"""Whether the coordinator lives and is ready, for kubelet's probes: two paths over HTTP, and nothing else.

This module refuses to know why it is not: it is told.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from federation.wire import addresses

REQUEST_SECONDS = 5.0
_REQUEST_BYTES = 8 * 1024


class Health:
    """Answers GET /healthz and /readyz with 200 or 503."""

    def __init__(self, listen: str, *, why_not_ready: Callable[[], str]) -> None:
        """Take where to listen; `why_not_ready` is asked at each request, and is empty if it is ready."""
        self._listen = listen
        self._why_not_ready = why_not_ready
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen. Raises: OSError."""
        host, port = addresses.split(self._listen)
        self._server = await asyncio.start_server(self._serve, host, port, limit=_REQUEST_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.LimitOverrunError, asyncio.IncompleteReadError
        ):
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                status, text = self._answer(head.split(b"\r\n", 1)[0].decode("latin-1"))
                body = f"{text}\n".encode()
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        writer.close()

    def _answer(self, request: str) -> tuple[str, str]:
        match request.split(" "):
            case ["GET" | "HEAD", "/healthz", _]:
                return "200 OK", "ok"
            case ["GET" | "HEAD", "/readyz", _]:
                why = self._why_not_ready()
                return ("503 Service Unavailable", f"not ready: {why}") if why else ("200 OK", "ok")
        return "404 Not Found", "not found"
