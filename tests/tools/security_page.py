"""Write the table of who may call what into docs/security.md, from the table that the servers obey.

Run in the repository's root (or a copy of it): the page and the package are those found there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from federation.trust import authorisation

BEGIN, END = "<!-- authorisation:begin", "<!-- authorisation:end -->"
CALLERS = {
    "cluster": "edge agents, for their own cluster",
    "aggregator": "aggregators, for their own training",
    "client": "clients of the aggregator's own training",
    "coordinator": "the coordinator",
}


def table() -> str:
    """The rows of authorisation.TABLE, in its order, in the page's words."""
    rows = ["| call | listener | who may call it |", "| --- | --- | --- |"]
    for method, rule in authorisation.TABLE.items():
        callers = [CALLERS[kind] for kind in sorted(rule.kinds)]
        if rule.anonymous:
            callers.insert(0, "anyone; a one-time token is checked in the call")
        name = method.rsplit(".", 1)[-1].replace("/", ".")
        rows.append(f"| `{name}` | {rule.listener.value} | {'; '.join(callers)} |")
    rows.append("")
    rows.append(
        "A call that has no row may be called by nobody. Every certificate must be of the hub's trust domain,"
    )
    rows.append("valid, and not of a cluster that was expelled or has left, or of an ended training.")
    return "\n".join(rows)


def main() -> None:
    """Replace what stands between the markers."""
    page = Path(sys.argv[1])
    text, found = re.subn(
        rf"({re.escape(BEGIN)}[^\n]*\n).*?({re.escape(END)})",
        lambda match: f"{match[1]}{table()}\n{match[2]}",
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    if found != 1:
        sys.exit(f"{page} has no place for the table: it needs the lines {BEGIN} and {END}")
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
