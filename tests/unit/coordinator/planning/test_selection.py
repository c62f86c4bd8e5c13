"""Which clusters take part, and the one reason why others do not."""

import dataclasses

import pytest
import scene
from hypothesis import given
from hypothesis import strategies as st

from coordinator.planning import selection, snapshot

CASES = {
    "other labels": (
        scene.cluster("boston", labels={"region": "america"}),
        "Excluded",
        "NotSelected",
        "Its labels do not match the selector region=europe; add the labels to EdgeCluster boston, or widen "
        "spec.clusters.selector.",
    ),
    "pending": (
        scene.cluster("zurich", acceptance="Pending"),
        "Excluded",
        "NotAccepted",
        "It waits for the hub's operator to accept it; approve it with `hanse clusters approve zurich`.",
    ),
    "expelled": (
        scene.cluster("zurich", acceptance="Expelled", connected=False),
        "Left",
        "Expelled",
        "It was expelled from the federation; to let it back in, approve it with `hanse clusters "
        "approve zurich` and let "
        "its operator join again.",
    ),
    "left": (
        scene.cluster("zurich", left=True, connected=False),
        "Left",
        "ClusterLeft",
        "Its operator left the federation with `hanse leave`. To come back, it joins again with a token from "
        "`hanse token create --cluster zurich`.",
    ),
    "left and expelled": (
        scene.cluster("zurich", left=True, acceptance="Expelled"),
        "Left",
        "Expelled",
        "It was expelled from the federation; to let it back in, approve it with `hanse clusters "
        "approve zurich` and let "
        "its operator join again.",
    ),
    "never connected": (
        scene.cluster("zurich", connected=False, offered={}),
        "Excluded",
        "NotConnected",
        "Its agent has no link to the hub; start the agent of zurich, or check that it can reach the hub.",
    ),
    "other data sets": (
        scene.cluster("zurich", offered={"strokes": None, "lungs": 3}),
        "Excluded",
        "DatasetNotOffered",
        "It does not offer the data set heart-disease (it offers lungs, strokes); its owner can "
        "declare an EdgeDataset of "
        "this name, or spec.dataset can name another.",
    ),
    "busy": (
        scene.cluster("zurich", maximum_trainings=1, other_trainings=1),
        "Excluded",
        "TooManyTrainings",
        "It takes part in 1 other trainings, and spec.maximumTrainings of its EdgeCluster is 1; wait "
        "until one ends, or "
        "raise the number.",
    ),
    "fine": (
        scene.cluster("zurich"),
        "Selected",
        "",
        "It was asked to take part; its agent has not answered yet.",
    ),
}


@pytest.mark.parametrize(
    ("cluster", "want_state", "want_reason", "want_message"), CASES.values(), ids=CASES.keys()
)
def test_one_reason_for_each_cluster(
    cluster: snapshot.Cluster, want_state: str, want_reason: str, want_message: str
) -> None:
    """The first check that a cluster fails is the one that status names."""
    (member,) = selection.select(scene.snap(cluster))
    assert (member.state, member.reason, member.message) == (want_state, want_reason, want_message)
    assert member.assigned == member.placed == (want_state == "Selected")


REPORTS = {
    "refused": (
        snapshot.Report("REFUSED", "PolicyDenied", "Rule a says no."),
        "Refused",
        "PolicyDenied",
        False,
        False,
    ),
    "refused in silence": (snapshot.Report("REFUSED"), "Refused", "PolicyDenied", False, False),
    "failed": (snapshot.Report("FAILED", "ClientExited", "It died."), "Failed", "ClientExited", False, False),
    "waiting": (
        snapshot.Report("WAITING", "OutsideSchedule", "At eight."),
        "Waiting",
        "OutsideSchedule",
        True,
        False,
    ),
    "without a place on a node": (
        snapshot.Report("WAITING", "Unschedulable", "No node has 64 cores; ask for less."),
        "Waiting",
        "Unschedulable",
        True,
        False,
    ),
    "preparing": (snapshot.Report("PREPARING"), "Preparing", "", True, True),
    "running": (snapshot.Report("RUNNING"), "Preparing", "", True, True),
    "stopped": (snapshot.Report("STOPPED"), "Selected", "", True, False),
}


@pytest.mark.parametrize(
    ("report", "want_state", "want_reason", "want_placed", "want_agreed"),
    REPORTS.values(),
    ids=REPORTS.keys(),
)
def test_what_the_edge_says_counts(
    report: snapshot.Report, want_state: str, want_reason: str, want_placed: bool, want_agreed: bool
) -> None:
    """A refusal travels with its typed reason; the cluster stays asked, but takes no place."""
    (member,) = selection.select(scene.snap(scene.cluster("zurich"), reports={"zurich": report}))
    assert (member.state, member.reason) == (want_state, want_reason)
    assert (member.placed, member.agreed) == (want_placed, want_agreed)
    assert member.assigned
    assert member.message


def test_the_aggregator_knows_better_once_the_client_is_there() -> None:
    """While the edge agrees, state and round come from the aggregator."""
    progress = snapshot.Progress(clusters={"zurich": snapshot.ClusterProgress("Training", round=7)})
    (member,) = selection.select(
        scene.snap(
            scene.cluster("zurich"),
            reports=scene.running("zurich"),
            aggregator=snapshot.Aggregator(True, progress=progress),
        )
    )
    assert member.state == "Training"


