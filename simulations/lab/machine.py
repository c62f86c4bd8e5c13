"""What this machine can do, as checks that each say what was found and what to do about it.

Why it exists: who tries Hanse wants to know before a long command whether it can work here. Everything is
asked, nothing is made or changed. Judging is pure; `look` alone asks the machine.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulations.lab import cache, choose, port, programs, releases, state
from simulations.lab.bare import provider, system

PROCESSES, CLUSTERS = "hanse simulate", "hanse lab, and simulate --on"
PROCESSES_BYTES = 64 * 1024**2
CLUSTER_BYTES = int(1.5 * 1024**3)
"""One cluster of a lab with Hanse's images in it."""
CLUSTERS_OF_A_LAB = 4
"""A hub and three edges, as `hanse lab up` makes them."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    wanted_for: str
    """The commands that need it."""
    well: bool
    found: str
    to_do: str = ""
    """What to do, in one sentence; empty where all is well."""


def look(variables: Mapping[str, str] = os.environ) -> list[Check]:
    """Ask this machine."""
    checks = [
        python(sys.version_info[:3]),
        disk("temporary files", PROCESSES, PROCESSES_BYTES, Path(tempfile.gettempdir())),
    ]
    checks += providers(choose.look().missing)
    try:
        checks.append(lab_programs(programs.lacking(releases.NEWEST, variables=variables)))
    except programs.ProgramsMissing as error:
        checks.append(Check("programs", CLUSTERS, False, "none", str(error)))
    room = CLUSTER_BYTES * CLUSTERS_OF_A_LAB
    checks.append(disk("the lab's cache", CLUSTERS, CLUSTER_BYTES, cache.directory(variables)))
    checks.append(disk("clusters", CLUSTERS, room, state.home(variables)))
    if platform.system() == "Linux":
        wanted = provider.INOTIFY_INSTANCES * CLUSTERS_OF_A_LAB
        checks.append(inotify(system.inotify_room(wanted), system.inotify_limit()))
    return checks


def python(version: Sequence[int]) -> Check:
    """Hanse runs on 3.11 and newer."""
    text = ".".join(map(str, version))
    to_do = "" if tuple(version) >= (3, 11) else "install Python 3.11 or newer"
    return Check("Python", PROCESSES, not to_do, text, to_do)


def providers(missing: Mapping[port.Provider, str]) -> list[Check]:
    """One provider is enough; where there is one, the other's absence is no trouble."""
    works = [each for each in missing if not missing[each]]
    if works:
        others = [f"{each} does not: {missing[each]}" for each in missing if missing[each]]
        found = "; ".join([f"{' and '.join(works)} can make labs", *others])
        return [Check("lab", CLUSTERS, True, found)]
    found = "neither kind nor bare can make a lab"
    return [Check("lab", CLUSTERS, False, found, "; or: ".join(missing[each] for each in missing))]


def lab_programs(lacking: Sequence[str]) -> Check:
    """Kubernetes and what it needs; they are made when they are first wanted."""
    if not lacking:
        return Check("programs", CLUSTERS, True, f"those of Kubernetes {releases.NEWEST} are in the cache")
    to_do = (
        "nothing: the first `hanse lab up` downloads them, or builds them in up to 25 minutes on two cores"
    )
    return Check("programs", CLUSTERS, True, f"not in the cache: {' '.join(lacking)}", to_do)


def disk(what: str, wanted_for: str, wanted: int, directory: Path) -> Check:
    """Room for something, where its nearest directory lies."""
    there = next(each for each in (directory, *directory.parents) if each.is_dir())
    free = shutil.disk_usage(there).free
    to_do = "" if free >= wanted else f"make room below {there}: {wanted / 2**30:.1f} GiB are wanted"
    return Check(
        f"disk for {what}", wanted_for, not to_do, f"{free / 2**30:.1f} GiB free at {directory}", to_do
    )


def inotify(room: int, limit: int) -> Check:
    """Kubelets watch files; a user may have only so many watchers."""
    to_do = provider.too_few_instances(room, CLUSTERS_OF_A_LAB, limit)
    found = f"enough for a hub and three edges, of {limit}" if not to_do else f"{room} left of {limit}"
    return Check("inotify", CLUSTERS, not to_do, found, to_do)
