"""A wall clock that is wrong by hours, for the one kind of process that a file names.

Python imports this module at its start where its directory is on PYTHONPATH, before anything else has taken
the time. `clock` in the directory of failpoints says `MODULE SECONDS`: the process that runs `-m MODULE` is
so far ahead. What C libraries ask themselves (TLS, when it looks at a certificate) is the true time.
"""

import datetime as dt
import os
import pathlib
import sys
import time


def _skew(seconds: float) -> None:
    true_time, true_time_ns, true = time.time, time.time_ns, dt.datetime

    class OfAny(type):
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, true)

    class Skewed(true, metaclass=OfAny):
        @classmethod
        def now(cls, tz: "dt.tzinfo | None" = None) -> "Skewed":
            return cls.fromtimestamp(true_time() + seconds, tz)

        @classmethod
        def utcnow(cls) -> "Skewed":
            return cls.now(dt.UTC).replace(tzinfo=None)

    time.time = lambda: true_time() + seconds
    time.time_ns = lambda: true_time_ns() + round(seconds * 1e9)
    dt.datetime = Skewed  # type: ignore[misc]


def _begin() -> None:
    try:
        module, seconds = pathlib.Path(os.environ["HANSE_FAILPOINTS"], "clock").read_text().split()
    except (KeyError, OSError):
        return
    arguments = sys.orig_argv
    if "-m" in arguments and arguments[arguments.index("-m") + 1] == module:
        _skew(float(seconds))


_begin()
