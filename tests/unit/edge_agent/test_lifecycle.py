"""Tests for the agent's table of assignments: scenarios, laws, and the diagram."""

import dataclasses

import hypothesis
import pytest
from hypothesis import strategies as st

from edge_agent import assignments, facts, lifecycle, policy
from edge_agent.facts import Reported
from edge_agent.lifecycle import State, Trigger
from federation.api import reasons

UID = "u1"
DIGEST = "sha256:" + "9f" * 32
PLAIN = assignments.Assignment(UID, "cardiology", "hospitals", "heart-disease", DIGEST, maximum_restarts=2)
ADDRESSED = dataclasses.replace(PLAIN, aggregator_address="127.0.0.1:4000", aggregator_server_name="h.c")
MOVED = dataclasses.replace(ADDRESSED, aggregator_address="127.0.0.1:5000")
YES = policy.Allowed("rule")
NO = policy.Refused(reasons.ClusterReason.IMAGE_NOT_ALLOWED, "rule", "policy rule refuses")
LATER = policy.Waiting(reasons.ClusterReason.OUTSIDE_SCHEDULE, "rule", None, "policy rule waits")


def wanted(*which: assignments.Assignment) -> facts.AssignmentsReceived:
    return facts.AssignmentsReceived(which)


def decided(decision: policy.Decision) -> facts.Decided:
    return facts.Decided(UID, decision)


def died(code: int | None = 1) -> facts.ClientExited:
    return facts.ClientExited(UID, code, f"the client exited with {code}", ("Traceback", "boom"))


FETCHED = facts.BundleFetched(UID, DIGEST)
ISSUED = facts.CertificateIssued(UID)


def running() -> lifecycle.Table:
    table = lifecycle.Table()
    table.handle(0, wanted(ADDRESSED), decided(YES), FETCHED, ISSUED)
    assert table.states() == {UID: State.RUNNING}
    return table


def kinds(instructions: list[facts.Instruction]) -> list[str]:
    return [
        f"{one.state.value} {one.reason}".strip() if isinstance(one, facts.Report) else type(one).__name__
        for one in instructions
    ]


def test_from_the_hubs_wish_to_its_end() -> None:
    """Decide, prepare, wait for the aggregator, run, end, be forgotten."""
    table = lifecycle.Table()
    assert kinds(table.handle(0, wanted(PLAIN))) == []
    assert table.states() == {UID: State.DECIDING}
    assert kinds(table.handle(1, decided(YES))) == ["PREPARING", "FetchBundle", "RequestCertificate"]
    assert kinds(table.handle(2, ISSUED)) == []
    assert kinds(table.handle(3, FETCHED)) == ["PREPARING"]
    assert table.states() == {UID: State.READY}
    assert kinds(table.handle(4, wanted(ADDRESSED))) == ["StartClient", "PREPARING"]
    assert kinds(table.handle(5, died(0))) == ["STOPPED TrainingEnded"]
    assert table.states() == {UID: State.ENDED}
    assert kinds(table.handle(6, wanted())) == ["STOPPED TrainingEnded", "Discard"]
    assert table.states() == {}


def test_a_training_that_rests_keeps_what_its_client_kept() -> None:
    """Its client ends and nothing is discarded; when the training goes on the next client starts."""
    table = running()
    resting = dataclasses.replace(PLAIN, resting=True)
    assert kinds(table.handle(1, wanted(resting))) == ["StopClient"]
    assert table.states() == {UID: State.STOPPING}
    assert kinds(table.handle(2, died(0), decided(YES))) == ["PREPARING"]
    assert table.states() == {UID: State.READY}
    assert "until the training goes on" in table.reports()[0].message
    assert kinds(table.handle(3, wanted(MOVED))) == ["StartClient", "PREPARING"]
    table.handle(4, wanted(resting), died(0), decided(YES))
    assert kinds(table.handle(5, wanted())) == ["STOPPED TrainingEnded", "Discard"]


