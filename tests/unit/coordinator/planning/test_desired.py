"""What the planner wants at each point of a training's life."""

import dataclasses
from typing import Any

import pytest
import scene

from coordinator.planning import desired, snapshot

THREE = (scene.cluster("a"), scene.cluster("b"), scene.cluster("c"))
FETCHING = snapshot.Report("WAITING", "DatasetUnavailable", "The data set is being fetched.")
REFUSED = snapshot.Report("REFUSED", "PolicyDenied", "Rule x says no.")
UP = snapshot.Aggregator(started=True, address="127.0.0.1:1", server_name="s")
FAILED = snapshot.Progress(finished=snapshot.Finished(False, "QuorumLost", "Round 3: 1 of 2 reported."))
DONE = snapshot.Finished(True, "AllRoundsDone", "Done.", "file:///m/20", "5be1", 20)

STAGES: dict[str, tuple[snapshot.Snapshot, str, bool, list[str]]] = {
    "nobody": (scene.snap(), "Waiting", False, []),
    "too few": (scene.snap(scene.cluster("a")), "Waiting", False, ["a"]),
    "enough selected": (scene.snap(*THREE), "Starting", True, ["a", "b", "c"]),
    "too many refuse": (
        scene.snap(*THREE, reports={"a": REFUSED, "b": REFUSED}), "Waiting", False, ["a", "b", "c"],
    ),
    "started, no round yet": (scene.snap(*THREE, aggregator=UP), "Starting", True, ["a", "b", "c"]),
    "round 1": (
        scene.snap(*THREE, aggregator=dataclasses.replace(UP, progress=snapshot.Progress(round=1))),
        "Running", True, ["a", "b", "c"],
    ),
    "running below the quorum goes on": (scene.snap(aggregator=UP), "Starting", True, []),
    "suspended": (
        scene.snap(*THREE, training=scene.training(spec={"suspend": True}), aggregator=UP),
        "Suspended", False, [],
    ),
    "suspended in mid-training": (
        scene.snap(
            *THREE,
            training=scene.training(spec={"suspend": True}, status={"startedAt": "2026-01-01T00:00:00Z"}),
            aggregator=UP,
        ),
        "Suspended", False, ["a", "b", "c"],
    ),
    "app is missing": (
        scene.snap(*THREE, training=scene.training(app=snapshot.Problem("AppNotFound", "No such file."))),
        "NotAccepted", False, [],
    ),
    "finished": (
        scene.snap(*THREE, aggregator=dataclasses.replace(UP, progress=snapshot.Progress(finished=DONE))),
        "Ended", False, [],
    ),
    "aggregator died": (
        scene.snap(*THREE, aggregator=dataclasses.replace(UP, exit=snapshot.Exit("exit status 1"))),
        "Ended", False, [],
    ),
    "ended long ago": (
        scene.snap(
            *THREE, training=scene.training(status={"conditions": [{"type": "Completed", "status": "True"}]}),
        ),
        "Ended", False, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("snap", "want_stage", "want_aggregator", "want_asked"), STAGES.values(), ids=STAGES.keys()
)
def test_stage(
    snap: snapshot.Snapshot, want_stage: str, want_aggregator: bool, want_asked: list[str]
) -> None:
    """The stage decides whether the aggregator runs and who is asked."""
    plan = desired.plan(snap)
    assert plan.stage.value == want_stage
    assert plan.aggregator_wanted is want_aggregator
    assert sorted(plan.assignments) == want_asked


def test_assignments_say_prepare_first_and_the_address_later() -> None:
    """Edges are asked at once with an empty address, and again when the aggregator has one."""
    first = desired.plan(scene.snap(*THREE)).assignments["a"]
    later = desired.plan(scene.snap(*THREE, aggregator=UP)).assignments["a"]
    assert first.aggregator_address == ""
    assert later == dataclasses.replace(first, aggregator_address="127.0.0.1:1", aggregator_server_name="s")
    assert (first.rounds, first.dataset, first.run_config) == (20, "heart-disease", {"num-server-rounds": 20})


def test_a_training_that_rests_is_asked_for_without_an_aggregator() -> None:
    """Clusters end their clients by it, and keep what those remember."""
    begun = {"startedAt": "2026-01-01T00:00:00Z"}
    paused = scene.training(spec={"suspend": True}, status=begun)
    resting = desired.plan(scene.snap(*THREE, training=paused, aggregator=UP)).assignments["a"]
    assert (resting.resting, resting.aggregator_address, resting.aggregator_server_name) == (True, "", "")
    goes_on = scene.training(status=begun)
    assert not desired.plan(scene.snap(*THREE, training=goes_on, aggregator=UP)).assignments["a"].resting


def test_the_roster_names_who_is_not_waited_for() -> None:
    """Refused and expelled clusters are on the roster as not expected, with their reason."""
    plan = desired.plan(
        scene.snap(
            *THREE[:2], scene.cluster("d", acceptance="Expelled"), aggregator=UP, reports={"b": REFUSED}
        )
    )
    assert [(member.cluster, member.expected, member.reason) for member in plan.roster] == [
        ("a", True, ""),
        ("b", False, "PolicyDenied"),
        ("d", False, "Expelled"),
    ]


def test_a_client_that_its_cluster_holds_up_is_waited_for() -> None:
    """The roster still expects it, and says why it is not there: a claim may be bound in the next second."""
    held = snapshot.Report("WAITING", "VolumeNotMounted", "A claim of the pod is not bound to a volume.")
    plan = desired.plan(scene.snap(*THREE[:2], aggregator=UP, reports={"b": held}))
    assert plan.stage is desired.Stage.STARTING
    assert plan.roster == (
        desired.RosterMember("a", True),
        desired.RosterMember("b", True, held.reason, held.message),
    )


def test_of_a_client_that_is_being_started_the_roster_says_so() -> None:
    """Also where the aggregator has seen that the one before it is lost. Of one that runs it says nothing."""
    started = snapshot.Report("PREPARING", "ClientExited", "The client ended; restart 1 of 3 in 1 s")
    lost = snapshot.Progress(clusters={"b": snapshot.ClusterProgress("Lost", "LinkLost", "its link is lost")})
    for aggregator in (UP, dataclasses.replace(UP, progress=lost)):
        plan = desired.plan(scene.snap(*THREE[:2], aggregator=aggregator, reports={"b": started}))
        assert plan.roster[1] == desired.RosterMember("b", True, started.reason, started.message)
        running = snapshot.Report("RUNNING")
        plan = desired.plan(scene.snap(*THREE[:2], aggregator=aggregator, reports={"b": running}))
        assert plan.roster[1] == desired.RosterMember("b", True)


def test_the_rules_come_from_the_spec() -> None:
    """Round rules carry the spec's numbers."""
    assert desired.plan(scene.snap()).rules == desired.RoundRules(2, "0.75", 60.0, "Discard")


def test_rounds_of_a_declared_strategy_are_among_the_rules() -> None:
    """So that they reach the aggregator when they are raised; each cluster is asked for as many."""
    raised = scene.training(spec={"strategy": {"name": "FedAdam", "rounds": 30}})
    plan = desired.plan(scene.snap(*THREE[:2], training=raised, aggregator=UP))
    assert plan.rules.rounds == 30
    assert {assignment.rounds for assignment in plan.assignments.values()} == {30}


def test_rounds_of_an_apps_own_server_app_are_no_rule() -> None:
    """It takes its number when it starts, whatever a strategy beside it says."""
    own = dataclasses.replace(scene.APP, server_app="app:server")
    beside = scene.training(spec={"strategy": {"name": "FedAdam", "rounds": 30}}, app=own)
    assert desired.plan(scene.snap(training=beside)).rules.rounds == 0


QUORUM: dict[str, tuple[dict[str, Any], str]] = {
    "no cluster": (
        {"clusters": (scene.cluster("x", labels={}),)},
        "False NoClusterSelected: No cluster of the federation matches the selector, 2 needed. Let "
        "clusters join with "
        "`hanse join`, or widen spec.clusters.selector.",
    ),
    "no data set": (
        {"clusters": tuple(scene.cluster(name, offered={}) for name in "ab")},
        "False NoSuchDataset: No cluster offers the data set heart-disease; correct spec.dataset, or "
        "ask an owner to declare "
        "an EdgeDataset of this name.",
    ),
    "some are away": (
        {"clusters": (scene.cluster("a"), scene.cluster("b", connected=False))},
        "False WaitingForClusters: 1 of 2 needed clusters can take part now; waiting for b. Their "
        "entries below say what "
        "each one needs.",
    ),
    "not answered yet": (
        {"clusters": THREE, "reports": scene.running("a")},
        "False WaitingForClusters: 1 of 2 needed clusters have agreed; waiting for the answer of b, c.",
    ),
    "refused": (
        {"clusters": THREE, "reports": {"a": REFUSED, "b": REFUSED}},
        "False QuorumNotReached: 1 of 2 needed clusters can take part (a PolicyDenied, b "
        "PolicyDenied). Let more clusters "
        "join, resolve what their entries below name, or lower spec.clusters.minimum.",
    ),
    "too few have joined": (
        {"clusters": THREE[:1]},
        "False QuorumNotReached: 1 of 2 needed clusters can take part. Let more clusters "
        "join, resolve what their entries below name, or lower spec.clusters.minimum.",
    ),
    "one waits for its data": (
        {"clusters": THREE[:2], "reports": {**scene.running("a"), "b": FETCHING}},
        "False WaitingForClusters: 1 of 2 needed clusters can take part now; waiting for b. Their "
        "entries below say what each one needs.",
    ),
    "one waits, and others have not answered": (
        {"clusters": THREE, "reports": {"b": FETCHING}},
        "False WaitingForClusters: 0 of 2 needed clusters have agreed; waiting for the answer of a, b, c.",
    ),
    "enough": (
        {"clusters": THREE, "reports": scene.running("a", "b")},
        "True EnoughClusters: 2 of 3 selected clusters take part, 2 needed.",
    ),
    "lost": (
        {
            "clusters": (THREE[0], scene.cluster("b", connected=False, disconnected_at=scene.NOW)),
            "reports": scene.running("a", "b"),
            "aggregator": UP,
            "training": scene.training(status=scene.held("a", "b")),
        },
        "False QuorumLost: 1 of 2 needed clusters take part; missing: b. The round goes on when they "
        "are back. Their entries below say what is wrong.",
    ),
    "lost, and the training failed": (
        {
            "clusters": (THREE[0], scene.cluster("b", connected=False, disconnected_at=scene.NOW)),
            "reports": scene.running("a", "b"),
            "aggregator": dataclasses.replace(UP, progress=FAILED),
            "training": scene.training(status=scene.held("a", "b")),
        },
        "False QuorumLost: 1 of 2 needed clusters take part; missing: b. Their entries below say what is "
        "wrong.",
    ),
}


@pytest.mark.parametrize(("changes", "want"), QUORUM.values(), ids=QUORUM.keys())
def test_quorum_sentence(changes: dict[str, Any], want: str) -> None:
    """The quorum's condition says how many, who is missing and what to do."""
    met, reason, message = desired.plan(scene.snap(**changes)).quorum
    assert f"{met} {reason}: {message}" == want


def test_the_start_waits_for_members_that_may_still_come() -> None:
    """With a start grace, accepted members without a link hold the start back until it is over."""
    limits = snapshot.Limits(start_grace_seconds=10)
    since = [
        {"type": "QuorumReached", "status": "True", "lastTransitionTime": snapshot.timestamp(scene.NOW - 4)}
    ]
    snap = scene.snap(
        *THREE[:2],
        scene.cluster("d", connected=False),
        limits=limits,
        reports=scene.running("a", "b"),
        training=scene.training(status={"conditions": since}),
    )
    plan = desired.plan(snap)
    assert (plan.stage, plan.recheck_at) == (desired.Stage.WAITING, scene.NOW + 6)
    assert desired.plan(dataclasses.replace(snap, now=scene.NOW + 6)).stage is desired.Stage.STARTING
    assert desired.plan(dataclasses.replace(snap, clusters=THREE[:2])).stage is desired.Stage.STARTING


def test_who_waits_is_waited_for() -> None:
    """An aggregator without its quorum would fail at once; those that wait come when their time has come."""
    snap = scene.snap(*THREE[:2], reports={**scene.running("a"), "b": FETCHING})
    plan = desired.plan(snap)
    assert (plan.stage, sorted(plan.assignments)) == (desired.Stage.WAITING, ["a", "b"])
    assert scene.rendered(snap)["phase"] == "Waiting"
    ready = dataclasses.replace(snap, reports={**scene.running("a"), "b": snapshot.Report("PREPARING")})
    assert desired.plan(ready).stage is desired.Stage.STARTING
    enough = dataclasses.replace(snap, training=scene.training(minimum=1))
    assert desired.plan(enough).stage is desired.Stage.STARTING


def test_a_lost_link_asks_for_another_look() -> None:
    """The plan says when the grace of a lost link ends, so that nobody has to poll."""
    lost = scene.cluster("a", connected=False, disconnected_at=scene.NOW - 10)
    plan = desired.plan(scene.snap(lost, training=scene.training(status=scene.held("a")), aggregator=UP))
    assert plan.recheck_at == scene.NOW + 20
