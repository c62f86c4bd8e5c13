"""From the app's last arrays to a model in its store.

Why it exists: all rounds are done by then, and none of them may be lost because a disk has no room, a store
is away, or a key has expired. All of that is waited for, and status says for what. What a store is, `blobs`
knows; what a model is, `model`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from flwr.app import ArrayRecord

from coordinator.aggregator import config as aggregator_config
from coordinator.aggregator import model
from coordinator.aggregator import progress as progress_module
from coordinator.clients import blobs
from coordinator.journal import room
from federation import release
from federation.api import reasons, training
from federation.runtime import failpoints
from federation.telemetry import logs
from federation.wire import hanse_pb2 as pb

log = logs.get_logger(__name__)

LONGEST_RETRY_SECONDS = 60.0
"""Between two attempts at a store that is away; the first ones follow each other sooner."""


class NotNow(Exception):
    """The model cannot be stored for now; who mends what the sentence says sees it used."""

    def __init__(self, reason: str, sentence: str) -> None:
        """Take what status is to say."""
        super().__init__(sentence)
        self.reason, self.sentence = reason, sentence


class Storing:
    """Where one training's models go."""

    def __init__(
        self,
        config: aggregator_config.AggregatorConfig,
        spec: training.FederatedTrainingSpec,
        progress: progress_module.Progress,
        changed: Callable[[], object],
    ) -> None:
        """Open nothing yet. changed: called when `progress` says something else."""
        self._config, self._spec = config, spec
        self._progress, self._changed = progress, changed
        self._shown = config.model_store_name or config.model_store
        """The store as those who read status know it."""

    def refusal(self) -> str:
        """Say why no model could be stored at the end, if that is certain before the first round."""
        try:
            blobs.check(self._url(), self._key())
        except (OSError, blobs.BlobError) as error:
            if room.is_full(error):
                return ""  # by the end there may be some; it is waited for
            return f"Models cannot be stored in {self._shown}: {error}"
        return ""

    def store(self, finished: pb.TrainingFinished, arrays: ArrayRecord | None, number: int) -> None:
        """Write the model of this round and its card; `finished` then says where, or that and why it failed.

        For a training that has succeeded the store is waited for, without end.
        """
        if arrays is None:
            finished.message += " The ServerApp made no arrays, so there is no model."
            return
        for attempt in itertools.count():
            try:
                self._attempt(finished, arrays, number)
            except NotNow as later:
                log.warning("model not stored yet", error=later.sentence)
                self._progress.held_up(
                    later.reason, f"{later.sentence} The training waits until it is stored."
                )
                self._changed()
                full = later.reason == reasons.TrainingReason.STORAGE_FULL
                time.sleep(room.RETRY_SECONDS if full else min(2.0**attempt, LONGEST_RETRY_SECONDS))
            else:
                self._progress.held_up("", "")
                return

    def _attempt(self, finished: pb.TrainingFinished, arrays: ArrayRecord, number: int) -> None:
        """Raises: NotNow."""
        config = self._config
        file = config.work_directory / model.MODEL_FILE
        try:
            digest = model.write(arrays, file)
            failpoints.reach("aggregator.model-written")
            card = self._card(arrays, number, digest)
            url = blobs.round_url(config.model_store, config.namespace, config.name, number)
            blobs.save(url, {model.MODEL_FILE: file, model.CARD_FILE: card.to_json()}, self._key())
            file.unlink()
        except (OSError, ValueError, blobs.BlobError) as error:
            if finished.succeeded and not isinstance(error, ValueError):
                raise self._not_now(error) from error
            log.exception("model not stored")
            finished.message += f" The model could not be stored in {self._shown}: {error}"
            if finished.succeeded:  # else it was stopped or has failed, with or without a model
                finished.succeeded, finished.reason = False, reasons.TrainingReason.STORAGE_UNAVAILABLE
            return
        finished.model_uri = blobs.round_url(self._shown, config.namespace, config.name, number)
        finished.model_sha256, finished.model_round = digest, number
        try:
            blobs.prune(self._url(), self._spec.model.keep_rounds, self._key(), latest=number)
        except (OSError, blobs.BlobError) as error:  # the model is there; an older one too many does no harm
            log.warning("older models not removed", error=str(error))

    def _not_now(self, error: Exception) -> NotNow:
        if room.is_full(error):
            why = f"{self._shown} has no room for the model ({error}). Make some."
            return NotNow(reasons.TrainingReason.STORAGE_FULL, why)
        why = f"{self._shown} does not take the model: {str(error).rstrip('.')}."
        return NotNow(reasons.TrainingReason.STORAGE_UNAVAILABLE, why)

    def _card(self, arrays: ArrayRecord, number: int, digest: str) -> model.Card:
        return model.Card(
            training=f"{self._config.namespace}/{self._config.name}",
            round=number,
            app_digest=self._config.app_digest,
            dataset=self._spec.dataset,
            examples=self._progress.examples(),
            metrics=self._progress.metrics(),
            sha256=digest,
            arrays=model.describe(arrays),
            hanse_version=release.version(),
        )

    def _url(self) -> str:
        return blobs.training_url(self._config.model_store, self._config.namespace, self._config.name)

    def _key(self) -> blobs.Key:
        """Read it anew each time: a Secret that is changed in the middle of a training counts at its end."""
        endpoint, directory = self._spec.model.endpoint or "", self._config.model_store_credentials
        return blobs.Key(endpoint=endpoint) if directory is None else blobs.key_from(directory, endpoint)
