"""What a person sees of a status: plain lines, and the live table."""

import io
from typing import Any

import pytest
from rich.console import Console

from simulations.local import view


def status(**changes: Any) -> dict[str, Any]:
    """A training in its second round."""
    return {
        "phase": "Running",
        "conditions": [{"type": "Running", "status": "True", "message": "round 2, train: 1 of 2 reported"}],
        "round": {"current": 2, "total": 3},
        "clusters": [
            {
                "name": "a",
                "state": "Training",
                "round": 2,
                "examples": 98,
                "bytesUp": 1500,
                "bytesDown": 2_000_000,
            },
            {"name": "b", "state": "Refused", "reason": "NoPolicy", "message": "b has no EdgePolicy\nmore"},
        ],
        "metrics": [
            {"round": 1, "phase": "Train", "values": {"loss": "0.9"}},
            {"round": 1, "phase": "Evaluate", "values": {"loss": "0.8", "accuracy": "0.75"}},
        ],
        "phaseSeconds": {"Train": "1.5"},
    } | changes


def lines(*statuses: dict[str, Any]) -> list[str]:
    """What `Lines` prints."""
    stream = io.StringIO()
    shown = view.Lines(Console(file=stream, width=200))
    for one in statuses:
        shown.status(one)
    shown.close()
    return stream.getvalue().splitlines()


def test_lines_say_each_change_once() -> None:
    """The same status twice is said once; Training and Reported are no change worth a line."""
    reported = status()
    reported["clusters"] = [{"name": "a", "state": "Reported"}, status()["clusters"][1]]

    assert lines(status(), status(), reported) == [
        "a: Training",
        "b: Refused NoPolicy b has no EdgePolicy",
        "more",
        "round 1 of 3: accuracy=0.750 loss=0.800",
    ]


def test_a_note_stays_in_sight() -> None:
    """Lines print it; a live table has it above itself; nobody is told who wants nothing."""
    for shown_by in (view.Lines, view.LiveTable):
        stream = io.StringIO()
        shown = shown_by(Console(file=stream, width=200))
        shown.status(status())
        shown.note("drill: zurich is killed in round 3")
        shown.status(status())
        shown.close()
        assert stream.getvalue().count("drill: zurich is killed in round 3\n") == 1
    view.Silent().note("nothing")


def test_lines_say_a_new_reason() -> None:
    """A refused update is worth a line, and so is its end."""
    refused = status(
        clusters=[{"name": "a", "state": "Ready", "reason": "UpdateRefused", "message": "NotFinite: w"}]
    )

    assert (
        lines(status(metrics=[]), refused | {"metrics": []})[-1] == "a: Training UpdateRefused NotFinite: w"
    )


def test_an_app_that_did_something_else_is_told_once() -> None:
    """In a line, and below the table."""
    condition = {"type": "Diverged", "status": "True", "message": "After a restart, call 3 differs."}
    odd = status(clusters=[], metrics=[], conditions=[condition])

    assert lines(odd, odd) == ["After a restart, call 3 differs."]
    stream = io.StringIO()
    Console(file=stream, width=140).print(view.render(odd))
    assert "call 3 differs" in stream.getvalue()


def test_lines_take_markup_as_text() -> None:
    """A message with square brackets is printed as it is."""
    odd = status(clusters=[{"name": "a", "state": "Failed", "message": "[red]x[/nothing]"}], metrics=[])

    assert lines(odd) == ["a: Failed [red]x[/nothing]"]


def test_table() -> None:
    """Headline, one row for each edge, metrics of the last evaluation, time by phase."""
    stream = io.StringIO()
    Console(file=stream, width=140).print(view.render(status()))
    text = stream.getvalue()

    assert "Running  round 2 of 3  round 2, train: 1 of 2 reported" in text
    assert "1.5 kB" in text
    assert "2.0 MB" in text
    assert "b has no EdgePolicy" in text
    assert "more" not in text
    assert "round 1: accuracy=0.750 loss=0.800" in text
    assert "time: Train 1.50 s" in text


def test_table_of_nothing() -> None:
    """A status with nothing in it can be drawn."""
    Console(file=io.StringIO()).print(view.render({}))


@pytest.mark.parametrize(
    ("conditions", "want"),
    [
        ([], ""),
        ([("Accepted", "False", "no such app")], "no such app"),
        ([("Running", "False", "over"), ("Stopped", "True", "stopped")], "stopped"),
        ([("QuorumReached", "False", "1 of 2"), ("Running", "False", "")], "1 of 2"),
        ([("Running", "True", "round 2"), ("Failed", "False", "nothing")], "round 2"),
        ([("Running", "False", "over"), ("Failed", "True", "quorum lost\ntraceback")], "quorum lost"),
    ],
)
def test_running_message(conditions: list[tuple[str, str, str]], want: str) -> None:
    """The one sentence that matters most: the end, else what it does, else what it waits for."""
    built = [{"type": kind, "status": value, "message": message} for kind, value, message in conditions]

    assert view.running_message({"conditions": built}) == want


@pytest.mark.parametrize(
    ("count", "want"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_500_000, "1.5 MB"),
        (2 * 10**9, "2.0 GB"),
        (10**13, "10000.0 GB"),
    ],
)
def test_format_bytes(count: int, want: str) -> None:
    """Powers of 1000, one digit after the point."""
    assert view.format_bytes(count) == want


def test_format_metrics() -> None:
    """Three digits, by name, at most four of them; NaN is said."""
    assert view.format_metrics({"b": "1", "a": "nan"}) == "a=nan b=1.000"
    assert view.format_metrics({name: "0" for name in "fedcba"}).split()[-1] == "d=0.000"


def test_console_decides() -> None:
    """A terminal gets the table, anything else plain lines."""
    assert isinstance(view.for_console(Console(file=io.StringIO())), view.Lines)
    live = view.for_console(Console(file=io.StringIO(), force_terminal=True))
    try:
        assert isinstance(live, view.LiveTable)
        live.start("joining 4 edges")
        live.status(status())
    finally:
        live.close()
