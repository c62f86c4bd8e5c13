"""Numbers from names."""

from hypothesis import given
from hypothesis import strategies as st

from federation.flower import node_ids

names = st.text(st.characters(min_codepoint=45, max_codepoint=122), min_size=1, max_size=20)


@given(names, names, names)
def test_ids_are_in_range_and_the_same_on_both_sides(namespace: str, name: str, cluster: str) -> None:
    """0 and 1 are never a client's; a run id fits into a signed column."""
    assert 1 <= node_ids.run_id(namespace, name) < 2**63
    assert 2 <= node_ids.node_id(namespace, name, cluster) < 2**64
    assert node_ids.node_id(namespace, name, cluster) == node_ids.node_id(namespace, name, cluster)


def test_names_do_not_run_together() -> None:
    """The same letters in other places are other numbers, and these numbers never change."""
    assert (
        len({node_ids.node_id(*parts) for parts in [("a", "b", "c"), ("ab", "", "c"), ("a", "bc", "")]}) == 3
    )
    assert node_ids.run_id("a", "b") != node_ids.run_id("b", "a")
    assert node_ids.node_id("demo", "hospitals", "zurich") == 17084590002772054773
    assert node_ids.run_id("demo", "hospitals") == 5906182955461522203
