"""What a hub stands on, and what differs between a hub of processes and a hub of pods.

This module refuses to know either; it is the list that `local.py` and `cluster.py` fill in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

from coordinator import config, controller, workloads
from coordinator.clients import authority, bundles, token_shelf
from coordinator.gateway import translate
from federation.runtime import port as runtimes
from federation.store import port as stores

Feed = Callable[[controller.Controller], Coroutine[Any, Any, None]]
HubAddress = Callable[[], str]


class StartFailure(Exception):
    """The coordinator cannot start; the text is one sentence for whoever starts it."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a hub is made of.

    launch:     makes the aggregators' launch, given where they find the hub's control listener.
    terms:      what agents are told of every assignment.
    feed:       tells the controller of every change of a resource; None to let it watch the store.
    on_routes:  takes where the aggregators listen, by server name, at every change, and whether that is all.
    resources:  what the store is filled with at the start.
    """

    authority: authority.Authority
    store: stores.Store
    runtime: runtimes.Runtime
    shelf: bundles.BundleShelf
    apps: controller.Apps
    tokens: token_shelf.TokenShelf
    launch: Callable[[HubAddress], workloads.Launcher]
    terms: translate.Terms = translate.ONE_ADDRESS_EACH
    feed: Feed | None = None
    on_routes: Callable[[Mapping[str, str], bool], None] = lambda routes, whole: None
    resources: tuple[stores.Resource, ...] = ()


def utc(clock: Callable[[], float]) -> Callable[[], datetime]:
    """Return a clock that gives moments with a time zone."""
    return lambda: datetime.fromtimestamp(clock(), UTC)


def lifetimes(settings: config.CoordinatorConfig) -> authority.Lifetimes:
    """Return how long certificates are good."""
    given = settings.certificate_lifetimes
    return authority.Lifetimes(
        coordinator=config.lifetime(given.coordinator_seconds),
        cluster=config.lifetime(given.cluster_seconds),
        aggregator=config.lifetime(given.aggregator_seconds),
        client=config.lifetime(given.client_seconds),
    )