def test_a_client_that_was_sent_home_is_started_for_the_training_that_goes_on() -> None:
    """Also where the hub was away while it rested: the address is the one of before."""
    table = running()
    assert kinds(table.handle(1, died(0))) == ["STOPPED TrainingEnded"]
    assert kinds(table.handle(2, wanted(ADDRESSED))) == []
    goes_on = dataclasses.replace(ADDRESSED, generation=3)
    assert kinds(table.handle(3, wanted(goes_on))) == ["StartClient", "PREPARING"]
    changed = dataclasses.replace(goes_on, generation=4)
    assert kinds(table.handle(4, wanted(changed))) == []
    assert kinds(table.handle(5, died(0), wanted(changed))) == ["STOPPED TrainingEnded"]
    assert table.states() == {UID: State.ENDED}, "another change of the spec starts nobody again"


def test_an_aggregator_without_an_address_ends_no_client() -> None:
    """It may be on its way back; only a training that rests ends them."""
    table = running()
    assert kinds(table.handle(1, wanted(PLAIN))) == []
    assert table.states() == {UID: State.RUNNING}


def test_an_installed_app_is_not_fetched() -> None:
    """It is part of the image; only the certificate is awaited."""
    table = lifecycle.Table()
    installed = dataclasses.replace(ADDRESSED, client_app="pkg:app")
    assert kinds(table.handle(0, wanted(installed), decided(YES))) == ["PREPARING", "RequestCertificate"]
    assert kinds(table.handle(1, ISSUED)) == ["StartClient", "PREPARING"]


def test_a_refusal_is_reported_once_and_healed_by_a_new_policy() -> None:
    """The same decision says nothing twice; another message does; permission prepares at once."""
    table = lifecycle.Table()
    assert kinds(table.handle(0, wanted(ADDRESSED), decided(NO))) == ["REFUSED ImageNotAllowed"]
    assert kinds(table.handle(1, decided(NO))) == []
    assert kinds(table.handle(2, decided(dataclasses.replace(NO, message="other words")))) == [
        "REFUSED ImageNotAllowed"
    ]
    assert kinds(table.handle(3, decided(LATER))) == ["WAITING OutsideSchedule"]
    assert kinds(table.handle(4, decided(YES))) == ["PREPARING", "FetchBundle", "RequestCertificate"]


@pytest.mark.parametrize("decision, want", [(NO, State.REFUSED), (LATER, State.WAITING)])
def test_a_revoked_permission_ends_the_running_client(decision: policy.Decision, want: State) -> None:
    """The hub hears why at once; when the client is gone the assignment stands where policy put it."""
    table = running()
    assert kinds(table.handle(1, decided(decision)))[0] == "StopClient"
    assert table.states() == {UID: State.STOPPING}
    assert table.reports()[0].message == decision.message
    assert kinds(table.handle(2, died(0))) == []
    assert table.states() == {UID: want}


def test_permission_given_back_starts_without_preparing_again() -> None:
    """App and certificate are still here."""
    table = running()
    table.handle(1, decided(NO), died(0))
    assert kinds(table.handle(2, decided(YES))) == ["StartClient", "PREPARING"]


def test_no_longer_wanted_ends_the_client_and_removes_its_files() -> None:
    """Files go only after the client is gone."""
    table = running()
    assert kinds(table.handle(1, wanted())) == ["StopClient"]
    assert kinds(table.handle(2, died(0))) == ["STOPPED TrainingEnded", "Discard"]
    assert table.states() == {}


def test_wanted_again_while_the_client_stops() -> None:
    """The change of mind is honoured once the client is gone."""
    table = running()
    table.handle(1, wanted())
    assert kinds(table.handle(2, wanted(ADDRESSED))) == []
    assert kinds(table.handle(3, died(None))) == ["StartClient"]
    assert table.states() == {UID: State.RUNNING}


