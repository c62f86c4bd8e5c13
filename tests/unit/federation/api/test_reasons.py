"""The vocabulary of why."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from federation.api import reasons

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("enum", reasons.VOCABULARY, ids=lambda enum: enum.__name__)
def test_words_are_camel_case_and_documented(enum: type[reasons.Documented]) -> None:
    """Every value is one CamelCase word with one sentence, equal to its text."""
    assert enum.__doc__
    for member in enum:
        assert re.fullmatch(r"([A-Z][a-z0-9]*)+", member.value)
        assert member.doc.endswith("."), member
        assert member == member.value
        assert enum(member.value) is member


def test_names_follow_values() -> None:
    """A member's name is its value in capitals."""
    for enum in reasons.VOCABULARY:
        for member in enum:
            assert re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", member.value).upper() == member.name


def test_every_enum_is_listed() -> None:
    """No documented enum is missing from the tables."""
    assert set(reasons.Documented.__subclasses__()) == set(reasons.VOCABULARY)


def test_table_has_every_word() -> None:
    """The Markdown table names each value once in its enum."""
    text = reasons.table([reasons.ClusterState])
    assert text.startswith("## ClusterState\n")
    assert text.count("\n| `") == len(reasons.ClusterState)


def test_every_word_is_said_somewhere() -> None:
    """Nobody looks out for one that never comes; outside of the vocabulary, by name or as it is."""
    said = {
        word
        for package in ("coordinator", "edge_agent", "federation")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "reasons.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for word in (getattr(node, "attr", None), getattr(node, "value", None))
        if isinstance(word, str)
    }
    words = [member for enum in reasons.VOCABULARY for member in enum]
    assert [word for word in words if not {word.name, word.value} & said] == []
