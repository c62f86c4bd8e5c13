"""The bare channel: the bytes of a round over grpc.aio with mutual TLS, and nothing else.

Why it exists: it is the floor under every host of federated learning in this language and on this machine.
One server process and two client processes, as in a federation; a round sends each client the model to
train, takes a model back, and sends the model again to be evaluated, which is what a host does that keeps
nothing. Chunks are raw bytes of one MiB: no protobuf, no checksum, no disk. Models, apps and rounds' rules
are not known here.

    python -m simulations.bench.channel server CONFIG.json     prints a line of JSON for each round
    python -m simulations.bench.channel client CONFIG.json
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from federation.trust import credentials
from federation.wire import limits

import grpc  # isort: skip  # after federation.trust, which decides what TLS gRPC speaks
import grpc.aio  # isort: skip

CHUNK_BYTES = 1024 * 1024
SERVICE, METHOD = "bench.Channel", "/bench.Channel/Session"
OPTIONS = (
    ("grpc.max_receive_message_length", limits.MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", limits.MAX_FRAME_BYTES),
)
SERVER_NAME = "channel.bench.local"
ACKNOWLEDGED = b"\x01"


class _Server:
    """Holds rounds with a number of clients."""

    def __init__(self, clients: int, rounds: int, model_bytes: int) -> None:
        self._barrier = asyncio.Barrier(clients)
        self._rounds = rounds
        self._model = bytes(model_bytes)
        self._left = clients
        self.done = asyncio.Event()

    async def session(self, requests: AsyncIterator[bytes], context: Any) -> None:
        stream = aiter(requests)
        for _ in range(self._rounds):
            first = await self._barrier.wait() == 0
            began = time.perf_counter()
            await _send(context.write, self._model)
            await _receive(stream, len(self._model))
            await self._barrier.wait()
            await _send(context.write, self._model)
            await _receive(stream, len(ACKNOWLEDGED))
            await self._barrier.wait()
            if first:
                print(json.dumps({"seconds": time.perf_counter() - began}), flush=True)
        self._left -= 1
        if not self._left:
            self.done.set()


async def _send(write: Any, data: bytes) -> None:
    view = memoryview(data)
    for offset in range(0, len(view), CHUNK_BYTES):
        await write(bytes(view[offset : offset + CHUNK_BYTES]))


async def _receive(stream: AsyncIterator[bytes], length: int) -> None:
    while length > 0:
        length -= len(await anext(stream))


async def serve(config: dict[str, Any], announce: Callable[[int], object]) -> None:
    """Serve until every client has had its rounds; `announce` is told the port."""
    server = grpc.aio.server(options=OPTIONS)
    sessions = _Server(config["clients"], config["rounds"], config["model_bytes"])
    handler = grpc.stream_stream_rpc_method_handler(sessions.session)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Session": handler}),))
    own = credentials.CredentialDirectory(Path(config["credentials"]))
    port = server.add_secure_port("127.0.0.1:0", own.server_credentials())
    await server.start()
    announce(port)
    await sessions.done.wait()
    await server.stop(1.0)


async def take_part(config: dict[str, Any]) -> None:
    """Answer every model with a model, and every other one with a byte."""
    own = credentials.CredentialDirectory(Path(config["credentials"]))
    model = bytes(config["model_bytes"])
    async with own.channel(config["address"], SERVER_NAME, OPTIONS) as channel:
        call = channel.stream_stream(METHOD)(wait_for_ready=True)

        async def frames() -> AsyncIterator[bytes]:
            while (frame := await call.read()) is not grpc.aio.EOF:
                yield frame

        stream = frames()
        for _ in range(config["rounds"]):
            await _receive(stream, len(model))
            await _send(call.write, model)
            await _receive(stream, len(model))
            await call.write(ACKNOWLEDGED)
        await call.done_writing()
        async for _ in stream:
            pass


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    port_file = Path(settings["port_file"])
    if sys.argv[1] == "server":
        asyncio.run(serve(settings, lambda port: port_file.write_text(str(port), encoding="ascii")))
    else:
        asyncio.run(take_part(settings))
