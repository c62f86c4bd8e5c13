"""The sentences that the round machine says to people, with the clusters' names and the next step.

The module exists so that wording is in one place. It refuses to know why something was decided.
"""

from __future__ import annotations

from collections.abc import Sequence

# A condition's message in Kubernetes may be long, but nobody reads a thousand names.
_MAXIMUM_NAMES = 8
_MAXIMUM_CLAUSE = 240


def seconds(length: float) -> str:
    """Return a length of time as people write it: `600 s`, `0.5 s`."""
    return f"{length:g} s"


def clusters(number: int) -> str:
    """Return `1 cluster`, `3 clusters`."""
    return "1 cluster" if number == 1 else f"{number} clusters"


def brief(text: str) -> str:
    """Return the text as one clause: one line, at most 240 characters, without a full stop."""
    line = " ".join(text.split())
    return line.rstrip(".") if len(line) <= _MAXIMUM_CLAUSE else line[: _MAXIMUM_CLAUSE - 1] + "…"


def because(reason: str, message: str) -> str:
    """Return why a cluster is not there, as one clause."""
    return ": ".join(part for part in (reason, brief(message)) if part)


def names(these: Sequence[str]) -> str:
    """Return the names in the order given, at most eight of them."""
    shown = " ".join(these[:_MAXIMUM_NAMES])
    return shown if len(these) <= _MAXIMUM_NAMES else f"{shown} and {len(these) - _MAXIMUM_NAMES} more"


def names_with_reasons(these: Sequence[tuple[str, str]]) -> str:
    """Return `edge-04 (link lost ...), edge-09 (...)`, at most eight of them."""
    shown = ", ".join(f"{name} ({brief(why)})" if why else name for name, why in these[:_MAXIMUM_NAMES])
    return shown if len(these) <= _MAXIMUM_NAMES else f"{shown} and {len(these) - _MAXIMUM_NAMES} more"


def round_of(round_: int, training: str) -> str:
    """Return `round 7 of demo/hospitals`, or the training's name alone before the first round."""
    return f"round {round_} of {training}" if round_ else training


def gathering(training: str, connected: int, wanted: int, quorum: int, missing: Sequence[str]) -> str:
    """Say whom the start waits for."""
    waiting = f", waiting for {names(missing)}" if missing else ""
    return (
        f"{training} waits to start: {connected} of {clusters(wanted)} connected, quorum is {quorum}{waiting}"
    )


def quorum_not_reached(
    training: str,
    connected: int,
    wanted: int,
    quorum: int,
    missing: Sequence[tuple[str, str]],
    waited: float | None,
) -> str:
    """Say why the app was not started."""
    when = "" if waited is None else f" after {seconds(waited)}"
    if waited is None:
        head = f"{training} cannot start: {clusters(wanted)} can take part, quorum is {quorum}"
    else:
        head = (
            f"{training} did not start{when}: {connected} of {clusters(wanted)} connected, quorum is {quorum}"
        )
    tail = f", missing {names_with_reasons(missing)}" if missing else ""
    return f"{head}{tail}; bring more clusters in, or lower spec.clusters.minimum"


def still_asking(
    training: str, waited: float, there: Sequence[str], missing: Sequence[tuple[str, str]]
) -> str:
    """Say that the app waits for more clusters than there are."""
    listed = f" ({names(there)})" if there else ""
    gone = f", missing {names_with_reasons(missing)}" if missing else ""
    return (
        f"{training}: the app has asked for clusters for {seconds(waited)} and sent them nothing, so it"
        f" waits for more than the {len(there)} connected{listed}{gone}; lower what the app asks for"
        " (min_available_nodes), or bring more clusters in"
    )


def round_progress(
    round_: int, what: str, reported: int, asked: int, waiting: Sequence[str], taken: int | None = None
) -> str:
    """Say how far an open batch is. taken: how many of those asked are enough, if not all."""
    head = f"Round {round_}" if round_ else "Before the first round"
    tail = f", waiting for {names(waiting)}" if waiting else ""
    enough = "" if taken is None or taken >= asked else f", the first {taken} count"
    return f"{head}, {what}: {reported} of {clusters(asked)} reported{enough}{tail}"


def quorum_lost(
    head: str, reported: int, asked: int, needed: int, missing: Sequence[tuple[str, str]], at_work: int
) -> str:
    """Say why a round did not get enough replies."""
    rest = f", {at_work} still at work" if at_work else ""
    return (
        f"{head}: {reported} of {clusters(asked)} reported, quorum is {needed},"
        f" missing {names_with_reasons(missing)}{rest}; see to these clusters and apply the training again,"
        " or lower spec.clusters.minimum or spec.round.minimumFraction"
    )
