"""Every cap on what a peer may send, each with the reason for its value.

A peer is authenticated, not trusted: whatever it announces is checked against these caps before
memory or disk is set aside for it. This module knows numbers only.
"""

from __future__ import annotations

import dataclasses

CHUNK_BYTES = 1024 * 1024
"""Most bytes of a message in one frame. A heartbeat or a cancellation waits behind one chunk at most; with a
quarter of it a round of 1 MB and two clients took 3 ms more."""

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""Bytes of one gRPC message, gRPC's own default for receiving: room for four times CHUNK_BYTES, and
for a hello that names MAX_HELD_ARRAYS arrays."""

MAX_HELD_ARRAYS = 65_536
"""Digests in one ClientHello: 34 bytes each, 2.2 MB together, so a hello stays below MAX_FRAME_BYTES."""

MAX_ID_CHARACTERS = 256
"""Of a transfer's id. A receiver remembers thousands of them, and none is made longer than 100."""

BLOB_BYTES = 16 * 1024
"""From this length on, a bytes value of a config record travels as arrays do, beside the header.
Secure aggregation puts whole models into config records; a header must stay small and is read whole."""


@dataclasses.dataclass(frozen=True, slots=True)
class MessageLimits:
    """What one message may hold.

    header_bytes: the header is kept in memory and parsed in one go, which takes some ten times its
        length; 16 MiB is a metric list of two million numbers, and more of them belongs in an array.
    arrays: array entries of all records together, repeated ones counted. The largest published models
        have a few thousand tensors; 65 536 leaves room for per-layer optimiser state.
    array_bytes: one array, serialised. 4 GiB is the embedding table of the largest open models in
        float32; the receiver needs room for one whole array when it aggregates.
    message_bytes: header and distinct arrays together, whether they travel or are held already. 8 GiB
        is a model of two thousand million float32 parameters; an update goes to disk before it counts.
    """

    header_bytes: int = 16 * 1024**2
    arrays: int = MAX_HELD_ARRAYS
    array_bytes: int = 4 * 1024**3
    message_bytes: int = 8 * 1024**3


DEFAULT_MESSAGE_LIMITS = MessageLimits()

REMEMBERED_TRANSFERS = 4096
"""Ids of finished transfers that a receiver remembers, to recognise repetitions: a sender repeats only
what was not acknowledged, and no sender has near so many messages in flight."""


SMALLEST_WANTED_CHUNK_BYTES = 16 * 1024
"""No receiver is sent shorter chunks, whatever it asks for: each costs as much work as 30 KB of bytes do."""


def chunk_bytes(wanted: int = 0) -> int:
    """Return how long chunks are. wanted: the longest that the link is to carry; 0: any."""
    return min(CHUNK_BYTES, max(SMALLEST_WANTED_CHUNK_BYTES, wanted)) if wanted else CHUNK_BYTES
