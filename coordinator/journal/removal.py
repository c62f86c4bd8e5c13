"""`python -m coordinator.journal.removal DIRECTORY UID`: remove the journal of a training that was deleted.

Why it exists: a training that is deleted while it runs cannot tidy up after itself, and its journal has
updates of each cluster. The hub runs this where the journal lies, when the aggregator is gone.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from coordinator.journal import holding
from federation.telemetry import logs

log = logs.get_logger(__name__)

HELD_SECONDS = 300.0
"""An aggregator that was told to end, and its node with it, is gone by then."""


def remove(directory: Path, uid: str) -> bool:
    """Remove a training's journal, if there is one and it is this training's; returns whether it was.

    A directory that has another name than the uid may be a namesake's by now.
    Raises: holding.Held, OSError.
    """
    if not directory.is_dir():
        return False
    own = directory.name == uid
    with holding.held(directory):
        if not own and _uid_of(directory) != uid:
            return False
        holding.clear(directory)
        if own:
            (directory / holding.LOCK).unlink()
            directory.rmdir()
    return True


def _uid_of(directory: Path) -> str:
    from coordinator.journal import reading  # imports Flower

    try:
        return reading.read(directory).facts.get("uid", "")
    except reading.JournalUnreadable:
        return ""


def main() -> int:
    """Wait until nobody writes it, and remove it."""
    logs.configure("tidy")
    directory, uid = Path(sys.argv[1]), sys.argv[2]
    until = time.monotonic() + HELD_SECONDS
    while True:
        try:
            if remove(directory, uid):
                log.info("journal of a deleted training removed", path=str(directory))
        except holding.Held as error:
            if time.monotonic() > until:
                log.error("journal not removed", error=str(error))
                return 1
            time.sleep(1.0)
        except OSError as error:
            log.error("journal not removed", error=str(error))
            return 1
        else:
            return 0


if __name__ == "__main__":
    sys.exit(main())
