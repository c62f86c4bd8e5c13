"""What a process that holds keys gives up at its start, for itself and for all that it starts.

No core files: a crash would write keys and data to disk. No rights for others on what it writes, unless it
says so itself. This module refuses to know what the process is for.
"""

from __future__ import annotations

import contextlib
import os
import resource

PRIVATE_UMASK = 0o077


def keep_to_oneself() -> None:
    """Write no core files, and files that this user alone can read; both are inherited by children."""
    os.umask(PRIVATE_UMASK)
    with contextlib.suppress(ValueError, OSError):  # a harder limit is as good
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
