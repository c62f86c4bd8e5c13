"""From measurements to a table: ratios first, then figures, targets and the machine.

It knows the words of docs/benchmarks.md and how to put a table between its markers; it measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulations.bench import figures

BEGIN = "<!-- made by make bench: begin -->"
END = "<!-- made by make bench: end -->"

MB = 1_000_000
SMALL, LARGE = 1 * MB, 100 * MB

ROUND_LIMIT_SECONDS = 0.025
CHANNEL_LIMIT_RATIO = 2.0
MEMORY_MODELS, MEMORY_REST_BYTES = 3, 150 * MB
FLATNESS_LIMIT_RATIO = 1.10
FIRST_ROUND_LIMIT_SECONDS = 8.0
TWENTY_ROUNDS_LIMIT_SECONDS = 3.0

Results = Mapping[str, Any]
"""What `python -m simulations.bench -o json` prints: see `simulations.bench.__main__`."""


def targets(results: Results) -> list[figures.Target]:
    """Every target, with what was measured beside it."""
    hanse, channel = results["round_seconds"]["hanse"], results["round_seconds"]["channel"]
    memory = results["aggregator_peak_bytes"]
    found = [
        figures.Target(
            "a round at 1 MB", ROUND_LIMIT_SECONDS * 1000, _times(_median(hanse, SMALL), 1000), "ms"
        ),
        figures.Target(
            "a round at 100 MB, against the bare channel",
            CHANNEL_LIMIT_RATIO,
            _ratio(_median(hanse, LARGE), _median(channel, LARGE)),
            "times",
        ),
    ]
    for size in (10 * MB, LARGE):
        limit = (MEMORY_MODELS * size + MEMORY_REST_BYTES) / MB
        measured = [entry["peak_bytes"] for entry in memory if entry["model_bytes"] == size]
        text = f"the aggregator's peak memory with a {size // MB} MB model"
        found.append(figures.Target(text, limit, max(measured) / MB if measured else None, "MB"))
    found.append(
        figures.Target(
            "the same from 2 to 32 clients, 10 MB model",
            FLATNESS_LIMIT_RATIO,
            _flatness(memory, 10 * MB),
            "times",
        )
    )
    hospitals = results["hospitals"]
    first, twenty = hospitals.get("first_round_seconds"), hospitals.get("rounds_seconds")
    found.append(
        figures.Target("from the command to the first round", FIRST_ROUND_LIMIT_SECONDS, _middle(first), "s")
    )
    found.append(
        figures.Target("twenty rounds of the hospitals", TWENTY_ROUNDS_LIMIT_SECONDS, _middle(twenty), "s")
    )
    return found


def markdown(results: Results) -> str:
    """The part of docs/benchmarks.md between the markers."""
    lines = ["## Ratios", "", *_ratios(results), "", "## Targets", ""]
    lines += ["| target | limit | measured | |", "| --- | ---: | ---: | --- |"]
    for target in targets(results):
        measured = "" if target.value is None else f"{_number(target.value)} {target.unit}"
        lines.append(
            f"| {target.text} | {_number(target.limit)} {target.unit} | {measured} | {target.verdict} |"
        )
    lines += ["", "## Seconds a round", "", *_rounds(results), "", "## Peak memory of the aggregator", ""]
    lines += ["| model | clients | peak |", "| ---: | ---: | ---: |"]
    for entry in results["aggregator_peak_bytes"]:
        lines.append(
            f"| {entry['model_bytes'] // MB} MB | {entry['clients']} | {entry['peak_bytes'] / MB:.0f} MB |"
        )
    lines += ["", "## The hospitals", "", *_hospitals(results["hospitals"]), "", "## The machine", ""]
    lines += [f"- {name}: {value}" for name, value in results["machine"].items()]
    if results["left_out"]:
        lines += ["", "Left out in this run:", ""]
        lines += [f"- {what}" for what in results["left_out"]]
    return "\n".join(lines)


def put_between_markers(page: str, part: str) -> str:
    """Return the page with `part` between its markers; raises ValueError if they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} or no {END}")
    return f"{before}{BEGIN}\n\n{part}\n\n{END}{after}"


def _ratios(results: Results) -> list[str]:
    """How many times as long as Hanse the peers take, at each size; and Hanse against the channel."""
    rounds = results["round_seconds"]
    lines = ["| | 1 MB | 100 MB |", "| --- | ---: | ---: |"]
    for text, one, other in (
        ("stock Flower's round / Hanse's round", "flower", "hanse"),
        ("Hanse's round / the bare channel's time", "hanse", "channel"),
        ("Hanse's round / without journal and kept replies", "hanse", "nothing_kept"),
    ):
        cells = [_ratio(_median(rounds[one], size), _median(rounds[other], size)) for size in (SMALL, LARGE)]
        lines.append(
            f"| {text} | {' | '.join('' if cell is None else f'{_number(cell)}' for cell in cells)} |"
        )
    return lines


def _rounds(results: Results) -> list[str]:
    words = {
        "hanse": "Hanse, mutual TLS",
        "nothing_kept": "the same without journal and kept replies",
        "flower": "stock Flower, TLS without client certificates",
        "channel": "bare grpc.aio, mutual TLS",
    }
    lines = ["| | model | median | lowest | highest | rounds |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, text in words.items():
        for entry in results["round_seconds"][name]:
            cells = " | ".join(_seconds(entry[key]) for key in ("median", "lowest", "highest"))
            lines.append(f"| {text} | {entry['model_bytes'] // MB} MB | {cells} | {entry['number']} |")
    return lines


def _hospitals(hospitals: Mapping[str, Any]) -> list[str]:
    lines = ["| | median | lowest | highest |", "| --- | ---: | ---: | ---: |"]
    for key, text in (
        (
            "first_round_seconds",
            "`hanse simulate simulations/hospitals`, from the command to the first round",
        ),
        ("rounds_seconds", "its 20 rounds"),
        ("flower_simulation_round_seconds", "one round in Flower's own simulation (Ray), the first excluded"),
        ("flower_simulation_first_round_seconds", "the first round there, which starts Ray's workers"),
    ):
        if (entry := hospitals.get(key)) is not None:
            cells = " | ".join(_seconds(entry[name]) for name in ("median", "lowest", "highest"))
            lines.append(f"| {text} | {cells} |")
    return lines


def _median(entries: Sequence[Mapping[str, Any]], model_bytes: int) -> float | None:
    return next((entry["median"] for entry in entries if entry["model_bytes"] == model_bytes), None)


def _middle(entry: Mapping[str, Any] | None) -> float | None:
    return None if entry is None else float(entry["median"])


def _ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one / other


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _flatness(memory: Sequence[Mapping[str, Any]], model_bytes: int) -> float | None:
    peaks = {entry["clients"]: entry["peak_bytes"] for entry in memory if entry["model_bytes"] == model_bytes}
    return _ratio(peaks.get(32), peaks.get(2))


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