def test_a_dying_client_is_restarted_with_backoff_and_then_failed() -> None:
    """Doubling backoff, the count in words, the end of the log kept."""
    table = running()
    first = table.handle(10, died())
    assert kinds(first) == ["PREPARING ClientExited"]
    assert first[0] == facts.Report(
        UID,
        Reported.PREPARING,
        "ClientExited",
        "the client exited with 1; restart 1 of 2 in 1 s",
        ("Traceback", "boom"),
    )
    assert table.due_at() == 11
    assert kinds(table.handle(10.9, facts.TimePassed())) == []
    assert kinds(table.handle(11, facts.TimePassed())) == ["StartClient", "PREPARING"]
    table.handle(12, died())
    assert table.due_at() == 14
    assert kinds(table.handle(14, facts.TimePassed())) == ["StartClient", "PREPARING"]
    last = table.handle(15, died())
    assert last == [
        facts.Report(
            UID,
            Reported.FAILED,
            "ClientExited",
            "the client exited with 1 after 2 restarts; see the end of its log and correct the app",
            ("Traceback", "boom"),
        )
    ]
    assert table.states() == {UID: State.FAILED}
    assert kinds(table.handle(99, decided(YES), decided(LATER), facts.TimePassed())) == []


def test_an_end_that_explains_itself_stays_whole_sentences() -> None:
    """What is said of the restarts follows the remedy; the app is not blamed for what its node did."""
    put_out = "the client was ended by SIGKILL: The node ran short. Ask for what it needs."
    table = running()
    said = []
    for now in (10, 20, 30):
        table.handle(now - 1, facts.TimePassed())
        said += table.handle(now, dataclasses.replace(died(), detail=put_out))
    assert [report.message for report in said if isinstance(report, facts.Report)] == [
        f"{put_out} Restart 1 of 2 in 1 s",
        f"{put_out} Restart 2 of 2 in 2 s",
        f"{put_out} It failed after 2 restarts.",
    ]


def test_a_client_that_ran_long_starts_with_a_fresh_count() -> None:
    """Trouble after ten quiet minutes is new trouble."""
    table = running()
    for start in (0, 1000, 2000, 3000):
        table.handle(start + lifecycle.STABLE_SECONDS, died())
        table.handle(start + lifecycle.STABLE_SECONDS + 1, facts.TimePassed())
        assert table.states() == {UID: State.RUNNING}


def test_a_refused_bundle_fails_and_a_changed_assignment_heals() -> None:
    """A wrong digest cannot get better by trying; another app can."""
    table = lifecycle.Table()
    table.handle(0, wanted(ADDRESSED), decided(YES), ISSUED)
    broken = facts.BundleNotFetched(
        UID, DIGEST, reasons.ClusterReason.DIGEST_MISMATCH, "it is another app", False
    )
    assert kinds(table.handle(1, broken)) == ["FAILED DigestMismatch"]
    other = dataclasses.replace(ADDRESSED, app_digest="sha256:" + "00" * 32)
    assert kinds(table.handle(2, wanted(other))) == []
    assert table.states() == {UID: State.DECIDING}  # what was allowed was another app
    assert kinds(table.handle(3, decided(YES))) == ["PREPARING", "FetchBundle"]


def test_preparing_tries_again_while_the_link_is_away() -> None:
    """Only what failed is asked again, after the backoff."""
    table = lifecycle.Table()
    table.handle(0, wanted(ADDRESSED), decided(YES), ISSUED)
    away = facts.BundleNotFetched(UID, DIGEST, reasons.ClusterReason.LINK_LOST, "the hub is away", True)
    assert kinds(table.handle(1, away)) == ["PREPARING LinkLost"]
    assert kinds(table.handle(1.5, facts.TimePassed())) == []
    assert kinds(table.handle(2, facts.TimePassed())) == ["FetchBundle"]


def test_a_changed_assignment_restarts_the_client() -> None:
    """New run config, new process, decided anew."""
    table = running()
    changed = dataclasses.replace(ADDRESSED, run_config='{"lr": 1}')
    assert kinds(table.handle(1, wanted(changed))) == ["StopClient"]
    table.handle(2, died(0))
    assert table.states() == {UID: State.DECIDING}
    (start,) = table.handle(3, decided(YES))
    assert isinstance(start, facts.StartClient)
    assert start.assignment == changed


def test_more_rounds_leave_the_client_alone() -> None:
    """It works on while policy allows that many; a policy that does not ends it, and says why."""
    table = running()
    more = dataclasses.replace(ADDRESSED, rounds=9, generation=2)
    assert kinds(table.handle(1, wanted(more))) == []
    assert kinds(table.handle(1, decided(YES))) == []
    most = dataclasses.replace(more, rounds=99, generation=3)
    assert kinds(table.handle(2, wanted(most))) == []
    refused = policy.Refused(reasons.ClusterReason.LIMIT_EXCEEDED, "rule", "allows 9 rounds")
    assert kinds(table.handle(2, decided(refused))) == ["StopClient", "REFUSED LimitExceeded"]


