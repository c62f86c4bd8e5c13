"""The round machine: what a training does when a reply, a lost link, a deadline or an app's call arrives.

`RoundMachine.handle(*events)` takes past facts and returns instructions, to be executed in order. The module
exists so that every decision of a round can be read, tested as a table and replayed; it refuses to know
clocks, networks, randomness, files and Flower. Its states and what may follow them stand in transitions.py.

A message, from push to outcome::

    pushed -> SendMessage -> delivered -> reply -> SettleMessage, ConfirmReply -> CloseBatch
                   |             |
                   +- link lost -+-> held -> link back -> SendMessage again (the client knows what it has)
                                       +---> grace over -> SettleMessage(Error 5)

A grace does not end while the node's edge says that its client is held up or being started; a client that
then runs has as long as at the first start to dial. When its time is over all the same, the next deadline of
a batch that waits for such a node ends it: one that never comes costs no more rounds their time.

Laws (property-tested): each message has exactly one outcome, a SettleMessage or a place in
CloseBatch.missing; a reply to a message that is unknown, settled or another node's changes nothing but is
confirmed; the order in which the replies of different nodes arrive changes neither outcomes nor the order in
CloseBatch. (The sentence of a lost quorum may differ: it says how many had reported when it became certain.
Where the rules take the first so many, or end with a grace, the order says which those are, and CloseBatch
records it.)

Which nodes the app sees: the list stands still while a waiting batch is open. The first NodesAsked after a
batch was opened or a waiting batch was closed takes a fresh list of those connected, or away within their
grace; further ones only add those that came since, so that an app which counts nodes and then samples as many
finds as many. A node that has gone meanwhile answers its message with error 5 at once.

Late replies: see events.LateReplies. A late reply that is older than one of the same node that already
counted is discarded in any case, so that an old update never follows a newer one.
"""

from __future__ import annotations

import heapq

from coordinator.aggregation import batches, events, instructions, records, sentences, transitions
from coordinator.aggregation.transitions import MessageFact, NodeFact, RunFact
from federation.api import reasons

RESUMED_GRACE_SECONDS = 15.0
"""So long at least those who took part are waited for after a restart: a client that has found nobody for a
while dials again after 10 s at most. One that has to begin, too, has as long as at the first start."""

# A strategy asks twice before it samples, so only a third question can be one of an app that waits.
_ASKS_OF_A_WAITING_APP = 3

_PHASES = {
    events.Kind.TRAIN: instructions.Phase.TRAIN,
    events.Kind.EVALUATE: instructions.Phase.EVALUATE,
    events.Kind.QUERY: instructions.Phase.QUERY,
}


