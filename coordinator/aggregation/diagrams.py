"""Draw docs/state-diagrams.md from the transition tables, so that the picture cannot lie.

`python -m coordinator.aggregation.diagrams` writes the page, `--check` fails if it is not current. The module
refuses to know what the states mean: that stands beside the tables.
"""

from __future__ import annotations

import argparse
import enum
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from coordinator.aggregation import transitions

_PAGE = Path(__file__).parents[2] / "docs" / "state-diagrams.md"
_HEAD = """# States of a training

Drawn by `python -m coordinator.aggregation.diagrams` from the tables in
`coordinator/aggregation/transitions.py`; do not edit. A fact that a state has no line for is refused with
`LocalProtocolError`. Facts that leave a state as it is are listed below its picture.
"""

State = TypeVar("State", bound=enum.StrEnum)
Fact = TypeVar("Fact", bound=enum.StrEnum)


def page() -> str:
    """Return the whole page as Markdown with one mermaid diagram for each table."""
    return "\n".join(
        [
            _HEAD,
            _section("The training", transitions.RUN, transitions.Run.GATHERING),
            _section("A node", transitions.NODE, transitions.Node.UNKNOWN),
            _section("A batch", transitions.BATCH, transitions.Batch.OPEN),
            _section("A message", transitions.MESSAGE, transitions.Message.HELD),
        ]
    )


def _section(title: str, table: Mapping[State, Mapping[Fact, State]], first: State) -> str:
    lines = [f"## {title}", "", "```mermaid", "stateDiagram-v2", f"    [*] --> {first}"]
    staying: list[str] = []
    for state, row in table.items():
        facts_to: dict[State, list[Fact]] = {}
        for fact, after in row.items():
            facts_to.setdefault(after, []).append(fact)
        for after, facts in facts_to.items():
            if after is state:
                staying.append(f"- `{state}` stays at: {', '.join(facts)}")
            else:
                lines.append(f"    {state} --> {after}: {', '.join(facts)}")
        if all(after is state for after in row.values()):
            lines.append(f"    {state} --> [*]")
    return "\n".join([*lines, "```", "", *staying, ""])


def main(arguments: list[str] | None = None) -> int:
    """Write the page, or compare it with what is there; return the exit status."""
    parser = argparse.ArgumentParser(
        description="draw the state diagrams of the docs from the transition tables"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is not current")
    check: bool = parser.parse_args(arguments).check
    if not check:
        _PAGE.parent.mkdir(parents=True, exist_ok=True)
        _PAGE.write_text(page(), encoding="utf-8")
        return 0
    current = _PAGE.read_text(encoding="utf-8") if _PAGE.exists() else ""
    if current == page():
        return 0
    sys.stderr.write(f"{_PAGE} is not current; run python -m coordinator.aggregation.diagrams\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
