"""Run every test that this machine can run, in parts, and say in one line each what is left out and why.

`make test` calls it. What is fast and needs nothing comes first, so that a mistake is seen early; then the
tests on a real API server, then those on real clusters, which have the machine to themselves. Where clusters
can run, the programs that they need are made first if they are not in the cache. In CI nothing may be left
out: what cannot run is a failure. It refuses to know the tests.

    .venv/bin/python tests/tools/run_tests.py [--clusters 1|0] [--torch 1|0] [ARGUMENTS FOR PYTEST...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_MINUTES = 25
"""What building every program takes on two cores from nothing."""
NOTHING_SELECTED = 5
"""pytest's exit status where no test was chosen."""


@dataclass(frozen=True)
class Part:
    """One call of pytest."""

    title: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What this machine can do. Each sentence says why not, and is empty where it can."""

    no_api_server: str = ""
    no_lab: str = ""
    lacking: tuple[str, ...] = ()
    """Programs of a lab that would have to be made first."""
    lacking_before: tuple[str, ...] = ()
    """Those of the older of the two minors of Kubernetes, which one test needs."""


@dataclass(frozen=True)
class Plan:
    """What to do, in this order: the parts, with the programs made before the first that needs them."""

    parts: tuple[Part, ...]
    make_programs: bool = False
    left_out: tuple[str, ...] = ()


FAST = ("tests/unit", "tests/contract", "tests/golden", "tests/loopback")
APART = "tests/cluster/federation"


def everything_else() -> tuple[str, ...]:
    """The directories with tests, fast ones first, without those of clusters."""
    others = sorted(
        f"tests/{each.name}"
        for each in (ROOT / "tests").iterdir()
        if each.is_dir() and any(each.rglob("test_*.py"))
    )
    return (*FAST, *(each for each in others if each not in (*FAST, "tests/cluster")))


def plan(found: Findings, *, clusters: str = "", torch: bool = False, in_ci: bool = False) -> Plan:
    """What of the tests runs on such a machine.

    clusters: "0" leaves clusters out; "1" makes the programs that are not there also where no cluster can
        run, for the tests on an API server; else they are made where clusters can run.
    torch: also those in whose pods torch runs; make runs, and counts as left out, the others that need it.
    """
    places = everything_else()
    first = Part("tests without clusters", ("-m", "not torch and not controlplane and not cluster", *places))
    server = Part("tests on a real API server", ("-m", "controlplane and not torch", *places))
    # Two calls, so that the first one's clusters are down before the second's come up.
    labs = (
        Part("tests on real clusters", ("tests/cluster", f"--ignore={APART}")),
        Part("tests of federations on real clusters", (*(() if torch else ("-m", "not torch")), APART)),
    )
    before = () if found.no_lab else found.lacking_before
    wanted = in_ci or clusters == "1" or (clusters != "0" and not found.no_lab)
    make_programs = bool(found.lacking or before) and wanted
    lacking = "" if make_programs or not found.lacking else too_slow(found.lacking)
    parts: list[Part] = [first]
    reasons: dict[str, str] = {}
    if make_programs or not found.no_api_server:
        parts.append(server)
    else:
        reasons["controlplane"] = lacking or found.no_api_server
    not_wanted = "CLUSTERS=0 was given. To include them: make test" if clusters == "0" and not in_ci else ""
    if why := found.no_lab or not_wanted:
        reasons["cluster"] = why
    else:
        parts += labs
    left_out = []
    for why in dict.fromkeys(reasons.values()):
        marked = " and ".join(name for name, reason in reasons.items() if reason == why)
        left_out.append(f"Left out: the tests marked {marked}, for {why}")
    return Plan(tuple(parts), make_programs, tuple(left_out))


def too_slow(lacking: Sequence[str]) -> str:
    """Why programs are not made unasked where no cluster can run or none is wanted, and how to ask."""
    return (
        f"{len(lacking)} programs of a cluster are not in the cache and making them may take "
        f"{BUILD_MINUTES} minutes. To include them: make test CLUSTERS=1"
    )


def look() -> Findings:
    """Ask this machine; makes nothing."""
    from simulations.lab import choose, port, programs, releases
    from tests.fakes import controlplane

    try:
        choose.provider(choose.look(), None)
        no_lab = ""
    except port.LabError as error:
        no_lab = str(error)
    try:
        lacking, before = map(programs.lacking, releases.KUBERNETES)
    except programs.ProgramsMissing as error:
        lacking, before, no_lab = (), (), no_lab or str(error).rstrip(".")
    return Findings(controlplane.missing(), no_lab, lacking, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every part, so that one that fails hides nothing of the others; the exit status of the first that
    fails, and 1 where CI would leave something out.
    """
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--clusters", choices=("", "0", "1"), default="")
    parser.add_argument("--torch", choices=("0", "1"), default="0")
    options, further = parser.parse_known_args(arguments)
    in_ci = os.environ.get("CI") in {"true", "1"}
    todo = plan(look(), clusters=options.clusters, torch=options.torch == "1", in_ci=in_ci)
    took, failed = [], 0
    for number, part in enumerate(todo.parts):
        if number == 1 and todo.make_programs and not make_programs():
            return 1
        print(f"--- {part.title}", flush=True)
        began = time.monotonic()
        status = subprocess.run(
            [sys.executable, "-m", "pytest", *part.arguments, *further], cwd=ROOT
        ).returncode
        took.append(f"{part.title}: {(time.monotonic() - began) / 60:.1f} min")
        if status and not (status == NOTHING_SELECTED and further):
            failed = failed or status
            took[-1] += ", failed"
    print("\n".join(took))
    for line in todo.left_out:
        print(line)
    if todo.left_out and in_ci:
        print("In CI nothing may be left out.", file=sys.stderr)
        return failed or 1
    return failed


def make_programs() -> bool:
    """Download or build a lab's programs, with a line of progress now and then; whether they are there."""
    from simulations.lab import programs, releases

    began = time.monotonic()

    def say(line: str) -> None:
        print(f"  {time.monotonic() - began:6.0f} s  {line}", flush=True)

    print(
        f"--- the programs of a cluster, once, in up to {BUILD_MINUTES} minutes: they stay in the cache "
        "(CLUSTERS=0 does without)",
        flush=True,
    )
    try:
        for minor in releases.KUBERNETES:
            programs.ensure(minor, say)
    except programs.ProgramsMissing as error:
        print(f"{error} To do without clusters: make test CLUSTERS=0", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
