"""Snapshots of a training's rounds, so that its journal and the time to go on do not grow with them.

Why it exists: federation/flower/kept_rounds.py says when a round of Flower's loop is over, and can pass over
rounds that are known. This module decides whether a snapshot pays and is safe, writes it beside the training,
and gives it back to an app that runs again. An app of which none can be taken keeps its whole journal; the
log says why. What entries a snapshot makes needless is not known here.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Array

from coordinator.aggregator import history as history_module
from coordinator.aggregator import progress as progress_module
from coordinator.aggregator import watcher as watcher_module
from coordinator.journal import book as journal
from coordinator.journal import entries, retention, segments
from federation.flower import arrays as flower_arrays
from federation.flower import kept_rounds, object_state, surroundings
from federation.telemetry import logs
from federation.wire import digests

log = logs.get_logger(__name__)

RULE_VARIABLE = "HANSE_SNAPSHOT_RULE"
"""Names of retention.Rule with values, as in `rounds=1,replies_bytes=0`: for tests, which have few rounds."""

IN_ENTRY_BYTES = 16 * 1024
"""Smaller arrays stand in the entry itself."""


@dataclasses.dataclass
class _Start:
    """A start of a strategy that is kept."""

    place: history_module.Place
    given: Mapping[str, object]
    origins: object_state.Origins
    around: surroundings.Surroundings
    round: int
    grown_bytes: int
    snapshot_bytes: int = 0


class Compaction:
    """A keeper of federation.flower.kept_rounds for one training."""

    def __init__(
        self,
        history: history_module.History,
        book: journal.Book,
        progress: progress_module.Progress,
        watcher: watcher_module.Watcher,
        *,
        directory: pathlib.Path,
        is_of_app: Callable[[str], bool],
        rule: retention.Rule | None = None,
        more: Callable[[int], int] | None = None,
    ) -> None:
        """Take what knows the training.

        directory: the app's working directory. is_of_app: whether the module of this name is the app's own.
        more: told how many rounds were played, says how many there are to be; None: as many as the app
            began with.
        """
        self._history, self._book, self._progress, self._watcher = history, book, progress, watcher
        self._directory, self._is_of_app = directory, is_of_app
        self._rule = rule or rule_of(os.environ.get(RULE_VARIABLE, ""))
        self._more = more
        self._now: _Start | None = None
        self._writer = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self._writing: concurrent.futures.Future[None] | None = None

    def begins(self, roots: Mapping[str, object], num_rounds: int) -> kept_rounds.Past | None:
        """A start begins; see kept_rounds.Keeper."""
        self._now = None
        given = {name: roots[name] for name in ("strategy", "train_config", "evaluate_config", "evaluate_fn")}
        origins, around, why = self._looked_at(given | {"initial_arrays": roots["initial_arrays"]})

        def restore(snapshot: entries.Snapshot, attachment: bytes) -> dict[str, Any]:
            if origins is None:
                raise ValueError(f"nothing can be restored: {why}")
            return self._restored(snapshot, attachment, origins)

        began = self._history.begins(num_rounds, restore, may_grow=self._more is not None)
        if began is None or origins is None or around is None:
            if why:
                log.info("no snapshots of this app", detail=why)
            return None if self._more is None else kept_rounds.Past()
        place, snapshot, past = began
        known = 0 if snapshot is None else snapshot.round
        self._now = _Start(place, given, origins, around, known, self._book.grown_bytes)
        if snapshot is None or past is None:
            return kept_rounds.Past()
        self._progress.restore(known, past["progress"])
        if past["arrays"] is not None:
            self._watcher.restored(past["progress"]["model-round"], past["arrays"])
        log.info("rounds restored", round=known)
        return kept_rounds.Past(known, past)

    def ended(self, server_round: int, roots: Mapping[str, object]) -> None:
        """A round is over: take a snapshot if one pays, and can be taken."""
        now = self._now
        if now is None or not self._history.at_the_end or not self._pays(now, server_round):
            return
        if self._writing is not None and not self._writing.done():
            return
        try:
            told = {"model-round": self._watcher.round, **self._progress.kept()}
            written = object_state.write({**now.given, **roots, "progress": told}, now.origins)
            now.snapshot_bytes = len(written.state) + sum(map(len, written.blobs))
            if why := now.around.changed(written.has):
                raise object_state.Unsafe(why)
        except Exception as error:  # Unsafe, or whatever an app's own objects raise
            log.info("no snapshots of this app", detail=str(error))
            self._now = None
            return
        if not self._pays(now, server_round):  # larger than the last one
            return
        try:
            snapshot, kept = self._history.entry_of(now.place, server_round)
        except journal.JournalUnusable:
            return  # whoever acts next hears of it
        now.round, now.grown_bytes = server_round, self._book.grown_bytes
        self._writing = self._writer.submit(self._write, snapshot, kept, written)

    def after(self, num_rounds: int) -> int:
        """So many rounds are over; see kept_rounds.Keeper."""
        return num_rounds if self._more is None else self._more(num_rounds)

    def _pays(self, now: _Start, server_round: int) -> bool:
        grown = self._book.grown_bytes - now.grown_bytes
        return self._rule.pays(grown, server_round - now.round, now.snapshot_bytes)

    def _looked_at(
        self, roots: Mapping[str, object]
    ) -> tuple[object_state.Origins | None, surroundings.Surroundings | None, str]:
        """What there is as a start begins; or why it cannot be looked at."""
        try:
            origins = object_state.Origins(roots, surroundings.said_by, self._is_of_app)
            around = surroundings.Surroundings(
                surroundings.code_of(origins),
                lambda value: origins.path_of(value) is not None,
                self._directory,
                self._is_of_app,
            )
        except object_state.Unsafe as error:
            return None, None, str(error)
        except Exception as error:  # an app's own objects may raise anything, and the training goes on
            return None, None, f"{type(error).__name__}: {error}"
        return origins, around, ""

    def _write(
        self,
        snapshot: entries.Snapshot,
        kept: Mapping[str, tuple[str, str]],
        written: object_state.Written,
    ) -> None:
        """Write a snapshot, on a thread of its own: the clients train meanwhile."""
        try:
            stored, small = self._stored(written)
            whole = snapshot.model_copy(update={"state_bytes": len(written.state), "arrays": stored})
            self._book.compact(whole, written.state + small, kept)
        except (journal.JournalUnusable, OSError) as error:
            # Nothing is lost: the entries stand. Who writes the next ones hears of a broken journal.
            log.warning("snapshot not written", detail=str(error))
            return
        log.info("rounds compacted", round=snapshot.round)

    def _stored(self, written: object_state.Written) -> tuple[tuple[entries.StoredArray, ...], bytes]:
        small: list[bytes] = []
        offset = len(written.state)
        stored: list[entries.StoredArray] = []
        large = [blob for blob in written.blobs if len(blob) >= IN_ENTRY_BYTES]
        regions = iter(self._book.segments.allocate_apart([len(blob) for blob in large]) if large else ())
        for blob in written.blobs:
            if len(blob) < IN_ENTRY_BYTES:
                whole = bytes(_piece(blob, 0, len(blob)))
                small.append(whole)
                number, at, name = 0, offset, digests.digest(whole)
                offset += len(whole)
            else:
                region = next(regions)
                number, at = region.number, region.offset
                try:
                    name = _copy(blob, region)
                except OSError:  # of no use then, and there may be no room for it
                    self._book.segments.drop([number])
                    raise
            stored.append(entries.StoredArray(digest=name.hex(), segment=number, offset=at, length=len(blob)))
        return tuple(stored), b"".join(small)

    def _restored(
        self, snapshot: entries.Snapshot, attachment: bytes, origins: object_state.Origins
    ) -> dict[str, Any]:
        """Make the app's objects what they were. Raises: ValueError, before anything is changed."""

        def place(number: int) -> bytes | segments.Region:
            return self._history.bytes_of(attachment, snapshot.arrays[number])

        def read(number: int) -> bytes:
            found = place(number)
            return found if isinstance(found, bytes) else found.read(0, len(found))

        def make(number: int, dtype: str, shape: tuple[int, ...], stype: str) -> Array:
            found = place(number)
            if isinstance(found, bytes):
                return Array(dtype, shape, stype, found)
            digest = bytes.fromhex(snapshot.arrays[number].digest)
            return flower_arrays.SpooledArray(dtype, shape, stype, found, digest)

        try:
            return object_state.read(attachment[: snapshot.state_bytes], origins, read, make)
        except object_state.Mismatch as error:
            raise ValueError(f"the strategy is another than before: {error}") from error


