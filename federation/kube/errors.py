"""What an API server refuses, in one hierarchy, each with one sentence for people.

This module refuses to know how requests are made; it reads the `Status` object that an API server answers
with, and keeps the server's own words, because they are the best there are (CEL rules speak through them).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """One thing that is wrong with an object: the field's path and what is wrong there."""

    field: str
    message: str


class KubernetesError(Exception):
    """A request to the API server did not succeed; the base of this room's errors.

    status: the HTTP status, 0 when no answer came.
    reason: the server's word for it, such as `AlreadyExists`; may be empty.
    causes: what is wrong, field by field, where the server says so.
    """

    def __init__(
        self, message: str, *, status: int = 0, reason: str = "", causes: tuple[Cause, ...] = ()
    ) -> None:
        """Keep the sentence and what the server said besides."""
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.causes = causes


class NotFound(KubernetesError):
    """The object, or its kind, does not exist there."""


class Conflict(KubernetesError):
    """The object was changed since it was read, or another field manager owns a field; read it again."""


class AlreadyExists(KubernetesError):
    """An object of this name exists already."""


class Gone(KubernetesError):
    """Changes since that resource version are no longer kept; list again."""


class Forbidden(KubernetesError):
    """These credentials may not do that, or are not known there."""


class Invalid(KubernetesError):
    """The API server refuses the object; the message is the server's."""


class Unreachable(KubernetesError):
    """The API server does not answer, or answers that it cannot serve now."""


class CommandFailed(KubernetesError):
    """A command inside a container ended with an error."""


class NotConfigured(KubernetesError):
    """There is no kubeconfig and no service account to connect with."""


_BY_REASON: Mapping[str, type[KubernetesError]] = {
    "AlreadyExists": AlreadyExists,
    "Conflict": Conflict,
    "Expired": Gone,
    "Gone": Gone,
}
_BY_STATUS: Mapping[int, type[KubernetesError]] = {
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: Invalid,
    415: Invalid,
    422: Invalid,
    429: Unreachable,
}


def from_answer(status: int, body: bytes, what: str) -> KubernetesError:
    """Return the error that an answer above 399 means; `what` names the request (`get jobs a/b`)."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = {}
    if not isinstance(parsed, dict):
        parsed = {}
    return from_status({"code": status, **parsed}, what, body.decode(errors="replace").strip()[:300])


def from_status(answer: Mapping[str, Any], what: str, text: str = "") -> KubernetesError:
    """Return the error that a `Status` object means; `text` stands in for a message that is not there."""
    status = int(answer.get("code") or 0)
    reason = str(answer.get("reason") or "")
    message = str(answer.get("message") or text or f"the API server answered {status}")
    causes = tuple(
        Cause(str(cause.get("field", "")), str(cause.get("message", "")))
        for cause in ((answer.get("details") or {}).get("causes") or ())
    )
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(status)
    if status == 500 and "field not declared in schema" in message:
        kind = Invalid  # what server-side apply says of an unknown field
    if kind is None:
        kind = Unreachable if status >= 500 else KubernetesError
    if status == 401:
        message = "the API server does not know these credentials; check the kubeconfig or the token"
    return kind(f"{what}: {message}", status=status, reason=reason, causes=causes)
