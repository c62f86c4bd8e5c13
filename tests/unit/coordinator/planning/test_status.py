"""What a training's status says."""

import dataclasses
import json

import pytest
import scene
from hypothesis import given
from hypothesis import strategies as st

from coordinator.planning import desired, progress, snapshot, status
from federation.api import training as api

UP = snapshot.Aggregator(started=True, address="127.0.0.1:1", server_name="s")
BUSY = snapshot.Progress(
    round=7,
    rounds_total=20,
    phase="Train",
    message="Round 7 of 20: 1 of 2 clusters reported, waiting for budapest.",
    round_started_at=scene.NOW - 1,
    round_seconds=(1.0, 1.4, 9.0),
    clusters={
        "budapest": snapshot.ClusterProgress("Training", round=7),
        "zurich": snapshot.ClusterProgress("Reported", round=7, examples=98, last_update_at=scene.NOW),
    },
    metrics=(snapshot.RoundMetrics(6, "Evaluate", {"accuracy": 0.812, "loss": 0.43, "n": 3.0}),),
    bytes_sent=10,
    bytes_received=20,
    phase_seconds={"Train": 1.23456},
)
RUNNING = scene.snap(
    scene.cluster("budapest"),
    scene.cluster("zurich"),
    reports=scene.running("budapest", "zurich"),
    aggregator=dataclasses.replace(UP, progress=BUSY),
)


def reasons(rendered: dict[str, object]) -> dict[str, str]:
    """The conditions in short."""
    conditions = rendered["conditions"]
    assert isinstance(conditions, list)
    return {entry["type"]: f"{entry['status']} {entry['reason']}" for entry in conditions}


def test_a_running_training() -> None:
    """Round, clusters, metrics and transfer are what the aggregator last said; numbers are strings."""
    rendered = scene.rendered(RUNNING)
    assert rendered["phase"] == "Running"
    assert rendered["observedGeneration"] == 3
    assert rendered["round"] == {
        "current": 7, "total": 20, "startedAt": snapshot.timestamp(scene.NOW - 1), "medianSeconds": "1.4",
    }  # fmt: skip
    assert rendered["clusters"] == [
        {"name": "budapest", "state": "Training", "round": 7},
        {
            "name": "zurich", "state": "Reported", "round": 7, "examples": 98,
            "lastUpdateAt": snapshot.timestamp(scene.NOW),
        },
    ]  # fmt: skip
    assert rendered["metrics"] == [
        {"round": 6, "phase": "Evaluate", "values": {"accuracy": "0.812", "loss": "0.43", "n": "3"}}
    ]
    assert rendered["transfer"] == {"bytesUp": 20, "bytesDown": 10}
    assert rendered["phaseSeconds"] == {"Train": "1.235"}
    assert rendered["summary"] == {
        "round": "7/20", "clusters": "2/2", "metric": "accuracy=0.812", "reason": "RoundInProgress",
    }  # fmt: skip
    assert reasons(rendered) == {
        "Accepted": "True Valid",
        "QuorumReached": "True EnoughClusters",
        "Running": "True RoundInProgress",
        "Completed": "False RoundsRemaining",
        "Failed": "False NotFailed",
        "Suspended": "False NotSuspended",
        "Stopped": "False NotStopped",
    }
    api.FederatedTrainingStatus.model_validate_json(json.dumps(rendered))


def test_what_an_app_did_otherwise_stays_to_be_read() -> None:
    """The first call that differed after a restart is a condition, also when nobody says so any more."""
    what = "After a restart, call 3 of the ServerApp sends something else to zurich than before."
    progress = dataclasses.replace(BUSY, diverged=what)
    told = scene.rendered(dataclasses.replace(RUNNING, aggregator=dataclasses.replace(UP, progress=progress)))
    assert reasons(told)["Diverged"] == "True ResumeDiverged"
    later = scene.rendered(
        dataclasses.replace(RUNNING, training=dataclasses.replace(RUNNING.training, status=told))
    )
    assert later["conditions"][-1] == told["conditions"][-1]
    assert later["conditions"][-1]["message"] == what
    api.FederatedTrainingStatus.model_validate_json(json.dumps(later))


