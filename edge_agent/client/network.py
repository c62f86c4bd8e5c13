"""Looks whether the network is as closed as it must be, before the client touches data.

A NetworkPolicy is enforced by somebody else, and sometimes a moment after a pod begins. So the client tries
by itself: while one address opens that must be closed it waits, and in the end it refuses to work. It looks
once the aggregator answers, if that is soon: a network that is not up yet closes everything.
This module refuses to know why an address must be closed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence

from federation.telemetry import logs
from federation.wire import addresses

log = logs.get_logger(__name__)

PATIENCE_SECONDS = 30.0
"""A policy that is not in force after so long will not be."""

CONNECT_SECONDS = 1.0
"""One attempt; a packet that is dropped never comes back, one that is let through does within this."""

DOOR_SECONDS = 10.0
"""An aggregator that is away does not keep the client from looking for longer than this."""

AGAIN_SECONDS = 0.5


class NotRestricted(Exception):
    """An address that must be closed is open; the text is a sentence for people."""


def wait_until_restricted(
    closed: Sequence[str],
    door: str,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    door_seconds: float = DOOR_SECONDS,
    connect_seconds: float = CONNECT_SECONDS,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Return when no address of `closed` can be connected to; blocks until then.

    closed:  HOST:PORT each; nothing is looked at when there is none.
    door:    where the aggregator is; what gRPC dials, of which only HOST:PORT is tried.
    Raises: NotRestricted after `patience_seconds`.
    """
    if not closed:
        return
    _wait_for_door(_tried(door), door_seconds, connect_seconds, now, sleep)
    began = now()
    while opened := _open_among(closed, connect_seconds):
        address, waited = min(opened), now() - began
        if waited >= patience_seconds:
            raise NotRestricted(
                f"{address} can be reached from the client's pod after {waited:.0f} s, and nothing but the "
                "hub must be; install a network plugin that enforces NetworkPolicy, or correct the "
                "namespace's policies"
            )
        log.warning("network is not restricted yet", address=address, seconds=round(waited, 3))
        sleep(AGAIN_SECONDS)
    log.info("network is restricted", addresses=len(closed), seconds=round(now() - began, 3))


def _wait_for_door(
    door: Sequence[str],
    door_seconds: float,
    connect_seconds: float,
    now: Callable[[], float],
    sleep: Callable[[float], object],
) -> None:
    ends = now() + door_seconds
    while door and not _open_among(door, connect_seconds) and now() < ends:
        sleep(AGAIN_SECONDS)


def _tried(door: str) -> tuple[str, ...]:
    """Return the HOST:PORT in a gRPC target such as a.b:1, ipv4:1.2.3.4:5,6.7.8.9:5 or ipv6:[::1]:5."""
    scheme, _, rest = door.partition(":")
    return tuple(rest.split(",")) if scheme in ("ipv4", "ipv6") else (door,) if door else ()


def _open_among(addresses: Sequence[str], connect_seconds: float) -> set[str]:
    """Return the addresses that a connection could be made to, all tried at once."""
    opened: set[str] = set()

    def attempt(address: str) -> None:
        if _opens(address, connect_seconds):
            opened.add(address)

    threads = [threading.Thread(target=attempt, args=(address,), daemon=True) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        # Looking up a name may hang for longer than connecting; what hangs has not opened.
        thread.join(connect_seconds + 1.0)
    return set(opened)


def _opens(address: str, connect_seconds: float) -> bool:
    with (
        contextlib.suppress(OSError, ValueError),
        socket.create_connection(addresses.split(address), connect_seconds),
    ):
        return True
    return False
