"""A snapshot stands for its rounds: what is asked for later is answered as if they were there."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.aggregation import events
from coordinator.journal import book, entries, late, replay, retention
from tests.unit.coordinator.journal.conftest import BASEL, ZURICH, closed, nodes, pushed, received
from tests.unit.coordinator.journal.test_book import FACTS, again, with_array


@pytest.mark.parametrize(
    ("grown", "rounds", "size", "want"),
    [
        (99, 1, 10, False),  # little has come since
        (100, 1, 10, True),
        (100, 1, 26, False),  # it would be large for what it saves
        (104, 1, 26, True),
        (0, 9, 1000, False),
        (0, 10, 1000, True),  # so many rounds take long to go through again
    ],
)
def test_when_a_snapshot_pays(grown: int, rounds: int, size: int, want: bool) -> None:
    """By the bytes of replies since the last one, beside its own, or by the rounds."""
    assert retention.Rule(100, 4, 10).pays(grown, rounds, size) is want


def a_round(number: int, *, missing: bool = False) -> list[entries.Any]:
    """A round as the app's calls and the replies have it; basel's reply may be missing."""
    batch = pushed(f"b{number}", f"said in {number}", number=number)
    if not missing:
        return [nodes(), batch, *(received(m.message_id, m.node) for m in batch.messages), closed(batch)]
    settled = entries.Closed(batch_id=batch.batch_id, outcomes=closed(batch).outcomes[:1])
    return [nodes(), batch, received(batch.messages[0].message_id), settled]


def snapshot(number: int, after: int, until: int, messages: int, start: int = 1) -> entries.Snapshot:
    """One that stands for entries, without what it says."""
    return entries.Snapshot(
        start=start, round=number, rounds=9, after=after, until=until, calls=0, messages=messages,
        nodes=(ZURICH, BASEL), state_bytes=0, arrays=(),
    )  # fmt: skip


def answers(past: replay.Replay, numbers: range) -> list[object]:
    """What an app is told in these rounds, and of each reply."""
    told: list[object] = []
    for number in numbers:
        said = [replay.Call(node.node, f"said in {number}") for node in (ZURICH, BASEL)]
        told.append(past.nodes(main=True))
        batch = past.push(said, main=True)
        assert batch is not None
        told.append(batch)
        told += [past.received(outcome.reply) for outcome in batch.outcomes or ()]
    return told


@given(before=st.integers(0, 2), ended=st.integers(1, 4), later=st.integers(0, 3), twice=st.booleans())
def test_law_what_is_asked_for_later_is_the_same(before: int, ended: int, later: int, twice: bool) -> None:
    """The rounds before the start, and those after the snapshot; numbers of messages go on."""
    whole = [entry for number in range(before + ended + later) for entry in a_round(number)]
    rows = list(enumerate(whole, 1))
    size = len(a_round(0))
    after = before * size
    cuts = [before + (ended + 1) // 2, before + ended] if twice else [before + ended]
    for cut in cuts:
        one = snapshot(cut, after, cut * size, 3 * cut)
        found = [row for row in rows if row[0] <= one.until]
        needless = retention.needless(found, one, ())
        calls = retention.calls(found, needless)
        one = one.model_copy(update={"calls": calls})
        assert calls == 2 * (cut - before)
        rows = sorted([row for row in rows if row[0] not in needless] + [(max(needless), one)])
    full, short = replay.Replay(whole), replay.Replay(entry for _, entry in rows)
    assert answers(short, range(before)) == answers(full, range(before))
    assert short.snapshot(1, 9) is not None
    answers(full, range(before, before + ended))
    assert answers(short, range(before + ended, before + ended + later)) == answers(
        full, range(before + ended, before + ended + later)
    )
    assert short.over
    assert (short.messages, short.calls, short.known_nodes) == (full.messages, full.calls, full.known_nodes)
    assert short.round == (full.round if later else before + ended)
    assert len(rows) == (before + later) * size + 1


def test_a_late_reply_that_waits_is_left_with_what_it_answers() -> None:
    """It may count in a round to come, also if another snapshot comes before; then it goes."""
    missed = a_round(1, missing=True)
    late_id = missed[1].messages[1].message_id
    found = [*enumerate([*missed, received(late_id, BASEL.node)], 1)]
    kept = {late_id: ("train", "group")}
    one = snapshot(1, 0, len(found), 3)
    needless = retention.needless(found, one, kept)
    one = one.model_copy(update={"late": retention.late(found, kept)})
    assert one.late == (
        entries.KeptReply(
            message_id=late_id, node=BASEL.node, round=1, message_type="train", group_id="group"
        ),
    )
    left = sorted([row for row in found if row[0] not in needless] + [(max(needless), one)])
    assert [entry.entry for _, entry in left] == ["Snapshot", "Received"]
    (waiting,) = late.waiting(entry for _, entry in left)
    assert (waiting.message_id, waiting.node, waiting.round) == (late_id, BASEL.node, 1)
    assert replay.Replay(entry for _, entry in left).late == one.late

    second = pushed("b2", "said in 2", number=2)
    stands_in = entries.Outcome(message_id=second.messages[1].message_id, reply=late_id)
    outcomes = (*closed(second).outcomes[:1], stands_in)
    used = [second, received(second.messages[0].message_id)]
    used.append(entries.Closed(batch_id=second.batch_id, outcomes=outcomes))
    found = [*left, *enumerate(used, 10)]
    assert not any(one.reply for one in late.waiting(entry for _, entry in found))
    two = snapshot(2, 0, 12, 6)
    assert retention.needless(found, two, {}) == {number for number, _ in found}
    assert retention.late(found, {}) == ()


def test_a_late_reply_that_comes_after_the_snapshot_counts() -> None:
    """Its message went with its round; the snapshot names it. Without the reply it means nothing."""
    missed = a_round(1, missing=True)
    late_id = missed[1].messages[1].message_id
    asked = pushed("q1", "how is it", BASEL.node).model_copy(update={"kind": events.Kind.EVALUATE})
    unanswered = entries.Closed(batch_id="q1", outcomes=())
    found = [*enumerate([*missed, asked, unanswered], 1)]
    kept = {late_id: ("train", "group"), "q1-9": ("evaluate", "group")}  # neither has come
    one = snapshot(1, 0, len(found), 5).model_copy(update={"late": retention.late(found, kept)})
    assert [said.message_id for said in one.late] == [late_id], "evaluations are never late"
    assert retention.needless(found, one, kept) == {number for number, _ in found}
    assert late.waiting([one]) == ()
    reply, second = received(late_id, BASEL.node), pushed("b2", "said in 2", number=2)
    for after in ([reply], [second, reply], [second, received("b2-7"), reply]):
        (waiting,) = late.waiting([one, *after])
        assert (waiting.message_id, waiting.round, waiting.reply) == (late_id, 1, reply)
    stands_in = entries.Outcome(message_id="b2-9", reply=late_id)
    used = entries.Closed(batch_id="b2", outcomes=(*closed(second).outcomes[:1], stands_in))
    assert not any(one.reply for one in late.waiting([one, second, received("b2-7"), reply, used]))


def test_a_start_of_another_length_is_found() -> None:
    """It would end at another round than the one that the snapshot is of."""
    past = replay.Replay([snapshot(3, 0, 5, 9)])
    with pytest.raises(replay.Diverged, match="is to have 4 rounds where it had 9 before"):
        past.snapshot(1, 4)
    assert past.snapshot(2, 4) is None


# -- in the file --------------------------------------------------------------------------------------


def test_a_snapshot_takes_the_place_of_its_rounds(tmp_path: Path) -> None:
    """What stands before and after is found in order, and segments that nobody names are gone."""
    journal = book.Book(tmp_path, FACTS)
    first, second = pushed("b1", "a", ZURICH.node), pushed("b2", "b", ZURICH.node, number=2)
    journal.append(first)
    journal.append(with_array(journal, "b1-7", b"x" * 100_000))
    journal.append(closed(first))
    until = journal.position()
    assert until == 3
    arriving = journal.segments.allocate(50_000)  # somebody's reply is on its way
    arriving.write(0, b"y" * 50_000)
    (region,) = journal.segments.allocate_apart([80_000])
    region.write(0, b"z" * 80_000)
    journal.append(second)
    of = with_array(journal, "of", b"z" * 80_000).arrays[0]
    stored = of.model_copy(update={"segment": region.number, "offset": region.offset})
    one = snapshot(1, 0, until, 2).model_copy(update={"arrays": (stored,), "state_bytes": 5})
    journal.compact(one, b"state", {})
    there = {path.name: path.stat().st_size for path in (tmp_path / book.ARRAYS).iterdir()}
    assert len(there) == 2, "that of the reply on its way, and the snapshot's"
    journal.close()
    later = book.Book(tmp_path, FACTS)
    assert [(entry.entry, attachment) for entry, attachment in later.found] == [
        ("Snapshot", b"state"),
        ("Pushed", b""),
    ]
    assert later.found[0][0] == one.model_copy(update={"calls": 1})
    assert later.number_of(0) == 3, "the number of the last entry that it stands for"
    assert len(list((tmp_path / book.ARRAYS).iterdir())) == 1, "nobody waits for that reply any more"
    later.close()


def test_a_rotten_snapshot_goes_with_all_after_it(tmp_path: Path) -> None:
    """Nothing follows from what it said."""
    journal = book.Book(tmp_path, FACTS)
    journal.append(nodes())
    journal.append(pushed("b1", "a"))
    stored = with_array(journal, "x", b"z" * 80_000).arrays
    one = snapshot(1, 0, journal.position(), 2).model_copy(update={"arrays": stored})
    journal.compact(one, b"", {})
    journal.append(pushed("b2", "b"))
    journal.close()
    (segment,) = (tmp_path / book.ARRAYS).iterdir()
    segment.write_bytes(segment.read_bytes()[:-1] + b"!")
    assert again(tmp_path) == []
    assert list((tmp_path / book.ARRAYS).iterdir()) == [], "bytes that nobody names any more go"


def test_the_version_before_reads_a_journal_until_its_first_snapshot(tmp_path: Path) -> None:
    """It knows no snapshots, and would cut the journal back; so the format says what it is."""
    journal = book.Book(tmp_path, FACTS)
    assert journal.fact("format", lambda: "none") == "1"
    journal.append(pushed("b1", "a"))
    journal.compact(snapshot(1, 0, journal.position(), 2), b"", {})
    assert journal.fact("format", lambda: "none") == "2"
    journal.close()
    assert [entry.entry for entry in again(tmp_path)] == ["Snapshot"]
