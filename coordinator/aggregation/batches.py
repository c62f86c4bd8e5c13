"""From push to close: batches, their messages, deadlines and replies; the second layer of the round machine.

The module exists so that the life of a batch can be read apart from who takes part. It refuses to know how
nodes come and go (rounds.py), and when the app starts.
"""

from __future__ import annotations

import collections

from coordinator.aggregation import events, instructions, ledger, records, sentences, transitions
from coordinator.aggregation.instructions import WhyDiscarded
from coordinator.aggregation.transitions import BatchFact, MessageFact, RunFact
from federation.api import reasons

# Settled messages are remembered to tell a duplicate or late reply from an unknown one. Enough for five
# rounds of a thousand clusters, and some megabytes at most.
_REMEMBERED_MESSAGES = 10_000

# What a timer is for. At equal times: what ends single messages first, then what judges them.
EXPIRY, GRACE, DEADLINE, ROUND_GRACE = range(4)


class Batches(ledger.Ledger):
    """Everything that happens to batches and messages."""

    def __init__(self, training: str, rules: events.RoundRules, now: float) -> None:
        """Begin with nothing pushed."""
        super().__init__(training, rules, now)
        self._finished: collections.deque[records.BatchRecord] = collections.deque()
        self._open_batches = 0
        self._open_waiting = 0
        self._numbers = 0
        self._fresh_list_due = True  # the next NodesAsked takes a fresh list
        self._asks = 0  # NodesAsked since a batch was last opened or closed

    # -- Batches ----------------------------------------------------------------------------------

    def _batch_pushed(self, pushed: events.BatchPushed) -> None:
        if known := self._batches.get(pushed.batch_id):
            raise transitions.LocalProtocolError(f"batch {pushed.batch_id}", known.state, "batch pushed")
        for outgoing in pushed.messages:
            if twin := self._messages.get(outgoing.message_id):
                raise transitions.LocalProtocolError(
                    f"message {outgoing.message_id}", twin.state, "batch pushed"
                )
        self._step_run(RunFact.BATCH_PUSHED)
        judged = pushed.kind is events.Kind.TRAIN and pushed.waits and pushed.judged
        if pushed.round is not None:
            self._round = pushed.round
        elif judged:
            self._round += 1
        limits = [s for s in (self._rules.deadline_seconds, pushed.timeout_seconds) if s is not None]
        length = min(limits, default=None)
        batch = records.BatchRecord(
            pushed.batch_id,
            pushed.kind,
            pushed.waits,
            judged,
            self._rules,
            self._round,
            None if length is None else self._now + length,
            length,
        )
        self._batches[batch.batch_id] = batch
        self._open_batches += 1
        self._open_waiting += batch.waits
        self._fresh_list_due, self._asks = True, 0
        for outgoing in pushed.messages:
            message = records.MessageRecord(
                outgoing.message_id, outgoing.node, self._numbers, batch, outgoing.expires_at
            )
            self._numbers += 1
            self._messages[message.message_id] = message
            batch.add(message)
        if not self._live:
            self._abandon(batch, *self._end)
            return
        if batch.deadline is not None:
            self._set_timer(batch.deadline, DEADLINE, batch.batch_id)
        for message in batch.messages:
            if message.expires_at is not None:
                self._set_timer(message.expires_at, EXPIRY, message.message_id)
            self._offer(message)
        self._judge(batch)

    def _offer(self, message: records.MessageRecord) -> None:
        """Send a new message, or hold it, or settle it at once."""
        node = self._node(message.node)
        node.open[message.message_id] = message
        if node.kept and _is_round(message.batch):
            self._stand_in(message, node.kept.pop(0))
        elif not node.reachable:
            why = node.why or "it is not connected"
            self._settle(message, MessageFact.NODE_GONE, _unavailable(node, why), why)
        elif node.state is transitions.Node.CONNECTED:
            self._move(message, MessageFact.LINK_BACK)
            self._do(instructions.SendMessage(message.message_id, node.node))
            self._tell_cluster(node, reasons.ClusterState.TRAINING)

    def _judge(self, batch: records.BatchRecord) -> None:
        """Fail the training if enough replies have become impossible; close the batch if none is awaited."""
        if batch.state is not transitions.Batch.OPEN:
            return
        if batch.possible < batch.needed:
            self._lose_quorum(batch)
        elif not batch.unsettled:
            self._close(batch, BatchFact.ALL_SETTLED)
        elif batch.has_taken:
            asked, taken = batch.asked, batch.rules.taken(batch.asked)
            why = f"no reply among the first {taken} of {sentences.clusters(asked)} asked, which are enough"
            self._close_without(batch, BatchFact.TAKEN, why, reasons.ClusterReason.ENOUGH_REPORTED)
        elif batch.grace_until is None and batch.rules.grace_seconds is not None and batch.has_needed:
            batch.grace_until = self._now + batch.rules.grace_seconds
            self._set_timer(batch.grace_until, ROUND_GRACE, batch.batch_id)

    def _batch_timed_out(self, batch_id: str) -> None:
        self._step_run(RunFact.BATCH_TIMED_OUT)
        batch = self._batches.get(batch_id)
        if batch is None:
            raise transitions.LocalProtocolError(f"batch {batch_id}", "Unknown", BatchFact.CALLER_GAVE_UP)
        self._step_batch(batch, BatchFact.CALLER_GAVE_UP)
        if batch.state is transitions.Batch.OPEN:
            self._deadline_reached(batch)

    def _deadline_reached(self, batch: records.BatchRecord) -> None:
        late = [message for message in batch.in_order() if message.is_open]
        why = "no reply while the caller waited"
        if batch.deadline_seconds is not None and batch.deadline is not None and batch.deadline <= self._now:
            why = f"no reply within {sentences.seconds(batch.deadline_seconds)}"
        if not batch.waits:
            for message in late:
                error = instructions.Error(
                    instructions.MESSAGE_EXPIRED, f"{self._node(message.node).name}: {why}"
                )
                self._settle(message, MessageFact.EXPIRED, error, why)
                self._tell_overdue(message, why)
            self._judge(batch)
            return
        for message in late:
            node = self._node(message.node)
            absent = node.state is transitions.Node.AWAY and node.coming
            message.why = f"{why}, {node.coming}" if absent else why
        if len(batch.reported) < batch.needed:
            self._lose_quorum(batch)
            return
        self._close_without(batch, BatchFact.DEADLINE_WITH_ENOUGH, why)

    def _round_grace_over(self, batch: records.BatchRecord) -> None:
        grace = sentences.seconds(batch.rules.grace_seconds or 0)
        why = f"no reply within {grace} after enough clusters had reported"
        self._close_without(batch, BatchFact.GRACE_OVER, why, reasons.ClusterReason.ENOUGH_REPORTED)

    def _close_without(
        self,
        batch: records.BatchRecord,
        fact: BatchFact,
        why: str,
        reason: reasons.ClusterReason = reasons.ClusterReason.DEADLINE_EXCEEDED,
    ) -> None:
        """Close with the replies that came; the other clusters are told, and their replies are late."""
        late = [message for message in batch.in_order() if message.is_open]
        for message in late:
            message.why = why
            self._move(message, MessageFact.BATCH_CLOSED)
            del self._node(message.node).open[message.message_id]
            self._tell_overdue(message, why, reason)
        self._close(batch, fact)
        for message in late:
            self._do(instructions.WithdrawMessage(message.message_id, message.node))

    def _close(self, batch: records.BatchRecord, fact: BatchFact) -> None:
        self._step_batch(batch, fact)
        ordered = batch.in_order()
        self._do(
            instructions.CloseBatch(
                batch.batch_id,
                tuple(m.message_id for m in ordered if m.state is not transitions.Message.MISSING),
                tuple(m.message_id for m in ordered if m.state is transitions.Message.MISSING),
            )
        )
        self._retire(batch)

    def _retire(self, batch: records.BatchRecord) -> None:
        """Note that the batch is no longer open, and forget the oldest of those that are not."""
        self._open_batches -= 1
        self._open_waiting -= batch.waits
        self._asks = 0
        if batch.waits:
            self._fresh_list_due = True
        self._finished.append(batch)
        while len(self._messages) > _REMEMBERED_MESSAGES and len(self._finished) > 1:
            oldest = self._finished.popleft()
            del self._batches[oldest.batch_id]
            for message in oldest.messages:
                del self._messages[message.message_id]

    def _lose_quorum(self, batch: records.BatchRecord) -> None:
        failed = {m.node: m.why for m in reversed(batch.in_order()) if m.why and m.node not in batch.reported}
        at_work = len([node for node in batch.pending if node not in failed])
        missing = [(self._node(node).name, why) for node, why in sorted(failed.items())]
        message = sentences.quorum_lost(
            sentences.round_of(batch.round, self.training),
            len(batch.reported),
            batch.asked,
            batch.needed,
            missing,
            at_work,
        )
        self._step_batch(batch, BatchFact.QUORUM_LOST)
        self._abandoned(batch, reasons.TrainingReason.QUORUM_LOST, message)
        self._fail(reasons.TrainingReason.QUORUM_LOST, message)

    def _fail(self, reason: reasons.TrainingReason, message: str) -> None:
        self._step_run(RunFact.QUORUM_MISSED)
        self._abandon_all(reason, message)
        self._do(instructions.FailTraining(reason, message))

    def _abandon_all(self, reason: str, message: str) -> None:
        if self._end == ("", ""):
            self._end = (reason, message)
        for batch in [b for b in self._batches.values() if b.state is transitions.Batch.OPEN]:
            self._abandon(batch, reason, message)

    def _abandon(self, batch: records.BatchRecord, reason: str, message: str) -> None:
        self._step_batch(batch, BatchFact.TRAINING_ENDED)
        self._abandoned(batch, reason, message)

    def _abandoned(self, batch: records.BatchRecord, reason: str, message: str) -> None:
        for left in batch.messages:
            self._node(left.node).open.pop(left.message_id, None)
            if left.is_open:
                self._move(left, MessageFact.BATCH_CLOSED)
        self._do(instructions.AbandonBatch(batch.batch_id, reason, message))
        self._retire(batch)

    # -- Messages ---------------------------------------------------------------------------------

    def _reply_arrived(self, reply: events.ReplyArrived) -> None:
        message = self._messages.get(reply.message_id)
        if message is None:
            self._discard(reply, WhyDiscarded.UNKNOWN_MESSAGE)
        elif message.node != reply.node:
            self._discard(reply, WhyDiscarded.NODE_MISMATCH)
        elif message.is_open:
            self._answer(message, reply)
            self._do(instructions.ConfirmReply(reply.message_id, reply.node))
            self._judge(message.batch)
        else:
            before = message.state
            self._move(message, _fact(reply.verdict))
            if not self._live:
                self._discard(reply, WhyDiscarded.TRAINING_OVER)
            elif before in (transitions.Message.MISSING, transitions.Message.STOOD_IN):
                self._late(message, reply)
            else:
                self._discard(reply, WhyDiscarded.DUPLICATE if before in _ANSWERED else WhyDiscarded.LATE)

    def _answer(self, message: records.MessageRecord, reply: events.ReplyArrived) -> None:
        """Settle an open message by the reply of its node."""
        node = self._node(message.node)
        fact = _fact(reply.verdict)
        match reply.verdict:
            case events.Accepted(examples):
                message.examples = examples
                self._settle(message, fact, instructions.Reply(message.message_id, examples), "")
                self._tell_cluster(node, reasons.ClusterState.REPORTED, examples=examples)
                if _is_round(message.batch):
                    node.newest_counted = max(node.newest_counted, message.number)
            case events.Refused(reason=reason, message=text):
                why = f"its reply was refused, {reason}: {sentences.brief(text)}"
                error = instructions.Error(instructions.REPLY_REFUSED, f"{node.name}: {why}")
                self._settle(message, fact, error, why)
                refused = reasons.ClusterReason.UPDATE_REFUSED
                self._tell_cluster(node, reasons.ClusterState.READY, refused, f"{reason}: {text}")
            case events.Errored(code, text):
                self._settle(
                    message, fact, instructions.Error(code, text), f"error {code}: {sentences.brief(text)}"
                )
                failed = reasons.ClusterReason.CLIENT_APP_FAILED
                self._tell_cluster(node, reasons.ClusterState.READY, failed, f"error {code}: {text}")

    def _late(self, message: records.MessageRecord, reply: events.ReplyArrived) -> None:
        """Keep, use or discard the first reply of its own to a message that was settled without it."""
        node = self._node(message.node)
        usable = (
            isinstance(reply.verdict, events.Accepted)
            and _is_round(message.batch)
            and message.batch.rules.late_replies is events.LateReplies.NEXT_ROUND
            and message.number > node.newest_counted
            and node.wanted
        )
        if not usable:
            self._discard(reply, WhyDiscarded.LATE)
            if not node.open and node.state is transitions.Node.CONNECTED:
                self._tell_cluster(node, reasons.ClusterState.READY)
            return
        assert isinstance(reply.verdict, events.Accepted)
        message.examples = reply.verdict.examples
        node.newest_counted = message.number
        waiting = next((m for m in node.open.values() if _is_round(m.batch)), None)
        self._do(instructions.KeepReply(message.message_id, node.node))
        if waiting is not None:
            self._stand_in(waiting, message)
        else:
            node.kept.append(message)
        self._do(instructions.ConfirmReply(reply.message_id, reply.node))
        if waiting is not None:
            self._judge(waiting.batch)

    def _remember_late(self, late: tuple[events.Late, ...]) -> None:
        """Take over from an earlier process what its rounds did not wait for."""
        for one in late:
            batch = records.BatchRecord(
                f"of {one.message_id}", events.Kind.TRAIN, True, False, self._rules, one.round, None, None
            )
            batch.state = transitions.Batch.CLOSED
            state = transitions.Message.LATE if one.came else transitions.Message.MISSING
            message = records.MessageRecord(one.message_id, one.node, self._numbers, batch, None, state)
            message.examples = one.examples
            self._numbers += 1
            self._messages[one.message_id] = message
            if not one.came:
                continue
            node = self._node(one.node)
            if node.removed or self._rules.late_replies is not events.LateReplies.NEXT_ROUND:
                self._do(instructions.DropKeptReply(one.message_id, one.node))
            else:
                node.kept.append(message)
                node.newest_counted = message.number

    def _stand_in(self, message: records.MessageRecord, kept: records.MessageRecord) -> None:
        """Settle an open message by the late reply to an earlier one."""
        self._settle(message, MessageFact.STOOD_IN, instructions.Reply(kept.message_id, kept.examples), "")
        self._tell_cluster(
            self._node(message.node),
            reasons.ClusterState.REPORTED,
            examples=kept.examples,
            message=f"its late reply of round {kept.batch.round} counts in round {message.batch.round}",
        )

    def _discard(self, reply: events.ReplyArrived, why: WhyDiscarded) -> None:
        self._do(instructions.DiscardReply(reply.message_id, reply.node, why))
        self._do(instructions.ConfirmReply(reply.message_id, reply.node))

    def _settle(
        self, message: records.MessageRecord, fact: MessageFact, outcome: instructions.Outcome, why: str
    ) -> None:
        """Give the message its outcome. The caller judges the batch afterwards."""
        self._move(message, fact)
        message.why = why
        self._node(message.node).open.pop(message.message_id, None)
        message.batch.count(message, valid=isinstance(outcome, instructions.Reply))
        self._step_batch(message.batch, BatchFact.MESSAGE_SETTLED)
        self._do(instructions.SettleMessage(message.message_id, outcome))

    def _end_messages_of(self, node: records.NodeRecord, fact: MessageFact, code: int, why: str) -> None:
        ended = list(node.open.values())
        for message in ended:
            self._settle(message, fact, instructions.Error(code, f"{node.name}: {why}"), why)
        for batch in {message.batch.batch_id: message.batch for message in ended}.values():
            self._judge(batch)

    def _expired(self, message: records.MessageRecord) -> None:
        why = "no reply before the message's time to live was over"
        error = instructions.Error(instructions.MESSAGE_EXPIRED, f"{self._node(message.node).name}: {why}")
        self._settle(message, MessageFact.EXPIRED, error, why)
        self._tell_overdue(message, why)
        self._judge(message.batch)

    def _tell_overdue(
        self,
        message: records.MessageRecord,
        why: str,
        reason: reasons.ClusterReason = reasons.ClusterReason.DEADLINE_EXCEEDED,
    ) -> None:
        node = self._node(message.node)
        if node.state is transitions.Node.CONNECTED:
            self._tell_cluster(
                node, reasons.ClusterState.TRAINING, reason, f"{node.name}: {why}; it is not waited for"
            )


_ANSWERED = frozenset(
    {
        transitions.Message.ACCEPTED,
        transitions.Message.REFUSED,
        transitions.Message.ERRORED,
        transitions.Message.LATE,
    }
)


def _is_round(batch: records.BatchRecord) -> bool:
    """Say whether replies to the batch are updates of a round, which alone may stand in for one another."""
    return batch.kind is events.Kind.TRAIN and batch.waits


def _unavailable(node: records.NodeRecord, why: str) -> instructions.Error:
    return instructions.Error(instructions.NODE_UNAVAILABLE, f"{node.name}: {why}")


def _fact(verdict: events.Verdict) -> MessageFact:
    match verdict:
        case events.Accepted():
            return MessageFact.REPLY_ACCEPTED
        case events.Refused():
            return MessageFact.REPLY_REFUSED
        case events.Errored():
            return MessageFact.REPLY_ERROR
