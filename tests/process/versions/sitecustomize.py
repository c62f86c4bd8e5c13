"""Another version of Hanse, as far as others can tell: what it calls itself, and which protocols it speaks.

Python imports this module at its start where its directory is on PYTHONPATH. `versions.json` in the directory
of failpoints says which process is which: for each module that is run by `-m MODULE` a list with an entry for
each of its starts, the last for all that follow: `{"hanse": "0.2.0", "oldest": 1, "newest": 2}`.
"""

import importlib.metadata
import json
import os
import pathlib
import sys


def _become(hanse: str, oldest: int, newest: int) -> None:
    import federation.trust  # noqa: F401  (before anything imports grpc)
    from federation.wire import protocol

    known = importlib.metadata.version
    importlib.metadata.version = lambda name: hanse if name == "hanse" else known(name)
    protocol.OLDEST, protocol.NEWEST = oldest, newest  # type: ignore[misc]
    protocol.OURS = protocol.Versions(oldest, newest)  # type: ignore[misc]
    protocol.agree.__defaults__ = (protocol.OURS,)


def _begin() -> None:
    try:
        directory = pathlib.Path(os.environ["HANSE_FAILPOINTS"])
        planned = json.loads((directory / "versions.json").read_text())
        module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
        starts = planned[module]
    except (KeyError, OSError, ValueError):
        return
    with (directory / f"{module}.starts").open("ab") as count:
        count.write(b".")
        number = count.tell()
    _become(**starts[min(number, len(starts)) - 1])


_begin()
