"""The Grid and the driver below it, with sessions that are lists."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from coordinator.aggregation import events
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import grid
from federation.flower import host
from tests.fakes import exchange as fakes

A, B = sorted(("geneva", "zurich"), key=fakes.node)
NODES = [fakes.node(A), fakes.node(B)]


@pytest.fixture
def driving() -> Iterator[fakes.Driving]:
    with fakes.Driving() as made:
        yield made


def ask(cluster: str, kind: str = "train", ttl: float | None = None, **config: int) -> Message:
    return Message(RecordDict({"c": ConfigRecord(dict(config))}), fakes.node(cluster), kind, ttl=ttl)


def sources(replies: list[Message]) -> list[int]:
    return [reply.metadata.src_node_id for reply in replies]


def test_replies_come_in_node_order_then_as_sent(driving: fakes.Driving) -> None:
    """Whatever the order of the messages, and with two for one node."""
    driving.join(A, B)
    sent = [ask(B), ask(A), ask(B)]
    replies = driving.grid.send_and_receive(sent)
    assert sources(replies) == [NODES[0], NODES[1], NODES[1]]
    order = [sent[1], sent[0], sent[2]]
    assert [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in order]


@pytest.mark.parametrize("number, tidied", [(grid.FEW_REPLIES, 0), (grid.FEW_REPLIES + 1, 1)])
def test_memory_is_given_back_before_many_replies_are_averaged(
    driving: fakes.Driving, number: int, tidied: int
) -> None:
    """Once, when the replies are there; after few of them there is nothing worth the time."""
    driving.join(A)
    happened: list[int] = []
    made = fakes.a_grid(driving.driver, driving.progress, driving.book, tidy=lambda: happened.append(1))
    assert len(made.send_and_receive([ask(A, n=index) for index in range(number)])) == number
    assert len(happened) == tidied


def test_generators_are_walked_once_and_nothing_is_nothing(driving: fakes.Driving) -> None:
    """Apps hand in generators; an empty one sends nothing."""
    driving.join(A, B)
    replies = driving.grid.send_and_receive(ask(cluster) for cluster in (A, B))
    assert len(replies) == 2
    assert driving.grid.send_and_receive(iter(())) == []
    assert driving.grid.push_messages(iter(())) == []
    ids = driving.grid.push_messages(ask(cluster, "query") for cluster in (A, B))
    assert len(set(ids)) == 2


def test_pulled_replies_come_once(driving: fakes.Driving) -> None:
    """By node id, each in one pull; unknown ids are nothing."""
    driving.join(A, B)
    ids = driving.grid.push_messages([ask(B), ask(A)])
    driving.on_loop(lambda: None)  # the replies come in the turn after the push
    got = driving.grid.pull_messages(iter([*ids, "unknown"]))
    assert sources(got) == NODES
    assert driving.grid.pull_messages(ids) == []


def test_a_node_that_is_not_there_is_an_error_reply(driving: fakes.Driving) -> None:
    """Its message is answered at once, with Flower's code for a gone node."""
    driving.join(A)
    replies = driving.grid.send_and_receive([ask(A), Message(RecordDict(), 77, "train")])
    assert sorted(reply.has_error() for reply in replies) == [False, True]
    (error,) = (reply.error for reply in replies if reply.has_error())
    assert error.code == host.ERROR_NODE_GONE


def test_the_timeout_means_fewer_replies(driving: fakes.Driving) -> None:
    """Of two messages one is answered; after the time of the caller the other is missing."""
    driving.join(A, B)
    driving.sessions[B].holds_back = True
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(driving.grid.send_and_receive, [ask(A), ask(B)], timeout=30.0)
        assert driving.sessions[B].arrived.wait(fakes.LIMIT_SECONDS)
        driving.on_loop(lambda: None)
        driving.clock = 30.0
        driving.on_loop(lambda: driving.driver.handle(events.TimePassed(30.0)))
        assert sources(pending.result(fakes.LIMIT_SECONDS)) == [NODES[0]]


