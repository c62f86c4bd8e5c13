"""Which image an aggregator runs is its training's to ask for and the hub's operator's to allow."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.planning import server_images

OWN = "registry.example/hanse/coordinator:0.1.0"
DIGEST = "registry.example/apps/cardiology@sha256:" + "5f" * 32
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], bool]] = {
    "nothing said": ({}, (), True),
    "a server without an image": ({"server": {"maximumRestarts": 3}}, (), True),
    "the hub's own": ({"server": {"image": OWN}}, (), True),
    "another, and none is allowed": ({"server": {"image": DIGEST}}, (), False),
    "one of a pattern": ({"server": {"image": DIGEST}}, ("*/torch:*", "registry.example/apps/*"), True),
    "one of no pattern": ({"server": {"image": "elsewhere.example/x:1"}}, ("registry.example/*",), False),
    "by digest": ({"server": {"image": DIGEST}}, ("registry.example/apps/*@sha256:*",), True),
    "by tag, where digests are asked for": (
        {"server": {"image": "registry.example/apps/cardiology:1"}},
        ("registry.example/apps/*@sha256:*",),
        False,
    ),
    "the hub's own, beside patterns": ({"server": {"image": OWN}}, ("registry.example/apps/*",), True),
}


@pytest.mark.parametrize(("spec", "allowed", "want_allowed"), CASES.values(), ids=CASES)
def test_what_is_allowed(spec: dict[str, Any], allowed: tuple[str, ...], want_allowed: bool) -> None:
    """The hub's own image always is, and what matches a pattern of its operator; nothing else."""
    assert (server_images.ServerImages(OWN, allowed).refusal(spec) is None) is want_allowed


def test_the_refusal_says_what_is_allowed_and_who_can_change_that() -> None:
    """One sentence, in which no text of the manifest stands."""
    images = server_images.ServerImages(OWN, ("registry.example/apps/*@sha256:*",))
    refused = images.refusal({"server": {"image": "evil.example/x:1"}})
    assert refused is not None
    assert refused.reason == "ImageNotAllowed"
    assert refused.message == (
        f"Aggregators of this hub may run the hub's own image ({OWN}) or registry.example/apps/*@sha256:* "
        "only; leave spec.server.image out, use an allowed one, or ask the hub's operator to add it to "
        "kubernetes.aggregator_images in the coordinator's configuration."
    )


def test_the_manifests_image_is_chosen_else_the_hubs() -> None:
    """Empty where nobody knows one."""
    images = server_images.ServerImages(OWN, ("*",))
    assert images.choose({}) == OWN
    assert images.choose({"server": {"image": DIGEST}}) == DIGEST
    assert server_images.ServerImages("").choose({}) == ""
