"""What many runs say together: counts for people, and one object for machines."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from federation.runtime import failpoints
from simulations.chaos import faults, judging


def summary(results: Sequence[judging.Result]) -> dict[str, Any]:
    """Return the object of `-o json`.

    Keys: runs; reference (ended with the model of an undisturbed run); reasons (documented ones, with
    counts); failures (seed, faults, why, command); faults (struck, by kind); missed (runs that were over
    before); snapshots (runs that had some); places (known, passed, died_at with counts); restarts (by
    process); redone (calls made again), redone_anew (of those since a training began anew), redone_finished
    (of those that had finished); seconds; results.
    """
    ended = collections.Counter(result.ended for result in results if not result.wrong)
    struck = collections.Counter(_kind(one) for result in results for one in result.hit)
    died_at = collections.Counter(one for result in results for one in result.hit if one in failpoints.NAMES)
    passed = {name for result in results for name in result.visited}
    restarts: collections.Counter[str] = collections.Counter()
    for result in results:
        restarts.update(result.restarts)
    return {
        "runs": len(results),
        "reference": ended.pop(judging.REFERENCE, 0),
        "reasons": dict(sorted(ended.items())),
        "failures": [
            {"seed": one.seed, "faults": one.faults, "why": one.wrong, "command": command(one.seed)}
            for one in results
            if one.wrong
        ],
        "faults": dict(sorted(struck.items())),
        "missed": sum(not result.hit for result in results),
        "snapshots": sum(result.snapshots for result in results),
        "places": {
            "known": len(faults.PLACES),
            "passed": len(passed),
            "died_at": dict(sorted(died_at.items())),
        },
        "restarts": dict(sorted(restarts.items())),
        "redone": sum(result.redone for result in results),
        "redone_anew": sum(result.anew for result in results),
        "redone_finished": sum(result.finished for result in results),
        "seconds": round(sum(result.seconds for result in results), 1),
        "results": [dataclasses.asdict(result) for result in results],
    }


def command(seed: int) -> str:
    """Return what repeats the run of a seed."""
    return f'make chaos ARGS="--seed {seed} --runs 1"'


def line(result: judging.Result) -> str:
    """Return one run as a line."""
    said = f"FAILED: {result.wrong}" if result.wrong else result.ended
    how = faults.described(result.faults, snapshots=result.snapshots)
    return f"seed {result.seed}: {said} ({result.seconds:.1f} s; {how})"


def table(found: dict[str, Any]) -> str:
    """Return the counts as a table for people."""
    places = found["places"]
    rows = [
        ("runs", found["runs"]),
        ("ended with the model of an undisturbed run", found["reference"]),
        *((f"ended with the documented reason {name}", number) for name, number in found["reasons"].items()),
        ("failed", len(found["failures"])),
        ("faults that struck", sum(found["faults"].values())),
        *((f"  {name}", number) for name, number in found["faults"].items()),
        ("runs that were over before their faults", found["missed"]),
        ("runs with snapshots", found["snapshots"]),
        ("named places", places["known"]),
        ("  passed", places["passed"]),
        ("  died or failed at", len(places["died_at"])),
        *((f"{name} started again", number) for name, number in found["restarts"].items()),
        (
            "calls of apps made again, unfinished",
            found["redone"] - found["redone_anew"] - found["redone_finished"],
        ),
        ("calls of apps made again as the training began anew", found["redone_anew"]),
        ("calls of apps made again though finished", found["redone_finished"]),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {number:>6}" for name, number in rows]
    for failure in found["failures"]:
        lines += [f"seed {failure['seed']} failed: {failure['why']}", f"  again: {failure['command']}"]
    return "\n".join(lines)


def _kind(struck: str) -> str:
    """Return the group that a fault which struck counts in."""
    if struck in failpoints.NAMES:
        return f"at a place of the {struck.partition('.')[0]}"
    words = struck.split()
    return " ".join(words[:3]) if words[0] == "link" else " ".join(words[:2])
