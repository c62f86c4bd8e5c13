"""Which addresses are behind a name, for pods that have no name server.

This module refuses to know what is at the addresses.
"""

from __future__ import annotations

import asyncio
import socket


async def ips(host: str, port: int) -> tuple[str, ...]:
    """Return the IP addresses of a host, sorted, all of one family (gRPC takes a list of one only).

    Raises: OSError.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
    )
    families: dict[int, set[str]] = {socket.AF_INET: set(), socket.AF_INET6: set()}
    for family, _, _, _, place in found:
        if family in families:
            families[family].add(str(place[0]))
    return tuple(sorted(families[socket.AF_INET] or families[socket.AF_INET6]))
