"""One port of this machine's loopback address that leads to an address inside a cluster's network namespace.

Why it exists: a lab's networks are closed, and kubectl, tests and people are outside. A socket stays in the
namespace in which it was made: one thread lives in the cluster's namespace and makes sockets there, all else
happens here.

Standard library only:  python -I -S forward.py NETNS HOST PORT LISTEN FILE
LISTEN 0 takes any free port; the port taken is written to FILE.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import os
import socket
import sys
from pathlib import Path

CLONE_NEWNET = 0x40000000
CHUNK_BYTES = 64 * 1024


def enter(namespace: str) -> None:
    """Move this thread, and no other, into the namespace."""
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
    finally:
        os.close(descriptor)


def make_socket() -> socket.socket:
    """A socket of the namespace that this thread is in."""
    made = socket.socket()
    made.setblocking(False)
    return made


def say(file: Path, port: int) -> None:
    """Write the port down; whoever sees the file sees all of it."""
    part = Path(f"{file}.part")
    part.write_text(str(port), encoding="utf-8")
    part.replace(file)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what comes, and the end of it."""
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.transport.abort()


async def main() -> None:
    """Listen, say where, and serve until killed."""
    namespace, host, port, listen, file = sys.argv[1:]
    loop = asyncio.get_running_loop()
    there = concurrent.futures.ThreadPoolExecutor(1, initializer=enter, initargs=(namespace,))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        outgoing = None
        try:
            made = await loop.run_in_executor(there, make_socket)
            await loop.sock_connect(made, (host, int(port)))
            far_reader, outgoing = await asyncio.open_connection(sock=made)
            await asyncio.gather(pump(reader, outgoing), pump(far_reader, writer))
        except OSError:
            writer.transport.abort()  # as a refused connection looks from outside
        finally:
            for end in (writer, outgoing):
                if end is not None:
                    end.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(listen))
    say(Path(file), server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
