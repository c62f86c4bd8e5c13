"""The numbers by which Flower knows a training and its clusters.

Why it exists: they must survive restarts of every process and be the same on both sides without asking, so
they are derived from names. Knows nothing of Flower's own objects.
"""

from __future__ import annotations

import hashlib

_RESERVED = 2
"""0 is invalid as a node id and 1 is the server's."""


def run_id(namespace: str, name: str) -> int:
    """The run id of a training: 1 to 2^63-1, so that it is a positive number in every database too."""
    return _number("run", namespace, name) % (2**63 - 1) + 1


def node_id(namespace: str, name: str, cluster: str) -> int:
    """The node id of a cluster in a training: 2 to 2^64-1."""
    return _number("node", namespace, name, cluster) % (2**64 - _RESERVED) + _RESERVED


def _number(*parts: str) -> int:
    # Names hold no NUL, so two different lists of parts never read alike.
    return int.from_bytes(hashlib.sha256("\0".join(parts).encode()).digest()[:8], "big")
