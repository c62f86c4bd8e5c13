"""Patterns of an owner and of an operator mean the same."""

from __future__ import annotations

import pytest

from federation.api import globs

GLOBS = [
    ("*", "", True),
    ("*", "anything/at:all", True),
    ("a*c", "abbc", True),
    ("a*c", "abbcd", False),
    ("?", "a", True),
    ("?", "", False),
    ("registry.example/*", "registry.example.evil/x", False),
    ("*a*b", "xaxbxab", True),
    ("[a]", "a", False),
]


@pytest.mark.parametrize("pattern, text, want", GLOBS)
def test_globs(pattern: str, text: str, want: bool) -> None:
    """Star and question mark, nothing else."""
    assert globs.matches(pattern, text) is want


def test_a_hostile_pattern_costs_little() -> None:
    """Matching takes steps in the product of the lengths, however many stars there are."""
    assert not globs.matches("*a" * 100 + "b", "a" * 5000)
