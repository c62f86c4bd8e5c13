"""Which changes of a training's status become Events, and in which words."""

from typing import Any

import pytest

from coordinator.planning import history, news


def status(
    phase: str, *clusters: tuple[str, ...], quorum: str = "True", more: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A status in short: a phase and clusters by name, state, reason and message; more conditions."""
    kinds = ("Accepted", "QuorumReached", "Running", "Completed", "Failed", "Suspended", "Stopped", *more)
    return {
        "phase": phase,
        "clusters": [
            dict(zip(("name", "state", "reason", "message"), entry, strict=False)) for entry in clusters
        ],
        "conditions": [
            {"type": kind, "status": quorum if kind == "QuorumReached" else "True", "reason": kind,
             "message": f"{kind} it is."}
            for kind in kinds
        ],
    }  # fmt: skip


BUSY = status("Running", ("zurich", "Training"))
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "the first look": ({}, status("Waiting", ("zurich", "Excluded", "NotConnected", "No link.")),
                       ["Normal QuorumReached: QuorumReached it is."]),
    "a round goes on": (BUSY, status("Running", ("zurich", "Reported")), []),
    "refused": (status("Waiting", ("zurich", "Selected")),
                status("Waiting", ("zurich", "Refused", "PolicyDenied", "Rule x says no.")),
                ["Warning ClusterRefused: zurich refuses the training (PolicyDenied): Rule x says no."]),
    "lost": (BUSY, status("Running", ("zurich", "Lost", "LinkLost", "Its link broke.")),
             ["Warning ClusterLost: zurich is lost (LinkLost): Its link broke."]),
    "still lost, other words": (status("Running", ("zurich", "Lost", "LinkLost", "1 s")),
                                status("Running", ("zurich", "Lost", "LinkLost", "2 s")), []),
    "back": (status("Running", ("zurich", "Lost", "LinkLost")), BUSY,
             ["Normal ClusterBack: zurich is back and takes part."]),
    "expelled": (BUSY, status("Running", ("zurich", "Left", "Expelled", "It was expelled.")),
                 ["Warning ClusterLeft: zurich has left (Expelled): It was expelled."]),
    "deleted": (BUSY, status("Running"),
                ["Warning ClusterLeft: zurich is no member of the federation any more."]),
    "waits for approval": (status("Waiting", ("zurich", "Selected")),
                           status("Waiting", ("zurich", "Waiting", "ApprovalNeeded", "Ask its owner.")),
                           ["Normal ClusterWaits: zurich waits (ApprovalNeeded): Ask its owner."]),
    "comes late": (status("Running", ("zurich", "Excluded", "NotConnected")), BUSY,
                   ["Normal ClusterTakesPart: zurich takes part from now on."]),
    "comes in time": (status("Preparing", ("zurich", "Selected")),
                      status("Preparing", ("zurich", "Preparing")), []),
    "quorum lost in a round": (BUSY, status("Running", ("zurich", "Training"), quorum="False"),
                               ["Warning QuorumReached: QuorumReached it is."]),
    "did something else when it was run again": (
        BUSY, status("Running", ("zurich", "Training"), more=("Diverged",)),
        ["Warning Diverged: Diverged it is."]),
    "has done so before": (status("Running", more=("Diverged",)), status("Running", more=("Diverged",)), []),
    "another app in the source": (
        BUSY, {**BUSY, "conditions": [{"type": "Accepted", "status": "True", "reason": "AppChanged",
                                       "message": "It goes on."}, *BUSY["conditions"][1:]]},
        ["Warning AppChanged: It goes on."]),
    "failed": (BUSY, status("Failed", ("zurich", "Completed")), ["Warning Failed: Failed it is."]),
    "stopped": (BUSY, status("Stopped", ("zurich", "Completed")), ["Normal Stopped: Stopped it is."]),
}  # fmt: skip


@pytest.mark.parametrize(("before", "now", "want"), CASES.values(), ids=CASES)
def test_what_happened(before: dict[str, Any], now: dict[str, Any], want: list[str]) -> None:
    """Each case: two statuses, and the Events between them."""
    found = [
        f"{'Warning' if one.warning else 'Normal'} {one.reason}: {one.message}"
        for one in news.between(before, now)
    ]
    assert found == want
    assert news.between(now, now) == ()


def finished(name: str, ended_at: str, namespace: str = "a", type_: str = "Completed") -> dict[str, Any]:
    """A training that is over."""
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "status": {"completedAt": ended_at, "conditions": [{"type": type_, "status": "True"}]},
    }


HERE = [
    finished("third", "2026-01-03T00:00:00Z"),
    finished("first", "2026-01-01T00:00:00Z", type_="Stopped"),
    finished("second", "2026-01-02T00:00:00Z", type_="Failed"),
    finished("elsewhere", "2025-01-01T00:00:00Z", "b"),
    {"metadata": {"name": "runs", "namespace": "a", "uid": "runs"}, "status": {"phase": "Running"}},
]
KEPT: dict[str, tuple[int | None, list[str]]] = {
    "no limit": (None, []),
    "enough room": (3, []),
    "one too many": (2, ["first"]),
    "none stays": (0, ["first", "second", "third", "elsewhere"]),
}


@pytest.mark.parametrize(("kept", "want"), KEPT.values(), ids=KEPT)
def test_the_oldest_go_first(kept: int | None, want: list[str]) -> None:
    """Each namespace keeps its latest; what runs is never deleted."""
    assert [name for _, name in history.surplus(HERE, kept)] == want
