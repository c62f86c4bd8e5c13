"""State and replies on disk: whole or not there, whenever the client is killed and whatever files suffer."""

from __future__ import annotations

import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import structlog
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from edge_agent.client import keeping, kept_files, sealing
from federation.wire import codec, digests, outbox
from federation.wire import hanse_pb2 as pb

KEY = bytes(range(32))
LIMIT_SECONDS = 30
EMPTY = RecordDict()


def reply(message_id: str, data: bytes = b"update") -> codec.OutgoingMessage:
    header = pb.MessageHeader(
        message_id=outbox.reply_id(message_id), reply_to_message_id=message_id, has_content=True
    )
    header.records.add(name="a").arrays.entries.add(
        name="w", digest=digests.digest(data), length_bytes=len(data)
    )
    return codec.OutgoingMessage(header, {digests.digest(data): data})


def counted(number: int) -> RecordDict:
    """A state with something of every kind."""
    values = np.arange(number, number + 5, dtype=np.float32)
    return RecordDict(
        {
            "arrays": ArrayRecord({"m": Array(values), "same": Array(values)}),
            "metrics": MetricRecord({"calls": number, "nan": float("nan")}),
            "config": ConfigRecord({"text": "x", "flags": [True, False], "none": b""}),
        }
    )


def bits(state: RecordDict) -> bytes:
    encoded = keeping.flower_messages.content_to_wire(state)
    return b"".join(bytes(chunk) for chunk in encoded.chunks())


def stream(message: codec.OutgoingMessage) -> bytes:
    return b"".join(bytes(chunk) for chunk in message.chunks())


def names(directory: Path) -> list[str]:
    return sorted(path.name.partition("-")[0] for path in directory.iterdir())


class Opened:
    """A Keep as the next process finds it; the disk is spared, but for those who look at it."""

    def __init__(
        self, directory: Path, key: bytes = KEY, sync: Callable[[int], None] = lambda _: None
    ) -> None:
        self.keep = keeping.Keep(directory, key, sync=sync)
        self.state = self.keep.open()
        self.replies = {one.header.reply_to_message_id: stream(one) for one in self.keep.replies()}

    def close(self) -> None:
        self.keep.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def test_a_successor_finds_state_and_reply_bit_for_bit(directory: Path) -> None:
    """The state is the one after the last answer, and the reply is the one that was made."""
    first = Opened(directory)
    assert bits(first.state) == bits(EMPTY)
    assert first.replies == {}
    large = os.urandom(3 * sealing.CHUNK_BYTES + 17)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5", large))
    first.close()
    second = Opened(directory)
    assert bits(second.state) == bits(counted(1))
    assert second.replies == {"t-1-5": stream(reply("t-1-5", large))}
    assert second.keep.was_answered("t-1-5")
    assert not second.keep.was_answered("t-2-5")
    second.close()


def test_a_commit_of_another_version_is_read(directory: Path) -> None:
    """What a later one has added is passed over, and what an earlier one did not know may lack."""
    first = Opened(directory)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.close()
    files = kept_files.Files(directory, KEY, lambda _: None)
    (name,) = [name for name in files.names() if name.startswith("commit-")]
    commit = json.loads(files.read(name))
    for said in (commit | {"later": {"x": [1]}}, {"state": commit["state"]}):
        files.write(name, [json.dumps(said).encode()], durable=False)
        again = Opened(directory)
        assert bits(again.state) == bits(counted(1))
        assert again.keep.was_answered("t-1-5") == ("later" in said)
        again.close()


def test_a_confirmed_reply_goes_and_the_state_stays(directory: Path) -> None:
    """Its bytes are removed from disk; a successor does not offer it."""
    first = Opened(directory)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.keep.confirmed(outbox.reply_id("t-1-5"))
    first.keep.confirmed("of-nobody.reply")
    first.close()
    assert names(directory) == ["commit", "state"]
    second = Opened(directory)
    assert bits(second.state) == bits(counted(1))
    assert second.replies == {}
    second.close()


def test_replies_that_nobody_confirmed_keep_their_order(directory: Path) -> None:
    """Three answers, the second confirmed: the others are there in their order, over several deaths."""
    first = Opened(directory)
    for number in (9, 10, 11):
        first.keep.answered(f"t-{number}-5", EMPTY, reply(f"t-{number}-5"))
    first.keep.confirmed(outbox.reply_id("t-10-5"))
    first.close()
    second = Opened(directory)
    assert list(second.replies) == ["t-9-5", "t-11-5"]
    second.keep.answered("t-12-5", counted(2), reply("t-12-5"))
    second.close()
    third = Opened(directory)
    assert list(third.replies) == ["t-9-5", "t-11-5", "t-12-5"]
    third.keep.confirmed(outbox.reply_id("t-9-5"))
    third.close()
    assert names(directory) == ["commit", "reply", "reply", "state"]


