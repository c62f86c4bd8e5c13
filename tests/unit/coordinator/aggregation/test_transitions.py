"""The tables are whole, and the docs show them."""

from __future__ import annotations

import pytest

from coordinator.aggregation import diagrams, transitions

TABLES = [
    (transitions.RUN, transitions.Run, transitions.RunFact),
    (transitions.NODE, transitions.Node, transitions.NodeFact),
    (transitions.BATCH, transitions.Batch, transitions.BatchFact),
    (transitions.MESSAGE, transitions.Message, transitions.MessageFact),
]


@pytest.mark.parametrize(("table", "states", "facts"), TABLES)
def test_every_state_and_fact_has_its_place(table, states, facts):
    """No state without a row, no fact that no state takes, no state that cannot be reached."""
    assert set(table) == set(states)
    assert {fact for row in table.values() for fact in row} == set(facts)
    reached = {next(iter(states))} | {
        after for state, row in table.items() for after in row.values() if after != state
    }
    assert reached == set(states)


def test_final_messages_stay_final():
    """A message with an outcome never opens again."""
    for state, row in transitions.MESSAGE.items():
        if state not in transitions.OPEN_MESSAGE:
            assert not set(row.values()) & transitions.OPEN_MESSAGE


def test_fact_without_a_line_says_who_where_and_what():
    """The error names subject, state and fact."""
    with pytest.raises(
        transitions.LocalProtocolError, match=r"^batch b is Closed, where the fact 'all settled'"
    ):
        transitions.step(
            transitions.BATCH, "batch b", transitions.Batch.CLOSED, transitions.BatchFact.ALL_SETTLED
        )


def test_page_of_diagrams_is_current():
    """docs/state-diagrams.md is what the tables say."""
    assert diagrams.main(["--check"]) == 0
