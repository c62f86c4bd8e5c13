"""SPIFFE IDs as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.trust import identity as identities
from federation.trust.identity import (
    AggregatorIdentity,
    ClientIdentity,
    ClusterIdentity,
    CoordinatorIdentity,
    InvalidIdentity,
)

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
domains = (
    st.lists(labels, min_size=1, max_size=3)
    .map(".".join)
    .filter(lambda text: len(text) <= identities.MAXIMUM_TRUST_DOMAIN_LENGTH)
)
anyone = st.one_of(
    st.builds(CoordinatorIdentity, domains),
    st.builds(ClusterIdentity, domains, labels),
    st.builds(AggregatorIdentity, domains, labels, labels),
    st.builds(ClientIdentity, domains, labels, labels, labels, labels),
)


@given(anyone)
def test_parse_undoes_uri(identity: identities.Identity) -> None:
    """Law: parse(identity.uri) == identity, within the bounds of a SPIFFE ID and of a host name."""
    assert identities.parse(identity.uri) == identity
    assert len(identity.uri) <= 2048
    if isinstance(identity, CoordinatorIdentity | AggregatorIdentity):
        assert len(identity.server_name) <= 253


@given(anyone, anyone)
def test_different_identities_have_different_uris(one: identities.Identity, two: identities.Identity) -> None:
    """Law: the URI says everything."""
    assert (one == two) == (one.uri == two.uri)


@given(st.text(max_size=80) | st.text("spifechulrtang:/.-0", max_size=60).map("spiffe://td/".__add__))
def test_what_parses_is_what_was_written(text: str) -> None:
    """Law: parse(uri).uri == uri; everything else is InvalidIdentity and nothing else."""
    try:
        parsed = identities.parse(text)
    except InvalidIdentity:
        return
    assert parsed.uri == text


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe://hanse.local",
        "spiffe://hanse.local/",
        "spiffe://hanse.local/coordinator/",
        "spiffe://hanse.local//coordinator",
        "spiffe://hanse.local:443/coordinator",
        "spiffe://user@hanse.local/coordinator",
        "spiffe://Hanse.local/coordinator",
        "SPIFFE://hanse.local/coordinator",
        "https://hanse.local/coordinator",
        "spiffe://hanse.local/coordinator?x=1",
        "spiffe://hanse.local/coordinator#x",
        "spiffe://hanse.local/cluster/",
        "spiffe://hanse.local/cluster/..",
        "spiffe://hanse.local/cluster/a%2fb",
        "spiffe://hanse.local/cluster/-a",
        "spiffe://hanse.local/cluster/a\n",
        "spiffe://hanse.local/cluster/zürich",
        f"spiffe://hanse.local/cluster/{'a' * 64}",
        f"spiffe://{'.'.join(['a' * 60] * 3)}/coordinator",
        "spiffe://hanse.local/cluster/a/training/b",
        "spiffe://hanse.local/cluster/a/training/b/c/dataset",
        "spiffe://hanse.local/cluster/a/training/b/c/dataset/d/e",
    ],
)
def test_near_misses_are_refused(uri: str) -> None:
    """What is almost an identity is none."""
    with pytest.raises(InvalidIdentity):
        identities.parse(uri)


def test_an_identity_cannot_be_made_of_bad_names() -> None:
    """Construction checks, so that a name with a slash cannot become another identity."""
    with pytest.raises(InvalidIdentity, match="cluster 'a/training/b/c/dataset/d': want 1 to 63"):
        ClusterIdentity("hanse.local", "a/training/b/c/dataset/d")
    with pytest.raises(InvalidIdentity, match="trust domain"):
        CoordinatorIdentity("hanse..local")


def test_the_forms_that_others_rely_on() -> None:
    """The four URIs and two server names, letter by letter."""
    assert CoordinatorIdentity("td").uri == "spiffe://td/coordinator"
    assert ClusterIdentity("td", "c").uri == "spiffe://td/cluster/c"
    assert AggregatorIdentity("td", "n", "t").uri == "spiffe://td/aggregator/n/t"
    assert ClientIdentity("td", "c", "n", "t", "d").uri == "spiffe://td/cluster/c/training/n/t/dataset/d"
    assert CoordinatorIdentity("td").server_name == "coordinator.td"
    assert AggregatorIdentity("td", "n", "t").server_name == "t.n.aggregator.td"
