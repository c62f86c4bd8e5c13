"""The round machine: cases that the golden logs do not tell, and its laws."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.aggregation import batches, events, instructions, rounds, transitions
from federation.api import reasons

RULES = events.RoundRules(quorum=2, deadline_seconds=100, link_grace_seconds=10, start_grace_seconds=5)
OK = events.Accepted(10)
BAD = events.Refused("NotFinite", "array a is nan")


def machine_of(count: int, rules: events.RoundRules = RULES) -> rounds.RoundMachine:
    """Return a machine whose app runs, with nodes 1 to count connected."""
    machine = rounds.RoundMachine("demo/hospitals", rules, 0)
    members = tuple(events.Member(node, f"edge-{node:02}") for node in range(1, count + 1))
    said = machine.handle(
        events.RosterChanged(members, 0), *(events.NodeConnected(node, 0) for node in range(1, count + 1))
    )
    assert instructions.StartApp() in said
    return machine


def push(batch, *pairs, kind=events.Kind.TRAIN, waits=True, timeout=None, now=1.0, ttl=None, **more):
    """Return a BatchPushed with messages given as (id, node)."""
    expires_at = None if ttl is None else now + ttl
    messages = tuple(events.Outgoing(message_id, node, expires_at) for message_id, node in pairs)
    return events.BatchPushed(batch, kind, messages, timeout, waits, now, **more)


def reply(message_id, node, verdict=OK, now=2.0):
    return events.ReplyArrived(message_id, node, verdict, now)


def only(said, kind):
    return [each for each in said if isinstance(each, kind)]


# -- Start --------------------------------------------------------------------------------------


def test_start_waits_for_grace_when_quorum_is_there_and_another_is_not():
    """With quorum connected the app starts when the grace is over, as the machine asked to be woken."""
    machine = rounds.RoundMachine("demo/hospitals", RULES, 0)
    members = tuple(events.Member(node, f"edge-{node:02}") for node in (1, 2, 3))
    said = machine.handle(
        events.RosterChanged(members, 0), events.NodeConnected(1, 3), events.NodeConnected(2, 4)
    )
    assert only(said, instructions.WakeAt) == [instructions.WakeAt(9)]
    assert instructions.StartApp() not in said
    assert instructions.StartApp() in machine.handle(events.TimePassed(9))


def test_roster_that_is_still_small_may_grow():
    """Fewer members than the quorum, none removed: nothing has failed yet."""
    machine = rounds.RoundMachine("demo/hospitals", RULES, 0)
    assert not only(
        machine.handle(events.RosterChanged((events.Member(1, "edge-01"),), 0)), instructions.FailTraining
    )
    assert machine.state is transitions.Run.GATHERING


def test_a_client_that_its_cluster_holds_up_is_waited_for_until_the_start_deadline():
    """It does not fail the start; what held it up is said if it never comes, and forgotten if it does."""
    held = events.Member(2, "edge-02", True, "VolumeNotMounted", "A claim of the pod is not bound.")
    rules = dataclasses.replace(RULES, start_deadline_seconds=60)

    def machine():
        it = rounds.RoundMachine("demo/hospitals", rules, 0)
        roster = (events.Member(1, "edge-01"), events.Member(2, "edge-02"))
        it.handle(events.RosterChanged(roster, 0), events.NodeConnected(1, 1))
        assert not only(it.handle(events.RosterChanged((roster[0], held), 2)), instructions.FailTraining)
        return it

    assert instructions.StartApp() in machine().handle(events.NodeConnected(2, 5))
    (failed,) = only(machine().handle(events.TimePassed(60)), instructions.FailTraining)
    assert "missing edge-02 (VolumeNotMounted: A claim of the pod is not bound)" in failed.message


def test_client_that_connects_before_the_roster_names_it_counts_once_named():
    """The session may be quicker than the roster."""
    machine = rounds.RoundMachine("demo/hospitals", dataclasses.replace(RULES, quorum=1), 0)
    assert not only(machine.handle(events.NodeConnected(7, 0)), instructions.StartApp)
    assert instructions.StartApp() in machine.handle(events.RosterChanged((events.Member(7, "edge-07"),), 0))


def test_removed_node_that_connects_is_cut():
    """A node that was removed for good does not come back, whatever the roster says."""
    machine = machine_of(3)
    machine.handle(events.NodeRemoved(3, "Expelled", "expelled", 1))
    roster = events.RosterChanged(tuple(events.Member(n, f"edge-{n:02}") for n in (1, 2, 3)), 2)
    assert only(machine.handle(roster, events.NodeConnected(3, 2)), instructions.CutLink)


# -- Batches ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fraction", "quorum", "asked", "want_needed"),
    [("0", 2, 10, 2), ("3/4", 2, 10, 8), ("1", 1, 3, 3), ("0", 5, 3, 3), ("1/3", 1, 10, 4), ("1/2", 1, 1, 1)],
)
def test_enough_is_the_larger_of_fraction_and_quorum(fraction, quorum, asked, want_needed):
    """A Train batch needs max(ceil(fraction x asked), min(quorum, asked)) valid replies at the deadline."""
    rules = events.RoundRules(
        quorum=min(quorum, 10), minimum_fraction=Fraction(fraction), deadline_seconds=100
    )
    for valid in (want_needed - 1, want_needed):
        machine = machine_of(10, rules)
        machine.handle(push("b", *((f"m{n}", n) for n in range(1, asked + 1))))
        said = machine.handle(*(reply(f"m{n}", n) for n in range(1, valid + 1)), events.TimePassed(101))
        assert bool(only(said, instructions.FailTraining)) == (valid < want_needed)


def test_close_is_by_node_then_push_order():
    """The order of the replies has no part in it, nor has the push order across nodes."""
    machine = machine_of(3)
    machine.handle(push("b", ("x", 3), ("a", 2), ("z", 1), ("y", 3), ("b", 1)))
    said = machine.handle(*(reply(m, n) for m, n in (("y", 3), ("b", 1), ("a", 2), ("x", 3), ("z", 1))))
    assert only(said, instructions.CloseBatch) == [instructions.CloseBatch("b", ("z", "b", "a", "x", "y"))]


def test_cluster_with_one_of_two_messages_refused_has_not_reported():
    """Clusters are counted, not messages."""
    machine = machine_of(2)
    machine.handle(push("b", ("a1", 1), ("a2", 1), ("b1", 2)))
    said = machine.handle(reply("a1", 1), reply("a2", 1, BAD))
    assert only(said, instructions.FailTraining)[0].reason is reasons.TrainingReason.QUORUM_LOST


def test_evaluate_batch_closes_with_what_came():
    """Evaluation never fails the training, not even with nothing."""
    machine = machine_of(3)
    machine.handle(push("e", ("a", 1), ("b", 2), kind=events.Kind.EVALUATE))
    assert instructions.CloseBatch("e", (), ("a", "b")) in machine.handle(events.TimePassed(101))


def test_batch_exempt_from_quorum_goes_on_with_an_error():
    """One failed call of an older client proxy is no lost quorum."""
    machine = machine_of(3)
    machine.handle(push("b", ("a", 1), judged=False))
    said = machine.handle(reply("a", 1, events.Errored(2, "raised")))
    assert instructions.CloseBatch("b", ("a",)) in said
    assert not only(said, instructions.FailTraining)


def test_caller_timeout_comes_before_the_deadline():
    """The earlier of the two closes the batch; either way the event may say it."""
    machine = machine_of(3)
    said = machine.handle(push("b", ("a", 1), ("b", 2), ("c", 3), timeout=7))
    assert instructions.WakeAt(8) in said
    machine.handle(reply("a", 1), reply("b", 2))
    assert instructions.CloseBatch("b", ("a", "b"), ("c",)) in machine.handle(events.BatchTimedOut("b", 5))
    assert machine.handle(events.BatchTimedOut("b", 9)) == []


def test_empty_batch_closes_at_once():
    """An app that selects nobody gets an empty list."""
    assert instructions.CloseBatch("b", ()) in machine_of(2).handle(push("b"))


def test_reply_after_the_deadline_is_late_even_if_time_was_not_told():
    """The reply's own `now` tells the time."""
    machine = machine_of(3)
    machine.handle(push("b", ("a", 1), ("b", 2), ("c", 3)), reply("a", 1), reply("b", 2))
    said = machine.handle(reply("c", 3, now=101))
    assert instructions.CloseBatch("b", ("a", "b"), ("c",)) in said
    assert instructions.DiscardReply("c", 3, instructions.WhyDiscarded.LATE) in said