def test_a_missed_message_is_still_known_to_its_check(driving: fakes.Driving) -> None:
    """A late reply can be compared with what was sent, once; nobody else's can."""
    driving.join(A)
    driving.sessions[A].holds_back = True
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(driving.grid.send_and_receive, [ask(A)], timeout=30.0)
        assert driving.sessions[A].arrived.wait(fakes.LIMIT_SECONDS)
        (message_id,) = driving.sessions[A].sent
        assert driving.driver.outgoing(message_id, NODES[1]) is None
        driving.on_loop(lambda: driving.driver.handle(events.TimePassed(30.0)))
        assert pending.result(fakes.LIMIT_SECONDS) == []
    assert driving.driver.outgoing(message_id, NODES[0]) is not None
    assert list(driving.driver.kept()) == [message_id]  # a snapshot of its round names it: it may come
    driving.on_loop(lambda: driving.reply(A, message_id))
    assert driving.driver.kept() == {}
    assert driving.driver.outgoing(message_id, NODES[0]) is None
    assert driving.sessions[A].safe.wait(fakes.LIMIT_SECONDS)  # it is confirmed when the journal has it
    assert driving.sessions[A].confirmed == [message_id]


def test_time_to_live_ends_a_message(driving: fakes.Driving) -> None:
    """Its reply is Flower's error 3."""
    driving.join(A)
    driving.sessions[A].holds_back = True
    message = ask(A, ttl=5.0)
    message.metadata.created_at = 0.0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(driving.grid.send_and_receive, [message])
        assert driving.sessions[A].arrived.wait(fakes.LIMIT_SECONDS)
        driving.on_loop(lambda: driving.driver.handle(events.TimePassed(5.0)))
        (reply,) = pending.result(fakes.LIMIT_SECONDS)
    assert reply.error.code == host.ERROR_EXPIRED


def test_twenty_threads_share_one_grid(driving: fakes.Driving) -> None:
    """Each gets the replies to its own messages; no id is given twice."""
    driving.join(A, B)

    def one(number: int) -> bool:
        sent = [ask(A, "query", n=number), ask(B, "query", n=number)]
        replies = driving.grid.send_and_receive(sent)
        assert driving.grid.get_node_ids() == NODES
        return [r.metadata.reply_to_message_id for r in replies] == [m.metadata.message_id for m in sent]

    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert all(pool.map(one, range(100)))
    assert len(set(driving.sessions[A].sent)) == 100


@pytest.mark.parametrize("number, judged", [(1, False), (2, True)])
def test_only_batches_of_several_are_judged(driving: fakes.Driving, number: int, judged: bool) -> None:
    """A strategy whose clients all fail has lost its quorum; one message is an app that judges for itself."""
    driving.join(A, B)
    for session in driving.sessions.values():
        session.holds_back = True
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(driving.grid.send_and_receive, [ask(A), ask(B)][:number])
        for cluster in (A, B)[:number]:
            assert driving.sessions[cluster].arrived.wait(fakes.LIMIT_SECONDS)
        refused = events.Refused("NotFinite", "array w is nan at element 0", "w")
        for cluster in (A, B)[:number]:
            message_id = driving.sessions[cluster].sent[0]
            driving.on_loop(lambda c=cluster, m=message_id: driving.reply(c, m, refused))
        if judged:
            with pytest.raises(driver_module.TrainingOver) as caught:
                pending.result(fakes.LIMIT_SECONDS)
            assert caught.value.reason == "QuorumLost"
        else:
            assert pending.result(fakes.LIMIT_SECONDS)[0].error.code == host.ERROR_REPLY_UNAVAILABLE


def test_the_end_reaches_every_waiting_thread_through_except_exception(driving: fakes.Driving) -> None:
    """An app that catches Exception and carries on does not hold up the end."""
    driving.join(A)
    driving.sessions[A].holds_back = True
    caught: list[str] = []

    def stubborn() -> None:
        try:
            while True:
                try:
                    driving.grid.send_and_receive([ask(A, "query")])
                except Exception:
                    caught.append("swallowed")
        except driver_module.TrainingOver as over:
            caught.append(over.reason)

    threads = [threading.Thread(target=stubborn) for _ in range(5)]
    for thread in threads:
        thread.start()
    while driving.on_loop(lambda: len(driving.sessions[A].sent)) < 5:
        pass
    driving.on_loop(lambda: driving.driver.handle(events.StopAsked("Cancelled", "deleted")))
    for thread in threads:
        thread.join(fakes.LIMIT_SECONDS)
    assert caught == ["Cancelled"] * 5
    with pytest.raises(driver_module.TrainingOver):
        driving.grid.pull_messages([])


