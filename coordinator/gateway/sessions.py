"""What both kinds of session share: reading with a deadline, and an end that waits for no one.

This module refuses to know what is read and written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from federation.wire import denials

HELLO_SECONDS = 10.0
"""A caller that is through the handshake sends its hello at once; who does not is not one of ours."""

GOODBYE_SECONDS = 2.0
"""So long a goodbye waits to be read."""

_T = TypeVar("_T")


class SilentError(Exception):
    """Nothing came before the deadline."""


async def receive(requests: AsyncIterator[_T], deadline_seconds: float) -> _T | None:
    """Return the next message, or None at the end of the stream. Raises: SilentError."""
    try:
        async with asyncio.timeout(deadline_seconds):
            return await anext(requests, None)
    except TimeoutError as error:
        raise SilentError(f"nothing came for {deadline_seconds:g} s") from error


async def hello(requests: AsyncIterator[_T], deadline_seconds: float = HELLO_SECONDS) -> _T:
    """Return the first message. Raises: Denied(BAD_MESSAGE) without one in time."""
    try:
        first = await receive(requests, deadline_seconds)
    except SilentError as error:
        raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="no hello came in time") from error
    if first is None:
        raise denials.Denied(denials.Reason.BAD_MESSAGE, detail="the stream ended before a hello")
    return first


async def over(ending: asyncio.Event, grace_seconds: float = GOODBYE_SECONDS) -> None:
    """Wait until a session is to end and has had its time: a peer that reads nothing keeps none open."""
    await ending.wait()
    await asyncio.sleep(grace_seconds)
