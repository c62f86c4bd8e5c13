"""What the journal knows of messages that their rounds did not wait for."""

from __future__ import annotations

import pytest

from coordinator.journal import entries, late
from tests.unit.coordinator.journal.conftest import BASEL, ZURICH, closed, outcomes, pushed, received

ONE, TWO, THREE = (pushed(f"b{n}", "a", number=n) for n in (1, 2, 3))


def without(batch: entries.Pushed, node: entries.Node, instead: str = "") -> entries.Closed:
    """The batch is over without the node's own reply; `instead`: the late one that stood in."""
    kept = [outcome for outcome in outcomes(batch) if not outcome.message_id.endswith(f"-{node.node}")]
    if instead:
        kept.append(entries.Outcome(message_id=f"{batch.batch_id}-{node.node}", reply=instead))
    return entries.Closed(batch_id=batch.batch_id, outcomes=tuple(kept))


BOTH_ONE = [ONE, received("b1-7"), received("b1-9", BASEL.node)]
CASES: dict[str, tuple[list[entries.Any], list[tuple[str, bool]]]] = {
    "all came in time": ([*BOTH_ONE, closed(ONE)], []),
    "open batch": ([ONE, received("b1-7")], []),
    "one may still come": ([ONE, received("b1-9", BASEL.node), without(ONE, ZURICH)], [("b1-7", False)]),
    "one came late": ([ONE, without(ONE, ZURICH), received("b1-7")], [("b1-7", True)]),
    "it was used": ([ONE, without(ONE, ZURICH), received("b1-7"), TWO, without(TWO, ZURICH, "b1-7")],
                    [("b2-7", False)]),
    "the round that uses it is open": ([ONE, without(ONE, ZURICH), received("b1-7"), TWO],
                                       [("b1-7", True)]),
    "its own came late as well": (
        [ONE, without(ONE, ZURICH), received("b1-7"), TWO, without(TWO, ZURICH, "b1-7"), received("b2-7")],
        [("b2-7", True)]),
    "it was dropped": ([ONE, without(ONE, ZURICH), received("b1-7"), entries.Dropped(message_id="b1-7")], []),
    "a newer reply counted": ([ONE, without(ONE, ZURICH), TWO, received("b2-7"), closed(TWO)], []),
    "the last of each node": (
        [ONE, without(ONE, ZURICH), TWO, without(TWO, ZURICH),
         THREE, without(THREE, BASEL), received("b3-7")],
        [("b3-9", False)]),
    "an older one that may come, and none came": (
        [ONE, without(ONE, ZURICH), TWO, without(TWO, ZURICH)], [("b2-7", False)]),
    "one that came, and one that may": (
        [ONE, without(ONE, ZURICH), received("b1-7"), THREE, without(THREE, ZURICH)],
        [("b1-7", True), ("b3-7", False)]),
    "collected one by one": (
        [pushed("b1", "a", waits=False), received("b1-7")], []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_still_means_something(case: str) -> None:
    """Late replies that have not counted, and messages whose late reply may still come."""
    found, want = CASES[case]
    assert [(one.message_id, one.reply is not None) for one in late.waiting(found)] == want


def test_it_says_of_which_round_and_of_whom() -> None:
    (one,) = late.waiting([TWO, without(TWO, ZURICH), received("b2-7")])
    assert one == late.Late("b2-7", ZURICH.node, 2, received("b2-7"))
