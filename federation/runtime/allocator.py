"""Telling the C library when to give memory back.

Why it exists: glibc learns from freed blocks and soon takes blocks of up to 32 MiB from heaps that it returns
late or never, one heap for each of several threads. A process that sends and averages models frees and
allocates such blocks all the time, and would keep up to twice what it uses. Giving all of them back at once
is no better: each new block then costs a page fault for every 4 KiB, half the time of an average. So tensors
of common sizes stay on their heap, whose free end goes back when it is long; and what the transfers of many
clients leave between its blocks goes back before the average, which needs longer ones. Elsewhere than on
glibc this does nothing.
"""

from __future__ import annotations

import ctypes

MAPPED_BLOCK_BYTES = 16 * 1024 * 1024
"""From this length on a block is mapped by itself and leaves when it is freed: few tensors are longer."""

KEPT_FREE_BYTES = 64 * 1024 * 1024
"""So much free memory may lie at the end of the heap for the next block."""

ARENAS = 1
"""In an aggregator: what the event loop freed, the app's thread can use. Rounds take as long as with two
(1 and 100 MB).
"""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def return_large_blocks(arenas: int | None = ARENAS) -> bool:
    """Set the bounds above for this process, with so many heaps (None: as many as the library likes).

    Returns whether they are in force.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = [(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES), (_M_MMAP_THRESHOLD, MAPPED_BLOCK_BYTES)]
    if arenas is not None:
        settings.append((_M_ARENA_MAX, arenas))
    return all([mallopt(name, value) for name, value in settings])


def return_free_pages() -> bool:
    """Give back the pages that are free between blocks in use; return whether there were any.

    Each of them costs a page fault when it is used again.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return False
    return bool(malloc_trim(0))
