"""What an aggregator leaves behind when nobody hears it: the end of its training, as JSON of a few kilobytes.

Kubelet keeps it with the pod's state (the termination log), so that the next coordinator finds it, and a
training that was finished while no coordinator led is not run again. The user's app runs beside whoever
writes it: whatever is read is bounded. This module refuses to know where it is kept.
"""

from __future__ import annotations

from typing import Annotated

import pydantic
from pydantic.alias_generators import to_camel

from coordinator.planning import snapshot
from federation.api import meta

MAXIMUM_BYTES = 4096
"""Kubelet keeps no more of a container's last words."""

_MESSAGE_CHARACTERS = 2000
_LINE_CHARACTERS = 200


class _Words(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="ignore", alias_generator=to_camel, populate_by_name=True)

    succeeded: bool
    reason: Annotated[str, pydantic.Field(pattern=r"^[A-Z][A-Za-z0-9]{0,62}$")]
    message: str = ""
    model_uri: Annotated[str, pydantic.Field(max_length=meta.MAXIMUM_URI_CHARACTERS, pattern=r"^[^\n]*$")] = (
        ""
    )
    model_sha256: Annotated[str, pydantic.Field(pattern=rf"^$|{meta.SHA256_PATTERN}")] = ""
    model_round: Annotated[int, pydantic.Field(ge=0, le=2**31 - 1)] = 0
    log_tail: tuple[str, ...] = ()


def write(finished: snapshot.Finished) -> str:
    """Return the end of a training as text of at most MAXIMUM_BYTES; a long message loses its end."""
    message = finished.message[:_MESSAGE_CHARACTERS]
    tail = [line[:_LINE_CHARACTERS] for line in finished.log_tail]
    while True:
        words = _Words(
            succeeded=finished.succeeded,
            reason=finished.reason,
            message=message,
            model_uri=finished.model_uri,
            model_sha256=finished.model_sha256,
            model_round=finished.model_round,
            log_tail=tuple(tail),
        )
        text = words.model_dump_json(by_alias=True)
        if len(text.encode()) <= MAXIMUM_BYTES or not (tail or message):
            return text
        if tail:
            del tail[0]
        else:
            message = message[: len(message) // 2]


def read(text: str) -> snapshot.Finished | None:
    """Return the end of a training as it was left; None if nothing of the kind was."""
    try:
        words = _Words.model_validate_json(text)
    except pydantic.ValidationError:
        return None
    stored = bool(words.model_sha256)
    return snapshot.Finished(
        words.succeeded,
        words.reason,
        words.message[:_MESSAGE_CHARACTERS],
        words.model_uri if stored else "",
        words.model_sha256,
        words.model_round,
        tuple(line[:_LINE_CHARACTERS] for line in words.log_tail[:20]),
    )
