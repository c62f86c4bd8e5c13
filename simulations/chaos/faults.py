"""Which faults a run meets, drawn from its seed.

Pure: the same seed gives the same faults on every machine that can do the same. When a fault strikes is a
visit of a named place, a number of bytes, or a moment after the app's n-th call; never a time of day.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable
from typing import Any

from federation.runtime import failpoints

ROLES = ("aggregator", "client", "agent", "coordinator")
LINKS = ("exchange", "control")
"""Between clients and aggregator; between hub and agents or aggregator."""

HOUR = 3600.0

GRACE_SECONDS = 90.0
"""A round waits so long for a lost link: longer than every pause here that is not to exceed it."""
SHORT_GRACE_SECONDS = 3.0


@dataclasses.dataclass(frozen=True)
class Shape:
    """A training: how many edges and rounds, and how large its model is."""

    edges: int
    rounds: int
    model_bytes: int

    @property
    def calls(self) -> int:
        """How often the clients' apps are called, all together."""
        return 2 * self.edges * self.rounds


SMALL = Shape(2, 3, 700_000)
WIDE = Shape(3, 3, 700_000)
LARGE = Shape(2, 3, 5_000_000)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    kind: point (at a visit of a place: kill, or an error of the disk), kill, stop, link, disk or clock.
    target: the place, the role, the link. after_call: strikes when the apps were called so often, and
    `seconds` later. value: what the kind makes of it.
    """

    kind: str
    target: str
    how: str = ""
    after_call: int = 0
    after_seconds: float = 0.0
    value: float = 0

    def __str__(self) -> str:
        """For the report."""
        when = f" at call {self.after_call}+{self.after_seconds:.2f}s" if self.after_call else ""
        how = f" {self.how}" if self.how else ""
        return f"{self.kind} {self.target}{how} {self.value:g}{when}"


def described(faults: Iterable[str], *, snapshots: bool) -> str:
    """Return what a run meets as one line."""
    return ", ".join([*faults, *(["with snapshots"] if snapshots else [])])


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run. snapshots: one is taken after each round, which a training as short as this has none of."""

    seed: int
    shape: Shape
    faults: tuple[Fault, ...] = ()
    grace_seconds: float = GRACE_SECONDS
    snapshots: bool = False

    def __str__(self) -> str:
        """For the report."""
        return described(map(str, self.faults), snapshots=self.snapshots)

    @property
    def may_end_as(self) -> frozenset[str]:
        """The reasons that may stand in place of the model (docs/durability.md has the same table)."""
        allowed: set[str] = set()
        for fault in self.faults:
            if fault.target in JOURNAL_SYNCS and fault.how:
                # After a sync that failed, for whatever reason, nothing is known of what was written.
                allowed |= {"StorageUnavailable"}
        if self.grace_seconds < GRACE_SECONDS:  # coming back takes as long, and all clusters are needed
            allowed |= {"QuorumLost", "QuorumNotReached"}
        if self.client_cannot_keep and self.client_dies:
            # What its app remembered is on no disk: it says so, and does not go on from something older.
            allowed |= {"QuorumLost"}
        return frozenset(allowed)

    @property
    def client_cannot_keep(self) -> bool:
        """Whether what a client keeps meets a bad disk."""
        return any(
            (fault.kind == "disk" and fault.target == "client")
            or (fault.kind == "point" and fault.how and fault.target.startswith("client."))
            for fault in self.faults
        )

    @property
    def client_dies(self) -> bool:
        """Whether a client may die: by itself or with its agent, whose child it is here."""
        return any(
            fault.target.partition(".")[0] in ("client", "agent", "coordinator")
            and (fault.kind == "kill" or (fault.kind == "point" and not fault.how))
            for fault in self.faults
        )

    @property
    def begins_anew(self) -> bool:
        """Whether the coordinator dies: here its resources are in memory, and the training begins anew."""
        return any(
            fault.target.partition(".")[0] == "coordinator" and fault.kind in ("kill", "point")
            for fault in self.faults
        )


def draw(seed: int, *, disks: bool = True) -> Plan:
    """Return the plan of a seed. disks: whether small disks can be made here."""
    rng = random.Random(seed)  # noqa: S311  (a drill, not a secret)
    shape = LARGE if seed % 10 == 0 else rng.choices((SMALL, WIDE), (3, 1))[0]
    number = rng.choices((1, 2, 3), (6, 3, 1))[0]
    kinds = [kind for kind in _KINDS if disks or kind is not _disk]
    faults: list[Fault] = []
    for _ in range(number):
        make = rng.choices(kinds, [_KINDS[kind] for kind in kinds])[0]
        for fault in make(rng, shape):
            # One place has one plan, one process one clock, one kind of process one disk.
            if not any((fault.kind, fault.target) == (one.kind, one.target) for one in faults) and not (
                fault.kind == "clock" and any(one.kind == "clock" for one in faults)
            ):
                faults.append(fault)
    if any(fault.target == LARGE_PLACE for fault in faults):
        shape = LARGE
    short = any(fault.kind == "stop" and fault.how == "beyond the grace" for fault in faults)
    snapshots = rng.random() < SNAPSHOTS_SHARE or any("snapshot" in fault.target for fault in faults)
    return Plan(
        seed, shape, tuple(faults), SHORT_GRACE_SECONDS if short else GRACE_SECONDS, snapshots=snapshots
    )


SNAPSHOTS_SHARE = 0.3
"""Of the seeds whose faults need none."""


# -- places --------------------------------------------------------------------------------------------------

