"""Who is connected, what was last said, and what each side is to be told next.

One registry for agents, one for aggregators. What is to be told is a latest value, not a queue: a slow reader
gets the newest wish, and nothing piles up. This module refuses to know gRPC; the servicers read and write
through it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from coordinator.planning import desired, progress, snapshot
from federation.api import reasons
from federation.wire import denials

MAXIMUM_REPORTS = 4096
"""Assignments that one agent may report on; a real one has a few."""

NOT_YET = "it has begun a moment ago, and does not know yet what runs"

Now = Callable[[], float]
OnChange = Callable[[], None]


class Link:
    """One open session. `news` is set when there is something to tell; `goodbye` says that it is over."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.news = asyncio.Event()
        self.ending = asyncio.Event()
        self.goodbye: denials.Denial | None = None

    def end(self, reason: denials.Denial) -> None:
        """Let the session say goodbye and end."""
        if self.goodbye is None:
            self.goodbye = reason
        self.ending.set()
        self.news.set()


@dataclasses.dataclass
class _Agent:
    link: Link | None = None
    has_offered: bool = False
    disconnected_at: float = 0.0
    wanted: tuple[desired.Assignment, ...] = ()
    reports: dict[str, snapshot.Report] = dataclasses.field(default_factory=dict)


class AgentLinks:
    """The sessions of edge agents."""

    def __init__(self, now: Now, on_change: OnChange, on_release: OnChange = lambda: None) -> None:
        """Start with nobody connected, since now. on_release: see `release`."""
        self._now = now
        self._on_change = on_change
        self._on_release = on_release
        self._started_at = now()
        self._agents: dict[str, _Agent] = {}
        self._released = asyncio.Event()

    def open(self, cluster: str) -> Link:
        """Begin a session; an older one of the same cluster is told to end."""
        agent = self._agents.setdefault(cluster, _Agent(disconnected_at=self._started_at))
        if agent.link is not None:
            identity = f"cluster {cluster}"
            agent.link.end(denials.denial(denials.Reason.SESSION_REPLACED, identity=identity))
        link = Link(cluster)
        agent.link, agent.has_offered = link, False
        link.news.set()
        self._on_change()
        return link

    def close(self, link: Link) -> bool:
        """End a session; return whether the cluster has no other one now."""
        agent = self._agents[link.name]
        if agent.link is not link:
            return False
        agent.link = None
        agent.disconnected_at = self._now()
        self._on_change()
        return True

    def send_away(self, cluster: str, reason: denials.Denial) -> None:
        """End the cluster's session, whichever it is now."""
        agent = self._agents.get(cluster)
        if agent is not None and agent.link is not None:
            agent.link.end(reason)

    def end_all(self, reason: denials.Denial) -> None:
        """Let every session say goodbye."""
        for agent in self._agents.values():
            if agent.link is not None:
                agent.link.end(reason)

    def offered(self, cluster: str) -> None:
        """The session has said which data sets its cluster offers, if any."""
        agent = self._agents[cluster]
        if not agent.has_offered:
            agent.has_offered = True
            self._on_change()

    def connected(self, cluster: str) -> bool:
        """Whether the cluster has a session that has said what it offers: before, nothing is known of it."""
        agent = self._agents.get(cluster)
        return agent is not None and agent.link is not None and agent.has_offered

    def disconnected_at(self, cluster: str) -> float:
        """Since when it has none, unix seconds; since the hub's start if it never had one."""
        agent = self._agents.get(cluster)
        return self._started_at if agent is None else agent.disconnected_at

    def assign(self, cluster: str, wanted: Sequence[desired.Assignment]) -> None:
        """Say what the cluster is asked to do; it is told if that changed. Reports on anything else are
        dropped.
        """
        agent = self._agents.get(cluster)
        if agent is None:
            if not wanted:
                return
            agent = self._agents[cluster] = _Agent(disconnected_at=self._started_at)
        if agent.wanted == tuple(wanted):
            return
        agent.wanted = tuple(wanted)
        asked = {entry.uid for entry in wanted}
        agent.reports = {uid: report for uid, report in agent.reports.items() if uid in asked}
        if agent.link is not None:
            agent.link.news.set()

    def release(self) -> None:
        """What is asked of the clusters is known now."""
        if not self.is_released:
            self._released.set()
            self._on_release()

    @property
    def is_released(self) -> bool:
        """Whether it is."""
        return self._released.is_set()

    async def released(self) -> None:
        """Wait until it is: an agent that was told too early that nothing is asked of it would end its
        clients.
        """
        await self._released.wait()

    def assigned(self, cluster: str) -> tuple[desired.Assignment, ...]:
        """What the cluster is asked to do."""
        agent = self._agents.get(cluster)
        return () if agent is None else agent.wanted

    def report(self, cluster: str, uid: str, report: snapshot.Report) -> None:
        """Keep what the edge says of an assignment. An unknown one is dropped: it was withdrawn meanwhile."""
        agent = self._agents[cluster]
        if all(entry.uid != uid for entry in agent.wanted) or len(agent.reports) >= MAXIMUM_REPORTS:
            return
        if agent.reports.get(uid) != report:
            agent.reports[uid] = report
            self._on_change()

    def reports(self, uid: str) -> Mapping[str, snapshot.Report]:
        """What the edges say of one training, by cluster."""
        return {name: agent.reports[uid] for name, agent in self._agents.items() if uid in agent.reports}


