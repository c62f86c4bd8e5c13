"""Run every test that this machine can run, in parts, and say in one line each what is left out and why.

`make test` calls it. What needs nothing is shown as it runs, fast tests first, so that a mistake is seen
early. Beside it run the tests on a real API server and those on real clusters, which wait more than they
compute; they are shown afterwards. Where clusters can run, the programs that they need are made first if they
are not in the cache. In CI nothing may be left out: what cannot run is a failure. It refuses to know the
tests.

    .venv/bin/python tests/tools/run_tests.py [--clusters 1|0] [--torch 1|0] [ARGUMENTS FOR PYTEST...]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parents[2]
BUILD_MINUTES = 25
"""What building every program takes on two cores from nothing."""
SHOW_SECONDS = 1.0
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
    """What to do: the first part, and beside it the others in their order, for which programs may be made."""

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
    first, *others = todo.parts
    beside = Beside(others, further, make_programs=todo.make_programs)
    beside.start()
    results = [run(first, further)]
    results += beside.shown()
    print("\n".join(result.line for result in results))
    failed = next((result.status for result in results if result.status), 0)
    for line in todo.left_out:
        print(line)
    if todo.left_out and in_ci:
        print("In CI nothing may be left out.", file=sys.stderr)
        return failed or 1
    return failed


@dataclass(frozen=True)
class Result:
    """How a part went; status: pytest's, 0 also where nothing was chosen of it by further arguments."""

    title: str
    status: int
    minutes: float

    @property
    def line(self) -> str:
        """What is said of it at the end."""
        return f"{self.title}: {self.minutes:.1f} min{', failed' if self.status else ''}"


def run(part: Part, further: Sequence[str], out: IO[str] | None = None) -> Result:
    """Run one part to its end; out: where it writes, if not where everything else does."""
    print(f"--- {part.title}", file=out, flush=True)
    began = time.monotonic()
    status = subprocess.run(
        [sys.executable, "-m", "pytest", *part.arguments, *further],
        cwd=ROOT,
        stdout=out,
        stderr=out and subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ).returncode
    nothing = status == NOTHING_SELECTED and further
    return Result(part.title, 0 if nothing else status, (time.monotonic() - began) / 60)


class Beside(threading.Thread):
    """The parts that mostly wait, for a kubelet say, while the first part keeps the processors busy.

    What they write is kept until the first part is over, and then shown as it comes.
    """

    def __init__(self, parts: Sequence[Part], further: Sequence[str], *, make_programs: bool) -> None:
        """Run these parts one after the other; make_programs: before the first."""
        super().__init__(daemon=True)
        self._parts, self._further, self._make_programs = parts, further, make_programs
        self._results: list[Result] = []
        self._out = tempfile.TemporaryFile("w+", prefix="hanse-tests-")  # noqa: SIM115  (`shown` closes it)

    def run(self) -> None:
        """Do it."""
        if self._make_programs and not make_programs(self._out):
            self._results.append(Result("the programs of a cluster", 1, 0.0))
            return
        for part in self._parts:
            self._results.append(run(part, self._further, self._out))

    def shown(self) -> list[Result]:
        """Show what was and is being written until all parts are over, and return how they went."""
        place, running = 0, True
        while running:
            self.join(SHOW_SECONDS)
            running = self.is_alive()
            while text := os.pread(self._out.fileno(), 1 << 20, place):
                place += len(text)
                sys.stdout.buffer.write(text)
            sys.stdout.flush()
        self._out.close()
        if len(self._results) < len(self._parts) and not any(result.status for result in self._results):
            self._results.append(Result("what runs beside it broke off", 1, 0.0))
        return self._results


def make_programs(out: IO[str]) -> bool:
    """Download or build a lab's programs, with a line of progress now and then; whether they are there."""
    from simulations.lab import programs, releases

    began = time.monotonic()

    def say(line: str) -> None:
        print(f"  {time.monotonic() - began:6.0f} s  {line}", file=out, flush=True)

    print(
        f"--- the programs of a cluster, once, in up to {BUILD_MINUTES} minutes: they stay in the cache "
        "(CLUSTERS=0 does without)",
        file=out,
        flush=True,
    )
    try:
        for minor in releases.KUBERNETES:
            programs.ensure(minor, say)
    except programs.ProgramsMissing as error:
        print(f"{error} To do without clusters: make test CLUSTERS=0", file=out, flush=True)
        return False
    return True


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
