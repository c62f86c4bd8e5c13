"""`python -m edge_agent.fetch --url s3://BUCKET/PREFIX ...`: fetches, and leaves last words.

They say how many objects there are, or in one sentence why there are none.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from edge_agent.fetch import disk, storage
from federation.runtime import hardening, lifeline, port
from federation.telemetry import logs

_log = logs.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, and leave last words; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m edge_agent.fetch", description=__doc__)
    parser.add_argument("--url", required=True, help="s3://BUCKET/PREFIX")
    parser.add_argument("--endpoint", required=True, help="the storage's URL")
    parser.add_argument("--region", required=True)
    parser.add_argument("--at-most-bytes", type=int, required=True)
    parser.add_argument("--to", type=pathlib.Path, required=True, help="a directory that is this program's")
    parser.add_argument("--secret", type=pathlib.Path, help="a Secret's directory; without it no key is used")
    parser.add_argument("--last-words", type=pathlib.Path, default=pathlib.Path(port.TERMINATION_LOG))
    given = parser.parse_args(arguments)
    lifeline.end_when_asked()
    hardening.keep_to_oneself()
    logs.configure("fetch")
    try:
        place = storage.Place(given.url, given.endpoint, given.region, given.secret)
        summary = disk.bring(functools.partial(storage.Bucket, place), given.to, given.at_most_bytes)
    except storage.NotFetched as error:
        _log.error("not fetched", reason=error.reason, message=str(error))
        _leave(given.last_words, {"reason": error.reason, "message": str(error)})
        return 1
    except Exception as error:  # its text may quote what opened the bucket
        said = f"what fetches met an error of its own ({type(error).__name__}); report it to Hanse's makers"
        _log.error("not fetched", reason="Unexpected", message=said)
        _leave(given.last_words, {"reason": "Unexpected", "message": said})
        return 1
    _leave(given.last_words, json.loads(summary.text()))
    return 0


def _leave(place: pathlib.Path, words: Mapping[str, object]) -> None:
    with contextlib.suppress(OSError):
        place.write_text(json.dumps(words))


if __name__ == "__main__":
    sys.exit(main())