def _copy(blob: object_state.Blob, region: segments.Region) -> bytes:
    """Write a run of bytes into a region, and return its digest."""
    hasher = digests.start()
    for start in range(0, len(blob), _PIECE_BYTES):
        piece = _piece(blob, start, min(_PIECE_BYTES, len(blob) - start))
        region.write(start, piece)
        if blob.digest is None:
            hasher.update(piece)
    return blob.digest or hasher.digest(digests.DIGEST_BYTES)


def _piece(blob: object_state.Blob, start: int, length: int) -> memoryview:
    if isinstance(blob.data, bytes | bytearray | memoryview):
        return memoryview(blob.data)[start : start + length]
    return memoryview(blob.data.read(start, length))


_PIECE_BYTES = 4 * 1024 * 1024


def rule_of(text: str) -> retention.Rule:
    """Read a rule as RULE_VARIABLE has it; what it does not name is as usual."""
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return retention.Rule(**{name.strip(): int(value) for name, _, value in pairs})


def whose(directory: pathlib.Path | None, reference: str) -> Callable[[str], bool]:
    """Say which modules are an app's own: those in its directory, or in the package of an installed one."""
    package = reference.partition(":")[0].partition(".")[0]

    def is_of_app(name: str) -> bool:
        if directory is None:
            return bool(package) and name.partition(".")[0] == package
        file = getattr(sys.modules.get(name), "__file__", None)
        return file is not None and pathlib.Path(file).is_relative_to(directory)

    return is_of_app