def test_message_to_a_node_that_is_away_is_sent_when_it_comes_back():
    """Within the grace a push waits for the link."""
    machine = machine_of(3)
    said = machine.handle(events.LinkLost(3, 1), push("b", ("a", 1), ("c", 3)))
    assert [each.message_id for each in only(said, instructions.SendMessage)] == ["a"]
    assert instructions.SendMessage("c", 3) in machine.handle(events.NodeConnected(3, 9))


def test_second_loss_of_a_link_begins_a_new_grace():
    """The timer of the first loss does not end the second."""
    machine = machine_of(3)
    machine.handle(push("b", ("a", 1), ("b", 2), ("c", 3)), events.LinkLost(3, 1))
    machine.handle(events.NodeConnected(3, 5), events.LinkLost(3, 6))
    assert not only(machine.handle(events.TimePassed(11)), instructions.SettleMessage)
    said = machine.handle(events.TimePassed(16))
    assert only(said, instructions.SettleMessage)[0].outcome.code == instructions.NODE_UNAVAILABLE


def test_unknown_node_answers_with_error_5():
    """An app may address a node that never was."""
    said = machine_of(3).handle(push("q", ("a", 99), kind=events.Kind.QUERY))
    assert only(said, instructions.SettleMessage)[0].outcome.code == instructions.NODE_UNAVAILABLE