def test_a_completed_training_keeps_its_status() -> None:
    """The model is named, clusters that took part are Completed, and later changes alter nothing."""
    done = snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "file:///m/20", "5b" * 32, 20)
    aggregator = dataclasses.replace(UP, progress=dataclasses.replace(BUSY, finished=done))
    snap = dataclasses.replace(RUNNING, aggregator=aggregator)
    rendered = scene.rendered(snap)
    assert rendered["phase"] == "Completed"
    assert rendered["model"] == {"uri": "file:///m/20", "sha256": "5b" * 32, "round": 20}
    assert {entry["state"] for entry in rendered["clusters"]} == {"Completed"}
    assert reasons(rendered)["Completed"] == "True AllRoundsDone"
    later = dataclasses.replace(
        snap,
        training=scene.training(status=rendered),
        aggregator=snapshot.Aggregator(),
        clusters=(),
        now=scene.NOW + 9,
    )
    assert scene.rendered(later) == rendered


def test_rounds_that_were_raised_too_late() -> None:
    """When the last round is over they are played by nobody, and the end says so."""
    done = snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "file:///m/20", "5b" * 32, 20)
    aggregator = dataclasses.replace(UP, progress=dataclasses.replace(BUSY, finished=done))
    for rounds, want in ((20, ""), (30, " That spec.strategy.rounds was raised to 30 came too late; ")):
        training = scene.training(spec={"strategy": {"name": "FedAdam", "rounds": rounds}})
        rendered = scene.rendered(dataclasses.replace(RUNNING, training=training, aggregator=aggregator))
        (completed,) = (one for one in rendered["conditions"] if one["type"] == "Completed")
        said = want + "create another FederatedTraining to train longer." if want else ""
        assert completed["message"] == f"All 20 rounds are done.{said}"


def test_who_was_lost_or_never_answered_did_not_complete() -> None:
    """At the end only clusters that took part are Completed; the others keep their state."""
    done = snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "file:///m/20", "5b" * 32, 20)
    seen = {**BUSY.clusters, "zurich": snapshot.ClusterProgress("Lost")}
    snap = scene.snap(
        scene.cluster("budapest"),
        scene.cluster("cleveland"),
        scene.cluster("zurich", connected=False, disconnected_at=scene.NOW - 99),
        training=scene.training(status=scene.held("budapest", "zurich")),
        reports=scene.running("zurich") | {"budapest": snapshot.Report("STOPPED", "TrainingEnded")},
        aggregator=dataclasses.replace(UP, progress=dataclasses.replace(BUSY, finished=done, clusters=seen)),
    )
    states = [(entry["name"], entry["state"]) for entry in scene.rendered(snap)["clusters"]]
    assert states == [("budapest", "Completed"), ("cleveland", "Selected"), ("zurich", "Lost")]


def test_an_aggregator_that_dies_fails_the_training_with_its_last_lines() -> None:
    """Without a finish report the exit is the failure, and the tail of the log is kept."""
    exit_ = snapshot.Exit("exit status 1", ("Traceback", "ValueError: no"))
    rendered = scene.rendered(dataclasses.replace(RUNNING, aggregator=dataclasses.replace(UP, exit=exit_)))
    assert rendered["phase"] == "Failed"
    failed = next(entry for entry in rendered["conditions"] if entry["type"] == "Failed")
    assert failed["reason"] == "ServerAppExited"
    assert failed["message"] == (
        "The aggregator ended without a result: exit status 1. Its last lines say "
        "why.\nTraceback\nValueError: no"
    )


def test_a_refusal_is_shown_with_the_owners_words() -> None:
    """The entry of a refusing cluster carries the typed reason and sentence of the edge."""
    report = snapshot.Report(
        "REFUSED", "ImageNotAllowed", "Rule cardiology-only allows images of registry.example only."
    )
    rendered = scene.rendered(scene.snap(scene.cluster("zurich"), reports={"zurich": report}))
    assert rendered["clusters"] == [
        {"name": "zurich", "state": "Refused", "reason": "ImageNotAllowed", "message": report.message}
    ]
    assert rendered["phase"] == "Waiting"


def test_a_suspended_training_keeps_what_was_reached() -> None:
    """Suspending keeps round and metrics visible after the aggregator is gone."""
    before = scene.rendered(RUNNING)
    paused = scene.training(spec={"suspend": True}, status=before)
    rendered = scene.rendered(dataclasses.replace(RUNNING, training=paused, aggregator=snapshot.Aggregator()))
    assert rendered["phase"] == "Suspended"
    assert (rendered["round"], rendered["metrics"]) == (before["round"], before["metrics"])


def test_a_missing_app_is_not_accepted() -> None:
    """The training stays Pending and says what is wrong with the app."""
    problem = snapshot.Problem("DigestMismatch", "The app has another digest.")
    rendered = scene.rendered(scene.snap(training=scene.training(app=problem)))
    assert rendered["phase"] == "Pending"
    assert status.phase_condition(rendered)["reason"] == "DigestMismatch"


