"""An app that runs again gets the answers that it got, and is found out where it does something else."""

from __future__ import annotations

import pytest

from coordinator.journal import entries, replay
from tests.unit.coordinator.journal.conftest import BASEL, ZURICH, closed, nodes, outcomes, pushed, received


def calls(said: str, *to: int) -> list[replay.Call]:
    """What the app wants sent."""
    return [replay.Call(node, said) for node in to or (ZURICH.node, BASEL.node)]


def test_an_empty_journal_answers_nothing() -> None:
    """The training begins."""
    past = replay.Replay(())
    assert past.empty
    assert past.over
    assert past.nodes(main=True) is None
    assert past.push(calls("a"), main=True) is None
    assert past.pull(["x"], main=True) is None


def test_calls_are_answered_in_their_order_and_then_it_is_live() -> None:
    """Nodes, a closed batch, and one that was open when the process died."""
    first, second = pushed("b1", "a"), pushed("b2", "b", number=2)
    past = replay.Replay(
        [nodes(), first, received("b1-7"), closed(first), nodes(ZURICH), second, received("b2-9")]
    )
    assert not past.empty
    assert past.nodes(main=True) == (ZURICH, BASEL)
    assert past.push(calls("a"), main=True) == replay.Batch(first, outcomes(first))
    assert past.nodes(main=True) == (ZURICH,)
    assert not past.over
    assert past.push(calls("b"), main=True) == replay.Batch(second, None)
    assert past.over
    assert past.received("b2-9") == received("b2-9")
    assert past.received("b2-7") is None
    assert (past.round, past.calls, past.messages) == (2, 4, 6)
    assert past.nodes(main=True) is None
    assert past.push(calls("c"), main=True) is None


@pytest.mark.parametrize(
    ("again", "says"),
    [
        (calls("other"), "Train of round 1, sends something else to zurich"),
        ([replay.Call(7, "a"), replay.Call(9, "other")], "sends something else to basel"),
        (calls("a", 7), "sends 1 messages where it sent 2"),
        (calls("a", 7, 8), "sends to another node than basel"),
    ],
)
def test_what_the_app_does_otherwise_is_named(again: list[replay.Call], says: str) -> None:
    """The first such call, what it was about, and where it stands in the journal."""
    past = replay.Replay([nodes(), pushed("b1", "a")])
    past.nodes(main=True)
    with pytest.raises(replay.Diverged, match=says) as raised:
        past.push(again, main=True)
    assert "call 2 of the ServerApp" in str(raised.value)
    assert raised.value.position == 1


def test_another_kind_of_call_is_another_thing() -> None:
    """Asking where it sent, sending where it asked, fetching something else."""
    past = replay.Replay([pushed("b1", "a"), nodes()])
    with pytest.raises(replay.Diverged, match="asks for the nodes where it sent messages"):
        past.nodes(main=True)
    past.push(calls("a"), main=True)
    with pytest.raises(replay.Diverged, match="sends messages where it asked for the nodes"):
        past.push(calls("a"), main=True)


def test_what_was_fetched_is_fetched_again_in_the_same_portions() -> None:
    """An app that polls may ask once more than before."""
    batch = pushed("b1", "a", waits=False)
    one, two = outcomes(batch)
    ids = [one.message_id, two.message_id]
    past = replay.Replay(
        [
            batch,
            entries.Pulled(outcomes=(two,), main=True),
            nodes(),
            entries.Pulled(outcomes=(one,), main=True),
        ]
    )
    past.push(calls("a"), main=True)
    assert past.pull(ids, main=True) == (two,)
    assert past.pull(ids, main=True) == (), "it asked for the nodes first; before that there was nothing"
    past.nodes(main=True)
    with pytest.raises(replay.Diverged, match="fetches the replies to other messages"):
        past.pull([two.message_id], main=True)
    assert past.pull(ids, main=True) == (one,)
    assert past.unfetched(batch) == []


def test_what_was_not_fetched_is_known() -> None:
    """It is asked for again when the training is live."""
    batch = pushed("b1", "a", waits=False)
    past = replay.Replay([batch, entries.Pulled(outcomes=outcomes(batch)[:1], main=True)])
    assert [message.message_id for message in past.unfetched(batch)] == ["b1-9"]


def test_other_threads_are_answered_by_what_they_say() -> None:
    """Flower's older API has a thread for each client; they run in any order."""
    one, two = pushed("b1", "a", 7, main=False), pushed("b2", "a", 9, main=False)
    past = replay.Replay([one, two, closed(one), closed(two)])
    assert past.push(calls("a", 9), main=False) == replay.Batch(two, outcomes(two))
    assert past.push(calls("new", 9), main=False) is None
    assert past.push(calls("a", 7), main=False) == replay.Batch(one, outcomes(one))
    assert past.over


def test_other_threads_see_the_nodes_of_that_time() -> None:
    """A thread that looks every few seconds does not learn too early of a node that came later."""
    batch = pushed("b1", "a")
    past = replay.Replay([nodes(ZURICH, main=False), batch, closed(batch), nodes(main=False)])
    assert past.nodes(main=False) == (ZURICH,)
    past.push(calls("a"), main=True)
    assert past.over
    assert past.nodes(main=False) is None
    assert past.known_nodes == (ZURICH, BASEL)


def test_a_start_with_another_number_of_rounds() -> None:
    """It is another start than the snapshot's, but where rounds may be raised and have been."""
    kept = entries.Snapshot(
        start=1, round=2, rounds=3, after=0, until=9, calls=4, messages=6, nodes=(ZURICH, BASEL),
        state_bytes=0, arrays=(),
    )  # fmt: skip
    for rounds, may_grow in ((3, False), (3, True), (5, True)):
        assert replay.Replay([kept]).snapshot(1, rounds, may_grow=may_grow) == kept
    for rounds, may_grow in ((5, False), (2, False), (2, True)):
        with pytest.raises(replay.Diverged, match=f"is to have {rounds} rounds where it had 3 before"):
            replay.Replay([kept]).snapshot(1, rounds, may_grow=may_grow)