def test_stopped_training_ends_every_call():
    """Open batches and those pushed afterwards end with AbandonBatch."""
    machine = machine_of(2)
    machine.handle(push("b", ("a", 1)), push("c", ("d", 2), waits=False))
    said = machine.handle(events.StopAsked("Cancelled", "deleted"))
    assert {each.batch_id for each in only(said, instructions.AbandonBatch)} == {"b", "c"}
    assert only(machine.handle(push("late", ("e", 1))), instructions.AbandonBatch)


def test_rules_of_an_open_batch_stay():
    """New rules are for the next batch."""
    machine = machine_of(3)
    machine.handle(push("b", ("a", 1), ("b", 2), ("c", 3)))
    machine.handle(events.RulesChanged(dataclasses.replace(RULES, quorum=3, deadline_seconds=5), 1))
    assert not machine.handle(events.TimePassed(50))
    assert machine.handle(push("b2", ("d", 1), now=50))[-1] == instructions.WakeAt(55)


@pytest.mark.parametrize(
    ("fraction", "quorum", "asked", "want_taken"),
    [
        ("0", 1, 10, 10),
        ("0.3", 1, 13, 10),
        ("0.3", 1, 10, 8),
        ("1", 1, 10, 5),
        ("1", 8, 10, 8),
        ("1", 1, 1, 1),
    ],
)
@pytest.mark.parametrize("kind", [events.Kind.TRAIN, events.Kind.EVALUATE])
def test_the_first_so_many_are_taken(fraction, quorum, asked, want_taken, kind):
    """A batch closes with ceil(asked / (1 + fraction)) valid replies, or as many as are needed."""
    rules = dataclasses.replace(RULES, quorum=quorum, over_provision_fraction=Fraction(fraction))
    machine = machine_of(13, rules)
    machine.handle(push("b", *((f"m{n:02}", n) for n in range(1, asked + 1)), kind=kind))
    order = list(range(asked, 0, -1))
    for count, node in enumerate(order, start=1):
        said = machine.handle(reply(f"m{node:02}", node))
        closes = only(said, instructions.CloseBatch)
        assert bool(closes) == (count == want_taken)
        if closes:
            break
    taken = tuple(f"m{n:02}" for n in sorted(order[:want_taken]))
    left = tuple(f"m{n:02}" for n in sorted(order[want_taken:]))
    assert closes == [instructions.CloseBatch("b", taken, left)]
    told = only(said, instructions.WithdrawMessage)
    assert tuple(each.message_id for each in told) == left
    late = [machine.handle(reply(f"m{n:02}", n)) for n in order[want_taken:]]
    assert all(only(each, instructions.DiscardReply)[0].why == "Late" for each in late)


def test_what_was_refused_is_not_taken():
    """Errors and refused replies do not count among the first so many."""
    machine = machine_of(3, dataclasses.replace(RULES, over_provision_fraction=Fraction(1, 2)))
    machine.handle(push("b", ("a", 1), ("b", 2), ("c", 3)))
    assert not only(machine.handle(reply("a", 1, BAD), reply("b", 2)), instructions.CloseBatch)
    assert only(machine.handle(reply("c", 3)), instructions.CloseBatch)


