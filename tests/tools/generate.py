"""Write the generated files, or check that they are current.

gRPC stubs from federation/wire/hanse.proto, CRDs from federation/api, the words of status from
federation/api/reasons.py, state diagrams from the tables in coordinator/aggregation, the table of
docs/security.md from federation/trust. The check runs the same generators on a copy in a temporary directory
and compares, so it never touches the working tree, and a generator needs no option for it. In CI it also
wants a clean git tree.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

STUBS = "federation/wire/hanse.proto"
GENERATORS = (
    [
        sys.executable, "-m", "grpc_tools.protoc", "-I.",
        "--python_out=.", "--pyi_out=.", "--grpc_python_out=.", STUBS,
    ],
    [sys.executable, "-m", "federation.api.crds", "--output", "crds"],
    [sys.executable, "-m", "coordinator.aggregation.diagrams"],
    [sys.executable, "-m", "federation.api.reasons", "docs/reasons.md"],
    [sys.executable, str(ROOT / "tests/tools/security_page.py"), "docs/security.md"],
)  # fmt: skip

# What the generators read and write: the packages, and the places of what they make.
NEEDED = ("coordinator", "edge_agent", "federation", "crds", "docs")
MADE = ("federation/wire/hanse_pb2*", "crds/*.yaml", "docs/state-diagrams.md", "docs/reasons.md")
MADE_IN_PART = ("docs/security.md",)


def generate(where: Path) -> None:
    """Run every generator with `where` as the repository's root; end with its message if one fails."""
    environment = dict(os.environ, PYTHONPATH=str(where), PYTHONDONTWRITEBYTECODE="1")
    for command in GENERATORS:
        if subprocess.run(command, cwd=where, env=environment).returncode != 0:
            sys.exit(f"generating failed: {' '.join(command[1:])}")


def made(where: Path, patterns: tuple[str, ...] = MADE + MADE_IN_PART) -> dict[str, str]:
    """The generated files below `where`: path to text."""
    return {
        str(path.relative_to(where)): path.read_text(encoding="utf-8")
        for pattern in patterns
        for path in sorted(where.glob(pattern))
        if path.is_file()
    }


def check() -> int:
    """How many generated files are not current; says which and how they differ."""
    with tempfile.TemporaryDirectory(prefix="hanse-generate-") as temporary:
        copy = Path(temporary)
        for name in NEEDED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        for path in made(copy, MADE):
            (copy / path).unlink()
        generate(copy)
        want, have = made(copy), made(ROOT)
    stale = 0
    for path in sorted(want.keys() | have.keys()):
        if want.get(path) == have.get(path):
            continue
        stale += 1
        print(f"{path} is not current; run: make generate")
        lines = difflib.unified_diff(
            have.get(path, "").splitlines(),
            want.get(path, "").splitlines(),
            "checked in",
            "generated",
            lineterm="",
            n=1,
        )
        print("\n".join(list(lines)[:20]))
    return stale


def unclean() -> str:
    """What git says has changed since the commit, one line each; empty where there is no git."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return ""
    return subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True).stdout


def main() -> None:
    """Generate, or with --check compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not current")
    if not parser.parse_args().check:
        generate(ROOT)
        return
    if check():
        sys.exit(1)
    if os.environ.get("CI") in {"true", "1"} and (changes := unclean()):
        sys.exit(f"the tree is not clean:\n{changes}")
    print("Generated files are current.")


if __name__ == "__main__":
    main()
