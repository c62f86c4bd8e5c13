"""Agreeing on a protocol version."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.wire import denials, hanse_pb2, protocol
from federation.wire.protocol import Versions

ranges = st.builds(Versions, st.integers(0, 6), st.integers(0, 6))


@pytest.mark.parametrize(
    "theirs, ours, want",
    [
        (Versions(1, 1), Versions(1, 1), 1),
        (Versions(1, 2), Versions(1, 1), 1),
        (Versions(2, 3), Versions(3, 4), 3),
        (Versions(3, 4), Versions(4, 5), 4),
        (Versions(2, 3), Versions(4, 5), None),
        (Versions(0, 0), Versions(1, 1), None),
        (Versions(0, 1), Versions(1, 1), None),
        (Versions(3, 2), Versions(1, 4), None),
    ],
)
def test_the_newest_common_version_is_chosen(theirs: Versions, ours: Versions, want: int | None) -> None:
    """Or there is none, and both sides' versions are named."""
    got = protocol.agree(theirs, ours)
    if want is None:
        assert isinstance(got, denials.Denial)
        assert got.reason is denials.Reason.UNSUPPORTED_PROTOCOL
    else:
        assert got == want


@given(ranges, ranges)
def test_both_sides_choose_the_same(one: Versions, two: Versions) -> None:
    """Law: agree is symmetric, and what it chooses lies in both ranges."""
    there, back = protocol.agree(one, two), protocol.agree(two, one)
    if isinstance(there, int):
        assert there == back
        assert one.oldest <= there <= one.newest
        assert two.oldest <= there <= two.newest
    else:
        assert isinstance(back, denials.Denial)


def test_this_version_speaks_with_itself_and_reads_the_wire_form() -> None:
    """The message of the protocol can be passed as it came."""
    said = hanse_pb2.ProtocolRange(oldest=protocol.OLDEST, newest=protocol.NEWEST)
    assert protocol.agree(said) == protocol.NEWEST
    assert protocol.NEWEST - protocol.OLDEST <= 1
    assert isinstance(protocol.agree(hanse_pb2.ProtocolRange()), denials.Denial)