def test_only_what_changed_is_written(directory: Path) -> None:
    """A state that stays is written once, and nothing waits for a disk until it changes."""
    synced: list[int] = []
    opened = Opened(directory, sync=synced.append)
    state = counted(1)
    opened.keep.answered("t-1-5", state, reply("t-1-5"))
    written = [path for path in directory.iterdir() if path.name.startswith("state")]
    before, made = len(synced), written[0].stat().st_mtime_ns
    for number in range(2, 6):
        opened.keep.answered(f"t-{number}-5", state, reply(f"t-{number}-5"))
        opened.keep.confirmed(outbox.reply_id(f"t-{number}-5"))
    assert written[0].stat().st_mtime_ns == made
    state["metrics"]["calls"] = 2  # in place, as apps do
    opened.keep.answered("t-7-5", state, reply("t-7-5"))
    assert len(synced) - before >= 4  # state, reply, commit, names
    opened.close()
    assert not written[0].exists()


def test_a_reply_leaves_before_it_is_kept_only_where_the_state_stays(directory: Path) -> None:
    """Also where it cannot be kept it leaves, once; one that is confirmed meanwhile is not offered again."""
    opened = Opened(directory)
    seen: list[list[str]] = []

    def send() -> None:
        seen.append(names(directory))

    opened.keep.answered("t-1-5", counted(1), reply("t-1-5"), send)
    assert seen == [["commit", "commit", "reply", "state"]]
    opened.keep.confirmed(outbox.reply_id("t-1-5"))

    def confirm_at_once() -> None:
        opened.keep.confirmed(outbox.reply_id("t-2-5"))

    opened.keep.answered("t-2-5", counted(1), reply("t-2-5"), confirm_at_once)
    opened.close()
    assert names(directory) == ["commit", "commit", "state"]
    after = Opened(directory)
    assert after.replies == {}
    after.keep.answered("t-3-5", RecordDict({"c": ConfigRecord({"n": 2**70})}), reply("t-3-5"), send)
    assert len(seen) == 2
    after.close()


def test_a_reply_that_waits_is_made_durable(directory: Path) -> None:
    """Without anybody waiting for it; then the commit before it goes."""
    done = threading.Event()
    count = 0

    def sync(descriptor: int) -> None:
        nonlocal count
        os.fsync(descriptor)
        count += 1
        if count == 2 + 3:  # at the start: commit and names; then reply, commit and names
            done.set()

    opened = Opened(directory, sync=sync)
    opened.keep.answered("t-1-5", EMPTY, reply("t-1-5"))
    assert done.wait(LIMIT_SECONDS)
    opened.close()
    assert names(directory) == ["commit", "reply"]


def test_files_that_are_torn_anywhere_count_as_absent(directory: Path, tmp_path: Path) -> None:
    """Every file, cut at every byte: what is whole beside it is found, and nothing else."""
    first = Opened(directory)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.close()
    for torn in sorted(path.name for path in directory.iterdir()):
        whole = (directory / torn).read_bytes()
        for length in range(len(whole)):
            place = tmp_path / "torn"
            shutil.copytree(directory, place)
            (place / torn).write_bytes(whole[:length])
            with structlog.testing.capture_logs() as logged:
                found = Opened(place)
            assert [line["event"] for line in logged] == ["kept work not readable"]
            kept = "reply" in torn
            assert bits(found.state) == bits(counted(1) if kept else EMPTY)
            assert found.replies == {}
            found.keep.answered("t-1-5", counted(2), reply("t-1-5"))
            found.close()
            assert names(place) == ["commit", "reply", "state"]
            shutil.rmtree(place)


