"""Which protocol version two sides speak: the newest that both know, said once at the start of each session.

This side speaks this version and the one before. A version adds or changes messages; an added field alone is
no new version. This module refuses to know what the versions mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from federation.wire import denials

OLDEST: Final = 1  # version 0 never existed; with version 2 this stays 1
NEWEST: Final = 1


class VersionRange(Protocol):
    """What `hanse_pb2.ProtocolRange` offers."""

    @property
    def oldest(self) -> int: ...

    @property
    def newest(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions from `oldest` to `newest`, both included."""

    oldest: int
    newest: int


OURS: Final = Versions(OLDEST, NEWEST)


def agree(theirs: VersionRange, ours: VersionRange = OURS) -> int | denials.Denial:
    """Choose the newest version that both ranges hold, or say why there is none.

    Law: agree(a, b) and agree(b, a) choose the same version. An empty or unset range (newest below oldest, or
    oldest 0) agrees with nothing.
    """
    newest = min(theirs.newest, ours.newest)
    if theirs.oldest >= 1 and ours.oldest >= 1 and newest >= max(theirs.oldest, ours.oldest):
        return newest
    return denials.denial(
        denials.Reason.UNSUPPORTED_PROTOCOL,
        their_oldest=theirs.oldest,
        their_newest=theirs.newest,
        our_oldest=ours.oldest,
        our_newest=ours.newest,
    )
