"""Patterns by which an owner or an operator says which names are allowed.

One place, so that a pattern means the same in an EdgePolicy and in the settings of a hub. This module refuses
to know what is named.
"""

from __future__ import annotations


def matches(pattern: str, text: str) -> bool:
    """Say whether `text` matches the glob: `*` is any run of characters, `/` included, `?` is any one.

    Takes at most len(pattern) * len(text) steps: only the last `*` ever has to give more.
    """
    at, here, star, resume = 0, 0, -1, 0
    while here < len(text):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, here
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", text[here]):
            at += 1
            here += 1
        elif star >= 0:
            resume += 1
            at, here = star + 1, resume
        else:
            return False
    return all(character == "*" for character in pattern[at:])
