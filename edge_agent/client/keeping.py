"""What a client's death must not take with it: its app's state, and the replies that nobody has confirmed.

After the app has answered a message one commit is written:

    state-N    context.state after the answer, if it changed
    reply-N    the whole reply; removed when the aggregator has confirmed it
    commit-N   which state and replies count, and the message that was answered last

A commit counts when its file has its name (write, rename). Where the state changed, nothing of the answer
leaves the process before. Where it did not, the reply is sent meanwhile: whether it is then counted or the
work done again, the state is the right one. So whenever a client is killed, its successor finds the state
before a message, which it then works on anew, or the state after it together with the reply, which it
delivers.

Which fsync is for what. A killed process loses nothing that it has written: only a loss of the node's power
does. Then it must not happen that the aggregator counts a reply and the state behind it is gone: the next
message would meet an older state and the model would be another one. So where the state changed, its file,
the reply, earlier replies that nobody has and the commit are made durable, then the commit's name (the
directory), before the reply leaves. That a file's sync keeps its name as well, as on ext4, XFS and Btrfs, is
relied upon: a commit's name never comes to the disk before those of what it names.
Where it did not change, a lost commit costs work and no correctness: nothing is waited for, and the reply is
made durable beside the conversation if it is still unconfirmed SYNC_AFTER_SECONDS later. A commit that is not
durable may be torn by a loss of power, therefore the last durable one stays beside it until a later one is.

Where a commit cannot be written (a full disk) the client goes on without, for as long as it lives. If the
state had changed, the old one is marked as lost: a successor says so instead of going on from a state that is
not the training's. A file that is torn, foreign or was changed counts as absent.

The state belongs to one history of messages (see `outbox.history_of`): an aggregator that began anew meets an
app that begins anew. How files are sealed is not known here, nor what messages mean.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Final, cast

import pydantic
from flwr.app import Array, RecordDict

from edge_agent.client import kept_files, sealing
from edge_agent.client.kept_files import name_of, number_of
from federation import durable
from federation.flower import messages as flower_messages
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.wire import codec, outbox
from federation.wire import hanse_pb2 as pb

log = logs.get_logger(__name__)

SYNC_AFTER_SECONDS: Final = 0.2
"""Most replies are confirmed sooner; making those durable would cost a disk's time at every message."""

_COMMIT, _STATE, _REPLY = "commit", "state", "reply"
_LOST: Final = "lost"

_UNREADABLE = (OSError, ValueError, sealing.NotReadable, codec.WireError)


class StateLost(Exception):
    """The state after the last answer could not be kept before the client died; the text says what to do."""


class _Commit(pydantic.BaseModel):
    """What one commit says; the numbers are those of files, state 0 is an empty one.

    There is one format so far. A version that adds a field gives it a default, since it may meet commits of
    the version before; what the version after has added is passed over, should a client be put back.
    """

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)

    answered: str = ""
    state: int = 0
    replies: tuple[tuple[int, str], ...] = ()
    """Number and message id, in the order of answering."""


@dataclasses.dataclass(slots=True)
class _Kept:
    """A reply on disk; `read` holds what was read of it at the start."""

    number: int
    read: codec.OutgoingMessage | None = None


