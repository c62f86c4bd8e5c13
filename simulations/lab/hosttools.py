"""Host tools that a lab needs beside Kubernetes: this machine's own, or unpacked Debian packages.

Why it exists: iptables, nft, conntrack and runc are missing on many machines, and a lab should change nothing
on the one it runs on. An unpacked tool gets a small launcher that names its libraries, so that its caller
needs no environment of its own. It refuses to know what the tools are used for.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from simulations.lab import cache, debian
from simulations.lab.releases import HostTools

PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where system tools are, also for users whose PATH has no sbin."""

PRESENT = (
    "libc6",
    "libgcc-s1",
    "gcc-12-base",
    "dpkg",
    "tar",
    "debconf",
    "cdebconf",
    "install-info",
    "netbase",
)
"""What tools depend on that every machine has, or that unpacked files do not need."""


def on_machine(name: str, path: str) -> Path | None:
    """The tool of this name in PATH or where system tools are."""
    found = shutil.which(name, path=f"{path}:{PLACES}")
    return None if found is None else Path(found)


def unpack(wanted: Iterable[HostTools], root: Path, on_progress: cache.Progress) -> dict[str, Path]:
    """Launchers of these tools, from Debian packages unpacked into the cache; the caller holds its lock.

    Raises: debian.PackagesMissing.
    """
    tools = list(wanted)
    found: dict[str, Path] = {}
    for each in tools:
        home = root / f"host-{each.package}"
        if not (home / "bin").is_dir():
            on_progress(f"unpacking {each.package} from this machine's package sources")
            packages = debian.closure([each.package], PRESENT, root / "apt")
            with cache.new_directory(home) as partial:
                debian.unpack(debian.download(packages, partial / "packages", root / "apt"), partial / "root")
                shutil.rmtree(partial / "packages")
                (partial / "bin").mkdir()
                for name in each.names:
                    _launcher(name, home, partial)
        for name in each.names:
            if (home / "bin" / name).exists():
                found[name] = home / "bin" / name
    return found


def launcher(program: Path, libraries: Iterable[Path], plugins: Path | None) -> str:
    """The shell script that starts `program` with its own libraries."""
    lines = ["#!/bin/sh", "# Made by the lab: runs a tool that is unpacked here and not installed."]
    directories = ":".join(map(str, libraries))
    lines.append(
        f'export LD_LIBRARY_PATH={shlex.quote(directories)}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"'
    )
    if plugins is not None:
        lines.append(f"export XTABLES_LIBDIR={shlex.quote(str(plugins))}")
    lines.append(f'exec {shlex.quote(str(program))} "$@"')
    return "\n".join(lines) + "\n"


def _launcher(name: str, home: Path, partial: Path) -> None:
    """Write bin/NAME for a tool in partial/root; its paths are those of `home`, which `partial` becomes."""
    # The package's own name where a system would choose between alternatives: iptables is xtables-nft-multi.
    for candidate in (name, name.replace("tables", "tables-nft", 1)):
        for place in ("usr/sbin", "usr/bin", "sbin", "bin"):
            program = partial / "root" / place / candidate
            if program.exists() or program.is_symlink():
                break
        else:
            continue
        break
    else:
        return
    root = partial / "root"
    libraries = sorted(
        {path.parent for kind in ("lib", "usr/lib") for path in root.glob(f"{kind}/*-linux-gnu*/*.so*")}
    )
    plugins = next((path.parent for path in root.glob("usr/lib/*-linux-gnu*/xtables/libxt_*.so")), None)
    moved = [home / path.relative_to(partial) for path in libraries]
    path = partial / "bin" / name
    path.write_text(
        launcher(
            home / program.relative_to(partial),
            moved,
            None if plugins is None else home / plugins.relative_to(partial),
        )
    )
    path.chmod(0o755)


def answers(tool: Path) -> bool:
    """Whether the tool starts at all, with the libraries that it finds."""
    try:
        done = subprocess.run(
            [tool, "--version"],
            capture_output=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            env=dict(os.environ),
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