def test_a_loss_of_power_costs_no_state(directory: Path) -> None:
    """What was not durable is torn; the state that the aggregator builds on is there."""

    def sync(descriptor: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise OSError(errno.EIO, "the power is gone")

    first = Opened(directory, sync=sync)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.keep.confirmed(outbox.reply_id("t-1-5"))
    first.keep.answered("t-2-5", counted(1), reply("t-2-5"))
    newest = max(directory.glob("commit-*"), key=lambda path: int(path.name.partition("-")[2]))
    first.close()
    newest.write_bytes(b"")
    second = Opened(directory)
    assert bits(second.state) == bits(counted(1))
    assert not second.keep.was_answered("t-2-5")
    second.close()


@pytest.mark.parametrize("what", ["commit", "state", "reply"])
def test_tampering_counts_as_absence(directory: Path, what: str) -> None:
    """A changed byte in any file: one line in the log, no crash, and the client can go on."""
    first = Opened(directory)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.close()
    (path,) = directory.glob(f"{what}-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
    with structlog.testing.capture_logs() as logged:
        second = Opened(directory)
    assert [line["event"] for line in logged] == ["kept work not readable"]
    assert second.replies == {}
    assert bits(second.state) == bits(counted(1) if what == "reply" else EMPTY)
    second.close()


def test_another_trainings_key_opens_nothing(directory: Path) -> None:
    """What was kept under another key counts as absent, and goes."""
    first = Opened(directory)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.close()
    second = Opened(directory, key=bytes(32))
    assert bits(second.state) == bits(EMPTY)
    assert second.replies == {}
    second.close()
    assert names(directory) == ["commit"]
    with pytest.raises(ValueError, match="31 bytes, want 32"):
        keeping.Keep(directory, bytes(31))


def test_nothing_of_it_can_be_read_without_the_key(directory: Path) -> None:
    """Neither state nor update, nor the names of messages; and the files are the user's alone."""
    opened = Opened(directory)
    state = RecordDict({"c": ConfigRecord({"patient": "a very private remark"})})
    opened.keep.answered("t-1-5", state, reply("t-1-5", b"weights that tell too much" * 9))
    opened.close()
    for path in directory.iterdir():
        data = path.read_bytes()
        assert b"private" not in data and b"weights" not in data and b"t-1-5" not in data
        assert path.stat().st_mode & 0o077 == 0
    assert directory.stat().st_mode & 0o077 == 0


def test_killed_at_any_step_the_answer_is_there_or_not(directory: Path, tmp_path: Path) -> None:
    """What lies on disk at each step that is made durable: the state before the answer, or both."""
    pictures: list[Path] = []
    numbers = itertools.count()

    def sync(descriptor: int) -> None:
        pictures.append(tmp_path / f"picture-{next(numbers)}")
        shutil.copytree(directory, pictures[-1])

    found = []
    for number in (1, 2):
        opened = Opened(directory, sync=sync)
        pictures.clear()
        opened.keep.answered(f"t-{number}-5", counted(number), reply(f"t-{number}-5"))
        opened.close()
        for picture in pictures:
            after = Opened(picture)
            state = next(n for n in range(3) if bits(after.state) == bits(counted(n) if n else EMPTY))
            assert list(after.replies) == [f"t-{n}-5" for n in range(1, state + 1)]
            found.append(state)
            after.close()
            shutil.rmtree(picture)
    assert found == [0, 0, 0, 1, 1, 1, 1, 2]  # the last picture of each was taken when its name was there


class Disk:
    """Makes files durable as long as there is room."""

    full = False

    def sync(self, descriptor: int) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_no_correctness_while_the_client_lives(directory: Path) -> None:
    """A state that could not be kept is said to be lost, at each start, and no older one takes its place."""
    disk = Disk()
    first = Opened(directory, sync=disk.sync)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    disk.full = True
    first.keep.answered("t-2-5", counted(2), reply("t-2-5"))
    first.keep.answered("t-3-5", counted(3), reply("t-3-5"))
    first.close()
    for _ in range(2):
        with pytest.raises(keeping.StateLost, match="make room there"):
            keeping.Keep(directory, KEY).open()


def test_what_was_overtaken_does_not_count_again(directory: Path, tmp_path: Path) -> None:
    """The client is killed before the thread beside it has removed the commit that it began with."""
    disk = Disk()
    first = Opened(directory, sync=disk.sync)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    disk.full = True
    killed = tmp_path / "killed"
    first.keep.answered("t-2-5", counted(2), reply("t-2-5"), lambda: shutil.copytree(directory, killed))
    first.close()
    with pytest.raises(keeping.StateLost):
        keeping.Keep(killed, KEY).open()


def test_room_again_makes_up_for_a_full_disk(directory: Path) -> None:
    """The next answer is kept whole, and its successor knows nothing of the trouble."""
    disk = Disk()
    first = Opened(directory, sync=disk.sync)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    disk.full = True
    first.keep.answered("t-2-5", counted(2), reply("t-2-5"))
    disk.full = False
    first.keep.answered("t-3-5", counted(2), reply("t-3-5"))
    first.close()
    second = Opened(directory)
    assert bits(second.state) == bits(counted(2))
    assert "t-3-5" in second.replies
    second.close()
    assert "lost" not in names(directory)


def test_a_reply_without_room_goes_out_all_the_same(directory: Path) -> None:
    """Its state is the one on disk, so nothing but work can be lost; the kernel says: no room."""
    first = Opened(directory)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        first.keep.answered("t-2-5", counted(1), reply("t-2-5", os.urandom(2_000_000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    first.close()
    second = Opened(directory)
    assert bits(second.state) == bits(counted(1))
    assert list(second.replies) == ["t-1-5"]
    assert not second.keep.was_answered("t-2-5")
    second.close()


def test_a_state_that_cannot_be_written_down_is_said_to_be_lost(directory: Path) -> None:
    """Flower could not either; the client works on, and a successor does not go on from an older state."""
    first = Opened(directory)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.keep.answered("t-2-5", RecordDict({"c": ConfigRecord({"n": 2**70})}), reply("t-2-5"))
    first.close()
    with pytest.raises(keeping.StateLost):
        keeping.Keep(directory, KEY).open()


def test_a_large_reply_is_held_once(directory: Path) -> None:
    """Writing takes the memory of some chunks, reading that of the reply and some chunks."""
    first = Opened(directory)
    made = reply("t-1-5", os.urandom(64 * sealing.CHUNK_BYTES))
    length = made.total_bytes()
    tracemalloc.start()
    try:
        first.keep.answered("t-1-5", EMPTY, made)
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 8 * sealing.CHUNK_BYTES
        first.close()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        keep = keeping.Keep(directory, KEY)
        keep.open()
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 1.5 * length
        keep.close()
    finally:
        tracemalloc.stop()


def test_a_history_is_told_from_another(directory: Path) -> None:
    """Message ids that begin otherwise are of an aggregator that began anew."""
    first = Opened(directory)
    assert first.keep.continues("t-1-5")
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.close()
    second = Opened(directory)
    assert second.keep.continues("t-2-5")
    assert not second.keep.continues("u-1-5")
    second.close()


def large(number: int) -> codec.OutgoingMessage:
    return reply(f"t-{number}-5", bytes([number % 256]) * 300_000)


WRITER = """
import sys, pathlib
sys.path.insert(0, {root!r})
import federation.trust
from edge_agent.client import keeping
from federation.telemetry import logs
from tests.unit.edge_agent.client import test_keeping as t
logs.configure("client")
keep = keeping.Keep(pathlib.Path(sys.argv[1]), t.KEY)
state = keep.open()
number = int(state["metrics"]["calls"]) if len(state) else 0
print("begins", number, flush=True)
while True:
    number += 1
    keep.answered(f"t-{{number}}-5", t.counted(number), t.large(number))
    print(number, flush=True)
    if number % 2:
        keep.confirmed(t.outbox.reply_id(f"t-{{number}}-5"))
"""


@pytest.mark.process
def test_a_killed_process_leaves_its_last_answer(directory: Path) -> None:
    """SIGKILL at random moments: the successor goes on from the last answer that was kept."""
    root = str(Path(__file__).parents[4])
    rng = random.Random()
    told = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER.format(root=root), str(directory)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        begins = process.stdout.readline().split()
        assert begins[0] == "begins" and told <= int(begins[1]) <= told + 1
        for _ in range(rng.randrange(1, 40)):
            told = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().split()
        told = int(rest[-1]) if rest else told
        process.wait()
        process.stdout.close()
        picture = directory.with_name("picture")
        shutil.copytree(directory, picture)
        found = Opened(picture)
        number = int(found.state["metrics"]["calls"])  # type: ignore[arg-type]
        assert told <= number <= told + 1
        assert bits(found.state) == bits(counted(number))
        last = f"t-{number}-5"
        if number > told:
            assert found.replies[last] == stream(large(number))
        found.close()
        shutil.rmtree(picture)


def test_a_disk_that_fails_at_the_first_sync_keeps_nobody_from_training(directory: Path) -> None:
    """Nothing is kept yet that could be lost; where something is, its state is not what power would leave."""
    failing = [True]

    def sync(_: int) -> None:
        if failing[0]:
            raise OSError(errno.EIO, "Input/output error")

    first = Opened(directory, sync=sync)
    failing[0] = False
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    first.close()
    failing[0] = True
    with pytest.raises(OSError, match="Input/output"):
        Opened(directory, sync=sync)
    failing[0] = False
    second = Opened(directory, sync=sync)
    assert bits(second.state) == bits(counted(1))
    second.close()


def test_a_lost_state_is_said_to_be_lost_after_a_loss_of_power_too(directory: Path) -> None:
    """On a disk without room for a file the mark has its name for good before the reply leaves."""
    seen: list[list[str]] = []
    full = [False]

    def sync(descriptor: int) -> None:
        if full[0] and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOSPC, "No space left on device")
        seen.append(names(directory))

    first = Opened(directory, sync=sync)
    first.keep.answered("t-1-5", counted(1), reply("t-1-5"))
    full[0] = True
    sent: list[list[str]] = []
    first.keep.answered("t-2-5", counted(2), reply("t-2-5"), lambda: sent.append(seen[-1]))
    first.close()
    assert "lost" in sent[0] and "commit" not in sent[0]
