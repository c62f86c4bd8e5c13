"""A TCP proxy that cuts links where a test says: by bytes, never by time.

    proxy = await Proxy("127.0.0.1", port).start()
    proxy.cut_after(upward=1_000_000)        # the connection that carries this byte is reset
    proxy.freeze()                           # half-open: connections stay, nothing passes any more

`upward` is from the one that dials to the one that is dialled.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

_READ_BYTES = 64 * 1024


@dataclass(eq=False)
class _Connection:
    writers: tuple[asyncio.StreamWriter, asyncio.StreamWriter]

    def reset(self) -> None:
        for writer in self.writers:
            writer.transport.abort()


class Proxy:
    """Forwards to one address. All of it runs on the event loop that started it."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._cut_at: dict[str, int | None] = {"upward": None, "downward": None}
        self.carried = {"upward": 0, "downward": 0}
        """Bytes that passed, of all connections together."""
        self.cuts = 0

    async def start(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def stop(self) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Reset every connection; new ones are forwarded as before."""
        for connection in self._connections:
            connection.reset()

    def cut_after(self, *, upward: int | None = None, downward: int | None = None) -> None:
        """Cut once, when so many more bytes have passed."""
        for name, more in (("upward", upward), ("downward", downward)):
            if more is not None:
                self._cut_at[name] = self.carried[name] + more

    def freeze(self) -> None:
        """Let nothing pass in either direction; connections stay up, as behind a NAT that forgot them."""
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection((writer, far_writer))
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(connection, reader, far_writer, "upward"))
                group.create_task(self._pump(connection, far_reader, writer, "downward"))
        finally:
            self._connections.discard(connection)
            connection.reset()

    async def _pump(
        self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter, name: str
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_READ_BYTES):
                await self._open.wait()
                limit = self._cut_at[name]
                if limit is not None and self.carried[name] + len(data) >= limit:
                    self._cut_at[name] = None
                    self.cuts += 1
                    break
                self.carried[name] += len(data)
                sink.write(data)
                await sink.drain()
        connection.reset()  # a half-closed connection is of no use to gRPC
