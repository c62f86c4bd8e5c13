"""The Grid that a training's ServerApp sees.

Why it exists: `flwr.serverapp.Grid` is the one thing that a ServerApp knows of the world. This one hands
messages to the driver and gives back replies in the order of node ids, so that an average has the same last
bit whatever the order of arrival. Any number of the app's threads may use it. It knows no channel and decides
no round.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from coordinator.aggregation import events
from coordinator.aggregator import driver as driver_module
from coordinator.aggregator import history as history_module
from coordinator.aggregator import metrics
from coordinator.aggregator import progress as progress_module
from coordinator.journal import entries, replay
from federation.flower import arrays as flower_arrays
from federation.flower import messages as flower_messages
from federation.flower import replies
from federation.flower.host import Run
from federation.telemetry import logs
from federation.wire import codec

log = logs.get_logger(__name__)

ROUND_KEY = "server-round"
"""Where Flower's strategies write the round's number in a message's config."""

SPOOL_FROM_BYTES = 8 * 1024 * 1024
"""Smaller models stay in memory: a few of them are less than what a round needs besides."""

FEW_REPLIES = 4
"""So few leave little memory behind on their way in: not worth the time that giving it back takes."""


_KINDS = list(events.Kind)


@dataclasses.dataclass
class _Phase:
    """What one call of the app wants sent."""

    sent: list[tuple[Message, codec.OutgoingMessage]] = dataclasses.field(default_factory=list)
    messages: dict[str, driver_module.Push] = dataclasses.field(default_factory=dict)
    kinds: set[events.Kind] = dataclasses.field(default_factory=set)
    number: int | None = None
    arrays: ArrayRecord | None = None
    carried: dict[int, ArrayRecord] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> events.Kind:
        """The weightiest of its messages' kinds."""
        return min(self.kinds, key=_KINDS.index)


