"""Records of replies that came in part: whole or not there, one for each client, gone when of no use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st

from coordinator.journal import book, entries, unfinished
from federation.wire import digests
from tests.unit.coordinator.journal.conftest import received
from tests.unit.coordinator.journal.test_book import FACTS

HEAD = b"head of the stream"


def record(node: int = 7, message_id: str = "m", **changes: object) -> unfinished.Record:
    """A reply of which 100 bytes came, 50 of them into segment 1."""
    array = entries.StoredArray(digest="ab" * 32, segment=1, offset=10, length=80)
    known = {
        "cluster": "zurich",
        "node": node,
        "transfer_id": f"{message_id}.reply",
        "total_bytes": 1000,
        "position": 100,
        "unverified": "cd" * 32,
        "head_bytes": len(HEAD),
        "alone": False,
        "arrays": (array,),
    }
    return unfinished.Record.model_validate(known | changes)


def kept(directory: Path) -> list[tuple[unfinished.Record, bytes]]:
    """What another process finds."""
    return list(unfinished.Unfinished(directory).read())


def test_what_was_put_is_found_and_only_the_last_of_each_client(tmp_path: Path) -> None:
    """With its attachment; without any there is no directory."""
    records = unfinished.Unfinished(tmp_path / "unfinished")
    assert not (tmp_path / "unfinished").exists()
    records.put(record(), HEAD)
    records.put(record(position=200), HEAD + b"\n small")
    records.put(record(node=2**64 - 1, arrays=()), HEAD)
    found = sorted(kept(tmp_path / "unfinished"), key=lambda one: one[0].node)
    assert found == [(record(position=200), HEAD + b"\n small"), (record(node=2**64 - 1, arrays=()), HEAD)]
    assert found[0][0].part(found[0][1]).head == HEAD
    assert records.segments() == {1}


def test_a_record_that_is_torn_anywhere_is_none(tmp_path: Path) -> None:
    """Cut at any byte, or with any byte changed: it is removed, and nothing is raised."""
    unfinished.Unfinished(tmp_path / "unfinished").put(record(), HEAD)
    (path,) = (tmp_path / "unfinished").iterdir()
    whole = path.read_bytes()
    for place in range(len(whole)):
        for torn in (whole[:place], whole[:place] + bytes((whole[place] ^ 1,)) + whole[place + 1 :]):
            path.write_bytes(torn)
            assert kept(tmp_path / "unfinished") == []
            assert not path.exists()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to(path),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.touch() or os.truncate(path, unfinished.MAXIMUM_BYTES + 1),
    ],
    ids=["pipe", "directory", "loop", "empty", "nested", "long"],
)
def test_what_somebody_else_put_there_is_no_record(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """It holds nobody up."""
    directory = tmp_path / "unfinished"
    directory.mkdir()
    make(directory / "reply-0000000000000007")
    (directory / "new").write_bytes(b"half a record")
    assert kept(directory) == []


def test_a_record_under_another_clients_name_is_none(tmp_path: Path) -> None:
    """It says which node it is of."""
    unfinished.Unfinished(tmp_path / "unfinished").put(record(), HEAD)
    (path,) = (tmp_path / "unfinished").iterdir()
    path.rename(path.with_name("reply-0000000000000008"))
    assert kept(tmp_path / "unfinished") == []


def test_records_go(tmp_path: Path) -> None:
    """One by its transfer, those that nobody waits for, and at the end all; none is written after that."""
    records = unfinished.Unfinished(tmp_path / "unfinished")
    for node in (1, 2, 3):
        records.put(record(node), HEAD)
    records.forget(1, "another.reply")
    assert records.is_of(1, "m.reply")
    records.forget(1, "m.reply")
    records.forget(1)
    records.keep_only(lambda node, transfer_id: (node, transfer_id) == (2, "m.reply"))
    assert [one.node for one, _ in kept(tmp_path / "unfinished")] == [2]
    records.end()
    records.put(record(), HEAD)
    assert list((tmp_path / "unfinished").iterdir()) == []


def test_without_room_the_last_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is as true as it was; nothing is raised, and nothing half written is left."""
    records = unfinished.Unfinished(tmp_path / "unfinished")
    records.put(record(), HEAD)

    def no_room(path: Path, _: object) -> None:
        raise OSError(28, "no room", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_room)
        records.put(record(position=200), HEAD)
    assert [one.position for one, _ in kept(tmp_path / "unfinished")] == [100]
    assert len(list((tmp_path / "unfinished").iterdir())) == 1


# -- in a journal --------------------------------------------------------------------------------------------


def a_journal(root: Path) -> book.Book:
    return book.Book(root / "journal", FACTS)


def with_an_array(opened: book.Book, message_id: str) -> entries.Received:
    """A whole reply with 100 bytes in a segment."""
    region = opened.segments.allocate(100)
    region.write(0, b"a" * 100)
    array = entries.StoredArray(
        digest=digests.digest(b"a" * 100).hex(), segment=region.number, offset=region.offset, length=100
    )
    return received(message_id).model_copy(update={"arrays": (array,)})