def test_more_rounds_are_decided_before_a_client_starts() -> None:
    """What was allowed is of no use for more, wherever the client stands before it runs."""
    table = lifecycle.Table()
    table.handle(0, wanted(PLAIN), decided(YES), FETCHED, ISSUED)
    assert table.states() == {UID: State.READY}
    assert kinds(table.handle(1, wanted(dataclasses.replace(ADDRESSED, rounds=9)))) == []
    assert table.states() == {UID: State.DECIDING}
    assert kinds(table.handle(1, decided(YES))) == ["StartClient", "PREPARING"]


def test_a_moved_aggregator_restarts_the_client() -> None:
    """Its config names the address; an ended client starts as well."""
    table = running()
    assert kinds(table.handle(1, wanted(MOVED))) == ["StopClient"]
    assert kinds(table.handle(2, died(0))) == ["StartClient"]
    table.handle(3, died(0))
    assert table.states() == {UID: State.ENDED}
    assert kinds(table.handle(4, wanted(ADDRESSED))) == ["StartClient", "PREPARING"]


def test_an_aggregator_that_is_away_leaves_the_client_running() -> None:
    """The client waits for it; no address is no other address."""
    table = running()
    assert kinds(table.handle(1, wanted(PLAIN))) == []
    assert table.states() == {UID: State.RUNNING}


def test_outcomes_for_what_is_gone_are_ignored() -> None:
    """A slow fetch may end after its training."""
    table = lifecycle.Table()
    assert table.handle(0, FETCHED, ISSUED, died(), decided(YES)) == []


FACTS = st.sampled_from(
    [
        wanted(),
        wanted(PLAIN),
        wanted(ADDRESSED),
        wanted(MOVED),
        wanted(dataclasses.replace(ADDRESSED, app_digest="sha256:" + "00" * 32)),
        decided(YES),
        decided(NO),
        decided(LATER),
        FETCHED,
        ISSUED,
        facts.BundleNotFetched(UID, DIGEST, reasons.ClusterReason.LINK_LOST, "away", True),
        facts.CertificateNotIssued(UID, reasons.ClusterReason.CREDENTIALS_REFUSED, "no", False),
        facts.TimePassed(),
    ]
)


@hypothesis.given(st.lists(FACTS | st.sampled_from([died(0), died(1), died(None)]), max_size=40))
def test_law_one_client_at_most_and_only_when_allowed(happened: list[facts.Fact]) -> None:
    """Over any history: no start while one runs, none unless policy's last word was yes."""
    table = lifecycle.Table()
    alive, last = False, None
    for now, fact in enumerate(happened):
        if isinstance(fact, facts.ClientExited) and not alive:
            continue  # what does not run does not exit
        before = table.states().get(UID)
        if isinstance(fact, facts.ClientExited):
            alive = False
        if isinstance(fact, facts.Decided):
            last = fact.decision
        for instruction in table.handle(float(now * 100), fact):
            if isinstance(instruction, facts.StartClient):
                assert not alive
                assert isinstance(last, policy.Allowed)
                alive = True
            if isinstance(instruction, facts.Discard):
                assert not alive
        after = table.states().get(UID)
        assert after is not State.RUNNING or alive
        if before is not None and after is not None:
            assert after in reachable(before)
        assert not alive or after in (State.RUNNING, State.STOPPING)


@hypothesis.given(st.lists(FACTS, max_size=20), FACTS)
def test_law_a_level_said_twice_says_nothing_new(happened: list[facts.Fact], fact: facts.Fact) -> None:
    """Wanted lists and decisions are levels: repeated, they move nothing."""
    table = lifecycle.Table()
    for earlier in happened:
        table.handle(0, earlier)
    if isinstance(fact, facts.AssignmentsReceived | facts.Decided):
        table.handle(0, fact)
        states = table.states()
        assert table.handle(0, fact) == []
        assert table.states() == states


