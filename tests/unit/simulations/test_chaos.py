"""The chaos harness itself: what a seed draws, and that a loss would be seen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from federation.runtime import failpoints
from simulations.chaos import faults, judging, report, scenario

SHAPE = faults.Shape(2, 1, 100)
CALLS = ["edge-1 evaluate-1 1", "edge-1 train-1 0", "edge-2 evaluate-1 1", "edge-2 train-1 0"]
MODEL = b"the model"


def test_a_seed_draws_the_same_each_time() -> None:
    """The one command that repeats a failure repeats its faults."""
    assert [faults.draw(seed) for seed in range(200)] == [faults.draw(seed) for seed in range(200)]


def test_every_place_and_every_kind_of_fault_is_drawn() -> None:
    """Nothing that the harness knows is never tried."""
    drawn = [fault for seed in range(6000) for fault in faults.draw(seed).faults]
    assert {fault.target for fault in drawn if fault.kind == "point"} == set(faults.PLACES)
    assert set(failpoints.NAMES) - set(faults.PLACES) == {"aggregator.journal-cut"}
    assert {fault.kind for fault in drawn} == {"point", "kill", "stop", "link", "disk", "clock"}
    assert {fault.target for fault in drawn if fault.kind in ("kill", "stop", "clock")} == set(faults.ROLES)
    assert {fault.target for fault in drawn if fault.how.startswith(("EIO", "ENOSPC"))} == set(
        faults.DISK_PLACES
    )


def test_snapshots_are_taken_where_a_fault_needs_them_and_elsewhere() -> None:
    """In a share of the runs; always the same ones."""
    plans = [faults.draw(seed) for seed in range(2000)]
    need = [any("snapshot" in fault.target for fault in plan.faults) for plan in plans]
    assert all(plan.snapshots for plan, needs in zip(plans, need, strict=True) if needs)
    others = [plan.snapshots for plan, needs in zip(plans, need, strict=True) if not needs]
    assert 0.25 < sum(others) / len(others) < 0.35


def test_no_disk_is_filled_where_none_can_be_made() -> None:
    """Without root the other faults are drawn instead."""
    assert not [f for seed in range(500) for f in faults.draw(seed, disks=False).faults if f.kind == "disk"]


@pytest.fixture
def places(tmp_path: Path) -> scenario.Places:
    """What an undisturbed run leaves."""
    places = scenario.Places(tmp_path)
    for directory in (places.failpoints, places.logs, places.models):
        directory.mkdir()
    (places.models / "model.safetensors").write_bytes(MODEL)
    (places.models / "card.json").write_text(json.dumps({"metrics": [{"round": 1}]}))
    places.calls.write_text("".join(f"{line}\n" for line in CALLS))
    for edge in ("edge-1", "edge-2"):
        started(places, edge, 1)
    return places


def started(places: scenario.Places, edge: str, number: int) -> None:
    (places.logs / f"{edge}.log").write_text('{"event": "client started"}\n' * number)


def ended(places: scenario.Places, **changes: Any) -> dict[str, Any]:
    uri = places.models.as_uri()
    digest = hashlib.sha256(MODEL).hexdigest()
    return {"phase": "Completed", "model": {"sha256": digest, "uri": uri, "round": 1}} | changes


def failed(reason: str) -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", "reason": reason, "message": "It is over."}
    return {"phase": "Failed", "conditions": [condition]}


def judged(
    places: scenario.Places,
    *injuries: faults.Fault,
    status: dict[str, Any] | None = None,
    restarts: dict[str, int] | None = None,
) -> judging.Result:
    want = judging.Reference(hashlib.sha256(MODEL).hexdigest(), [{"round": 1}], CALLS)
    seen = judging.Seen(status or ended(places), [], restarts or {}, [], 1.0)
    return judging.judge(places, faults.Plan(1, SHAPE, injuries), seen, want)


def test_an_undisturbed_run_is_the_reference(places: scenario.Places) -> None:
    """Nothing is wrong with it."""
    result = judged(places)
    assert (result.ended, result.wrong, result.redone) == (judging.REFERENCE, "", 0)


def test_another_model_or_other_metrics_are_seen(places: scenario.Places) -> None:
    """To the bit, and in the file, not only in what the status says of it."""
    (places.models / "card.json").write_text(json.dumps({"metrics": [{"round": 2}]}))
    assert "metrics" in judged(places).wrong
    (places.models / "model.safetensors").write_bytes(b"another")
    assert "model" in judged(places).wrong


def test_a_lost_call_is_seen(places: scenario.Places) -> None:
    """Also where the model happens to be the same."""
    places.calls.write_text("".join(f"{line}\n" for line in CALLS[1:]))
    assert "other calls" in judged(places).wrong


ASKED, KEPT = "app is asked", "answer kept"


@pytest.mark.parametrize(
    ("starts", "said", "want"),
    [
        pytest.param(1, (), 1, id="no client died, so what was done again had finished"),
        pytest.param(2, ((ASKED, "m1"), (ASKED, "m1"), (KEPT, "m1")), 0, id="died with it in hand"),
        pytest.param(
            2,
            ((ASKED, "m1"), (KEPT, "m1"), (ASKED, "m2"), (ASKED, "m2"), (KEPT, "m2")),
            0,
            id="died with another one in hand, of which nothing was kept",
        ),
        pytest.param(2, ((ASKED, "m1"), (KEPT, "m1"), (ASKED, "m1")), 1, id="died when it was kept"),
    ],
)
def test_finished_work_that_is_redone_is_seen(
    places: scenario.Places, starts: int, said: tuple[tuple[str, str], ...], want: int
) -> None:
    """A death excuses the one call in hand, unless its answer was kept; which message it was decides."""
    places.calls.write_text(places.calls.read_text() + CALLS[0] + "\n")
    started(places, "edge-1", starts)
    log = places.edge("edge-1") / "state" / "logs" / "client-chaos.log"
    log.parent.mkdir(parents=True)
    lines = [json.dumps({"event": event, "message_id": message}) for event, message in said]
    log.write_text("\n".join(["the app prints", *lines, '{"event": "app is as']))
    result = judged(places)
    assert (result.redone, result.finished, bool(result.wrong)) == (1, want, bool(want))


def logged(places: scenario.Places, edge: str, *said: tuple[str, str]) -> None:
    log = places.edge(edge) / "state" / "logs" / "client-chaos.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("\n".join(json.dumps({"event": event, "message_id": key}) for event, key in said))


def test_what_a_training_does_that_begins_anew_is_counted_apart(places: scenario.Places) -> None:
    """All its calls are made again, under other ids; what was finished under the same id is not excused."""
    coordinator = faults.Fault("kill", "coordinator")
    places.calls.write_text(places.calls.read_text() + CALLS[0] + "\n" + CALLS[1] + "\n")
    logged(places, "edge-1", (ASKED, "a-1"), (KEPT, "a-1"), (ASKED, "b-1"), (KEPT, "b-1"))
    result = judged(places, coordinator, restarts={"coordinator": 1})
    assert (result.redone, result.anew, result.finished, result.wrong) == (2, 2, 0, "")
    logged(places, "edge-1", (ASKED, "a-1"), (KEPT, "a-1"), (ASKED, "a-1"))
    result = judged(places, coordinator, restarts={"coordinator": 1})
    assert (result.redone, result.anew, result.finished, bool(result.wrong)) == (2, 1, 1, True)
    logged(places, "edge-1")
    assert judged(places, coordinator).finished == 2, "it was over before the coordinator died"


def test_a_failing_disk_excuses_its_own_edge(places: scenario.Places) -> None:
    """The other one is judged as always."""
    disk = faults.Fault("point", "client.keep-sync", "EIO 3", value=1)
    logged(places, "edge-1", ("reply not kept", "m1"))
    first = places.calls.read_text()
    places.calls.write_text(first + "edge-1 train-1 0\n")
    assert (judged(places, disk).redone, judged(places, disk).finished) == (1, 0)
    places.calls.write_text(first + "edge-2 train-1 0\n")
    assert (judged(places, disk).redone, judged(places, disk).finished) == (1, 1)


def test_a_reason_counts_only_where_it_is_documented(places: scenario.Places) -> None:
    """A disk that fails may end a training; one that is full for a while, or a killed aggregator, may not."""
    broken = faults.Fault("point", "aggregator.journal-sync", "EIO 1", value=1)
    status = failed("StorageUnavailable")
    assert judged(places, broken, status=status).ended == "StorageUnavailable"
    for fault in (faults.Fault("disk", "aggregator", "full"), faults.Fault("kill", "aggregator")):
        assert judged(places, fault, status=status).wrong


def test_the_report_counts_and_says_how_to_repeat(places: scenario.Places) -> None:
    """A failure is named by its seed."""
    good = judged(places)
    bad = dataclasses.replace(good, seed=17, ended="", wrong="another model", hit=["client.reply-begins"])
    found = report.summary([good, bad])
    assert (found["runs"], found["reference"], found["places"]["died_at"]) == (
        2,
        1,
        {"client.reply-begins": 1},
    )
    table = report.table(found)
    assert 'make chaos ARGS="--seed 17 --runs 1"' in table
    assert {"redone", "redone_anew", "redone_finished", "snapshots"} <= found.keys()
    for words in (
        "made again, unfinished",
        "made again as the training began anew",
        "made again though finished",
    ):
        assert words in table
