"""An aggregator and clients that keep nothing for the time after their death: the rest is what that costs.

Python imports this module at its start where its directory is on PYTHONPATH, which only the benchmark does.
Then the journal's index is not written, nothing is synced, no snapshot is taken, and clients keep neither
state nor replies. Replies' arrays still go to files as they come: memory does not hold them.
"""

import sys
from typing import Any


def _aggregator() -> None:
    from coordinator.journal import book
    from federation import durable

    def flush(self: Any) -> Any:
        with self._lock:
            self._number += len(self._unwritten)
            self._unwritten = []
            calls, self._waiting = self._waiting, []
        return calls

    book.Book._flush = flush  # type: ignore[method-assign]
    book.Book.compact = lambda *_: None  # type: ignore[method-assign]
    durable.sync = lambda *_: None
    durable.begin = lambda *_: None


def _client() -> None:
    from edge_agent.client import app

    app._keep = lambda _: None  # type: ignore[assignment]


def _begin() -> None:
    arguments = sys.orig_argv
    module = arguments[arguments.index("-m") + 1] if "-m" in arguments[:-1] else ""
    {"coordinator.aggregator": _aggregator, "edge_agent.client": _client}.get(module, lambda: None)()


_begin()