def test_a_client_that_lost_its_node_in_a_round_waits() -> None:
    """What the edge waits for says more than the link that the aggregator misses; it may come back."""
    lost = snapshot.ClusterProgress("Lost", "LinkLost", "zurich: its link is gone", round=7)
    (member,) = selection.select(
        scene.snap(
            scene.cluster("zurich"),
            reports={"zurich": snapshot.Report("WAITING", "Unschedulable", "No node has room.")},
            aggregator=snapshot.Aggregator(True, progress=snapshot.Progress(clusters={"zurich": lost})),
        )
    )
    assert (member.state, member.reason, member.message) == ("Waiting", "Unschedulable", "No node has room.")
    assert (member.placed, member.agreed, member.expected) == (True, False, True)


@pytest.mark.parametrize("reason", ["OutsideSchedule", "ApprovalNeeded", "DatasetUnavailable"])
def test_a_client_that_its_owner_keeps_back_is_not_waited_for(reason: str) -> None:
    """The owner ended it, or never let it begin: no round waits for that."""
    report = snapshot.Report("WAITING", reason, "Not now.")
    (member,) = selection.select(scene.snap(scene.cluster("zurich"), reports={"zurich": report}))
    assert (member.state, member.placed, member.expected) == ("Waiting", True, False)


@pytest.mark.parametrize(
    ("lost_seconds", "want_expected"), [(1.0, True), (29.9, True), (30.0, False), (99.0, False)]
)
def test_a_lost_link_keeps_its_place_and_is_expected_for_a_while(
    lost_seconds: float, want_expected: bool
) -> None:
    """An edge that held a place and lost its link is waited for until the grace is over."""
    lost = scene.cluster("zurich", connected=False, disconnected_at=scene.NOW - lost_seconds)
    (member,) = selection.select(
        scene.snap(
            lost, training=scene.training(status=scene.held("zurich")), reports=scene.running("zurich")
        )
    )
    assert (member.state, member.reason, member.placed, member.expected) == (
        "Lost",
        "LinkLost",
        True,
        want_expected,
    )


def test_a_client_that_answers_takes_part_though_its_agent_is_away() -> None:
    """Agent and client have links of their own; the aggregator's word on the client counts."""
    away = scene.cluster("zurich", connected=False, disconnected_at=scene.NOW - 99)
    progress = snapshot.Progress(clusters={"zurich": snapshot.ClusterProgress("Training", round=3)})
    (member,) = selection.select(
        scene.snap(
            away,
            training=scene.training(status=scene.held("zurich")),
            reports=scene.running("zurich"),
            aggregator=snapshot.Aggregator(started=True, progress=progress),
        )
    )
    assert (member.state, member.reason, member.placed, member.expected) == (
        "Training",
        "LinkLost",
        True,
        True,
    )
    assert "the agent reconnects by itself" in member.message


def test_above_the_maximum_names_decide_and_places_are_kept() -> None:
    """Those who hold places keep them, then the first by name; the rest are told so."""
    members = selection.select(
        scene.snap(
            *(scene.cluster(name) for name in ("delft", "aarhus", "bergen", "cork")),
            training=scene.training(maximum=2, status=scene.held("delft")),
        )
    )
    assert [(member.cluster, member.reason) for member in members] == [
        ("aarhus", ""),
        ("bergen", "AboveMaximum"),
        ("cork", "AboveMaximum"),
        ("delft", ""),
    ]
    assert members[1].message == (
        "2 clusters take part, the most that spec.clusters.maximum allows; raise it to let this one in."
    )


def test_a_refusing_cluster_leaves_its_place_to_the_next() -> None:
    """Places are for those who may."""
    members = selection.select(
        scene.snap(
            scene.cluster("a"),
            scene.cluster("b"),
            training=scene.training(maximum=1),
            reports={"a": snapshot.Report("REFUSED", "NoPolicy", "No policy.")},
        )
    )
    assert [member.placed for member in members] == [False, True]


@pytest.mark.parametrize(
    ("expression", "labels", "want"),
    [
        ({"key": "tier", "operator": "In", "values": ["a", "b"]}, {"tier": "a"}, True),
        ({"key": "tier", "operator": "In", "values": ["a", "b"]}, {}, False),
        ({"key": "tier", "operator": "NotIn", "values": ["a"]}, {}, True),
        ({"key": "tier", "operator": "NotIn", "values": ["a"]}, {"tier": "a"}, False),
        ({"key": "tier", "operator": "Exists"}, {"tier": ""}, True),
        ({"key": "tier", "operator": "DoesNotExist"}, {"tier": ""}, False),
    ],
)
def test_selectors_mean_what_kubernetes_means(
    expression: dict[str, object], labels: dict[str, str], want: bool
) -> None:
    """The set-based operators, with Kubernetes' meaning of a missing label."""
    assert selection.matches({"matchExpressions": [expression]}, labels) is want


@given(
    st.permutations([scene.cluster(name) for name in "abcdef"]),
    st.sets(st.sampled_from("abcdef")),
    st.integers(1, 6),
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["RUNNING", "REFUSED", "WAITING", "FAILED"])),
)
def test_selection_knows_no_order_and_settles(
    clusters: list[snapshot.Cluster], places: set[str], maximum: int, reports: dict[str, str]
) -> None:
    """The order of the clusters does not matter, and selecting again on the outcome changes nothing."""
    snap = scene.snap(
        *clusters,
        training=scene.training(maximum=maximum, status=scene.held(*places)),
        reports={name: snapshot.Report(state) for name, state in reports.items()},
    )
    members = selection.select(snap)
    in_order = dataclasses.replace(snap, clusters=tuple(sorted(clusters, key=lambda cluster: cluster.name)))
    assert members == selection.select(in_order)
    assert sum(member.placed for member in members) <= maximum
    status = {"clusters": [{"name": member.cluster, "state": str(member.state)} for member in members]}
    again = selection.select(
        dataclasses.replace(snap, training=scene.training(maximum=maximum, status=status))
    )
    assert again == members
