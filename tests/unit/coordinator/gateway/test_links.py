"""The registries of links: latest values, one session each, nothing piling up."""

import dataclasses

import pytest

from coordinator.gateway import links
from coordinator.planning import desired, snapshot
from federation.wire import denials

ASSIGNMENT = desired.Assignment(
    uid="uid-1",
    namespace="cardiology",
    name="hospitals",
    dataset="heart",
    app=snapshot.App(digest="sha256:" + "9f" * 32),
    aggregator_address="",
    aggregator_server_name="",
    run_config={},
    image="",
    strategy="",
    rounds=3,
    resource_limits={},
    resource_requests={},
    privacy={},
    maximum_restarts=3,
)
RULES = desired.RoundRules(1, "0", 60.0, "Discard")


class Clock:
    """Time as a test wants it, and a count of notifications."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1


@pytest.fixture
def clock() -> Clock:
    """A clock at 100 s."""
    return Clock()


@pytest.fixture
def agents(clock: Clock) -> links.AgentLinks:
    """A registry without sessions."""
    return links.AgentLinks(lambda: clock.now, clock.changed)


def test_never_connected_counts_from_the_start(agents: links.AgentLinks, clock: Clock) -> None:
    """A hub that restarted gives every edge its grace from its own start on."""
    clock.now = 150.0
    assert not agents.connected("zurich")
    assert agents.disconnected_at("zurich") == 100.0


def test_a_closed_session_is_remembered(agents: links.AgentLinks, clock: Clock) -> None:
    """The time of the loss is kept until the next session."""
    link = agents.open("zurich")
    agents.offered("zurich")
    assert agents.connected("zurich")
    clock.now = 120.0
    assert agents.close(link)
    assert (agents.connected("zurich"), agents.disconnected_at("zurich")) == (False, 120.0)
    assert clock.changes == 3


def test_a_session_counts_once_its_offers_are_known(agents: links.AgentLinks, clock: Clock) -> None:
    """Nobody may be told that a cluster offers nothing before it could say what it offers."""
    agents.open("zurich")
    assert not agents.connected("zurich")
    agents.offered("zurich")
    agents.offered("zurich")
    assert agents.connected("zurich")
    assert clock.changes == 2


def test_the_newer_session_wins(agents: links.AgentLinks) -> None:
    """The older one is told, and its end does not disconnect the cluster."""
    older = agents.open("zurich")
    newer = agents.open("zurich")
    agents.offered("zurich")
    assert older.goodbye is not None
    assert older.goodbye.reason is denials.Reason.SESSION_REPLACED
    assert not agents.close(older)
    assert agents.connected("zurich")
    assert newer.goodbye is None


def test_a_cluster_is_sent_away(agents: links.AgentLinks) -> None:
    """Its session of the moment ends; there need not be one."""
    revoked = denials.denial(denials.Reason.REVOKED, identity="zurich")
    agents.send_away("zurich", revoked)
    link, other = agents.open("zurich"), agents.open("budapest")
    agents.send_away("zurich", revoked)
    assert link.goodbye is revoked and link.ending.is_set()
    assert other.goodbye is None


def test_the_same_assignments_are_no_news(agents: links.AgentLinks) -> None:
    """A session is woken by a change only."""
    link = agents.open("zurich")
    link.news.clear()
    agents.assign("zurich", [ASSIGNMENT])
    assert link.news.is_set()
    link.news.clear()
    agents.assign("zurich", [dataclasses.replace(ASSIGNMENT)])
    assert not link.news.is_set()


def test_reports_on_withdrawn_assignments_are_dropped(agents: links.AgentLinks) -> None:
    """What was withdrawn is forgotten, and late words on it change nothing."""
    agents.open("zurich")
    agents.assign("zurich", [ASSIGNMENT])
    agents.report("zurich", "uid-1", snapshot.Report("RUNNING"))
    agents.report("zurich", "uid-9", snapshot.Report("RUNNING"))
    assert agents.reports("uid-1") == {"zurich": snapshot.Report("RUNNING")}
    assert agents.reports("uid-9") == {}
    agents.assign("zurich", [])
    agents.report("zurich", "uid-1", snapshot.Report("STOPPED"))
    assert agents.reports("uid-1") == {}


def test_the_same_report_is_no_change(agents: links.AgentLinks, clock: Clock) -> None:
    """A repeated report wakes nobody."""
    agents.open("zurich")
    agents.assign("zurich", [ASSIGNMENT])
    agents.report("zurich", "uid-1", snapshot.Report("RUNNING"))
    before = clock.changes
    agents.report("zurich", "uid-1", snapshot.Report("RUNNING"))
    assert clock.changes == before


def test_an_aggregator_that_nobody_expects_is_unknown(clock: Clock) -> None:
    """Only the aggregator of a training that should run is let in; who is early is asked to come again."""
    registry = links.AggregatorLinks(clock.changed)
    with pytest.raises(denials.Denied, match="does not know yet what runs") as early:
        registry.find("cardiology", "hospitals")
    assert early.value.denial.may_retry
    registry.complete()
    with pytest.raises(denials.Denied, match="there is no training cardiology/hospitals"):
        registry.find("cardiology", "hospitals")
    registry.expect("uid-1", "cardiology", "hospitals")
    registry.find("cardiology", "hospitals")
    registry.forget("uid-1")
    with pytest.raises(denials.Denied):
        registry.find("cardiology", "hospitals")


def test_what_an_earlier_aggregator_said_is_forgotten(clock: Clock) -> None:
    """A fresh start begins with an empty picture."""
    registry = links.AggregatorLinks(clock.changed)
    registry.expect("uid-1", "cardiology", "hospitals")
    entry = registry.find("cardiology", "hospitals")
    registry.open(entry, "127.0.0.1:9", "name")
    registry.take(entry, snapshot.Progress(round=4))
    assert registry.observed("uid-1").progress.round == 4
    registry.expect("uid-1", "cardiology", "hospitals")
    assert registry.observed("uid-1") == snapshot.Aggregator()


def test_directions_wake_a_session_when_they_change(clock: Clock) -> None:
    """Roster, rules and stop are latest values."""
    registry = links.AggregatorLinks(clock.changed)
    registry.expect("uid-1", "cardiology", "hospitals")
    link = registry.open(registry.find("cardiology", "hospitals"), "127.0.0.1:9", "name")
    link.news.clear()
    registry.direct("uid-1", (), RULES, None)
    assert link.news.is_set()
    link.news.clear()
    registry.direct("uid-1", (), RULES, None)
    assert not link.news.is_set()


def test_ending_for_a_suspension_is_no_end(clock: Clock) -> None:
    """A suspended aggregator says that it ended; the training goes on later all the same."""
    registry = links.AggregatorLinks(clock.changed)
    registry.expect("uid-1", "cardiology", "hospitals")
    entry = registry.find("cardiology", "hospitals")
    registry.finish(entry, snapshot.Finished(False, "SuspendRequested", "spec.suspend is true."))
    assert registry.observed("uid-1").progress.finished is None


def test_the_last_word_counts_once(clock: Clock) -> None:
    """A second finish report does not replace the first."""
    registry = links.AggregatorLinks(clock.changed)
    registry.expect("uid-1", "cardiology", "hospitals")
    entry = registry.find("cardiology", "hospitals")
    registry.finish(entry, snapshot.Finished(True, "AllRoundsDone", "Done."))
    registry.finish(entry, snapshot.Finished(False, "InternalError", "No."))
    finished = registry.observed("uid-1").progress.finished
    assert finished is not None
    assert finished.succeeded