@pytest.mark.parametrize("kind", [events.Kind.TRAIN, events.Kind.EVALUATE, events.Kind.QUERY])
def test_grace_begins_when_there_are_enough(kind):
    """The others have so long from the reply that made enough; queries wait for everybody."""
    machine = machine_of(4, dataclasses.replace(RULES, grace_seconds=20))
    machine.handle(push("b", *((f"m{n}", n) for n in (1, 2, 3, 4)), kind=kind))
    assert not only(machine.handle(reply("m1", 1, now=10)), instructions.WakeAt)
    said = machine.handle(reply("m2", 2, now=30), reply("m3", 3, now=49))
    early = kind is not events.Kind.QUERY
    assert (instructions.WakeAt(50) in said) == early
    said = machine.handle(events.TimePassed(50))
    assert (instructions.CloseBatch("b", ("m1", "m2", "m3"), ("m4",)) in said) == early


def test_no_grace_at_all_closes_with_the_reply_that_is_enough():
    """Zero seconds: who is not among the first that are needed is late."""
    machine = machine_of(3, dataclasses.replace(RULES, grace_seconds=0))
    machine.handle(push("b", ("a", 1), ("b", 2), ("c", 3)), reply("c", 3))
    assert instructions.CloseBatch("b", ("a", "c"), ("b",)) in machine.handle(reply("a", 1))


def test_a_batch_that_is_not_judged_gives_a_grace_after_its_first_reply():
    """Nothing is needed of it, and nothing at all would be too little."""
    machine = machine_of(3, dataclasses.replace(RULES, quorum=1, grace_seconds=5))
    machine.handle(push("b", ("a", 1), ("b", 2), judged=False))
    assert not machine.handle(events.TimePassed(50))
    machine.handle(reply("a", 1, now=60))
    assert instructions.CloseBatch("b", ("a",), ("b",)) in machine.handle(events.TimePassed(65))