class Keep:
    """One training's state and replies in a directory that outlives the process.

    `open` first; `answered` on one thread; `confirmed` from any.
    Law: a Keep that is opened after a killed one finds what that one was told up to some answer, whole; of
    later answers nothing has left the process, or they left the state as it is.
    """

    def __init__(
        self, directory: pathlib.Path, key: bytes, *, sync: Callable[[int], None] = os.fsync
    ) -> None:
        """Nothing is read yet. key: of this training on this cluster, sealing.KEY_BYTES long.

        sync: makes a file durable, by its descriptor.
        Raises: ValueError for a key of another length.
        """
        self._directory = directory
        self._files = kept_files.Files(directory, key, sync)
        self._lock = threading.Lock()
        # The numbers of the newest commit, of the newest durable one, and of the state.
        self._number = self._durable = self._state = 0
        self._described: bytes | None = _described(flower_messages.content_to_wire(RecordDict()))
        self._answered = ""
        self._unconfirmed: dict[str, _Kept] = {}
        self._known: set[str] = set()
        self._stirred, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run_beside, name="keeper", daemon=True)

    # -- at the start ------------------------------------------------------------------------------

    def open(self) -> RecordDict:
        """Read what an earlier process left; return the app's state, empty where there is none.

        Raises: StateLost; OSError if the directory cannot be used at all.
        """
        durable.make_directory(self._directory, mode=0o700)
        names = self._files.names()
        unreadable: list[str] = []
        state = self._read_newest(names, unreadable)
        if unreadable:
            log.warning("kept work not readable", path=str(self._directory), detail="; ".join(unreadable))
        begins = state is None
        if state is None:
            state = RecordDict()
            if _LOST in names:
                raise StateLost(
                    f"the state of the client's app could not be kept in {self._directory}, and the client "
                    "has ended since; make room there, and start the training again"
                )
            self._number = max(map(number_of, names), default=0) + 1
            self._write_commit(self._number, _Commit(), durable=False)
        # What was found may never have been made durable, and what lies beside it goes now.
        self._durable = self._number
        try:
            self._files.sync(self._wanted())
        except OSError as error:
            if not begins:
                raise
            # There is nothing yet that a loss of power could take.
            log.warning("disk not reliable", path=str(self._directory), detail=str(error))
        self._files.remove(*(set(names) - self._wanted()))
        self._thread.start()
        return state

    def replies(self) -> list[codec.OutgoingMessage]:
        """Return the replies that an earlier process made and nobody has confirmed, in their order."""
        return [kept.read for kept in self._unconfirmed.values() if kept.read is not None]

    def _read_newest(self, names: list[str], unreadable: list[str]) -> RecordDict | None:
        """Take the newest commit that is whole, with its state and replies; say what could not be read."""
        numbers = [number_of(name) for name in names if name.startswith(f"{_COMMIT}-")]
        for number in sorted(numbers, reverse=True):
            try:
                commit = _Commit.model_validate_json(self._files.read(name_of(_COMMIT, number)))
                state = self._read_state(commit.state)
            except _UNREADABLE as error:
                unreadable.append(str(error))
                continue
            self._number, self._answered, self._state = number, commit.answered, commit.state
            self._described = _described(flower_messages.content_to_wire(state))
            for reply_number, message_id in commit.replies:
                name = name_of(_REPLY, reply_number)
                if name not in names:  # confirmed, and removed since
                    continue
                try:
                    kept = _Kept(reply_number, self._files.read_message(name))
                except _UNREADABLE as error:
                    unreadable.append(str(error))
                    continue
                self._unconfirmed[message_id] = kept
                self._known.add(message_id)
            return state
        return None

    def _read_state(self, number: int) -> RecordDict:
        if not number:
            return RecordDict()
        kept = self._files.read_message(name_of(_STATE, number))
        arrays = {digest: bytes(cast(bytearray, data)) for digest, data in kept.arrays.items()}

        def array_of(entry: pb.ArrayEntry) -> Array:
            return Array(entry.dtype, tuple(entry.shape), entry.serialization, arrays[entry.digest])

        return flower_messages.content_of(kept.header, array_of)

    # -- while the client works --------------------------------------------------------------------

    def continues(self, message_id: str) -> bool:
        """Whether a message belongs to the history that the state does; the first one always does."""
        return not self._answered or outbox.history_of(self._answered) == outbox.history_of(message_id)

    def was_answered(self, message_id: str) -> bool:
        """Whether an earlier process answered this message and left the reply, confirmed since or not."""
        return message_id in self._known

    def answered(
        self,
        message_id: str,
        state: RecordDict,
        reply: codec.OutgoingMessage,
        send: Callable[[], None] = lambda: None,
    ) -> None:
        """Keep the reply to a message and the state after it; `send` is called as soon as it may be seen.

        Raises: OSError if not even the loss of an older state can be noted.
        """
        changed, sent = True, False
        number = self._number + 1
        with self._lock:  # it may be confirmed before it is written
            self._unconfirmed[message_id] = _Kept(number)
        try:
            encoded = flower_messages.content_to_wire(state)
            described = _described(encoded)
            changed, state_number = described != self._described, self._state
            if changed:
                state_number = number if len(state) else 0
            else:
                send()
                sent = True
            if changed and state_number:
                self._files.write_message(name_of(_STATE, number), encoded, durable=True)
                failpoints.reach("client.state-written")
            self._files.write_message(name_of(_REPLY, number), reply, durable=changed)
            failpoints.reach("client.reply-written")
            with self._lock:
                replies = [(kept.number, known) for known, kept in self._unconfirmed.items()]
                synced = self._durable
            if changed:
                self._sync_replies([earlier for earlier, _ in replies if synced < earlier < number])
            commit = _Commit(answered=message_id, state=state_number, replies=tuple(replies))
            self._write_commit(number, commit, durable=changed)
            log.debug("answer kept", message_id=message_id)
            failpoints.reach("client.commit-written")
        except (OSError, flower_messages.MessageNotRepresentable) as error:
            self._not_kept(message_id, number, error, changed)
            if not sent:
                send()
            return
        if self._described is None:
            self._files.remove(_LOST)
        self._described = described
        with self._lock:
            self._number, self._answered, self._state = number, message_id, state_number
            if changed:
                self._durable = number
        if not sent:
            send()
        self._stirred.set()

    def confirmed(self, transfer_id: str) -> None:
        """Say that the aggregator has a reply, by its transfer's id; its bytes go soon."""
        message_id = outbox.answered_by(transfer_id)
        with self._lock:
            kept = self._unconfirmed.pop(message_id, None) if message_id is not None else None
        if kept is not None:
            self._stirred.set()

    def close(self) -> None:
        """Finish what is under way beside the conversation."""
        self._closing.set()
        self._stirred.set()
        self._thread.join()

    def _sync_replies(self, numbers: list[int]) -> None:
        """Make earlier replies durable that nobody has: a state is about to count that goes beyond them."""
        for number in numbers:
            with contextlib.suppress(FileNotFoundError):  # it was confirmed in this moment
                self._files.sync([name_of(_REPLY, number)])

    def _write_commit(self, number: int, commit: _Commit, *, durable: bool) -> None:
        """Let a commit count in place of all before it."""
        name, fresh = name_of(_COMMIT, number), name_of(kept_files.FRESH, number)
        self._files.write(name, [commit.model_dump_json().encode()], durable=durable, at=fresh)
        self._files.replace(name, by=fresh)
        if durable:
            self._files.sync()  # the names; the files are durable already

    def _not_kept(self, message_id: str, number: int, error: Exception, changed: bool) -> None:
        """Go on without; where the state on disk is not the app's any more, note that it is lost."""
        log.warning("reply not kept", message_id=message_id, detail=str(error))
        with self._lock:
            self._unconfirmed.pop(message_id, None)
        self._files.remove(*(name_of(kind, number) for kind in (_COMMIT, kept_files.FRESH, _REPLY, _STATE)))
        if not changed or self._described is None:
            return
        log.error("state of the client app not kept", path=str(self._directory), detail=str(error))
        self._tidy()  # an earlier commit that has not been removed yet would count again
        # In place of the newest: a full disk lets a file have another name, and hardly a new file be made.
        self._files.replace(_LOST, by=name_of(_COMMIT, self._number))
        with self._lock:
            durable, self._durable, self._described = self._durable, 0, None
        self._files.remove(name_of(_COMMIT, durable))
        # The reply leaves next: the mark is to outlive the power, which takes no room where names have some.
        with contextlib.suppress(OSError):
            self._files.sync()

    # -- beside the conversation -------------------------------------------------------------------

    def _run_beside(self) -> None:
        # Not at each message: a thread that wakes up costs the sending one more than the work that it does.
        while not self._closing.is_set():
            self._stirred.wait()
            self._stirred.clear()
            with self._lock:
                number = self._number
            self._closing.wait(SYNC_AFTER_SECONDS)
            self._make_durable(number)
            self._tidy()

    def _make_durable(self, up_to: int) -> None:
        """Make the newest commit durable if a reply, up to this number, is still unconfirmed."""
        with self._lock:
            number, durable, wanted = self._number, self._durable, self._wanted()
            waiting = [kept.number for kept in self._unconfirmed.values() if kept.number > durable]
        if not waiting or not durable:
            return
        try:
            if min(waiting) <= up_to:
                self._files.sync(wanted - {name_of(_COMMIT, durable)})
        except FileNotFoundError:  # overtaken by a later commit in this moment
            pass
        except OSError as error:
            log.warning("reply not made durable", detail=str(error))
            return
        else:
            with self._lock:
                if self._number == number and min(waiting) <= up_to:
                    self._durable = number
                    return
        self._stirred.set()

    def _wanted(self) -> frozenset[str]:
        """The files that count now."""
        wanted = {name_of(_COMMIT, self._number), name_of(_COMMIT, self._durable or self._number)}
        wanted |= {name_of(_STATE, self._state)} if self._state else set()
        return frozenset(wanted | {name_of(_REPLY, kept.number) for kept in self._unconfirmed.values()})

    def _tidy(self) -> None:
        """Remove what does not count any more; what is being written has a later number."""
        with self._lock:
            number, wanted = self._number, self._wanted()
        names = [name for name in self._files.names() if name not in wanted]
        needless = [name for name in names if 0 < number_of(name) <= number]
        self._files.remove(*needless)
        if needless:
            failpoints.reach("client.kept-removed")


def _described(encoded: codec.OutgoingMessage) -> bytes:
    """Return what tells one state from another: its values, and the digests of its arrays."""
    described: bytes = encoded.header.SerializeToString(deterministic=True)
    return described