class HanseGrid(Grid):
    """Flower's Grid over the driver of one training."""

    def __init__(
        self,
        driver: driver_module.Driver,
        progress: progress_module.Progress,
        history: history_module.History,
        *,
        run: Run,
        judged: Callable[[], bool] = lambda: True,
        on_arrays: Callable[[ArrayRecord], None] = lambda _: None,
        spool_directory: Path | None = None,
        tidy: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the driver, the journal and what to call this run.

        judged: asked at each batch whether the quorum rules apply to it.
        on_arrays: hears of the arrays that each push carries.
        spool_directory: where the bytes of a large model are kept once it was sent; None: in memory.
        tidy: called when a batch of more than FEW_REPLIES replies has come, before the app has them.
        """
        self._driver = driver
        self._progress = progress
        self._history = history
        self._run = run
        self._judged = judged
        self._on_arrays = on_arrays
        self._spool_directory = spool_directory
        self._tidy = tidy
        self._clock = clock
        self._sent: dict[str, driver_module.Push] = {}
        self._lock = threading.Lock()
        self._last_return: float | None = None

    def set_run(self, run: Run) -> None:
        """Flower's own start-up sets the run here; ours is given at construction and stays."""

    @property
    def run(self) -> Run:
        """Run information."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message; Flower's deprecated way."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """The ids of the nodes that take part now, ascending; stable while a batch is waited for."""
        return self._history.nodes()

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; their replies are fetched with `pull_messages`."""
        phase = self._phase(messages)
        if phase is None:
            return []
        batch = self._begin(phase, waits=False)
        self._push(phase, batch, timeout=None)
        return list(phase.messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that came since the last call, by node id; each reply comes once."""
        before, fetched = self._history.pull(message_ids)
        return [self._recorded(outcome, self._sent.pop(outcome.message_id)) for outcome in before] or fetched

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send messages and wait for their replies, at most `timeout` seconds.

        Returns the replies by node id, then in the order sent: one for each message that was answered, error
        replies included; fewer when the timeout or the round's deadline came first.
        Raises: TrainingOver when the training cannot go on, e.g. because its quorum is lost.
        """
        entered = self._clock()
        phase = self._phase(messages)
        if phase is None:
            return []
        batch = self._begin(phase, waits=True)
        if batch.outcomes is not None:  # before a restart
            received = [
                self._recorded(outcome, phase.messages[outcome.message_id]) for outcome in batch.outcomes
            ]
            self._history.passed(phase.messages)
            self._keep_in_file(phase.carried.values())
            self._progress.replayed(phase.number, phase.kind, self._history.examples(batch))
        else:
            closed = self._push(phase, batch, timeout=timeout)
            self._keep_in_file(phase.carried.values())  # meanwhile the clients are at work
            received = closed.result()
        if len(received) > FEW_REPLIES:
            self._tidy()
        self._measure(phase.kind, phase.number, received, entered)
        return received

    def _phase(self, messages: Iterable[Message]) -> _Phase | None:
        """Take messages as the app hands them in, once: it may be a generator."""
        phase = _Phase()
        for message in messages:
            phase.kinds.add(kind_of(message.metadata.message_type))
            phase.number = round_of(message) if phase.number is None else phase.number
            phase.sent.append((message, flower_messages.to_wire(message, "")))
            if message.has_content():
                records = [record for record in message.content.values() if isinstance(record, ArrayRecord)]
                phase.carried.update((id(record), record) for record in records)
                phase.arrays = next((record for record in records if len(record)), phase.arrays)
        return phase if phase.sent else None

    def _begin(self, phase: _Phase, *, waits: bool) -> replay.Batch:
        """Number the messages."""
        if phase.arrays is not None:
            self._on_arrays(phase.arrays)
        said = [
            replay.Call(message.metadata.dst_node_id, history_module.fingerprint(outgoing.header))
            for message, outgoing in phase.sent
        ]
        batch = self._history.batch(phase.kind, phase.number, said, waits=waits)
        for (message, outgoing), numbered in zip(phase.sent, batch.pushed.messages, strict=True):
            message_id = numbered.message_id
            replies.set_message_id(message, message_id)
            outgoing.header.message_id = message_id
            phase.messages[message_id] = driver_module.Push(
                message_id,
                message.metadata.dst_node_id,
                message.metadata.created_at + message.metadata.ttl,
                outgoing,
                replies.error_reply_to(message.metadata),
            )
        return batch

    def _push(
        self, phase: _Phase, batch: replay.Batch, *, timeout: float | None
    ) -> concurrent.futures.Future[list[Message]]:
        closed: concurrent.futures.Future[list[Message]] = concurrent.futures.Future()

        def push(message_ids: Collection[str], came: Mapping[str, entries.Received]) -> None:
            self._driver.push(
                batch.pushed.batch_id,
                phase.kind,
                [push for push in phase.messages.values() if push.message_id in message_ids],
                closed=closed,
                timeout_seconds=timeout,
                waits=batch.pushed.waits,
                # One message at a time is an app that addresses clients one by one: it judges for itself.
                judged=len(phase.messages) > 1 and self._judged(),
                round_number=phase.number,
                arrived=[
                    self._history.received(reply, phase.messages[message_id].outgoing.header)
                    for message_id, reply in came.items()
                    if message_id in message_ids
                ],
            )

        if not batch.new and not batch.pushed.waits:
            self._sent.update(phase.messages)
        self._history.push(batch, push)
        return closed

    def _recorded(self, outcome: entries.Outcome, push: driver_module.Push) -> Message:
        """What the app was given before a restart."""
        reply = self._history.reply(outcome, push.outgoing.header)
        return push.error(outcome.code, outcome.reason) if reply is None else reply

    def _keep_in_file(self, records: Iterable[ArrayRecord]) -> None:
        """Move what was sent into a file: an app's own variables hold on to every model that it ever saw."""
        large = [record for record in records if _array_bytes(record) >= SPOOL_FROM_BYTES]
        if self._spool_directory is None or not large:
            return
        try:
            file = flower_arrays.SpoolFile(self._spool_directory)
            for record in large:
                for array in record.values():
                    flower_arrays.move_to_file(array, file, flower_messages.digest_of(array))
        except OSError as error:
            log.warning("model stays in memory", detail=str(error))

    def _measure(
        self, kind: events.Kind, number: int | None, received: list[Message], entered: float
    ) -> None:
        now = self._clock()
        with self._lock:
            since, self._last_return = self._last_return, now
        self._progress.spent(kind.value, now - entered)
        if since is not None and entered > since:
            self._progress.spent("Aggregate", entered - since)
        if kind is not events.Kind.QUERY:
            self._progress.measured(
                number or self._progress.current_round, kind.value, metrics.average(received)
            )


def _array_bytes(record: ArrayRecord) -> int:
    return sum(len(flower_arrays.bytes_of(array)) for array in record.values())


def kind_of(message_type: str) -> events.Kind:
    """How a round counts a message: by its category, whatever its action."""
    category = message_type.partition(".")[0]
    return {"train": events.Kind.TRAIN, "evaluate": events.Kind.EVALUATE}.get(category, events.Kind.QUERY)


def round_of(message: Message) -> int | None:
    """The round's number where the message's config names it, as Flower's strategies do."""
    if not message.has_content():
        return None
    for record in message.content.values():
        number = record.get(ROUND_KEY) if isinstance(record, ConfigRecord) else None
        if isinstance(number, int) and number > 0:
            return number
    return None