@pytest.mark.parametrize(
    "wrong",
    [{"grace_seconds": -1}, {"over_provision_fraction": Fraction(2)}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_rules_that_no_manifest_can_express_are_refused(wrong):
    with pytest.raises(ValueError):
        dataclasses.replace(RULES, **wrong)


# -- After a restart ----------------------------------------------------------------------------


def resumed_with(*late, rules=RULES):
    """Return a machine that goes on in round 2, with what it says to that."""
    machine = rounds.RoundMachine("demo/hospitals", rules, 0)
    members = tuple(events.Member(node, f"edge-{node:02}") for node in (1, 2, 3))
    said = machine.handle(
        events.RosterChanged(members, 0),
        events.Resumed(members, 2, 0, late),
        *(events.NodeConnected(node, 0) for node in (1, 2, 3)),
    )
    return machine, said


def test_after_a_restart_those_who_took_part_are_waited_for_longer():
    """Their clients may have found nobody for a while, and dial again only some seconds later."""
    machine = rounds.RoundMachine("demo/hospitals", dataclasses.replace(RULES, start_deadline_seconds=1), 0)
    members = tuple(events.Member(node, f"edge-{node:02}") for node in (1, 2))
    machine.handle(events.RosterChanged(members, 0), events.Resumed(members, 2, 0))
    machine.handle(push("b", ("a", 1), ("c", 2)))
    assert not only(
        machine.handle(events.TimePassed(RULES.link_grace_seconds + 1)), instructions.SettleMessage
    )
    said = machine.handle(events.NodeConnected(1, 14), events.TimePassed(rounds.RESUMED_GRACE_SECONDS))
    assert [each.message_id for each in only(said, instructions.SendMessage)] == ["a"]
    (failed,) = only(said, instructions.FailTraining)
    assert "did not come back within 15 s" in failed.message


@pytest.mark.parametrize(
    ("link_grace", "start_deadline", "deadline", "want_grace"),
    [(300, 600, 3600, 600), (900, 600, 3600, 900), (10, None, 120, 120), (30, None, None, 30)],
)
def test_after_a_restart_clients_have_as_long_as_at_the_first_start(
    link_grace, start_deadline, deadline, want_grace
):
    """Where the training was suspended, or its node drained, they are started only when the aggregator is."""
    rules = dataclasses.replace(
        RULES,
        link_grace_seconds=link_grace,
        start_deadline_seconds=start_deadline,
        deadline_seconds=deadline,
    )
    machine = rounds.RoundMachine("demo/hospitals", rules, 0)
    members = tuple(events.Member(node, f"edge-{node:02}") for node in (1, 2))
    machine.handle(events.RosterChanged(members, 0), events.Resumed(members, 2, 0))
    machine.handle(push("b", ("a", 1), ("c", 2)), events.NodeConnected(1, 5))
    assert not machine.handle(events.TimePassed(want_grace - 1))
    (failed,) = only(machine.handle(events.TimePassed(want_grace)), instructions.FailTraining)
    assert f"did not come back within {want_grace} s" in failed.message


# -- A client that comes ------------------------------------------------------------------------


def roster(*nodes, now, coming=None):
    """Return a roster of these nodes; the client of one of them is held up."""
    why = {coming: ("Unschedulable", "No node has room.")}
    return events.RosterChanged(
        tuple(events.Member(node, f"edge-{node:02}", True, *why.get(node, ())) for node in nodes), now
    )


def with_one_away(**rules):
    """Return a machine with a round of three in which the third's link is lost at 2 s."""
    machine = machine_of(3, dataclasses.replace(RULES, **rules))
    machine.handle(push("b", ("a", 1), ("b", 2), ("c", 3)), events.LinkLost(3, 2))
    return machine


def test_a_node_whose_client_is_held_up_is_waited_for_while_its_edge_says_so():
    """Its grace ends neither by its time nor with a roster that says the same."""
    machine = with_one_away()
    machine.handle(roster(1, 2, 3, now=3, coming=3), events.TimePassed(50))
    machine.handle(roster(1, 2, 3, now=51, coming=3), events.TimePassed(99))
    said = machine.handle(events.NodeConnected(3, 100), reply("c", 3, now=100), reply("a", 1, now=100))
    assert instructions.SendMessage("c", 3) in said
    assert instructions.SettleMessage("c", instructions.Reply("c", 10)) in said


def test_a_client_that_was_held_up_has_as_long_as_at_the_first_start_once_it_runs():
    """It imports its app then, as everybody's does at the beginning."""
    machine = with_one_away(start_deadline_seconds=30)
    machine.handle(roster(1, 2, 3, now=3, coming=3), roster(1, 2, 3, now=50))
    assert not only(machine.handle(events.TimePassed(79)), instructions.SettleMessage)
    (settled,) = only(machine.handle(events.TimePassed(80)), instructions.SettleMessage)
    assert settled.outcome.reason.endswith("did not come back within 30 s")


def test_a_client_that_is_held_up_costs_one_round_its_deadline_and_no_other():
    """Afterwards the app does not see it before it comes."""
    machine = with_one_away()
    machine.handle(roster(1, 2, 3, now=3, coming=3), reply("a", 1), reply("b", 2))
    said = machine.handle(events.TimePassed(101))
    assert instructions.CloseBatch("b", ("a", "b"), ("c",)) in said
    assert "Unschedulable: No node has room" in only(said, instructions.ReportCluster)[-1].message
    machine.handle(events.NodesAsked(102))
    assert machine.nodes() == (1, 2)
    machine.handle(push("b2", ("d", 1), now=103), reply("d", 1, now=103))
    machine.handle(events.NodeConnected(3, 104), events.NodesAsked(104))
    assert machine.nodes() == (1, 2, 3)


def test_a_quorum_that_a_held_up_client_costs_names_what_holds_it_up():
    machine = with_one_away(quorum=3)
    machine.handle(roster(1, 2, 3, now=3, coming=3), reply("a", 1), reply("b", 2))
    (failed,) = only(machine.handle(events.TimePassed(101)), instructions.FailTraining)
    assert "missing edge-03 (no reply within 100 s, Unschedulable: No node has room)" in failed.message


def test_after_a_restart_a_client_that_is_being_started_is_waited_for():
    """Its node is on its way, say; the roster may be there before the machine goes on, or after."""
    for first in (True, False):
        rules = dataclasses.replace(RULES, start_deadline_seconds=20)
        machine = rounds.RoundMachine("demo/hospitals", rules, 0)
        told = [events.Resumed((events.Member(1, "edge-01"), events.Member(2, "edge-02")), 2, 0)]
        told.insert(0 if first else 1, roster(1, 2, now=0, coming=2))
        machine.handle(*told, push("b", ("a", 1), ("c", 2), now=0), events.NodeConnected(1, 1))
        assert instructions.SendMessage("c", 2) in machine.handle(events.NodeConnected(2, 99))


# -- Late replies after a restart ---------------------------------------------------------------

CAME = events.Late("m1", 3, 1, came=True, examples=7)
NEXT_ROUND = dataclasses.replace(RULES, late_replies=events.LateReplies.NEXT_ROUND)


def test_a_kept_late_reply_counts_after_a_restart():
    """It stands in for the next message to its cluster, once."""
    machine, _ = resumed_with(CAME, rules=NEXT_ROUND)
    said = machine.handle(push("b", ("a", 1), ("c", 3)))
    assert instructions.SettleMessage("c", instructions.Reply("m1", 7)) in said
    assert [each.message_id for each in only(said, instructions.SendMessage)] == ["a"]
    machine.handle(reply("a", 1))
    said = machine.handle(push("b2", ("d", 1), ("f", 3)))
    assert [each.message_id for each in only(said, instructions.SendMessage)] == ["d", "f"]
    assert only(machine.handle(reply("m1", 3)), instructions.DiscardReply)[0].why == "Duplicate"


def test_a_late_reply_that_comes_after_a_restart_counts():
    """Its message is known, and the round it belongs to."""
    machine, _ = resumed_with(dataclasses.replace(CAME, came=False), rules=NEXT_ROUND)
    said = machine.handle(reply("m1", 3))
    assert instructions.KeepReply("m1", 3) in said
    said = machine.handle(push("b", ("a", 1), ("c", 3)))
    assert instructions.SettleMessage("c", instructions.Reply("m1", 10)) in said


def test_a_kept_late_reply_is_dropped_if_such_do_not_count_any_more():
    """The manifest may have changed meanwhile."""
    _, said = resumed_with(CAME)
    assert instructions.DropKeptReply("m1", 3) in said
    machine, _ = resumed_with(dataclasses.replace(CAME, came=False))
    assert only(machine.handle(reply("m1", 3)), instructions.DiscardReply)[0].why == "Late"


def test_a_kept_late_reply_of_a_cluster_that_has_left_is_dropped():
    """Who is removed counts no more, before a restart or after."""
    machine, _ = resumed_with(CAME, rules=NEXT_ROUND)
    said = machine.handle(events.NodeRemoved(3, "ClusterLeft", "left", 1))
    assert instructions.DropKeptReply("m1", 3) in said


# -- Nodes --------------------------------------------------------------------------------------


def test_nodes_stand_still_in_a_batch_and_only_grow_in_a_phase():
    """The first question after a batch sees who is there; later ones add, and never take away."""
    machine = machine_of(3)
    machine.handle(events.NodesAsked(1), push("b", ("a", 1), ("b", 2), ("c", 3)))
    machine.handle(events.NodeRemoved(3, "ClusterLeft", "left", 2), events.NodesAsked(2))
    assert machine.nodes() == (1, 2, 3)
    machine.handle(reply("a", 1), reply("b", 2), events.NodesAsked(3))
    assert machine.nodes() == (1, 2)
    machine.handle(events.NodeRemoved(2, "ClusterLeft", "left", 4), events.NodesAsked(4))
    assert machine.nodes() == (1, 2)


def test_app_that_waits_without_deadline_fails_when_nobody_is_left_to_come():
    """Without a deadline only a quorum that cannot come back ends the wait."""
    machine = machine_of(2, dataclasses.replace(RULES, deadline_seconds=None))
    asks = [events.NodesAsked(now) for now in (1, 2, 3)]
    assert not only(machine.handle(*asks), instructions.FailTraining)
    said = machine.handle(events.NodeRemoved(2, "ClusterLeft", "left", 4), events.NodesAsked(5))
    assert only(said, instructions.FailTraining)[0].reason is reasons.TrainingReason.QUORUM_NOT_REACHED


def test_strategy_that_asks_twice_after_long_work_is_not_waiting():
    """Two questions, however far apart, are what a strategy asks before it samples."""
    machine = machine_of(2)
    assert not only(machine.handle(events.NodesAsked(1), events.NodesAsked(900)), instructions.FailTraining)


# -- Protocol errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fact",
    [
        events.LinkLost(9, 1),
        events.BatchTimedOut("never", 1),
        push("b", ("m", 2)),
        push("other", ("a", 2)),
    ],
)
def test_what_cannot_be_is_a_protocol_error(fact):
    """A driver's mistake is loud."""
    machine = machine_of(2)
    machine.handle(push("b", ("a", 1)))
    with pytest.raises(transitions.LocalProtocolError):
        machine.handle(fact)


def test_push_before_the_start_is_a_protocol_error():
    """No app runs before StartApp."""
    with pytest.raises(transitions.LocalProtocolError, match="training demo/hospitals is Gathering"):
        rounds.RoundMachine("demo/hospitals", RULES, 0).handle(push("b", ("a", 1)))


# -- Laws ---------------------------------------------------------------------------------------

VERDICTS = st.sampled_from([OK, OK, OK, BAD, events.Errored(2, "raised")])


def outcome_of(said):
    """Return what an app learns: outcomes by message, lists by batch, and whether the training failed."""
    return (
        {each.message_id: each.outcome for each in only(said, instructions.SettleMessage)},
        only(said, instructions.CloseBatch),
        bool(only(said, instructions.FailTraining)),
    )


@st.composite
def a_round(draw):
    """Draw the replies of a batch to six nodes, some of them silent, and a shuffle of them."""
    verdicts = {node: draw(VERDICTS) for node in range(1, 7) if draw(st.integers(0, 4))}
    replies = [reply(f"m{node}", node, verdict) for node, verdict in verdicts.items()]
    return (
        replies,
        draw(st.permutations(replies)),
        draw(st.integers(1, 6)),
        draw(st.sampled_from(list(events.Kind))),
    )


@settings(max_examples=150, deadline=None)
@given(a_round(), st.booleans())
def test_order_of_arrival_decides_nothing(case, waits):
    """Law: outcomes and lists are the same for every order of arrival; so is whether the training fails."""
    replies, shuffled, quorum, kind = case
    results = []
    for order in (replies, shuffled):
        machine = machine_of(6, dataclasses.replace(RULES, quorum=quorum))
        said = machine.handle(push("b", *((f"m{n}", n) for n in range(1, 7)), kind=kind, waits=waits))
        results.append(outcome_of(said + machine.handle(*order) + machine.handle(events.TimePassed(200))))
    (first, first_lists, failed), (second, second_lists, failed_too) = results
    assert failed == failed_too
    assert first_lists == second_lists
    if not failed:
        assert first == second


@settings(max_examples=150, deadline=None)
@given(a_round(), st.data())
def test_duplicates_and_foreign_replies_change_nothing(case, data):
    """Law: a repeated, foreign or unknown reply is discarded and confirmed, and nothing else comes of it."""
    replies, _, quorum, kind = case
    outcomes = []
    for noisy in (False, True):
        machine = machine_of(6, dataclasses.replace(RULES, quorum=quorum))
        said = machine.handle(push("b", *((f"m{n}", n) for n in range(1, 7)), kind=kind))
        for position, each in enumerate(replies):
            said += machine.handle(each)
            if noisy:
                old = data.draw(st.sampled_from(replies[: position + 1]))
                noise = data.draw(
                    st.sampled_from(
                        [
                            old,
                            dataclasses.replace(old, verdict=BAD),
                            reply("unknown", 1),
                            reply(each.message_id, 77),
                        ]
                    )
                )
                assert {type(i) for i in machine.handle(noise)} == {
                    instructions.DiscardReply,
                    instructions.ConfirmReply,
                }
        outcomes.append(outcome_of(said + machine.handle(events.TimePassed(200))))
    assert outcomes[0] == outcomes[1]


FACTS = st.one_of(
    st.tuples(st.just("reply"), st.integers(1, 4), VERDICTS),
    st.tuples(st.just("lost"), st.integers(1, 4), st.none()),
    st.tuples(st.just("back"), st.integers(1, 4), st.none()),
    st.tuples(st.just("died"), st.integers(1, 4), st.none()),
    st.tuples(st.just("removed"), st.integers(1, 4), st.none()),
    st.tuples(st.just("push"), st.integers(1, 4), st.sampled_from(list(events.Kind))),
    st.tuples(st.just("wait"), st.integers(1, 60), st.none()),
    st.tuples(st.just("ask"), st.just(0), st.none()),
    st.tuples(st.just("comes"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("old"), st.integers(0, 30), VERDICTS),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(FACTS, max_size=40),
    st.sampled_from(list(events.LateReplies)),
    st.booleans(),
    st.sampled_from([Fraction(0), Fraction(1, 3), Fraction(1)]),
    st.sampled_from([None, 0, 7]),
)
def test_every_message_has_one_outcome_and_every_reply_is_confirmed(
    script, late_replies, waits, over_provision, grace
):
    """Law: whatever happens, messages and batches end once, arrivals are confirmed once."""
    rules = dataclasses.replace(RULES, quorum=1, late_replies=late_replies)
    rules = dataclasses.replace(rules, over_provision_fraction=over_provision, grace_seconds=grace)
    machine = machine_of(4, rules)
    links = dict.fromkeys(range(1, 5), True)
    now, sent, said, replies, pushed = 1.0, [], [], 0, 0
    for what, number, detail in script:
        now += 0.5
        fact: events.Event
        if what == "push":
            ids = [(f"m{len(sent) + i}", node) for i, node in enumerate(range(1, number + 1))]
            fact = push(f"b{pushed}", *ids, kind=detail, waits=waits, now=now, ttl=45)
            sent += ids
            pushed += 1
        elif what in ("reply", "old"):
            mine = (
                [m for m, node in sent if node == number]
                if what == "reply"
                else [m for m, _ in sent][number:]
            )
            if not mine:
                continue
            message_id = mine[-1] if what == "reply" else mine[0]
            fact = reply(message_id, dict(sent)[message_id], detail, now)
            replies += 1
        elif what == "lost":
            if not links[number]:
                continue
            links[number] = False
            fact = events.LinkLost(number, now)
        elif what == "back":
            links[number] = True
            fact = events.NodeConnected(number, now)
        elif what == "died":
            links[number] = False
            fact = events.ClientDied(number, "ClientExited", "killed", now)
        elif what == "removed":
            links[number] = False
            fact = events.NodeRemoved(number, "ClusterLeft", "left", now)
        elif what == "comes":
            fact = roster(*range(1, 5), now=now, coming=number if detail else None)
        elif what == "wait":
            now += number
            fact = events.TimePassed(now)
        else:
            fact = events.NodesAsked(now)
        said += machine.handle(fact)
    said += machine.handle(events.TimePassed(now + 1000))
    settled = [each.message_id for each in only(said, instructions.SettleMessage)]
    missing = [m for each in only(said, instructions.CloseBatch) for m in each.missing]
    listed = [m for each in only(said, instructions.CloseBatch) for m in each.message_ids]
    assert len(settled) == len(set(settled))
    assert not set(settled) & set(missing)
    closed = [e.batch_id for e in said if isinstance(e, instructions.CloseBatch | instructions.AbandonBatch)]
    assert sorted(closed) == sorted(f"b{i}" for i in range(pushed))
    assert set(listed) <= set(settled)
    if machine.state is transitions.Run.RUNNING:
        assert sorted(settled + missing) == sorted(m for m, _ in sent)
        assert sorted(settled) == sorted(listed)
    assert len(only(said, instructions.ConfirmReply)) == replies
    used = [
        e.outcome.message_id
        for e in only(said, instructions.SettleMessage)
        if isinstance(e.outcome, instructions.Reply)
    ]
    assert len(used) == len(set(used)), "an update counts once"


def test_a_thousand_rounds_are_forgotten(monkeypatch):
    """The machine remembers a bounded number of messages; a very old duplicate is unknown."""
    monkeypatch.setattr(batches, "_REMEMBERED_MESSAGES", 6)
    machine = machine_of(2)
    for number in range(20):
        ids = [(f"m{number}-{node}", node) for node in (1, 2)]
        machine.handle(push(f"b{number}", *ids), *(reply(m, n) for m, n in ids))
    said = machine.handle(reply("m0-1", 1), reply("m19-1", 1))
    assert [each.why for each in only(said, instructions.DiscardReply)] == ["UnknownMessage", "Duplicate"]
