"""Tables as kubectl prints them: capital heads, columns by width, nothing drawn, good for pipes."""

from __future__ import annotations

from collections.abc import Sequence

GAP = "   "


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return lines of aligned columns; an empty cell is shown as a dash."""
    shown = [tuple(heads), *(tuple(plain(cell) or "-" for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(heads))]
    return "\n".join(
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )


def plain(text: str) -> str:
    """One line, nothing that steers a terminal: some of what is shown was said by others."""
    return "".join(character if character.isprintable() else " " for character in text).strip()