@given(
    st.sampled_from([RUNNING, scene.snap(), scene.snap(scene.cluster("a"))]),
    st.floats(0, 1e6, allow_nan=False),
)
def test_rendering_settles(snap: snapshot.Snapshot, later: float) -> None:
    """Status in, the same status out, whenever that is; so a quiet training writes nothing."""
    once = scene.rendered(snap)
    training = dataclasses.replace(snap.training, status=once)
    twice = scene.rendered(dataclasses.replace(snap, training=training, now=snap.now + later))
    assert twice == once
    assert desired.plan(dataclasses.replace(snap, training=training)).stage is desired.plan(snap).stage


@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["Train", "Evaluate"])), max_size=40))
def test_folding_a_report_twice_counts_once(measured: list[tuple[int, str]]) -> None:
    """Metrics that come again replace each other, and only the last ten are kept."""
    metrics = [snapshot.RoundMetrics(number, phase, {"loss": 1.0}) for number, phase in measured]
    once = progress.fold(snapshot.Progress(), BUSY, metrics)
    assert len(once.metrics) <= progress.KEPT_METRICS
    twice = progress.fold(once, BUSY, once.metrics)
    assert twice.metrics == once.metrics


def test_round_seconds_are_the_gaps_between_starts() -> None:
    """The median needs two starts."""
    first = progress.fold(snapshot.Progress(), snapshot.Progress(round=1, round_started_at=10.0), ())
    assert progress.median_round_seconds(first) is None
    second = progress.fold(first, snapshot.Progress(round=2, round_started_at=11.5), ())
    again = progress.fold(second, snapshot.Progress(round=2, round_started_at=11.5), ())
    assert progress.median_round_seconds(again) == 1.5


def test_rounds_between_two_reports_count_with_their_mean() -> None:
    """Rounds of milliseconds are shorter than the time between two reports."""
    first = progress.fold(snapshot.Progress(), snapshot.Progress(round=1, round_started_at=100.0), ())
    later = progress.fold(first, snapshot.Progress(round=17, round_started_at=100.8), ())
    assert progress.median_round_seconds(later) == pytest.approx(0.05)
    assert len(later.round_seconds) == 16
    last = progress.fold(later, snapshot.Progress(round=100_017, round_started_at=200_100.8), ())
    assert progress.median_round_seconds(last) == pytest.approx(2.0)
    assert len(last.round_seconds) == progress.KEPT_ROUND_SECONDS


STOP = {"stop": True}


def test_a_stopped_training_keeps_what_it_reached() -> None:
    """It is told to end, then Stopped with its rounds, metrics and the model that its aggregator stored."""
    before = scene.rendered(RUNNING)
    told = dataclasses.replace(RUNNING, training=scene.training(spec=STOP, status=before))
    going = scene.rendered(told)
    assert (going["phase"], going["summary"]["reason"]) == ("Running", "Stopping")
    plan = desired.plan(told)
    assert plan.stop is not None
    assert (plan.stop.reason, plan.aggregator_wanted) == ("StopRequested", False)
    assert set(plan.assignments) == {"budapest", "zurich"}
    word = snapshot.Finished(False, "StopRequested", "Stopped.", "file:///m/6", "5b" * 32, 6)
    over = dataclasses.replace(
        told, aggregator=dataclasses.replace(UP, progress=dataclasses.replace(BUSY, finished=word))
    )
    rendered = scene.rendered(over)
    assert rendered["phase"] == "Stopped"
    assert rendered["model"] == {"uri": "file:///m/6", "sha256": "5b" * 32, "round": 6}
    assert (rendered["round"], rendered["metrics"]) == (before["round"], before["metrics"])
    assert {entry["state"] for entry in rendered["clusters"]} == {"Completed"}
    assert reasons(rendered) == {
        "Accepted": "True Valid",
        "QuorumReached": "True EnoughClusters",
        "Running": "False EndedEarly",
        "Completed": "False EndedEarly",
        "Failed": "False NotFailed",
        "Suspended": "False NotSuspended",
        "Stopped": "True StopRequested",
    }
    again = dataclasses.replace(over, training=scene.training(status=rendered))
    assert desired.plan(again).stage is desired.Stage.ENDED


STOPPED_BEFORE = {
    "while it waits": scene.snap(training=scene.training(spec=STOP)),
    "while it rests": scene.snap(training=scene.training(spec=STOP | {"suspend": True})),
    "with an app that is missing": scene.snap(
        training=scene.training(spec=STOP, app=snapshot.Problem("AppNotFound", "No such file."))
    ),
    "and its aggregator was ended by force": dataclasses.replace(
        RUNNING,
        training=scene.training(spec=STOP),
        aggregator=dataclasses.replace(UP, exit=snapshot.Exit("signal SIGKILL")),
    ),
}


