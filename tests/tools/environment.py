"""Make a virtual environment hold exactly what a lock file says, quickly when it already does.

The Makefile calls it before each command, with whatever Python there is: so it uses the standard library
only, and its first act is to say plainly when that Python is too old. It refuses to know what the commands
do.

    python3 tests/tools/environment.py .venv base dev    # requirements/base.txt, then dev.txt, then hanse
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - that is the point of it
    sys.exit(
        "Hanse needs Python 3.11 or newer, and {} is Python {}.{}. Name a newer one, for example: "
        "make PYTHON=python3.12".format(sys.executable, *sys.version_info[:2])
    )

ROOT = Path(__file__).resolve().parent.parent.parent
# pip's own options that say where packages come from, and what uv calls them.
SOURCES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def digest(path):
    """SHA-256 over this file and the version of this Python, as hex."""
    return hashlib.sha256(repr(sys.version_info[:3]).encode() + path.read_bytes()).hexdigest()


def is_stamped(venv, name, want):
    """Whether the environment was brought to this state before, and nothing has changed since."""
    try:
        return (venv / "stamps" / name).read_text().strip() == want
    except OSError:
        return False


def stamp(venv, name, value):
    """Remember the state, as the last act of reaching it."""
    (venv / "stamps").mkdir(exist_ok=True)
    (venv / "stamps" / name).write_text(value + "\n")


def create(venv):
    """A new, empty environment at `venv`, unless one of this very Python is there; its python."""
    python = venv / "bin" / "python"
    try:
        found = subprocess.run(
            [python, "-c", "import sys, pip; print(repr(sys.version_info[:3]))"],
            capture_output=True,
            text=True,
        )
        if found.stdout.strip() == repr(sys.version_info[:3]):
            return python
    except OSError:
        pass
    print("setting up {} with Python {}.{}".format(venv.name, *sys.version_info[:2]), flush=True)
    if venv.is_dir():
        shutil.rmtree(venv)
    if subprocess.run([sys.executable, "-m", "venv", venv]).returncode != 0:
        sys.exit(
            "This Python cannot make virtual environments. On Debian and Ubuntu, install the package "
            "python3-venv; or name another Python: make PYTHON=/path/to/python3"
        )
    return python


def sources(python):
    """This machine's environment variables, with pip's configured sources of packages in uv's words."""
    found = dict(os.environ)
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name = SOURCES.get(key.rpartition(".")[2])
        if name and name not in os.environ:
            found[name] = " ".join(value.strip("'\"").replace("\\n", " ").split())
    return found


def installers(venv, python, lock):
    """Ways to install, best first: uv (taken from the lock itself) needs seconds, pip a minute."""
    uv = venv / "bin" / "uv"
    if not uv.exists():
        wanted = re.search(r"^uv==(?:.*\\\n)+.*\n", lock.read_text(), re.MULTILINE)
        if wanted:
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as alone:
                alone.write(wanted.group(0))
                alone.flush()
                subprocess.run([python, *PIP, "--require-hashes", "--no-deps", "-r", alone.name])
    if uv.exists():
        yield "uv", [uv, "pip", "install", "--quiet", "--python", python], sources(python)
    yield "pip", [python, *PIP], None


def main():
    """Bring the environment named first to the locks named after it."""
    venv = ROOT / sys.argv[1]
    for name in sys.argv[2:]:
        lock = ROOT / "requirements" / (name + ".txt")
        want = digest(lock)
        if is_stamped(venv, name, want):
            continue
        python = create(venv)
        print(f"installing requirements/{name}.txt (exact versions, checked by hash)", flush=True)
        for tool, command, variables in installers(venv, python, lock):
            if subprocess.run([*command, "--require-hashes", "-r", lock], env=variables).returncode == 0:
                break
            print(f"{tool} did not manage", file=sys.stderr, flush=True)
        else:
            sys.exit(
                f"The packages of requirements/{name}.txt could not be installed; the lines above say why. "
                "Once that is put right, the same command goes on where it stopped."
            )
        stamp(venv, name, want)
    want = digest(ROOT / "pyproject.toml")
    if not is_stamped(venv, "hanse", want):
        command = [create(venv), *PIP, "--no-index", "--no-deps", "--no-build-isolation", "-e", ROOT]
        if subprocess.run(command).returncode != 0:
            sys.exit("Hanse itself could not be installed from this directory; the lines above say why.")
        stamp(venv, "hanse", want)


if __name__ == "__main__":
    main()
