"""What the hub says of a member's certificate, from what it knows of the member.

Why it exists: a certificate ends by being revoked or by time passing, while nobody connects and nothing else
happens; so the condition follows from the resource and the clock, and is not what was last seen. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from coordinator.planning import conditions
from federation.api import cluster, reasons

Reason = reasons.EdgeClusterReason


@dataclasses.dataclass(frozen=True, slots=True)
class Certificate:
    """The condition CertificateValid, and when it is another without news, in unix seconds."""

    valid: bool
    reason: Reason
    message: str
    changes_at: float | None = None


def has_left(status: Mapping[str, Any]) -> bool:
    """Whether the member's own operator has left the federation, and not joined again since."""
    joined = conditions.find(status, reasons.EdgeClusterCondition.JOINED)
    return joined is not None and joined["reason"] == Reason.LEFT


def left(name: str) -> str:
    """Return the sentences about a member that has left: what happened, and the way back."""
    return (
        "Its operator left the federation with `hanse leave`. To come back, it joins again with a token from "
        f"`hanse token create --cluster {name}`."
    )


def certificate(
    name: str, spec: Mapping[str, Any], status: Mapping[str, Any], now: float
) -> Certificate | None:
    """Judge a member's certificate; None for a member that has had none."""
    expires = (status.get("certificate") or {}).get("expiresAt")
    if not expires:
        return None
    if spec.get("acceptance") == cluster.Acceptance.EXPELLED:
        message = (
            "The certificate is revoked, since the cluster was expelled. To let it back in, approve it with "
            f"`hanse clusters approve {name}`."
        )
        return Certificate(False, Reason.EXPELLED, message)
    if has_left(status):
        return Certificate(False, Reason.LEFT, f"The certificate counts no longer. {left(name)}")
    ends_at = datetime.fromisoformat(expires).timestamp()
    if now >= ends_at:
        message = (
            f"The certificate ended at {expires}: the agent was away when it was to be renewed. Let the "
            f"cluster join again with a token from `hanse token create --cluster {name}`."
        )
        return Certificate(False, Reason.EXPIRED, message)
    return issued(expires)


def issued(expires: str) -> Certificate:
    """A certificate that is good until then, an RFC 3339 time."""
    message = f"The certificate is good until {expires}; the agent renews it before."
    return Certificate(True, Reason.ISSUED, message, datetime.fromisoformat(expires).timestamp())
