"""The same work on several clusters at once. A lab's work waits for programs, so threads do."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def together(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """Do it for all at once; the first error is raised when all have ended."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(items))) as pool:
        return list(pool.map(work, items))