@pytest.mark.parametrize("snap", STOPPED_BEFORE.values(), ids=STOPPED_BEFORE)
def test_it_can_be_stopped_at_any_time(snap: snapshot.Snapshot) -> None:
    """Nothing needs to be told first."""
    assert scene.rendered(snap)["phase"] == "Stopped"


def test_enough_clusters_are_preparing() -> None:
    """From enough clusters to the first round it prepares, and says who is not ready."""
    snap = scene.snap(
        scene.cluster("budapest"),
        scene.cluster("zurich"),
        reports={"zurich": snapshot.Report("PREPARING")},
        aggregator=snapshot.Aggregator(started=True),
    )
    rendered = scene.rendered(snap)
    assert (rendered["phase"], rendered["summary"]["reason"]) == ("Preparing", "Starting")
    assert status.phase_condition(rendered)["message"] == (
        "The aggregator is being started. Not ready yet: budapest, zurich."
    )


def test_an_end_that_a_new_leader_finds_is_written_over_what_was_known() -> None:
    """Its clusters have not spoken yet, and keep what the last status said of them."""
    before = scene.rendered(RUNNING)
    word = snapshot.Finished(True, "AllRoundsDone", "All 20 rounds are done.", "file:///m/20", "5b" * 32, 20)
    snap = scene.snap(
        scene.cluster("budapest", connected=False, disconnected_at=scene.NOW),
        scene.cluster("zurich"),
        training=scene.training(status=before),
        aggregator=dataclasses.replace(UP, progress=snapshot.Progress(finished=word)),
    )
    rendered = scene.rendered(snap)
    assert rendered["phase"] == "Completed"
    assert rendered["summary"] == {
        "round": "20/20", "clusters": "2/2", "metric": "accuracy=0.812", "reason": "AllRoundsDone",
    }  # fmt: skip
    assert reasons(rendered)["QuorumReached"] == "True EnoughClusters"
    assert [entry.get("examples") for entry in rendered["clusters"]] == [None, 98]
    assert rendered["model"]["round"] == 20


def test_every_message_is_a_sentence() -> None:
    """Conditions and clusters end with a full stop, whoever said it."""
    report = snapshot.Report("FAILED", "OutOfMemory", "the client was ended", ("Traceback", "MemoryError"))
    snap = dataclasses.replace(RUNNING, reports={"zurich": report})
    rendered = scene.rendered(snap)
    for entry in [*rendered["conditions"], *rendered["clusters"]]:
        assert entry.get("message", ".").splitlines()[0].endswith(".")


OPTIONAL = ("observedGeneration", "phase", "conditions", "clusters", "app", "summary", "startedAt", "round")
LATER = {"sinceLater": {"value": 1}}
"""What a version that follows may have added."""


@given(lacking=st.sets(st.sampled_from(OPTIONAL)), later=st.booleans(), heard=st.booleans())
def test_a_status_that_another_version_wrote_is_read(lacking: set[str], later: bool, heard: bool) -> None:
    """Fields that the one before did not know may lack; what the one after has added is not stumbled over.

    The next status is the one that would have been written anyway, but for times that nobody knows any more.
    """
    snap = RUNNING if heard else dataclasses.replace(RUNNING, aggregator=UP, reports={})
    whole = scene.rendered(RUNNING)
    known = {key: value for key, value in whole.items() if key not in lacking}
    if later:
        known |= LATER
        for key in ("conditions", "clusters"):
            if key in known:
                known[key] = [entry | LATER for entry in known[key]]
        known["conditions"] = [
            *known.get("conditions", ()),
            {"type": "Glowing", "status": "True", "reason": "Later", "message": "It glows."} | LATER,
        ]
        known["clusters"] = [*known.get("clusters", ()), {"name": "lausanne", "state": "Glowing"}]

    def after(status: dict[str, object]) -> dict[str, object]:
        training = dataclasses.replace(snap.training, status=status)
        return scene.rendered(dataclasses.replace(snap, training=training))

    rendered = after(known)
    api.FederatedTrainingStatus.model_validate_json(json.dumps(rendered))
    assert reasons(rendered) == reasons(after(whole))
    if heard:
        times = {"conditions", "startedAt"}
        want = after(whole)
        assert {key: value for key, value in rendered.items() if key not in times} == {
            key: value for key, value in want.items() if key not in times
        }
