"""Which image a training's aggregator runs: the hub's own, or the manifest's where the hub's operator allows.

An aggregator holds its training's model and identity, and checks updates with what its image brings. So the
operator decides which images may be one, as an edge's owner does for clients. This module refuses to know
where the operator says so, and what an image holds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from coordinator.planning import snapshot
from federation.api import globs, reasons


@dataclasses.dataclass(frozen=True, slots=True)
class ServerImages:
    """own: of trainings that name none, and always allowed. allowed: patterns of others, `*` is any text."""

    own: str
    allowed: tuple[str, ...] = ()

    def choose(self, spec: Mapping[str, Any]) -> str:
        """Return the image of a FederatedTraining's spec; empty where nobody says one."""
        return _named(spec) or self.own

    def refusal(self, spec: Mapping[str, Any]) -> snapshot.Problem | None:
        """Return why this hub runs no aggregator of the image that a spec names; None if it does."""
        image = _named(spec)
        if not image or image == self.own or any(globs.matches(pattern, image) for pattern in self.allowed):
            return None
        own = f"the hub's own image ({self.own})" if self.own else "the hub's own image"
        return snapshot.Problem(
            reasons.TrainingReason.IMAGE_NOT_ALLOWED,
            f"Aggregators of this hub may run {' or '.join([own, *self.allowed])} only; leave "
            "spec.server.image out, use an allowed one, or ask the hub's operator to add it to "
            "kubernetes.aggregator_images in the coordinator's configuration.",
        )


def _named(spec: Mapping[str, Any]) -> str:
    return str((spec.get("server") or {}).get("image") or "")