class RoundMachine(batches.Batches):
    """One training's rounds. `training` is `namespace/name`; `now` is when the waiting for clusters began."""

    def __init__(self, training: str, rules: events.RoundRules, now: float) -> None:
        """Begin to gather clusters."""
        super().__init__(training, rules, now)
        self._opened_at = now
        self._quorum_since: float | None = None
        self._roster_known = False
        self._visible: tuple[int, ...] = ()
        self._asking_since = now
        self._wake_at: float | None = None
        self._told_round: instructions.ReportRound | None = None

    # -- What the driver calls --------------------------------------------------------------------

    def handle(self, *facts: events.Event) -> list[instructions.Instruction]:
        """Take the facts in order and return what to do, in order.

        Time never goes back: a `now` below an earlier one counts as the earlier one.
        Raises: LocalProtocolError when the driver tells what cannot be; the machine must not be used after
        it.
        """
        self._out = []
        for fact in facts:
            if not isinstance(fact, events.MessageDelivered | events.StopAsked):
                self._advance(fact.now)
            self._take(fact)
            self._advance(self._now)
        self._tell_round()
        self._tell_wake()
        return self._out

    def nodes(self) -> tuple[int, ...]:
        """Return the node ids that the app may see, ascending. It changes only when NodesAsked is handled."""
        return self._visible

    def cluster(self, node: int) -> str:
        """Return the name of a node's cluster, as the roster gave it; empty for an unknown node."""
        record = self._nodes.get(node)
        return record.name if record is not None else ""

    @property
    def state(self) -> transitions.Run:
        """Where the training stands."""
        return self._run

    @property
    def round(self) -> int:
        """The number of the last round that was opened; 0 before the first."""
        return self._round

    # -- Facts ------------------------------------------------------------------------------------

    def _take(self, fact: events.Event) -> None:
        match fact:
            case events.ReplyArrived():
                self._reply_arrived(fact)
            case events.MessageDelivered(message_id):
                if message := self._messages.get(message_id):
                    self._move(message, MessageFact.DELIVERED)
            case events.BatchPushed():
                self._batch_pushed(fact)
            case events.NodesAsked():
                self._step_run(RunFact.NODES_ASKED)
                self._nodes_asked()
            case events.NodeConnected(node):
                self._node_connected(self._node(node))
            case events.LinkLost(node):
                self._link_lost(self._node(node))
            case events.ClientDied(node, reason, message):
                self._client_died(self._node(node), reason, message)
            case events.NodeRemoved(node, reason, message):
                self._remove(self._node(node), NodeFact.BARRED, reason, message)
            case events.RosterChanged(members):
                self._roster_changed(members)
            case events.Resumed(members, number, late=late):
                self._resumed(members, number)
                self._remember_late(late)
            case events.BatchTimedOut(batch_id):
                self._batch_timed_out(batch_id)
            case events.RulesChanged(rules):
                self._rules = rules
            case events.AppFinished():
                self._step_run(RunFact.APP_FINISHED)
                self._abandon_all("AppFinished", f"the app of {self.training} has ended")
            case events.StopAsked(reason, message):
                self._stop_asked(reason, message)
            case events.TimePassed():
                pass
        self._look_at_gate()

    def _roster_changed(self, members: tuple[events.Member, ...]) -> None:
        self._roster_known = True
        listed = {member.node: member for member in members}
        for member in sorted(members, key=lambda member: member.node):
            node = self._node(member.node)
            node.cluster = member.cluster
            if not member.expected:
                self._remove(node, NodeFact.REMOVED, member.reason, member.message)
                continue
            before = node.state
            self._step_node(node, NodeFact.EXPECTED)
            self._hear_of_client(node, sentences.because(member.reason, member.message))
            if before is transitions.Node.EARLY:
                self._tell_cluster(node, reasons.ClusterState.READY)
            elif node.state is transitions.Node.EXPECTED:
                node.why = node.coming
        for node in self._all_nodes():
            if node.node not in listed and node.wanted:
                self._remove(node, NodeFact.REMOVED, reasons.ClusterReason.NOT_SELECTED, "no longer selected")

    def _hear_of_client(self, node: records.NodeRecord, coming: str) -> None:
        began, node.coming = bool(node.coming) and not coming, coming
        if began and node.state is transitions.Node.AWAY:
            self._give_grace(node, self._beginners_grace)

    def _node_connected(self, node: records.NodeRecord) -> None:
        self._step_node(node, NodeFact.CONNECTED)
        if node.removed:
            self._do(instructions.CutLink(node.node, *self._removal(node)))
            return
        if node.state is not transitions.Node.CONNECTED:
            return
        node.why = node.coming = ""
        self._tell_cluster(node, reasons.ClusterState.TRAINING if node.open else reasons.ClusterState.READY)
        for message in node.open.values():
            self._move(message, MessageFact.LINK_BACK)
            self._do(instructions.SendMessage(message.message_id, node.node))

    def _link_lost(self, node: records.NodeRecord) -> None:
        self._step_node(node, NodeFact.LINK_LOST)
        if node.state is not transitions.Node.AWAY:
            return
        grace = self._rules.link_grace_seconds
        node.why = "its link is lost"
        for message in node.open.values():
            self._move(message, MessageFact.LINK_LOST)
        self._give_grace(node, grace)
        self._tell_cluster(
            node,
            reasons.ClusterState.LOST,
            reasons.ClusterReason.LINK_LOST,
            f"the link to {node.name} is lost; it is waited for {sentences.seconds(grace)}",
        )

    def _resumed(self, members: tuple[events.Member, ...], number: int) -> None:
        """Go on where an earlier process was: nobody is gathered anew, those who took part are waited for."""
        self._step_run(RunFact.RESUMED)
        self._round = max(self._round, number)
        for member in members:
            node = self._node(member.node)
            node.cluster = node.cluster or member.cluster
            before = node.state
            self._step_node(node, NodeFact.REMEMBERED)
            if node.state is transitions.Node.AWAY and before is not transitions.Node.AWAY:
                node.why = "it has not come back since the aggregator was restarted"
                self._give_grace(node, self._beginners_grace)
        self._visible = tuple(sorted(m.node for m in members if self._node(m.node).reachable))

    def _give_grace(self, node: records.NodeRecord, length: float) -> None:
        node.away_seconds, node.away_until = length, self._now + length
        self._set_timer(node.away_until, batches.GRACE, node.node)

    @property
    def _beginners_grace(self) -> float:
        """How long a client may take that has to be started, on a node that has to be found, from an image
        that has to be pulled: as long as before the first round.
        """
        return max(self._rules.link_grace_seconds, RESUMED_GRACE_SECONDS, self._start_deadline or 0.0)

    def _deadline_reached(self, batch: records.BatchRecord) -> None:
        """Give up those, too, that only the word of their edges has kept beyond their grace."""
        waited = {message.node for message in batch.messages if message.is_open}
        super()._deadline_reached(batch)
        for node in map(self._node, sorted(waited)):
            if self._live and node.state is transitions.Node.AWAY and node.away_until <= self._now:
                self._grace_over(node)

    def _grace_over(self, node: records.NodeRecord) -> None:
        self._step_node(node, NodeFact.GRACE_OVER)
        grace = sentences.seconds(node.away_seconds)
        node.why = f"its link was lost and did not come back within {grace}"
        if node.coming:
            node.why = f"its client did not come before the round's deadline: {node.coming}"
        self._tell_cluster(
            node, reasons.ClusterState.LOST, reasons.ClusterReason.LINK_LOST, f"{node.name}: {node.why}"
        )
        self._end_messages_of(node, MessageFact.NODE_GONE, instructions.NODE_UNAVAILABLE, node.why)

    def _client_died(self, node: records.NodeRecord, reason: str, message: str) -> None:
        self._step_node(node, NodeFact.CLIENT_DIED)
        if node.state is not transitions.Node.DIED:
            return
        node.why = f"its client died: {sentences.brief(message or reason)}"
        self._tell_cluster(node, reasons.ClusterState.FAILED, reason, message)
        self._end_messages_of(node, MessageFact.CLIENT_DIED, instructions.CLIENT_DIED, node.why)

    def _remove(self, node: records.NodeRecord, fact: NodeFact, reason: str, message: str) -> None:
        was_removed = node.removed
        self._step_node(node, fact)
        if was_removed:
            return
        node.why, node.coming = sentences.because(reason, message), ""
        self._do(instructions.CutLink(node.node, reason, message))
        gone_by_will = reason in (reasons.ClusterReason.CLUSTER_LEFT, reasons.ClusterReason.EXPELLED)
        if fact is NodeFact.BARRED:  # of the roster's removals the coordinator knows already
            state = reasons.ClusterState.LEFT if gone_by_will else reasons.ClusterState.FAILED
            self._tell_cluster(node, state, reason, message)
        for kept in node.kept:
            self._do(instructions.DropKeptReply(kept.message_id, node.node))
        node.kept.clear()
        self._end_messages_of(node, MessageFact.NODE_GONE, instructions.NODE_UNAVAILABLE, node.why)

    def _stop_asked(self, reason: str, message: str) -> None:
        was_live = self._live
        self._step_run(RunFact.STOP_ASKED)
        if was_live:
            self._abandon_all(reason, message)
            self._do(instructions.StopApp(reason, message))

    # -- Before the app starts --------------------------------------------------------------------

    def _gate(self) -> tuple[list[records.NodeRecord], list[records.NodeRecord]]:
        """Return the wanted nodes that are connected, and those that are not."""
        wanted = [node for node in self._all_nodes() if node.wanted]
        there = [node for node in wanted if node.state is transitions.Node.CONNECTED]
        return there, [node for node in wanted if node.state is not transitions.Node.CONNECTED]

    def _look_at_gate(self) -> None:
        if self._run is not transitions.Run.GATHERING or not self._roster_known:
            return
        there, absent = self._gate()
        quorum = self._rules.quorum
        if len(there) < quorum:
            self._quorum_since = None
            # A roster that never had enough may still grow; one that has lost them will not be enough again.
            removed = [node for node in self._all_nodes() if node.removed]
            wanted = len(there) + len(absent)
            if wanted < quorum <= wanted + len(removed):
                self._fail_start(None)
            return
        if self._quorum_since is None:
            self._quorum_since = self._now
        if not absent or self._now >= self._quorum_since + self._rules.start_grace_seconds:
            self._step_run(RunFact.ENOUGH_CONNECTED)
            self._do(instructions.StartApp())

    def _fail_start(self, waited: float | None) -> None:
        there, absent = self._gate()
        removed = [node for node in self._all_nodes() if node.removed]
        missing = [(node.name, node.why or "never connected") for node in (*absent, *removed)]
        wanted = len(there) + len(absent)
        message = sentences.quorum_not_reached(
            self.training, len(there), wanted, self._rules.quorum, missing, waited
        )
        self._fail(reasons.TrainingReason.QUORUM_NOT_REACHED, message)

    def _gate_time(self) -> float | None:
        if self._run is not transitions.Run.GATHERING:
            return None
        if self._quorum_since is not None:
            return self._quorum_since + self._rules.start_grace_seconds
        deadline = self._start_deadline
        return None if deadline is None else self._opened_at + deadline

    @property
    def _start_deadline(self) -> float | None:
        own = self._rules.start_deadline_seconds
        return self._rules.deadline_seconds if own is None else own

    # -- Which nodes the app sees -----------------------------------------------------------------

    def _nodes_asked(self) -> None:
        # An app whose first question comes while a batch of another thread is open needs an answer too.
        if not self._live or (self._open_waiting and self._visible):
            return
        seen = {node.node for node in self._nodes.values() if node.reachable}
        if not self._fresh_list_due:
            seen.update(self._visible)
        self._fresh_list_due = False
        self._visible = tuple(sorted(seen))
        if self._open_batches:
            return
        if not self._asks:
            self._asking_since = self._now
        self._asks += 1
        waited, deadline = self._now - self._asking_since, self._rules.deadline_seconds
        nobody_to_come = sum(node.wanted for node in self._nodes.values()) < self._rules.quorum
        over = nobody_to_come if deadline is None else waited >= deadline
        if self._asks >= _ASKS_OF_A_WAITING_APP and over:
            there, absent = self._gate()
            removed = [node for node in self._all_nodes() if node.removed]
            message = sentences.still_asking(
                self.training,
                waited,
                [node.name for node in there],
                [(node.name, node.why or "never connected") for node in (*absent, *removed)],
            )
            self._fail(reasons.TrainingReason.QUORUM_NOT_REACHED, message)

    # -- Time -------------------------------------------------------------------------------------

    def _next_timer(self) -> tuple[float, int, int | str] | None:
        """Return the earliest timer that still means something; drop those before it that do not."""
        while self._timers:
            time, what, key = self._timers[0]
            if what == batches.EXPIRY:
                message = self._messages.get(str(key))
                means = message is not None and message.is_open
            elif what == batches.GRACE:
                node = self._node(int(key))
                means = node.state is transitions.Node.AWAY and node.away_until == time
            else:
                batch = self._batches.get(str(key))
                means = batch is not None and batch.state is transitions.Batch.OPEN
            if means:
                return self._timers[0]
            heapq.heappop(self._timers)
        return None

    def _advance(self, now: float) -> None:
        """Let time pass: what was due happens, in the order in which it was due, before the next fact."""
        self._now = max(self._now, now)
        while (timer := self._next_timer()) is not None and timer[0] <= self._now:
            _, what, key = heapq.heappop(self._timers)
            if what == batches.EXPIRY:
                self._expired(self._messages[str(key)])
            elif what == batches.GRACE:
                if not self._node(int(key)).coming:
                    self._grace_over(self._node(int(key)))
            elif what == batches.ROUND_GRACE:
                self._round_grace_over(self._batches[str(key)])
            else:
                self._deadline_reached(self._batches[str(key)])
        gate = self._gate_time()
        if gate is not None and gate <= self._now:
            self._look_at_gate()
            deadline = self._start_deadline
            if self._run is transitions.Run.GATHERING and self._quorum_since is None and deadline is not None:
                self._fail_start(deadline)

    # -- Telling ----------------------------------------------------------------------------------

    def _tell_round(self) -> None:
        told = self._round_report()
        if told is not None and told != self._told_round:
            self._told_round = told
            self._do(told)

    def _round_report(self) -> instructions.ReportRound | None:
        if self._run is transitions.Run.GATHERING:
            there, absent = self._gate()
            message = sentences.gathering(
                self.training,
                len(there),
                len(there) + len(absent),
                self._rules.quorum,
                [node.name for node in absent],
            )
            return instructions.ReportRound(0, instructions.Phase.WAITING_FOR_CLIENTS, message)
        if self._run is not transitions.Run.RUNNING:
            return None
        newest = next(
            (b for b in reversed(self._batches.values()) if b.state is transitions.Batch.OPEN), None
        )
        if newest is None:
            if not self._batches:
                return None
            last = self._finished[-1]
            message = (
                sentences.round_progress(last.round, last.kind.lower(), len(last.reported), last.asked, ())
                + ", the app is at work"
            )
            return instructions.ReportRound(
                last.round,
                instructions.Phase.AGGREGATE,
                message,
                last.batch_id,
                last.asked,
                len(last.reported),
                last.needed,
            )
        waiting = [self._node(node).name for node in newest.pending]
        message = sentences.round_progress(
            newest.round,
            newest.kind.lower(),
            len(newest.reported),
            newest.asked,
            waiting,
            newest.rules.taken(newest.asked) if newest.may_close_early else None,
        )
        return instructions.ReportRound(
            newest.round,
            _PHASES[newest.kind],
            message,
            newest.batch_id,
            newest.asked,
            len(newest.reported),
            newest.needed,
        )

    def _tell_wake(self) -> None:
        timer = self._next_timer() if self._live else None
        times = [time for time in (timer[0] if timer else None, self._gate_time()) if time is not None]
        wake_at = min(times, default=None)
        if wake_at is not None and wake_at != self._wake_at:
            self._do(instructions.WakeAt(wake_at))
        self._wake_at = wake_at
