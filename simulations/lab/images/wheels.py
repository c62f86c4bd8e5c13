"""Install locked Python packages into a directory, for the Python of the image.

Why it exists: the image's packages are those of requirements/, checked by hash, whatever Python builds the
image. It refuses to know what is done with the directory.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from simulations.lab import cache

_PLATFORMS = {"x86_64": "x86_64-manylinux_2_31", "aarch64": "aarch64-manylinux_2_31"}
_SOURCES = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}


class WheelsMissing(Exception):
    """The packages could not be installed; the text is a sentence."""


def install(lock: str, directory: Path, python: str, on_progress: cache.Progress) -> None:
    """Install a lock file's packages, for Python `python` (as `3.11`), into `directory`.

    Raises: WheelsMissing.
    """
    said = ""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "lock.txt"
        file.write_text(lock)
        for command in _installers(directory, python):
            done = subprocess.run(
                [*command, "--require-hashes", "-r", str(file)],
                env=_sources(os.environ),
                capture_output=True,
                text=True,
            )
            if done.returncode == 0:
                return
            said = (done.stderr.strip().splitlines() or [""])[-1]
            on_progress(f"{Path(command[0]).name} did not manage: {said}")
    raise WheelsMissing(
        f"The Python packages of the images could not be installed ({said}); they come from the package "
        "index that pip uses, which must be reachable once."
    )


def compile_all(directory: Path, prefix: str, python: str) -> None:
    """Compile the modules under `directory`, which will be at `prefix`; a read-only root cannot later.

    Only a Python of the same minor version can; with another one the image starts more slowly.
    """
    if python != "{}.{}".format(*sys.version_info[:2]):
        return
    subprocess.run(
        [
            sys.executable, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
            "-s", str(directory), "-p", prefix, str(directory),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip  # its exit status counts templates that are not meant to be compiled


def _installers(directory: Path, python: str) -> Iterable[list[str]]:
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if uv:
        yield [
            uv, "pip", "install", "--quiet", "--target", str(directory), "--no-deps",
            "--only-binary", ":all:",
            "--python-version", python, "--link-mode", "copy",
            "--python-platform", _PLATFORMS.get(platform.machine(), "linux"),
        ]  # fmt: skip
    # pip judges markers by the Python that runs it.
    if python == "{}.{}".format(*sys.version_info[:2]):
        yield [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
            "--target", str(directory), "--no-deps", "--only-binary", ":all:",
        ]  # fmt: skip


def _sources(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables of a run, with pip's configured sources of packages in uv's words."""
    found = dict(inherited)
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True
    ).stdout
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name = _SOURCES.get(key.rpartition(".")[2])
        if name and name not in inherited:
            found[name] = " ".join(value.strip("'\"").replace("\\n", " ").split())
    return found