@dataclasses.dataclass
class _Aggregator:
    uid: str
    expected_at: float = 0.0
    link: Link | None = None
    address: str = ""
    server_name: str = ""
    progress: snapshot.Progress = dataclasses.field(default_factory=snapshot.Progress)
    roster: tuple[desired.RosterMember, ...] = ()
    rules: desired.RoundRules | None = None
    stop: desired.Stop | None = None
    closed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class AggregatorLinks:
    """The sessions of aggregators, by namespace and name of their training."""

    def __init__(self, on_change: OnChange, now: Now = lambda: 0.0) -> None:
        """Start with none expected; `now` is unix seconds."""
        self._on_change = on_change
        self._now = now
        self._known: dict[tuple[str, str], _Aggregator] = {}
        self._complete = False

    def expect(self, uid: str, namespace: str, name: str, since: float | None = None) -> None:
        """An aggregator of this training is being started, or was since that time (unix seconds); forget
        what an earlier one said.
        """
        self._known[namespace, name] = _Aggregator(uid, expected_at=self._now() if since is None else since)

    def expect_again(self, uid: str) -> None:
        """The aggregator died and is started again: what it said holds until it says more."""
        for key, entry in self._known.items():
            if entry.uid == uid:
                again = dataclasses.replace(entry, expected_at=self._now(), link=None, closed=asyncio.Event())
                self._known[key] = again
                if entry.link is not None:
                    entry.link.end(denials.denial(denials.Reason.SESSION_REPLACED, identity="the aggregator"))

    def complete(self) -> None:
        """Those of all trainings that there are when a hub begins to act are expected now: one that comes
        earlier and is not expected is asked to come again, since it would end if it were sent away.
        """
        self._complete = True

    def heard(self, uid: str) -> bool:
        """Whether the aggregator of a training has, or had, a session since it was expected."""
        return any(
            entry.uid == uid and (entry.link is not None or entry.closed.is_set())
            for entry in self._known.values()
        )

    def forget(self, uid: str) -> None:
        """No aggregator of this training is expected any more."""
        for key in [key for key, entry in self._known.items() if entry.uid == uid]:
            entry = self._known.pop(key)
            if entry.link is not None:
                entry.link.end(denials.denial(denials.Reason.TRAINING_ENDED, training="/".join(key)))

    def find(self, namespace: str, name: str, issued_at: float | None = None) -> _Aggregator:
        """Return the expected aggregator.

        issued_at: when the caller's certificate was issued, unix seconds. One from before this aggregator
        was wanted is of an earlier training of the same name, whose app may have kept the key.
        Raises: Denied(BUSY, UNKNOWN_TRAINING, REVOKED).
        """
        try:
            entry = self._known[namespace, name]
        except KeyError:
            if not self._complete:
                raise denials.Denied(denials.Reason.BUSY, detail=NOT_YET) from None
            raise denials.Denied(denials.Reason.UNKNOWN_TRAINING, training=f"{namespace}/{name}") from None
        if issued_at is not None and issued_at < math.floor(entry.expected_at):
            raise denials.Denied(
                denials.Reason.REVOKED, identity=f"the aggregator of an earlier {namespace}/{name}"
            )
        return entry

    def open(self, entry: _Aggregator, address: str, server_name: str) -> Link:
        """Begin a session; an older one is told to end."""
        if entry.link is not None:
            entry.link.end(denials.denial(denials.Reason.SESSION_REPLACED, identity="the aggregator"))
        entry.link, entry.address, entry.server_name = Link(entry.uid), address, server_name
        entry.closed.clear()
        entry.link.news.set()
        self._on_change()
        return entry.link

    def close(self, entry: _Aggregator, link: Link) -> None:
        """End a session."""
        if entry.link is link:
            entry.link = None
            entry.closed.set()
            self._on_change()

    def end_all(self, reason: denials.Denial) -> None:
        """Let every session end."""
        for entry in self._known.values():
            if entry.link is not None:
                entry.link.end(reason)

    def addresses(self) -> dict[str, str]:
        """Where the aggregators listen, by the server name that their clients ask for."""
        return {entry.server_name: entry.address for entry in self._known.values() if entry.address}

    async def drained(self, uid: str, timeout_seconds: float) -> None:
        """Wait until what an ended process had still sent was read, or the time is over."""
        for entry in self._known.values():
            if entry.uid == uid and entry.link is not None:
                try:
                    async with asyncio.timeout(timeout_seconds):
                        await entry.closed.wait()
                except TimeoutError:
                    return

    def take(
        self, entry: _Aggregator, report: snapshot.Progress, metrics: Sequence[snapshot.RoundMetrics] = ()
    ) -> None:
        """Fold a report into the picture."""
        folded = progress.fold(entry.progress, report, metrics)
        if folded != entry.progress:
            entry.progress = folded
            self._on_change()

    def finish(self, entry: _Aggregator, finished: snapshot.Finished) -> None:
        """The aggregator's last word. That it ended because of a suspension is no end of the training."""
        if finished.reason != reasons.TrainingReason.SUSPEND_REQUESTED and entry.progress.finished is None:
            entry.progress = dataclasses.replace(entry.progress, finished=finished)
            self._on_change()

    def observed(self, uid: str) -> snapshot.Aggregator:
        """What the aggregator of a training said so far; `started` and `exit` are for others to fill in."""
        for entry in self._known.values():
            if entry.uid == uid:
                return snapshot.Aggregator(
                    address=entry.address, server_name=entry.server_name, progress=entry.progress
                )
        return snapshot.Aggregator()

    def direct(
        self,
        uid: str,
        roster: tuple[desired.RosterMember, ...],
        rules: desired.RoundRules,
        stop: desired.Stop | None,
    ) -> None:
        """Say what the aggregator should be told; it is told if that changed."""
        for entry in self._known.values():
            if entry.uid == uid and (entry.roster, entry.rules, entry.stop) != (roster, rules, stop):
                entry.roster, entry.rules, entry.stop = roster, rules, stop
                if entry.link is not None:
                    entry.link.news.set()