def reachable(state: State) -> set[State]:
    found, edge = {state}, [state]
    while edge:
        for target in lifecycle.TRANSITIONS[edge.pop()].values():
            if target not in found:
                found.add(target)
                edge.append(target)
    return found


def test_every_state_and_trigger_is_in_the_table() -> None:
    """Each state has its row and can be reached, each trigger is of use, GONE is the only end."""
    assert set(lifecycle.TRANSITIONS) == set(State)
    assert reachable(State.DECIDING) == set(State)
    assert {trigger for row in lifecycle.TRANSITIONS.values() for trigger in row} == set(Trigger)
    assert [state for state, row in lifecycle.TRANSITIONS.items() if not row] == [State.GONE]


def test_the_diagram_is_drawn_from_the_table() -> None:
    """One arrow for each pair of states that the table joins."""
    lines = lifecycle.diagram().splitlines()
    pairs = {(state, target) for state, row in lifecycle.TRANSITIONS.items() for target in row.values()}
    assert len(lines) == 2 + len(pairs) + 1
    assert "    Ready --> Running: the aggregator has an address" in lines


def test_the_hub_hears_what_the_client_waits_for() -> None:
    """No node has room: said with the runtime's sentence, and taken back once it runs."""
    table = running()
    unschedulable = reasons.ClusterReason.UNSCHEDULABLE
    waiting = facts.ClientWaiting(UID, unschedulable, "no node has 64 cores; ask for less")
    assert table.handle(1, waiting) == [
        facts.Report(UID, Reported.WAITING, "Unschedulable", "no node has 64 cores; ask for less")
    ]
    assert table.handle(2, waiting) == []
    assert kinds(table.handle(3, facts.ClientStarted(UID))) == ["RUNNING"]
    assert table.states() == {UID: State.RUNNING}


def test_a_client_that_is_being_stopped_waits_for_nothing() -> None:
    """What a pod waits for is no news once nobody wants it."""
    table = running()
    table.handle(1, decided(NO))
    waiting = facts.ClientWaiting(UID, reasons.ClusterReason.UNSCHEDULABLE, "no room")
    assert table.handle(2, waiting, facts.ClientStarted(UID)) == []


def found() -> lifecycle.Table:
    table = lifecycle.Table()
    assert kinds(table.handle(0, facts.ClientFound(ADDRESSED))) == []
    assert kinds(table.handle(1, decided(YES), facts.ClientStarted(UID))) == ["RUNNING"]
    return table


def test_a_client_that_outlived_its_agent_is_taken_over() -> None:
    """Nothing is prepared or started again when the hub asks for what runs; its end is as any other."""
    table = found()
    assert kinds(table.handle(2, wanted(ADDRESSED), decided(YES))) == []
    assert kinds(table.handle(3, died(0))) == ["STOPPED TrainingEnded"]


FOUND_ENDS = {
    "the hub asks no longer": (wanted(),),
    "the hub asks for something else": (wanted(dataclasses.replace(ADDRESSED, strategy="FedAdam")),),
    "the aggregator is elsewhere": (wanted(MOVED),),
    "policy refuses, with the hub away": (decided(NO),),
}


@pytest.mark.parametrize("case", FOUND_ENDS)
def test_a_found_client_is_stopped(case: str) -> None:
    """As one that this agent started."""
    assert "StopClient" in kinds(found().handle(2, *FOUND_ENDS[case]))


def test_a_found_client_that_dies_is_prepared_anew() -> None:
    """This agent has neither its app nor its key."""
    table = found()
    assert kinds(table.handle(5, died())) == ["PREPARING ClientExited"]
    assert kinds(table.handle(7, facts.TimePassed())) == ["PREPARING", "FetchBundle", "RequestCertificate"]
    assert kinds(table.handle(8, FETCHED, ISSUED)) == ["StartClient", "PREPARING"]


def test_an_ended_client_starts_again_when_its_aggregator_is_back_at_the_same_address() -> None:
    """All of a hub's aggregators have one address; that it was gone in between tells them apart."""
    table = running()
    table.handle(1, died(0))
    assert kinds(table.handle(2, wanted(PLAIN))) == []
    assert kinds(table.handle(3, wanted(ADDRESSED)))[-2:] == ["StartClient", "PREPARING"]
