"""A TCP proxy that spoils links where a test says: by bytes or by word.

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
    """near: to the one that dialled. forgotten: nothing passes any more; the far end does not learn of it."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    forgotten: bool = False

    def reset(self) -> None:
        for writer in (self.near, self.far):
            writer.transport.abort()


class Proxy:
    """Forwards to one address. All of it runs on the event loop that started it."""

    def __init__(self, host: str, port: int) -> None:
        """Take where to forward to; nothing is opened yet."""
        self._target = (host, port)
        self.port = port
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._cut_at: dict[str, int | None] = {"upward": None, "downward": None}
        self.delay_seconds = 0.0
        """Whatever passes waits so long, a piece at a time: a slow link, too."""
        self.carried = {"upward": 0, "downward": 0}
        """Bytes that passed, of all connections together."""
        self.cuts = 0

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Proxy:
        """Listen; port 0 takes a free one. Raises: OSError."""
        self._server = await asyncio.start_server(self._accept, host, port)
        self.address = f"{host}:{self._server.sockets[0].getsockname()[1]}"
        return self

    def lead_to(self, port: int) -> None:
        """Forward new connections to another port of the same host; those there are stay."""
        self._target = (self._target[0], port)

    async def stop(self) -> None:
        """Reset every connection and listen no more."""
        if self._server is None:
            return
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
        """Let everything pass again, and first what waited."""
        self._open.set()

    def forget(self) -> None:
        """Let nothing of the connections there are pass any more, with no word to either end."""
        for connection in self._connections:
            connection.forgotten = True

    def double(self) -> None:
        """Reset the near ends alone: whoever dialled dials again while the far end holds the old one."""
        for connection in self._connections:
            connection.forgotten = True
            connection.near.transport.abort()

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
        connection = _Connection(writer, far_writer)
        self._connections.add(connection)
        try:
            # Of a stopped proxy nobody asks how its connections ended.
            with contextlib.suppress(asyncio.CancelledError):
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
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._open.wait()
                if connection.forgotten:
                    break
                limit = self._cut_at[name]
                if limit is not None and self.carried[name] + len(data) >= limit:
                    self._cut_at[name] = None
                    self.cuts += 1
                    break
                self.carried[name] += len(data)
                sink.write(data)
                await sink.drain()
        if connection.forgotten:
            # Not closed, until whoever still holds the other end gives it up, or the proxy stops.
            with contextlib.suppress(OSError):
                while await source.read(_READ_BYTES):
                    pass
            if name == "upward":
                await asyncio.Event().wait()
        connection.reset()  # a half-closed connection is of no use to gRPC
