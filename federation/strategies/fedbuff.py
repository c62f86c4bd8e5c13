"""FedBuff: federated learning without rounds, for fleets whose members are slow, or come and go.

Why it exists: in a round everybody waits for the slowest. Here each client trains as fast as it can; whenever
`buffer_size` updates have come, whoever they are from, they make the next version of the model, and a client
that has answered begins again from the newest one. An update that was computed from an older version counts
the less the older that is. Nothing here knows Hanse: it is a Strategy of Flower's, on any Grid.

What it decides follows from the replies in the order in which the Grid gives them, and from the process's
random generator; it reads no clock. So where the Grid answers as before after a crash, and the generator is
seeded, it makes the same model again.

Source: FedBuff, Nguyen et al. 2022, arXiv:2106.06639, algorithm 1.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Iterable, Sequence
from logging import INFO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.5
"""Between two looks for replies, or for nodes: a round trip of a slow client is seconds."""

AggregateMetrics = Callable[[list[RecordDict], str], MetricRecord]
Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


@dataclasses.dataclass(frozen=True)
class _Asked:
    """A message that is under way: to whom, and the version of the model that it carries."""

    node: int
    version: int


class FedBuff(FedAvg):
    """Buffered asynchronous aggregation.

    buffer_size: updates that make one version of the model, K of the paper.
    server_learning_rate: how far the model moves along the mean update; above 0.
    concurrency: clients at work at a time; None: all that there are.
    staleness_exponent: a of an update's weight, (1 + staleness) ** -a; 0.5 is the paper's 1 / sqrt(1 + s).
        An update's staleness is the number of versions made since the one that its client was sent.
    evaluate_every: clients that are idle evaluate each so many versions, and the last one; None: that alone.
    maximum_failures: so many error replies in a row, from whomever, end the training.
    The others are FedAvg's; weighted_by_key is of metrics alone. Updates weigh the same but for their
    staleness, however many examples they have.
    """

    def __init__(
        self,
        buffer_size: int = 10,
        server_learning_rate: float = 1.0,
        concurrency: int | None = None,
        staleness_exponent: float = 0.5,
        evaluate_every: int | None = None,
        maximum_failures: int = 100,
        fraction_evaluate: float = 1.0,
        min_evaluate_nodes: int = 1,
        min_available_nodes: int = 1,
        weighted_by_key: str = "num-examples",
        arrayrecord_key: str = "arrays",
        configrecord_key: str = "config",
        train_metrics_aggr_fn: AggregateMetrics | None = None,
        evaluate_metrics_aggr_fn: AggregateMetrics | None = None,
    ) -> None:
        """Raises: ValueError for numbers out of their range."""
        super().__init__(
            fraction_evaluate=fraction_evaluate,
            min_evaluate_nodes=min_evaluate_nodes,
            min_available_nodes=min_available_nodes,
            weighted_by_key=weighted_by_key,
            arrayrecord_key=arrayrecord_key,
            configrecord_key=configrecord_key,
            train_metrics_aggr_fn=train_metrics_aggr_fn,
            evaluate_metrics_aggr_fn=evaluate_metrics_aggr_fn,
        )
        whole = {
            "buffer_size": buffer_size, "concurrency": concurrency, "evaluate_every": evaluate_every,
            "maximum_failures": maximum_failures,
        }  # fmt: skip
        for name, value in whole.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, it must be at least 1")
        if not server_learning_rate > 0:
            raise ValueError(f"server_learning_rate is {server_learning_rate}, it must be above 0")
        if not staleness_exponent >= 0:
            raise ValueError(f"staleness_exponent is {staleness_exponent}, it must be at least 0")
        self.buffer_size = buffer_size
        self.server_learning_rate = server_learning_rate
        self.concurrency = concurrency
        self.staleness_exponent = staleness_exponent
        self.evaluate_every = evaluate_every
        self.maximum_failures = maximum_failures
        self._begin(ArrayRecord())

    def _begin(self, arrays: ArrayRecord) -> None:
        self._version = 0
        self._models: dict[int, ArrayRecord] = {0: arrays}  # those that somebody may still build on
        self._asked: dict[str, _Asked] = {}  # by message id: under way, or in the buffer
        self._busy: set[int] = set()
        self._resting: set[int] = set()  # their last answer was an error; until the next version
        self._buffer: list[Message] = []
        self._failures = 0

    def summary(self) -> None:
        """Log what was asked for."""
        at_work = "all" if self.concurrency is None else str(self.concurrency)
        log(INFO, "\t├──> Buffer: %s updates, %s clients at work", self.buffer_size, at_work)
        log(INFO, "\t├──> Server learning rate: %s", self.server_learning_rate)
        log(INFO, "\t├──> Weight of an update: (1 + staleness) ** -%s", self.staleness_exponent)
        log(INFO, "\t└──> Minimum available nodes: %s", self.min_available_nodes)

    # -- the loop --------------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Evaluate | None = None,
    ) -> Result:
        """Make `num_rounds` versions of the model: what Flower's other strategies call a round is a version.

        timeout: seconds that a client may take for an update; what comes later does not count.
        Raises: RuntimeError after too many error replies in a row.
        """
        log(INFO, "Starting %s: %s versions of the model", type(self).__name__, num_rounds)
        self.summary()
        train_config, evaluate_config = train_config or ConfigRecord(), evaluate_config or ConfigRecord()
        result = Result(arrays=initial_arrays)
        self._begin(initial_arrays)
        self._evaluate_here(result, evaluate_fn)
        while self._version < num_rounds:
            self._fill(grid, train_config, timeout)
            for reply in self._next_replies(grid):
                self._take(reply)
                if len(self._buffer) < self.buffer_size or self._version == num_rounds:
                    continue
                self._step(result)
                self._evaluate_here(result, evaluate_fn)
                if self._evaluates(num_rounds):
                    self._evaluate_there(grid, result, evaluate_config, timeout)
        log(INFO, "%s has made its last version", type(self).__name__)
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose among those who are idle, so many that `concurrency` are at work; the model for each."""
        there = list(grid.get_node_ids())
        if len(there) < self.min_available_nodes:
            return []
        idle = sorted(set(there) - self._busy)
        rested = [node for node in idle if node not in self._resting]
        if not rested and not self._busy:
            rested = idle  # better one that has just failed than nobody
        wanted = len(there) if self.concurrency is None else self.concurrency
        chosen = random.sample(rested, max(0, min(wanted - len(self._busy), len(rested))))
        # A config of its own: the next version's must not be written into what is under way.
        said = ConfigRecord({**config, "server-round": server_round})
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: said})
        return self._construct_messages(record, chosen, MessageType.TRAIN)

    def _fill(self, grid: Grid, config: ConfigRecord, timeout: float) -> None:
        """Give work to idle nodes; wait for some if nobody is at work."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            messages = list(
                self.configure_train(self._version + 1, self._models[self._version], config, grid)
            )
            for message in messages:
                message.metadata.ttl = timeout
            if messages:
                for message_id, message in zip(grid.push_messages(messages), messages, strict=True):
                    node = message.metadata.dst_node_id
                    self._asked[message_id] = _Asked(node, self._version)
                    self._busy.add(node)
            if self._busy:
                return
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _next_replies(self, grid: Grid) -> Sequence[Message]:
        """Wait until there is at least one; by node, whatever the Grid's own order."""
        buffered = {reply.metadata.reply_to_message_id for reply in self._buffer}
        wanted, pause = [one for one in self._asked if one not in buffered], FIRST_PAUSE_SECONDS
        while not (replies := list(grid.pull_messages(wanted))):
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return sorted(replies, key=lambda reply: reply.metadata.src_node_id)

    def _take(self, reply: Message) -> None:
        """An update goes into the buffer; whoever sent an error rests, and another is asked in its place."""
        asked = self._asked[reply.metadata.reply_to_message_id]
        self._busy.discard(asked.node)
        if not reply.has_error():
            self._failures = 0
            self._buffer.append(reply)
            return
        del self._asked[reply.metadata.reply_to_message_id]
        self._resting.add(asked.node)
        self._failures += 1
        log(INFO, "%s: node %s sent an error: %s", type(self).__name__, asked.node, reply.error.reason)
        if self._failures >= self.maximum_failures:
            raise RuntimeError(
                f"{self._failures} replies in a row were errors, the last one of node {asked.node}: "
                f"{reply.error.reason}"
            )

    def _step(self, result: Result) -> None:
        """Make the next version of the model of what is in the buffer."""
        number = self._version + 1
        arrays, metrics = self.aggregate_train(number, self._buffer)
        for reply in self._buffer:
            del self._asked[reply.metadata.reply_to_message_id]
        self._buffer = []
        if arrays is None:
            return  # none of them could be used: the same version, with other updates
        self._version, self._models[number] = number, arrays
        needed = {asked.version for asked in self._asked.values()} | {number}
        self._models = {version: model for version, model in self._models.items() if version in needed}
        self._resting.clear()
        result.arrays = arrays
        if metrics is not None:
            result.train_metrics_clientapp[number] = metrics

    # -- from updates to a model -----------------------------------------------------------------

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the model along the weighted mean of the updates, each seen from the model that it began with.

        Law: model + server_learning_rate * sum(weight(staleness) * update) / number of updates.
        Law: the order of the replies has no part in it.
        """
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        numbers = {message_id: number for number, message_id in enumerate(self._asked)}
        if any(reply.metadata.reply_to_message_id not in numbers for reply in valid):
            raise RuntimeError("FedBuff runs by its own `start`; another strategy cannot be put around it")
        valid.sort(
            key=lambda reply: (reply.metadata.src_node_id, numbers[reply.metadata.reply_to_message_id])
        )
        moved: dict[str, np.ndarray[Any, Any]] = {}
        for reply in valid:
            version = self._asked[reply.metadata.reply_to_message_id].version
            base = self._models[version]
            weight = float(1 + self._version - version) ** -self.staleness_exponent
            for record in reply.content.array_records.values():
                for name, array in record.items():
                    update = np.asarray(array.numpy(), np.float64) - base[name].numpy()
                    moved[name] = moved[name] + weight * update if name in moved else weight * update
        rate, model = self.server_learning_rate / len(valid), self._models[self._version]
        arrays = {name: _moved(model[name], rate * by) for name, by in moved.items()}
        metrics = self.train_metrics_aggr_fn([reply.content for reply in valid], self.weighted_by_key)
        return ArrayRecord({name: arrays.get(name, array) for name, array in model.items()}), metrics

    # -- evaluation ------------------------------------------------------------------------------

    def _evaluates(self, num_rounds: int) -> bool:
        last = self._version == num_rounds
        return last or (self.evaluate_every is not None and self._version % self.evaluate_every == 0)

    def _evaluate_here(self, result: Result, evaluate_fn: Evaluate | None) -> None:
        if evaluate_fn and (metrics := evaluate_fn(self._version, result.arrays)) is not None:
            result.evaluate_metrics_serverapp[self._version] = metrics

    def _evaluate_there(self, grid: Grid, result: Result, config: ConfigRecord, timeout: float) -> None:
        messages = list(self.configure_evaluate(self._version, result.arrays, config, grid))
        replies = grid.send_and_receive(messages, timeout=timeout) if messages else []
        metrics = self.aggregate_evaluate(self._version, replies)
        if metrics is not None:
            result.evaluate_metrics_clientapp[self._version] = metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Choose among those who are idle: one at work would answer when its training is done."""
        if self.fraction_evaluate == 0.0:
            return []
        there = sorted(set(grid.get_node_ids()) - self._busy)
        size = max(int(len(there) * self.fraction_evaluate), self.min_evaluate_nodes)
        chosen = random.sample(there, min(size, len(there)))
        said = ConfigRecord({**config, "server-round": server_round})
        record = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: said})
        return self._construct_messages(record, chosen, MessageType.EVALUATE)


def _moved(array: Array, by: np.ndarray[Any, Any]) -> Array:
    """The array after a step, of the type that it has."""
    old = array.numpy()
    new = old + by
    return Array(np.asarray(new if np.issubdtype(old.dtype, np.inexact) else np.rint(new), old.dtype))