def begun(root: Path) -> None:
    """A journal with one reply, and another one of which 50 bytes came."""
    opened = a_journal(root)
    opened.append(with_an_array(opened, "whole"))
    region = opened.segments.allocate(80)
    region.write(0, bytes(50))
    array = entries.StoredArray(
        digest="ab" * 32, segment=region.number, offset=region.offset, length=len(region)
    )
    opened.unfinished.put(record(arrays=(array,)), HEAD)
    opened.close()


def test_the_bytes_of_a_reply_that_came_in_part_stay(tmp_path: Path) -> None:
    """They can be read, and more can be written after them."""
    begun(tmp_path)
    opened = a_journal(tmp_path)
    ((found, _),) = opened.unfinished.read()
    region = opened.segments.take_up(found.arrays[0].segment, found.arrays[0].offset, 80)
    assert region.read(0, 50) == bytes(50)
    region.write(50, b"x" * 30)
    assert region.read(50, 30) == b"x" * 30
    assert not opened.was_cut
    opened.close()


def test_a_record_of_a_reply_that_the_journal_has_goes(tmp_path: Path) -> None:
    """The aggregator died between writing the one and removing the other."""
    opened = a_journal(tmp_path)
    opened.append(with_an_array(opened, "whole"))
    opened.unfinished.put(record(message_id="whole", arrays=()), HEAD)
    opened.unfinished.put(record(node=8, message_id="other", arrays=()), HEAD)
    opened.close()
    again = a_journal(tmp_path)
    assert [one.node for one, _ in again.unfinished.read()] == [8]
    again.close()


def test_a_record_whose_place_an_entry_has_goes(tmp_path: Path) -> None:
    """A version that does not know records has given the segment's number to another reply."""
    opened = a_journal(tmp_path)
    opened.segments.allocate(100)
    opened.append(entry := with_an_array(opened, "whole"))
    (taken,) = entry.arrays
    for node, offset in ((1, taken.offset - 79), (2, taken.offset + taken.length - 1)):
        array = entries.StoredArray(digest="ab" * 32, segment=taken.segment, offset=offset, length=80)
        opened.unfinished.put(record(node, arrays=(array,)), HEAD)
    opened.close()
    again = a_journal(tmp_path)
    assert list(again.unfinished.read()) == []
    again.close()


def test_a_record_that_claims_another_replys_segment_for_itself_goes(tmp_path: Path) -> None:
    """Whoever gives up a reply with segments of its own removes them: no entry may have bytes there."""
    opened = a_journal(tmp_path)
    opened.append(entry := with_an_array(opened, "whole"))
    (taken,) = entry.arrays
    beside = entries.StoredArray(digest="ab" * 32, segment=taken.segment, offset=2**20, length=80)
    for node, alone in ((1, False), (2, True)):
        opened.unfinished.put(record(node, arrays=(beside,), alone=alone), HEAD)
    opened.close()
    again = a_journal(tmp_path)
    assert [one.node for one, _ in again.unfinished.read()] == [1]
    again.close()


PLACES = st.builds(
    lambda segment, offset, length: entries.StoredArray(
        digest="ab" * 32, segment=segment, offset=offset, length=length
    ),
    st.integers(1, 2),
    st.integers(0, 30),
    st.integers(0, 8),
)


@hypothesis.given(st.lists(PLACES, max_size=8), PLACES)
def test_regions_meet_where_one_of_them_does(regions: list[entries.StoredArray], other: entries.StoredArray):
    """Law: as asking each by itself, however they lie."""

    def meets(one: entries.StoredArray) -> bool:
        apart = one.offset + one.length <= other.offset or other.offset + other.length <= one.offset
        return one.segment == other.segment and not apart

    assert book._Regions(regions).meet(other) == any(map(meets, regions))


def test_when_the_training_is_over_nothing_of_it_stays(tmp_path: Path) -> None:
    """A record has an update's header and small arrays."""
    begun(tmp_path)
    opened = a_journal(tmp_path)
    opened.drop_arrays()
    opened.close()
    assert list((tmp_path / "journal" / "unfinished").iterdir()) == []
    assert list((tmp_path / "journal" / "arrays").iterdir()) == []


def test_without_its_record_the_room_is_given_back(tmp_path: Path) -> None:
    """As the bytes of any reply that never became whole."""
    opened = a_journal(tmp_path)
    opened.segments.allocate(80).write(0, bytes(50))
    array = entries.StoredArray(digest="ab" * 32, segment=1, offset=0, length=80)
    opened.unfinished.put(record(arrays=(array,)), HEAD)
    opened.close()
    again = a_journal(tmp_path)
    assert again.segments.numbers() == [1]
    again.unfinished.forget(7)
    again.close()
    last = a_journal(tmp_path)
    assert last.segments.numbers() == []
    last.close()
