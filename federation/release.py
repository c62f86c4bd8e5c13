"""Which release of Hanse this process is, as it tells others. It refuses to know what follows from that."""

from __future__ import annotations

import importlib.metadata

UNKNOWN = "0+unknown"
"""What a checkout that is not installed calls itself."""


def version() -> str:
    """Return the installed release, such as `0.1.0`."""
    try:
        return importlib.metadata.version("hanse")
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
