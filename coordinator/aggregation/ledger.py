"""What every part of the round machine shares: the training's memory, its clock's last word, and what to do
next.

The module exists so that the parts (batches.py, rounds.py) are layers over one memory. It decides nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from coordinator.aggregation import events, instructions, records, transitions
from coordinator.aggregation.transitions import BatchFact, MessageFact, NodeFact, RunFact
from federation.api import reasons


class Ledger:
    """The memory of one training's rounds; the first layer of the round machine."""

    def __init__(self, training: str, rules: events.RoundRules, now: float) -> None:
        """Begin with nobody there and nothing pushed."""
        self.training = training
        self._rules = rules
        self._now = now
        self._run = transitions.Run.GATHERING
        self._end: tuple[str, str] = ("", "")  # why the run ended
        self._nodes: dict[int, records.NodeRecord] = {}
        self._messages: dict[str, records.MessageRecord] = {}
        self._batches: dict[str, records.BatchRecord] = {}
        self._round = 0
        self._timers: list[tuple[float, int, int | str]] = []
        self._told_clusters: dict[int, instructions.ReportCluster] = {}
        self._out: list[instructions.Instruction] = []

    def _do(self, instruction: instructions.Instruction) -> None:
        self._out.append(instruction)

    def _tell_cluster(
        self,
        node: records.NodeRecord,
        state: reasons.ClusterState,
        reason: str = "",
        message: str = "",
        examples: int | None = None,
    ) -> None:
        told = instructions.ReportCluster(
            node.node, node.name, state, str(reason), message, self._round, examples
        )
        if self._told_clusters.get(node.node) != told:
            self._told_clusters[node.node] = told
            self._do(told)

    def _set_timer(self, time: float, what: int, key: int | str) -> None:
        heapq.heappush(self._timers, (time, what, key))

    # -- Nodes, and steps along the tables --------------------------------------------------------

    @property
    def _live(self) -> bool:
        return self._run in (transitions.Run.GATHERING, transitions.Run.RUNNING)

    def _node(self, node: int) -> records.NodeRecord:
        return self._nodes.setdefault(node, records.NodeRecord(node))

    def _all_nodes(self) -> Iterable[records.NodeRecord]:
        return [self._nodes[node] for node in sorted(self._nodes)]

    def _removal(self, node: records.NodeRecord) -> tuple[str, str]:
        reason, _, message = node.why.partition(": ")
        return reason, message

    def _step_run(self, fact: RunFact) -> None:
        self._run = transitions.step(transitions.RUN, f"training {self.training}", self._run, fact)

    def _step_node(self, node: records.NodeRecord, fact: NodeFact) -> None:
        node.state = transitions.step(transitions.NODE, node.name, node.state, fact)

    def _step_batch(self, batch: records.BatchRecord, fact: BatchFact) -> None:
        batch.state = transitions.step(transitions.BATCH, f"batch {batch.batch_id}", batch.state, fact)

    def _move(self, message: records.MessageRecord, fact: MessageFact) -> None:
        message.state = transitions.step(
            transitions.MESSAGE, f"message {message.message_id}", message.state, fact
        )
