"""Debian packages as files: downloaded and unpacked somewhere else, with nothing installed on this machine.

Why it exists: host tools that are missing, and the base of the images, come from the package sources that the
machine has anyway. It refuses to know what the packages are for.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

_KINDS = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")


class PackagesMissing(Exception):
    """The packages are not to be had; the text is a sentence that says what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """One downloaded package, as its own control file describes it."""

    name: str
    version: str
    architecture: str
    source: str
    file: Path


def available() -> bool:
    """Whether this machine can download and unpack Debian packages at all."""
    return all(shutil.which(name) for name in ("apt-get", "apt-cache", "dpkg-deb"))


def closure(names: Iterable[str], without: Iterable[str], lists: Path) -> list[str]:
    """These packages and all that they depend on, less `without`, which may have *.

    Raises: PackagesMissing.
    """
    wanted = list(names)
    asked = [
        "apt-cache", "depends", "--recurse", "--important", *(f"--no-{kind}" for kind in _KINDS), *wanted,
    ]  # fmt: skip
    text = _run(asked, lists)
    if any(name not in parse_closure(text) for name in wanted):
        _update(lists)
        text = _run(asked, lists)
    found = parse_closure(text)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise PackagesMissing(
            f"The package sources of this machine have no {', '.join(missing)}; run apt-get update "
            "and try again."
        )
    return sorted(name for name in found if not any(fnmatch(name, pattern) for pattern in without))


def parse_closure(text: str) -> set[str]:
    """The real packages in the output of `apt-cache depends --recurse`: lines that are not indented."""
    return {
        line.strip() for line in text.splitlines() if re.fullmatch(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9]+)?", line)
    }


def download(names: Sequence[str], directory: Path, lists: Path) -> list[Package]:
    """Download these packages into `directory`.

    Raises: PackagesMissing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = ["apt-get", "-q", "download", *names]
    if not _succeeds(command, lists, directory):
        # Lists older than the archive name versions that are gone.
        _update(lists)
        if not _succeeds(command, lists, directory):
            raise PackagesMissing(
                f"The package sources of this machine cannot be reached; install "
                f"{', '.join(names)} yourself, or try again later."
            )
    return sorted((describe(file) for file in directory.glob("*.deb")), key=lambda package: package.name)


def describe(file: Path) -> Package:
    """What a package file says of itself."""
    form = "${Package}\t${Version}\t${Architecture}\t${source:Package}"
    done = subprocess.run(
        ["dpkg-deb", "--show", f"--showformat={form}", str(file)], capture_output=True, text=True, check=True
    )
    name, version, architecture, source = done.stdout.split("\t")
    return Package(name, version, architecture, source, file)


def unpack(packages: Iterable[Package], directory: Path) -> None:
    """Unpack the files of these packages into `directory`; no script of theirs is run."""
    directory.mkdir(parents=True, exist_ok=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "-x", str(package.file), str(directory)], check=True)


def _options(lists: Path) -> list[str]:
    if not (lists / "lists").is_dir():
        return []
    return ["-o", f"Dir::State::lists={lists / 'lists'}", "-o", f"Dir::Cache={lists / 'cache'}"]


def _update(lists: Path) -> None:
    """Fetch the package lists into a place of our own; the machine's own stay as they are.

    Raises: PackagesMissing.
    """
    for name in ("lists/partial", "cache/archives/partial"):
        (lists / name).mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["apt-get", "-q", *_options(lists), "update"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode != 0:
        shutil.rmtree(lists, ignore_errors=True)
        raise PackagesMissing(
            "The package sources of this machine cannot be reached; apt-get update says why."
        )


def _run(command: list[str], lists: Path) -> str:
    done = subprocess.run([command[0], *_options(lists), *command[1:]], capture_output=True, text=True)
    return done.stdout


def _succeeds(command: list[str], lists: Path, directory: Path) -> bool:
    done = subprocess.run(
        [command[0], *_options(lists), *command[1:]],
        cwd=directory,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return done.returncode == 0