def test_the_first_question_for_nodes_is_answered_while_another_thread_waits(driving: fakes.Driving) -> None:
    """The list stands still while a batch is open, but there must be one."""
    driving.join(A, B)
    driving.sessions[A].holds_back = True
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        pending = pool.submit(driving.grid.send_and_receive, [ask(A)])
        assert driving.sessions[A].arrived.wait(fakes.LIMIT_SECONDS)
        assert driving.grid.get_node_ids() == NODES
        driving.on_loop(lambda: driving.reply(A, driving.sessions[A].sent[0]))
        assert len(pending.result(fakes.LIMIT_SECONDS)) == 1


def test_a_removed_node_is_told_and_its_work_ends(driving: fakes.Driving) -> None:
    """CutLink says goodbye with the roster's reason."""
    driving.join(A, B)
    session = driving.sessions[B]
    removed = events.Member(NODES[1], B, False, "PolicyDenied", "no rule allows it")
    kept = events.Member(NODES[0], A)
    driving.on_loop(lambda: driving.driver.handle(events.RosterChanged((kept, removed), 0.0)))
    assert session.goodbyes == [("PolicyDenied", "no rule allows it")]
    assert driving.grid.get_node_ids() == [NODES[0]]


def test_the_end_of_a_replaced_session_means_nothing(driving: fakes.Driving) -> None:
    """Only the current session's end is a lost link."""
    driving.join(A)
    older = driving.sessions[A]
    driving.join(A)
    driving.on_loop(lambda: driving.driver.disconnected(NODES[0], older))
    assert driving.grid.get_node_ids() == [NODES[0]]
    (reply,) = driving.grid.send_and_receive([ask(A)])
    assert reply.has_content()


def test_the_app_ends_the_training_for_a_reason_of_its_side(driving: fakes.Driving) -> None:
    """end() raises, and every later call does."""
    driving.join(A)
    with pytest.raises(driver_module.TrainingOver):
        driving.driver.end("QuorumLost", "1 of 4 reported")
    assert driving.driver.over is not None
    assert (driving.driver.over.reason, driving.driver.over.message) == ("QuorumLost", "1 of 4 reported")
    with pytest.raises(driver_module.TrainingOver):
        driving.grid.get_node_ids()


def test_the_start_waits_for_clusters_or_for_the_end(driving: fakes.Driving) -> None:
    """app_may_start raises why there will be none."""
    driving.on_loop(lambda: driving.driver.handle(events.StopAsked("Cancelled", "deleted")))
    with pytest.raises(driver_module.TrainingOver):
        driving.driver.app_may_start.result(fakes.LIMIT_SECONDS)


@pytest.mark.parametrize(
    "message_type, kind",
    [
        ("train", "Train"),
        ("train.mine", "Train"),
        ("evaluate", "Evaluate"),
        ("query.x", "Query"),
        ("reconnect", "Query"),
    ],
)
def test_kinds(message_type: str, kind: str) -> None:
    """A round counts a message by its category."""
    assert grid.kind_of(message_type) == kind


def test_rounds_are_named_by_config() -> None:
    """Only a positive integer is a round's number."""
    with fakes.server_process():
        for value, want in [(3, 3), (0, None), (-1, None)]:
            assert grid.round_of(ask(A, **{"server-round": value})) == want


def test_who_ends_the_training_on_the_event_loop_does_not_wait_for_it(driving: fakes.Driving) -> None:
    """A reply of before a restart whose bytes are gone is found there."""
    with pytest.raises(driver_module.TrainingOver, match="reply-7 is missing"):
        driving.on_loop(lambda: driving.driver.end("JournalDamaged", "reply-7 is missing"))
    driving.on_loop(lambda: None)  # what was asked for meanwhile has happened
    assert driving.driver.over is not None
    assert driving.driver.over.reason == "JournalDamaged"
