"""The digest that names an array on the wire, and checks it: BLAKE3, 32 bytes.

A model is digested once where it is sent and once wherever it comes in, inside a round. BLAKE3 does that
several times faster than SHA-256 and is as hard to forge, which a name must be, since a client may say
"I hold this already". One place, so that both sides and the tests name arrays alike. What people see and
compare (the model's file, the app, certificates) has a SHA-256, which their own tools can check.
"""

from __future__ import annotations

import blake3

DIGEST_BYTES = 32


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the digest of the bytes."""
    return blake3.blake3(data).digest(DIGEST_BYTES)


def start() -> blake3.blake3:
    """Return the digest of nothing yet, to be updated run by run."""
    return blake3.blake3()
