"""What glibc gives back, seen in a process of its own: its settings would stay in this one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator only")

PIECES = """
import re, threading
from pathlib import Path
from federation.runtime import allocator

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

assert allocator.return_large_blocks()
before, blocks = resident(), []

def transfers():  # 64 MB in chunks of 64 KiB; every other one is still in use when they are over
    blocks.extend(b"x" * 65536 for _ in range(1000))
    del blocks[::2]

thread = threading.Thread(target=transfers)
thread.start()
thread.join()
scattered = resident() - before
assert allocator.return_free_pages()
print(scattered, resident() - before)
"""


def test_what_transfers_leave_between_blocks_in_use_is_given_back() -> None:
    """Half of the chunks are freed, none at the heap's end: their pages go when they are asked for."""
    ended = subprocess.run([sys.executable, "-c", PIECES], capture_output=True, text=True, check=True)
    scattered, left = map(int, ended.stdout.split())
    assert scattered > 60_000_000
    assert left < 40_000_000
