"""What status learns of a round."""

from __future__ import annotations

import math

import pytest
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict

from coordinator.aggregation import instructions
from coordinator.aggregator import metrics, progress
from federation.api import reasons
from tests.fakes import exchange as fakes

process = fakes.process


def reply(**records: dict[str, object]) -> Message:
    content = RecordDict({name: MetricRecord(values) for name, values in records.items()})  # type: ignore[arg-type]
    return Message(content, 5, "train")


def test_metrics_are_averaged_by_examples() -> None:
    """Weights are the example counts, 1 where none is given; who lacks a metric is left out of it."""
    replies = [
        reply(m={"num-examples": 3, "loss": 1.0, "only": 7}),
        reply(m={"num-examples": 1, "loss": 2.0, "list": [1.0, 2.0]}),
        Message(Error(2, "raised"), reply_to=reply()),
        Message(RecordDict({"c": ConfigRecord({"loss": 9.0})}), 5, "train"),
    ]
    assert metrics.average(replies) == {"loss": 1.25, "only": 7.0}
    assert metrics.average([reply(m={"loss": 1.0}), reply(m={"loss": 3.0})]) == {"loss": 2.0}
    assert metrics.average([]) == {}


@pytest.mark.parametrize(
    "value, want", [(5, 5), (2.9, 2), (0, None), (-1, None), (math.inf, None), (math.nan, None)]
)
def test_examples_are_a_positive_number(value: float, want: int | None) -> None:
    """Anything else counts as not given."""
    assert metrics.examples(reply(m={"num-examples": value})) == want


def cluster(
    name: str, state: reasons.ClusterState, reason: str = "", **more: object
) -> instructions.ReportCluster:
    return instructions.ReportCluster(1, name, state, reason, **more)  # type: ignore[arg-type]


def phase(name: instructions.Phase, number: int = 1) -> instructions.ReportRound:
    return instructions.ReportRound(number, name, "")


def test_what_an_app_did_otherwise_is_in_every_report() -> None:
    """The hub keeps it; one report may be lost with its link."""
    told = progress.Progress()
    assert told.report().diverged == ""
    told.diverged("After a restart, call 3 differs.")
    assert [told.report().diverged for _ in range(2)] == ["After a restart, call 3 differs."] * 2


def test_metrics_are_reported_once_and_again_on_a_new_link() -> None:
    """A report may be lost with its link: the first one of the next link has all metrics."""
    told = progress.Progress()
    told.measured(1, "Train", {"loss": 1.0})
    assert [m.round for m in told.report().metrics] == [1]
    assert not told.report().metrics
    told.measured(2, "Train", {"loss": 0.5})
    assert [m.round for m in told.report(True).metrics] == [1, 2]
    assert not told.report().metrics
    told.measured(2, "Train", {"loss": 0.5})
    assert not told.report().metrics, "nothing has changed"
    told.measured(2, "Train", {})
    told.measured(2, "Train", {"loss": 0.4})
    assert dict(told.report().metrics[0].values) == {"loss": 0.4}


def test_the_card_has_no_nan() -> None:
    """JSON has no NaN; what was not finite is null."""
    told = progress.Progress()
    told.measured(2, "Evaluate", {"loss": math.nan, "accuracy": 1.0})
    told.measured(1, "Train", {"loss": math.inf})
    assert told.metrics() == [
        {"round": 1, "phase": "Train", "values": {"loss": None}},
        {"round": 2, "phase": "Evaluate", "values": {"loss": None, "accuracy": 1.0}},
    ]


def test_a_refusal_stays_until_the_same_phase_counts_again() -> None:
    """An update that was refused is not mended by the evaluation that follows it."""
    told = progress.Progress()

    def seen() -> str:
        return told.report().clusters[0].reason

    told.round(phase(instructions.Phase.TRAIN), 0)
    told.cluster(cluster("zurich", reasons.ClusterState.READY, "UpdateRefused", message="NotFinite: ..."), 0)
    told.round(phase(instructions.Phase.EVALUATE), 0)
    told.cluster(cluster("zurich", reasons.ClusterState.REPORTED), 0)
    assert seen() == "UpdateRefused"
    told.round(phase(instructions.Phase.TRAIN, 2), 0)
    told.cluster(cluster("zurich", reasons.ClusterState.TRAINING), 0)
    assert seen() == "UpdateRefused"
    told.cluster(cluster("zurich", reasons.ClusterState.REPORTED), 0)
    assert seen() == ""


def test_examples_and_times_are_those_of_training() -> None:
    """An evaluation's rows say nothing of what was trained on."""
    told = progress.Progress()
    told.round(phase(instructions.Phase.TRAIN), 100.0)
    told.cluster(cluster("zurich", reasons.ClusterState.REPORTED, examples=30, round=1), 101.0)
    told.round(phase(instructions.Phase.EVALUATE), 102.0)
    told.cluster(cluster("zurich", reasons.ClusterState.REPORTED, examples=9, round=1), 103.0)
    report = told.report()
    assert (report.round, report.round_started_at, report.clusters[0].last_update_at) == (1, 100.0, 103.0)
    assert told.examples() == {"zurich": 30}


def test_sums_of_bytes_seconds_and_rounds() -> None:
    """Bytes by cluster and together; seconds by phase; the most rounds that anyone spoke of."""
    told = progress.Progress()
    told.transferred("a", sent=5)
    told.transferred("b", received=7, sent=1)
    told.spent("Train", 1.5)
    told.spent("Train", 0.5)
    told.total(3)
    told.total(2)
    report = told.report()
    assert (report.bytes_sent, report.bytes_received, report.rounds_total) == (6, 7, 3)
    assert dict(report.phase_seconds) == {"Train": 2.0}
    assert [entry.cluster for entry in report.clusters] == ["a", "b"]


def test_a_failed_app_shows_the_end_of_its_log() -> None:
    """The last lines and no more, and only where the app failed."""
    told = progress.Progress()
    told.client_log("zurich", [f"line {number}" for number in range(50)])
    told.cluster(cluster("zurich", reasons.ClusterState.READY), 0)
    assert told.report().clusters[0].message == ""
    told.cluster(cluster("zurich", reasons.ClusterState.READY, "ClientAppFailed", message="error 2: x"), 0)
    lines = told.report().clusters[0].message.splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("error 2: x", "line 49", 21)
