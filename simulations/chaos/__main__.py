"""`python -m simulations.chaos`: many federations, each injured as its seed says; exits with 1 if one failed.

On standard error a line for each run and the counts; with `-o json` one object on standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

from simulations.chaos import disks, faults, judging, report, running

RUNS = 500
JOBS = 4
MAXIMUM_JOBS = 60
DIRECTORY = Path(__file__).resolve().parents[2] / "chaos-results"


def main() -> int:
    """Read the arguments and run; the process's exit status."""
    arguments = _arguments()
    has_disks = disks.available()
    if not has_disks:
        _say("no disks are filled: making small ones needs root")
    seeds = range(arguments.seed, arguments.seed + arguments.runs)
    plans = [faults.draw(seed, disks=has_disks) for seed in seeds]
    if arguments.dry_run:
        for plan in plans:
            _say(f"seed {plan.seed}: {plan}")
        return 0
    results: list[judging.Result] = []

    def done(result: judging.Result) -> None:
        results.append(result)
        _say(f"{len(results)}/{len(plans)} {report.line(result)}")

    runner = running.Runner(arguments.keep, is_kept=arguments.keep_all)
    ends_at = time.monotonic() + 60 * arguments.minutes
    try:
        asyncio.run(runner.all(plans, jobs=arguments.jobs, ends_at=ends_at, on_result=done))
    except running.NoReference as error:
        _say(f"chaos: {error}")
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
    found = report.summary(results)
    _say(report.table(found))
    with contextlib.suppress(OSError):
        arguments.keep.rmdir()
    if arguments.output == "json":
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 1 if found["failures"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos", description="Injure federations, and see whether they end with the same model."
    )
    parser.add_argument("--seed", type=int, default=1, help="the first run's seed (default 1)")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"how many seeds, at most (default {RUNS})")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"how many at the same time (default {JOBS})")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no further run after so long")
    parser.add_argument(
        "--keep", type=Path, default=DIRECTORY, help="where failed runs stay, keys included (chaos-results)"
    )
    parser.add_argument("--keep-all", action="store_true", help="keep also what runs left that did not fail")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done to which run")
    parser.add_argument("-o", dest="output", choices=("json",), help="one object on standard output")
    arguments = parser.parse_args()
    if arguments.runs < 1 or not 1 <= arguments.jobs <= MAXIMUM_JOBS:
        parser.error(f"--runs begins with 1, and --jobs goes from 1 to {MAXIMUM_JOBS}")
    arguments.keep = arguments.keep.absolute()
    return arguments


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
