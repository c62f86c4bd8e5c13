"""Children of the command, and what watches over its keys."""

import asyncio
from pathlib import Path

from simulations.local import processes


async def test_janitor_cleans_up_after_a_death(tmp_path: Path) -> None:
    """When its input ends without a word, the directory goes."""
    keys = tmp_path / "hanse keys"
    keys.mkdir()
    (keys / "tls.key").touch()
    (keys / "data").mkdir()
    (keys / "data" / "rows.csv").touch()
    (keys / "data").chmod(0o500)  # as an agent leaves a data set
    janitor = await processes.Janitor.watch(keys)
    assert janitor.process.stdin is not None
    janitor.process.stdin.close()

    async with asyncio.timeout(60):
        await janitor.process.wait()

    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240  (nothing else runs here)


async def test_janitor_that_is_not_needed(tmp_path: Path) -> None:
    """Dismissed, it touches nothing and is gone."""
    (tmp_path / "kept").touch()
    janitor = await processes.Janitor.watch(tmp_path)

    await janitor.dismiss()

    assert janitor.process.returncode == 0
    assert (tmp_path / "kept").exists()
