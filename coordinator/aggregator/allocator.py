"""Telling the C library to give large blocks of memory back.

Why it exists: glibc learns from freed blocks and soon takes blocks of up to 32 MiB from heaps that it returns
late or never, one heap for each of several threads. A process that averages models frees and allocates such
blocks all the time, and would keep up to twice what it uses. It knows nothing of models; elsewhere than on
glibc it does nothing.
"""

from __future__ import annotations

import ctypes

LARGE_BLOCK_BYTES = 4 * 1024 * 1024
"""From this length on a block is mapped by itself. Chunks of one MiB stay on the heap, where they cost no
page faults."""

ARENAS = 2

_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def return_large_blocks() -> bool:
    """Make freed blocks of LARGE_BLOCK_BYTES and more leave at once; return whether it will be so."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)) and bool(mallopt(_M_ARENA_MAX, ARENAS))
