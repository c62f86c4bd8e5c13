"""Which files of a cluster of the bare provider hold which bytes: its etcd, its nodes' disks, its logs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path


def files(root: Path) -> Iterator[Path]:
    """The regular files below a directory, without images and their programs."""
    argv = ["find", str(root), "-xdev", "-type", "f", "-not", "-path", "*/io.containerd.*", "-print0"]
    listed = subprocess.run(argv, capture_output=True, check=False).stdout
    yield from (Path(name.decode()) for name in listed.split(b"\0") if name)


def found_in(root: Path, needles: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Which files below a directory hold which of these."""
    found: dict[str, list[str]] = {}
    for path in files(root):
        try:
            content = path.read_bytes()
        except OSError:
            continue  # gone meanwhile
        for what, needle in needles.items():
            if needle in content:
                found.setdefault(what, []).append(str(path.relative_to(root)))
    return found
