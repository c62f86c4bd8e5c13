"""How a process ends with those who started it: the child's end of the lifeline, and a container's asking.

When whoever started this process is gone, it ends too. The parent keeps the write end of the pipe that is
this process's stdin and never writes. The kernel closes it with the parent, SIGKILL included, and the read
here meets the end of the file. This module refuses to know what the process does; it only ends it.
"""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable

EXIT_CODE = 86
"""The exit status of a process whose parent is gone; of no use to others, so that logs can tell it."""

CLEAN_END_SECONDS = 10.0
"""A clean end may take this long before the process is ended by force; with the parent gone nobody waits."""


def hold(
    on_parent_gone: Callable[[], object] | None = None,
    *,
    clean_end_seconds: float = CLEAN_END_SECONDS,
    descriptor: int = 0,
    end_process: Callable[[int], object] = os._exit,
) -> threading.Thread | None:
    """Watch the lifeline from a daemon thread; return it, or None when `descriptor` is no pipe.

    With a terminal, a file or /dev/null as stdin (a shell, a pod) there is no lifeline to watch.
    At the end of the file `on_parent_gone` is called in that thread (from asyncio: give
    `functools.partial(loop.call_soon_threadsafe, stop.set)`); the process is ended `clean_end_seconds` later
    if it still lives, or at once without a callback.
    """
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return None
    watcher = threading.Thread(
        target=_watch,
        args=(descriptor, on_parent_gone, clean_end_seconds, end_process),
        name="lifeline",
        daemon=True,
    )
    watcher.start()
    return watcher


def end_when_asked() -> None:
    """As a container's first process, end at SIGTERM: the kernel spares such a one what ends all others.

    For processes that may end at any moment; without this, whoever asks waits until SIGKILL.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))


def _watch(
    descriptor: int,
    on_parent_gone: Callable[[], object] | None,
    clean_end_seconds: float,
    end_process: Callable[[int], object],
) -> None:
    while True:
        try:
            if not os.read(descriptor, 4096):
                break
        except OSError:
            break
    try:
        if on_parent_gone is not None:
            on_parent_gone()
            threading.Event().wait(clean_end_seconds)
    finally:
        end_process(EXIT_CODE)
