"""Several pieces of work that stand and fall together.

This module refuses to know what they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable


async def together(*work: Awaitable[object]) -> None:
    """Run all until one ends; then cancel the others, wait for them, and raise what that one raised."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()
