"""Tell what the round machine does as a story: events flush left with their time, instructions below them."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.aggregation import events, instructions, rounds


class Story:
    """One scripted federation: clusters edge-01, edge-02, ... with node ids 1, 2, ..."""

    def __init__(self, title: str, clusters: int, rules: events.RoundRules) -> None:
        self._machine = rounds.RoundMachine("demo/hospitals", rules, 0.0)
        self._names = {node: f"edge-{node:02}" for node in range(1, clusters + 1)}
        self._lines = [title, "=" * len(title), "", self._rules(rules)]

    @property
    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def say(self, words: str) -> None:
        """Add a line of the narrator's."""
        self._lines += ["", f"# {words}"]

    def member(self, node: int, **fields: object) -> events.Member:
        return events.Member(node, self._names.setdefault(node, f"edge-{node:02}"), **fields)  # type: ignore[arg-type]

    def tell(self, *facts: events.Event) -> list[instructions.Instruction]:
        """Tell the machine the facts, one by one, and write down what it says."""
        said: list[instructions.Instruction] = []
        for fact in facts:
            said += self._tell([fact])
        return said

    def _tell(self, facts: list[events.Event]) -> list[instructions.Instruction]:
        for fact in facts:
            now = getattr(fact, "now", None)
            clock = "         " if now is None else f"{now:6.1f} s "
            self._lines.append(f"{clock} {self._fact(fact)}")
        said = self._machine.handle(*facts)
        self._lines += [f"              -> {self._instruction(instruction)}" for instruction in said]
        if isinstance(facts[-1], events.NodesAsked):
            self._lines.append(f"              the app sees {self._list(self._machine.nodes())}")
        return said

    def begin(self, *nodes: int) -> None:
        """Let every cluster of the roster connect at 0 s, or only these."""
        roster = events.RosterChanged(tuple(self.member(node) for node in self._names), 0.0)
        self._tell([roster, *(events.NodeConnected(node, 0.0) for node in nodes or self._names)])

    def push(
        self,
        batch: str,
        nodes: Iterable[int],
        now: float,
        kind: events.Kind = events.Kind.TRAIN,
        waits: bool = True,
        timeout: float | None = None,
        ttl: float | None = None,
    ) -> None:
        """Let the app push one message to each node; their ids are `batch/edge-NN`."""
        messages = tuple(
            events.Outgoing(f"{batch}/edge-{node:02}", node, None if ttl is None else now + ttl)
            for node in nodes
        )
        self.tell(events.BatchPushed(batch, kind, messages, timeout, waits, now))

    def reply(self, batch: str, node: int, now: float, verdict: events.Verdict | None = None) -> None:
        """Let a node answer its message of the batch, with 100 examples unless told."""
        verdict = events.Accepted(100) if verdict is None else verdict
        self.tell(events.ReplyArrived(f"{batch}/edge-{node:02}", node, verdict, now))

    # -- Words ----------------------------------------------------------------------------------

    def _rules(self, rules: events.RoundRules) -> str:
        deadline = (
            "no deadline" if rules.deadline_seconds is None else f"deadline {rules.deadline_seconds:g} s"
        )
        early = "" if rules.grace_seconds is None else f", grace {rules.grace_seconds:g} s"
        if rules.over_provision_fraction:
            early += f", over-provision {rules.over_provision_fraction}"
        return (
            f"rules: quorum {rules.quorum}, fraction {rules.minimum_fraction}, {deadline}, late replies"
            f" {rules.late_replies}, link grace {rules.link_grace_seconds:g} s, start grace"
            f" {rules.start_grace_seconds:g} s{early}\n"
        )

    def _name(self, node: int) -> str:
        return self._names.get(node, f"node {node}")

    def _list(self, nodes: Iterable[int]) -> str:
        return " ".join(self._name(node) for node in nodes) or "nobody"

    def _fact(self, fact: events.Event) -> str:
        match fact:
            case events.RosterChanged(members):
                wanted = self._list(m.node for m in members if m.expected)
                out = "".join(
                    f", without {m.cluster} ({m.reason}: {m.message})" for m in members if not m.expected
                )
                held = "".join(
                    f", {m.cluster} held up ({m.reason}: {m.message})"
                    for m in members
                    if m.expected and m.message
                )
                return f"the roster is {wanted}{out}{held}"
            case events.NodeConnected(node):
                return f"{self._name(node)} connects"
            case events.LinkLost(node):
                return f"the link to {self._name(node)} is lost"
            case events.ClientDied(node, reason, message):
                return f"the client of {self._name(node)} dies ({reason}: {message})"
            case events.NodeRemoved(node, reason, message):
                return f"{self._name(node)} is removed ({reason}: {message})"
            case events.BatchPushed():
                how = "and waits" if fact.waits else "and does not wait"
                timeout = "" if fact.timeout_seconds is None else f" {fact.timeout_seconds:g} s at most"
                ttl = next((f", to live until {m.expires_at:g} s" for m in fact.messages if m.expires_at), "")
                to = self._list(m.node for m in fact.messages)
                return f"the app pushes {fact.batch_id} ({fact.kind}) to {to} {how}{timeout}{ttl}"
            case events.BatchTimedOut(batch_id):
                return f"the app stops waiting for {batch_id}"
            case events.NodesAsked():
                return "the app asks for nodes"
            case events.AppFinished():
                return "the app returns"
            case events.MessageDelivered(message_id):
                return f"{message_id} is delivered"
            case events.ReplyArrived(message_id, node, verdict):
                return f"{self._name(node)} replies to {message_id}: {self._verdict(verdict)}"
            case events.TimePassed():
                return "time passes"
            case events.RulesChanged(rules):
                return f"the rules change: {self._rules(rules)}".rstrip()
            case events.StopAsked(reason, message):
                return f"a stop is asked for ({reason}: {message})"

    def _verdict(self, verdict: events.Verdict) -> str:
        match verdict:
            case events.Accepted(examples):
                return f"accepted, {examples} examples"
            case events.Refused(reason=reason, message=message):
                return f"refused, {reason}: {message}"
            case events.Errored(code, reason):
                return f"error {code}: {reason}"

    def _instruction(self, instruction: instructions.Instruction) -> str:
        match instruction:
            case instructions.StartApp():
                return "start the app"
            case instructions.SendMessage(message_id, node):
                return f"send {message_id} to {self._name(node)}"
            case instructions.ConfirmReply(message_id, node):
                return f"confirm {message_id} to {self._name(node)}"
            case instructions.WithdrawMessage(message_id, node):
                return f"tell {self._name(node)} that nobody waits for {message_id}"
            case instructions.SettleMessage(message_id, instructions.Reply(reply)):
                return f"settle {message_id}: " + (
                    "its reply" if reply == message_id else f"the late reply to {reply}"
                )
            case instructions.SettleMessage(message_id, instructions.Error(code, reason)):
                return f"settle {message_id}: error {code}, {reason}"
            case instructions.CloseBatch(batch_id, message_ids, missing):
                without = f", without {' '.join(missing)}" if missing else ""
                return f"close {batch_id} with {' '.join(message_ids) or 'nothing'}{without}"
            case instructions.AbandonBatch(batch_id, reason):
                return f"abandon {batch_id}: {reason}"
            case instructions.KeepReply(message_id, node):
                return f"keep the late reply of {self._name(node)} to {message_id}"
            case instructions.DropKeptReply(message_id, node):
                return f"drop the kept reply of {self._name(node)} to {message_id}"
            case instructions.DiscardReply(message_id, node, why):
                return f"discard what {self._name(node)} sent for {message_id}: {why}"
            case instructions.CutLink(node, reason, message):
                return f"cut the link to {self._name(node)} ({reason}: {message})"
            case instructions.WakeAt(time):
                return f"wake at {time:g} s"
            case instructions.FailTraining(reason, message):
                return f"FAIL the training, {reason}: {message}"
            case instructions.StopApp(reason, message):
                return f"STOP the app, {reason}: {message}"
            case instructions.ReportCluster():
                told = instruction
                examples = "" if told.examples is None else f", {told.examples} examples"
                why = f" ({told.reason})" if told.reason else ""
                text = f": {told.message}" if told.message else ""
                return f"status of {told.cluster}: {told.state}{why}{examples}{text}"
            case instructions.ReportRound():
                return f"status: {instruction.phase}: {instruction.message}"
        raise AssertionError(instruction)
