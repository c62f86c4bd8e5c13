"""Work that stands and falls together."""

import asyncio

import pytest

from federation.runtime import tasks


async def test_what_stands_together_falls_together() -> None:
    """The first to end ends the others, and its error comes out plain."""
    ended = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def fails() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await tasks.together(endless(), fails())
    assert ended == ["endless"]
