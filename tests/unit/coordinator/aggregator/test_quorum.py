"""The quorum of a round in Flower's older API, and the order in which its strategies get results."""

from __future__ import annotations

from fractions import Fraction

import flwr.server.strategy as strategies
import numpy as np
import pytest
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters

from coordinator.aggregation import events
from coordinator.aggregator import driver, progress, watcher
from coordinator.aggregator import quorum as quorums
from federation.flower import watch


class Proxy:
    """A client proxy as the older strategies see it."""

    def __init__(self, node_id: int) -> None:
        self.node_id, self.cid = node_id, str(node_id)


def fit(node: int, value: float) -> tuple[Proxy, FitRes]:
    return Proxy(node), FitRes(Status(Code.OK, ""), ndarrays_to_parameters([np.full(3, value)]), 1, {})


def ends(reason: str, message: str) -> None:
    raise driver.TrainingOver(reason, message)


@pytest.mark.parametrize(
    "quorum, fraction, succeeded, failed, lost",
    [
        (2, "0", 2, 5, False),
        (2, "0", 1, 5, True),
        (4, "0", 2, 0, False),  # no more than were asked
        (1, "1/2", 2, 2, False),
        (1, "1/2", 1, 2, True),
        (1, "0", 0, 3, True),
        (3, "0", 0, 0, False),
    ],
)
def test_the_rule(quorum: int, fraction: str, succeeded: int, failed: int, lost: bool) -> None:
    """max(ceil(fraction x asked), min(quorum, asked)) must have succeeded."""
    rules = events.RoundRules(quorum=quorum, minimum_fraction=Fraction(fraction))
    judge = quorums.Judge("demo/hospitals", rules, ends)
    failures = [ValueError("geneva: its link is lost")] * failed
    if not lost:
        judge(4, succeeded, failures)
        return
    with pytest.raises(driver.TrainingOver) as caught:
        judge(4, succeeded, failures)
    assert caught.value.reason == "QuorumLost"
    assert f"round 4 of demo/hospitals: {succeeded} of" in caught.value.message
    assert "geneva: its link is lost" in caught.value.message


def test_a_result_with_another_status_is_a_failure_with_its_message() -> None:
    """Flower's older server puts such results among the failures."""
    proxy, result = fit(1, 0)
    result.status = Status(Code.FIT_NOT_IMPLEMENTED, "no fit here")
    judge = quorums.Judge("demo/hospitals", events.RoundRules(), ends)
    with pytest.raises(driver.TrainingOver, match="no fit here"):
        judge(1, 0, [(proxy, result)])


@pytest.fixture
def watched():
    heard = watcher.Watcher(progress.Progress(), lambda: None)
    watching = watch.install(heard)
    yield heard
    watching.remove()


def test_a_strategy_of_the_older_api_is_judged_before_it_aggregates(watched: watcher.Watcher) -> None:
    """The end comes out of aggregate_fit, as an exception that no `except Exception` stops."""
    watched.judge = quorums.Judge("demo/hospitals", events.RoundRules(quorum=2), ends)
    strategy = strategies.FedAvg()
    assert strategy.aggregate_fit(1, [fit(1, 1), fit(2, 2)], [])[0] is not None
    with pytest.raises(driver.TrainingOver):
        strategy.aggregate_fit(2, [fit(1, 1)], [ValueError("x")])
    with pytest.raises(driver.TrainingOver):
        strategy.aggregate_fit(server_round=2, results=[fit(1, 1)], failures=[ValueError("x")])


def test_the_end_of_the_training_is_no_failed_client(watched: watcher.Watcher) -> None:
    """The older server collects a TrainingOver like any exception of a client; it is raised again."""
    over = driver.TrainingOver("Cancelled", "deleted")
    with pytest.raises(driver.TrainingOver, match="deleted"):
        strategies.FedAvg().aggregate_fit(1, [fit(1, 1)], [over])


def test_results_come_in_node_order(watched: watcher.Watcher) -> None:
    """The older server hands them over in the order of a set; the average has the same last bit each time."""
    values = {1: 0.1, 2: 0.7, 3: 1 / 3, 4: 1e-9}
    averages = set()
    for order in ([1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]):
        parameters, _ = strategies.FedAvg().aggregate_fit(1, [fit(node, values[node]) for node in order], [])
        assert parameters is not None
        averages.add(parameters.tensors[0])
    assert len(averages) == 1
