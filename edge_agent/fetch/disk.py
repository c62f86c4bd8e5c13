"""Brings objects into a directory, all of them or none.

They come into a directory beside the one that clients see, which gets its name when each of them is whole.
What an interrupted run has whole is not fetched again. This module refuses to know the storage.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Sequence
from typing import TextIO

from edge_agent import buckets
from edge_agent.fetch import storage
from federation import durable
from federation.runtime import processes
from federation.telemetry import logs

_log = logs.get_logger(__name__)

PARALLEL = 8
"""Objects at once: enough to hide the storage's latency, few enough for the memory that their pieces take."""

SUMMARY = "fetched.json"
INCOMING = "incoming"
WHOLE = "whole.jsonl"
"""Beside `incoming`: a line for each object that is whole, with the tag that the storage gave it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What was fetched."""

    objects: int
    size: int

    def text(self) -> str:
        """As JSON."""
        return json.dumps({"objects": self.objects, "bytes": self.size})


def bring(bucket: Callable[[], storage.Bucket], to: pathlib.Path, at_most_bytes: int) -> Summary:
    """Bring all; return at once where all is there. Raises: storage.NotFetched."""
    try:
        return _bring(bucket, to, at_most_bytes)
    except OSError as error:
        raise _of_the_disk(error) from error


def _bring(bucket: Callable[[], storage.Bucket], to: pathlib.Path, at_most_bytes: int) -> Summary:
    objects_there = to / buckets.OBJECTS
    if objects_there.is_dir():
        said = json.loads((to / SUMMARY).read_bytes())
        return Summary(int(said["objects"]), int(said["bytes"]))
    opened = bucket()
    wanted = opened.objects()
    total = sum(one.size for one in wanted)
    if total > at_most_bytes:
        raise storage.NotFetched(
            "TooLarge",
            f"the objects have {buckets.readable_bytes(total)}, and spec.volume.s3.sizeLimit allows "
            f"{buckets.readable_bytes(at_most_bytes)}; raise it, or name fewer objects by the prefix",
        )
    incoming = to / INCOMING
    incoming.mkdir(exist_ok=True)
    whole = _whole(to / WHOLE, incoming, wanted)
    _write_journal(to / WHOLE, [one for one in wanted if one.key in whole])
    _remove_others(incoming, {one.file for one in wanted if one.key in whole})
    missing = [one for one in wanted if one.key not in whole]
    free, needed = shutil.disk_usage(to).free, sum(one.size for one in missing)
    if needed > free:
        raise _full(needed, free)
    _log.info("fetch begins", count=len(missing), bytes=needed)
    with (to / WHOLE).open("a") as journal:
        _bring_all(opened, missing, incoming, _noting(journal))
    for directory in (incoming, *(place for place in incoming.rglob("*") if place.is_dir())):
        durable.sync(directory)
    summary = Summary(len(wanted), total)
    processes.write_private_file(to / SUMMARY, summary.text().encode())
    (to / WHOLE).unlink()
    incoming.rename(objects_there)
    durable.sync(to)
    _log.info("fetched", count=summary.objects, bytes=summary.size)
    return summary


def _bring_all(
    bucket: storage.Bucket,
    missing: Sequence[storage.Object],
    incoming: pathlib.Path,
    note: Callable[[storage.Object], None],
) -> None:
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as threads:
        waiting = [threads.submit(_bring_one, bucket, one, incoming, note) for one in missing]
        try:
            for one in concurrent.futures.as_completed(waiting):
                one.result()
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            raise


def _bring_one(
    bucket: storage.Bucket,
    wanted: storage.Object,
    incoming: pathlib.Path,
    note: Callable[[storage.Object], None],
) -> None:
    file = incoming / wanted.file
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as sink:
        for piece in bucket.pieces(wanted):
            sink.write(piece)
        sink.flush()
        os.fsync(sink.fileno())
    note(wanted)


def _whole(journal: pathlib.Path, incoming: pathlib.Path, wanted: Sequence[storage.Object]) -> set[str]:
    """Return the keys of what an earlier run has brought, if it is still what is wanted."""
    noted: dict[str, tuple[int, str]] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in journal.read_text().splitlines():
            with contextlib.suppress(ValueError):  # the last line of a run that was killed may be half
                key, size, tag = json.loads(line)
                noted[key] = (size, tag)
    return {
        one.key
        for one in wanted
        if one.tag and noted.get(one.key) == (one.size, one.tag) and (incoming / one.file).is_file()
    }


def _write_journal(journal: pathlib.Path, whole: Sequence[storage.Object]) -> None:
    """Forget what is to be fetched again, before its file is touched."""
    processes.write_private_file(journal, "".join(map(_line, whole)).encode())


def _line(one: storage.Object) -> str:
    return json.dumps([one.key, one.size, one.tag]) + "\n"


def _noting(journal: TextIO) -> Callable[[storage.Object], None]:
    lock = threading.Lock()

    def note(one: storage.Object) -> None:
        with lock:
            journal.write(_line(one))
            journal.flush()

    return note


def _remove_others(incoming: pathlib.Path, kept: set[str]) -> None:
    for parent, directories, files in os.walk(incoming, topdown=False):
        place = pathlib.Path(parent)
        for name in files:
            if str((place / name).relative_to(incoming)) not in kept:
                (place / name).unlink()
        for name in directories:
            with contextlib.suppress(OSError):  # not empty
                (place / name).rmdir()


def _full(needed: int | None, free: int) -> storage.NotFetched:
    more = "more is needed" if needed is None else f"{buckets.readable_bytes(needed)} are needed"
    return storage.NotFetched(
        "ClaimFull",
        f"the claim is full: it has room for {buckets.readable_bytes(free)}, and {more}; raise "
        "spec.volume.s3.sizeLimit, or choose a StorageClass with more room",
    )


def _of_the_disk(error: OSError) -> storage.NotFetched:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _full(None, 0)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return storage.NotFetched(
            "ClaimNotWritable",
            f"the claim may not be written to by user {os.getuid()}; choose a StorageClass whose volumes "
            "belong to the pod's fsGroup",
        )
    return storage.NotFetched(
        "DiskFailed", f"the claim's volume fails: {os.strerror(error.errno or 0)}; check it"
    )
