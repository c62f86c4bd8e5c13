"""Following a client's log file: the whole lines that are new since the last look.

This module refuses to know where lines go. The file keeps everything; what comes too fast is skipped here.
"""

from __future__ import annotations

import os
import pathlib

BYTES_PER_LOOK = 64 * 1024
"""At one look a second this is far above what a reader can follow, and little to hold."""


class Tail:
    """The new lines of one file."""

    def __init__(self, path: pathlib.Path) -> None:
        """Begin at the file's end of now: what was written before was told before."""
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read_new(self) -> list[str]:
        """Return the whole lines since the last call; of very much, the latest. Blocks shortly."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = max(self._offset, size - BYTES_PER_LOOK)
                file.seek(start)
                content = file.read(BYTES_PER_LOOK)
        except FileNotFoundError:
            return []
        end = content.rfind(b"\n") + 1
        if end == 0 and len(content) < BYTES_PER_LOOK:
            return []
        self._offset = start + (end or len(content))
        return content[: end or len(content)].decode("utf-8", "replace").splitlines()
