"""One static program that is a whole image: the pause image's, and that of the tests' small images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from simulations.lab import archive, cache, debian, port

TEST_IMAGE = "hanse.dev/lab/busybox:1"
_TOOLS = ("cat", "date", "echo", "env", "grep", "httpd", "id", "ip", "ls", "mkdir", "nc", "nslookup", "rm",
          "sh", "sleep", "tail", "timeout", "touch", "wget")  # fmt: skip


def read(on_progress: Callable[[str], None], variables: Mapping[str, str] = os.environ) -> bytes:
    """The program's bytes, from the cache or this machine's package sources.

    Raises: port.LabError.
    """
    root = cache.directory(variables)
    path = root / "host-busybox" / "busybox"
    with cache.locked(root, "busybox", on_progress):
        if not path.exists():
            on_progress("unpacking busybox-static from this machine's package sources")
            _fetch(root, path)
    return path.read_bytes()


def _fetch(root: Path, path: Path) -> None:
    if not debian.available():
        raise port.LabError("a bare lab needs a static busybox; install the package busybox-static")
    try:
        with cache.new_directory(root / "apt-busybox") as partial:
            debian.unpack(debian.download(["busybox-static"], partial, root / "apt"), partial / "root")
            program = next(each for each in partial.glob("root/**/bin/busybox"))
            with cache.new_file(path, mode=0o755) as file:
                shutil.copyfile(program, file)
    except debian.PackagesMissing as error:
        raise port.LabError(str(error)) from error
    shutil.rmtree(root / "apt-busybox")


def small_image(busybox: bytes, name: str = TEST_IMAGE) -> bytes:
    """A small image with a shell, as an archive for `load`."""
    links = {f"bin/{tool}": "busybox" for tool in _TOOLS}
    return archive.docker_archive(name, {"bin/busybox": busybox}, links=links, entrypoint=("/bin/sh",))
