"""What is inside a pod: the last lines of its log, its log as it grows, files in it.

This module refuses to know what the pods are for.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence

import aiohttp

from federation.kube import client, connection, errors, kinds

LOG_TAIL_BYTES = 64 * 1024
"""At most so much of a log's end is asked for, however long its lines are."""

LINE_BYTES = 16 * 1024
"""A longer line is yielded in pieces: a program may write without ever ending a line."""

_NO_LOG = re.compile(
    r"unable to retrieve container logs for \w+://\w+\s*"
    r'|failed to [a-z ]+ "/var/log/pods/[^\n]*: no such file or directory\s*'
)
"""What kubelet answers in a log's place, as if it were one, when the container is gone already."""

_PROTOCOL = "v4.channel.k8s.io"
_STDOUT, _STDERR, _ERROR = 1, 2, 3
_POD = kinds.KNOWN["Pod"]


async def log_tail(
    api: client.Client,
    namespace: str,
    pod: str,
    *,
    container: str = "",
    lines: int = 20,
    previous: bool = False,
) -> tuple[str, ...]:
    """Return the last lines of a container's log. Raises: NotFound, Invalid when there is none yet.

    Asked for once: a node that is away is not waited for.
    """
    query = [("tailLines", str(lines)), ("limitBytes", str(LOG_TAIL_BYTES))]
    query += [("container", container)] if container else []
    query += [("previous", "true")] if previous else []
    async with api.http.answer(
        "GET", _POD.path(namespace, pod, "log"), query, what=f"log of Pod {namespace}/{pod}", verb="log",
        patience_seconds=0,
    ) as answer:  # fmt: skip
        text = (await answer.read()).decode(errors="replace")
    if _NO_LOG.fullmatch(text):
        raise errors.NotFound(f"log of Pod {namespace}/{pod}: its node has removed it")
    return tuple(text.splitlines()[-lines:])


async def follow_log(
    api: client.Client, namespace: str, pod: str, *, container: str = "", lines: int | None = None
) -> AsyncGenerator[str, None]:
    """Yield a container's log line by line, as it grows, until the container ends."""
    query = [("follow", "true")]
    query += [("container", container)] if container else []
    query += [("tailLines", str(lines))] if lines is not None else []
    what = f"log of Pod {namespace}/{pod}"
    rest = b""
    async with api.http.answer(
        "GET", _POD.path(namespace, pod, "log"), query, what=what, verb="log",
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
    ) as answer:  # fmt: skip
        try:
            async for chunk in answer.content.iter_any():
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    for piece in _pieces(line):
                        yield piece.decode(errors="replace")
                while len(rest) > LINE_BYTES:
                    yield rest[:LINE_BYTES].decode(errors="replace")
                    rest = rest[LINE_BYTES:]
        except connection.BROKEN as error:
            raise errors.Unreachable(f"{what}: broke off: {error}") from error
    if rest:
        yield rest.decode(errors="replace")


def _pieces(line: bytes) -> list[bytes]:
    return [line[at : at + LINE_BYTES] for at in range(0, max(len(line), 1), LINE_BYTES)]


async def output_of(
    api: client.Client, namespace: str, pod: str, command: Sequence[str], *, container: str = ""
) -> AsyncGenerator[bytes, None]:
    """Run a command in a container and yield what it writes to its standard output.

    Raises: CommandFailed with the last words of its standard error; NotFound, Forbidden, Unreachable.
    """
    query = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "true")]
    query += [("container", container)] if container else []
    what = f"run {command[0]} in Pod {namespace}/{pod}"
    complaints = b""
    status: dict[str, object] = {}
    try:
        socket = await api.http.websocket(_POD.path(namespace, pod, "exec"), query, _PROTOCOL)
        async with socket as messages:
            async for message in messages:
                if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                    continue
                channel, data = message.data[0], message.data[1:]
                if channel == _STDOUT and data:
                    yield data
                elif channel == _STDERR:
                    complaints = (complaints + data)[-2000:]
                elif channel == _ERROR and data:
                    status = json.loads(data)
    except aiohttp.WSServerHandshakeError as error:
        raise errors.from_status({"code": error.status, "message": error.message}, what) from error
    except connection.BROKEN as error:
        raise errors.Unreachable(f"{what}: {error}") from error
    if status.get("status") != "Success":
        words = complaints.decode(errors="replace").strip() or status.get("message") or "the connection broke"
        raise errors.CommandFailed(f"{what}: {words}")


async def read_file(
    api: client.Client, namespace: str, pod: str, path: str, *, container: str = ""
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of a file in a container that has `cat`. Raises: as `output_of`."""
    async for data in output_of(api, namespace, pod, ("cat", path), container=container):
        yield data
