"""What differs between an edge of local processes and one namespace of a Kubernetes cluster.

The agent decides the same in both; here is all that it asks of the place where it works. This module refuses
to know either place.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from edge_agent import assignments, bundles, offers, policy, resources
from federation.runtime import port


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """A client that an earlier agent started, by its workload's name; `hub` is whose wish it was."""

    name: str
    hub: str
    assignment: assignments.Assignment


class Site(Protocol):
    """Where one agent's clients run and its owner's objects are."""

    @property
    def runtime(self) -> port.Runtime:
        """Where clients run."""
        ...

    @property
    def shelf(self) -> bundles.Shelf:
        """Where fetched apps are kept."""
        ...

    @property
    def default_image(self) -> str:
        """The image of a client whose training names none; empty where clients need none."""
        ...

    async def declared(self) -> resources.Resources:
        """Return what the owner declares now; the same object while nothing changed."""
        ...

    async def found(self) -> tuple[Found, ...]:
        """Return the clients that an earlier agent left; what has no readable note is ended."""
        ...

    def credentials(self, assignment: assignments.Assignment) -> pathlib.Path:
        """Return the directory, on the agent's disk, of this client's own identity."""
        ...

    async def hand_over_credentials(self, assignment: assignments.Assignment) -> None:
        """Let a running client see what `credentials` holds now."""
        ...

    async def workload(
        self, hub: str, assignment: assignments.Assignment, allowed: policy.Allowed, offer: offers.Offer
    ) -> port.Workload:
        """Return the client's workload, with data, app and credentials placed for it.

        Raises: offers.DatasetUnavailable; SiteFailure, of which SiteAway is to be tried again;
        pydantic.ValidationError; OSError.
        """
        ...

    async def show_use(self, in_use: Mapping[str, Sequence[str]]) -> None:
        """Let the owner see which trainings (NAMESPACE/NAME) use which data set now."""
        ...

    def follow_log(self, name: str) -> None:
        """Begin to keep new lines of this client's output, where the hub may have them."""
        ...

    async def new_lines(self, name: str) -> list[str]:
        """Return the whole lines since the last call; of very much, the latest."""
        ...

    async def forget(self, assignment: assignments.Assignment) -> None:
        """Remove what was prepared for the assignment, and what its client kept."""
        ...

    async def tidy(self, is_wanted: Callable[[str], bool]) -> None:
        """Remove what an earlier agent left of clients that are not wanted, by their workloads' names."""
        ...


class SiteFailure(Exception):
    """A client could not be prepared here; the text is a sentence for people."""


class SiteAway(SiteFailure):
    """What the site asks for that did not answer; it will."""


class NameWithoutAnswer(SiteAway):
    """A name that leads nowhere now. One that is wrong for good looks the same, so it is waited for, too."""