PLACES = tuple(name for name in failpoints.NAMES if name != "aggregator.journal-cut")
"""Those that a run can pass: of this app's journal nothing is ever cut off."""

NEVER_UNDISTURBED = frozenset({"aggregator.resumed"})
"""Places that only a process after a death passes."""

LARGE_PLACE = "aggregator.part-kept"
"""What only replies of many bytes pass."""

JOURNAL_SYNCS = ("aggregator.journal-sync", "aggregator.entries-sync", "aggregator.snapshot-written")
"""Just before something is made durable without which an aggregator does not go on."""

DISK_PLACES = (*JOURNAL_SYNCS, "aggregator.snapshot-sync", "client.keep-sync")
"""Where a disk can fail: just before bytes are made durable."""


def visits(name: str, shape: Shape) -> int:
    """Return about how often an undisturbed run passes a place; at least one."""
    batches, replies, edges = 2 * shape.rounds, shape.calls, shape.edges
    if name.startswith("client."):
        by_process = ("client.app-loaded", "client.link-up")
        return edges if name in by_process else 4 * replies if name == "client.keep-sync" else replies
    if name.startswith("agent."):
        return edges
    if name.startswith("coordinator."):
        return 4 if name in ("coordinator.edges-assigned", "coordinator.status-written") else 1
    by_batch = ("batch-written", "batch-sent", "batch-closed")
    by_reply = ("reply-begins", "reply-received", "reply-written", "reply-confirmed")
    by_write = ("journal-sync", "arrays-synced", "entries-sync", "entries-written")
    by_session = ("hello-heard", "client-welcomed")
    short = name.partition(".")[2]
    if short.startswith("snapshot"):  # one that is being written when the next round is over stands alone
        return shape.rounds - 1
    if short in by_session:
        return edges
    if short == "fact-written":  # at the start, and twice at the end
        return 3
    if name == LARGE_PLACE:
        return edges * shape.rounds
    return batches if short in by_batch else replies if short in by_reply + by_write else 1


def _point(rng: random.Random, shape: Shape) -> list[Fault]:
    # A coordinator's death begins a training of processes anew, which says little: few of them.
    role = rng.choices(ROLES, (10, 7, 3, 1))[0]
    name = rng.choice([name for name in PLACES if name.startswith(f"{role}.")])
    fault = Fault("point", name, value=rng.randint(1, visits(name, shape)))
    if name in NEVER_UNDISTURBED or rng.random() < 0.1:  # the successor dies as well
        first = Fault("point", "aggregator.batch-sent", value=rng.randint(1, 2 * shape.rounds))
        return [first, fault]
    return [fault]


def _failing_sync(rng: random.Random, shape: Shape) -> list[Fault]:
    name, code = rng.choice(DISK_PLACES), rng.choice(("EIO", "ENOSPC"))
    times = rng.choice((1, 1, 3, 1000)) if code == "EIO" else rng.choice((1, 2, 3))  # room comes again
    how = f"{code} {times}"
    return [Fault("point", name, how, value=rng.randint(1, visits(name, shape)))]


# -- instants ------------------------------------------------------------------------------------------------


def _instant(rng: random.Random, shape: Shape) -> dict[str, Any]:
    return {"after_call": rng.randint(1, shape.calls), "after_seconds": round(rng.uniform(0.0, 0.12), 3)}


def _kill(rng: random.Random, shape: Shape) -> list[Fault]:
    return [Fault("kill", rng.choices(ROLES, (4, 4, 2, 1))[0], **_instant(rng, shape))]


def _stop(rng: random.Random, shape: Shape) -> list[Fault]:
    # gRPC takes a peer for dead after 30 s of silence; a heartbeat is due each 10 s.
    seconds, how = rng.choices(((1.0, ""), (35.0, ""), (8.0, "beyond the grace")), (4, 2, 1))[0]
    return [Fault("stop", rng.choices(ROLES, (3, 3, 1, 1))[0], how, value=seconds, **_instant(rng, shape))]


def _link(rng: random.Random, shape: Shape) -> list[Fault]:
    link = rng.choices(LINKS, (4, 1))[0]
    how = rng.choices(("cut", "cut-at-byte", "delay", "half-open", "forget", "double"), (3, 4, 2, 2, 1, 2))[0]
    if how == "cut-at-byte":
        return [
            Fault("link", link, how, value=rng.randint(1, shape.model_bytes * shape.edges * shape.rounds))
        ]
    value = {"delay": round(rng.uniform(0.01, 0.1), 3), "half-open": round(rng.uniform(0.5, 5.0), 2)}
    return [Fault("link", link, how, value=value.get(how, 0), **_instant(rng, shape))]


def _disk(rng: random.Random, shape: Shape) -> list[Fault]:
    role = rng.choice(("aggregator", "client"))
    return [Fault("disk", role, "full", value=rng.choice((0.5, 2.0, 6.0)), **_instant(rng, shape))]


def _clock(rng: random.Random, shape: Shape) -> list[Fault]:
    # A certificate must be good for both ends: whose clock is before the coordinator's finds none good yet.
    role = rng.choice(ROLES)
    hours = rng.uniform(1.0, 12.0) * (-1 if role == "coordinator" else 1)
    return [Fault("clock", role, value=round(hours * HOUR))]


Make = Callable[[random.Random, Shape], list[Fault]]

_KINDS: dict[Make, int] = {
    _point: 36, _kill: 20, _link: 20, _stop: 7, _failing_sync: 7, _disk: 5, _clock: 5,
}  # fmt: skip
"""What is drawn how often."""
