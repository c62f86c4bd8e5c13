"""The benchmark's own arithmetic: a table is only worth reading if it says what was measured."""

import json
from typing import Any

import pytest

from federation.api import manifests
from simulations.bench import figures, hanse, report
from simulations.local import scenario

MB = report.MB


def entry(model_bytes: int, median: float) -> dict[str, Any]:
    return {
        "model_bytes": model_bytes,
        "median": median,
        "lowest": median / 2,
        "highest": median * 2,
        "number": 9,
    }


def results(**changes: Any) -> dict[str, Any]:
    """A run that met every target."""
    spread = {"median": 2.0, "lowest": 1.9, "highest": 2.1, "number": 3}
    made: dict[str, Any] = {
        "machine": {"date": "2026-01-01", "cores": "2"},
        "round_seconds": {
            "hanse": [entry(MB, 0.020), entry(100 * MB, 1.0)],
            "flower": [entry(MB, 12.0), entry(100 * MB, 20.0)],
            "channel": [entry(MB, 0.010), entry(100 * MB, 0.6)],
            "nothing_kept": [entry(MB, 0.016), entry(100 * MB, 0.75)],
        },
        "aggregator_peak_bytes": [
            {"model_bytes": 10 * MB, "clients": 2, "peak_bytes": 170 * MB},
            {"model_bytes": 10 * MB, "clients": 32, "peak_bytes": 175 * MB},
            {"model_bytes": 100 * MB, "clients": 2, "peak_bytes": 400 * MB},
        ],
        "hospitals": {"first_round_seconds": spread, "rounds_seconds": spread | {"median": 0.5}},
        "left_out": [],
    }
    return made | changes


def verdicts(measured: dict[str, Any]) -> dict[str, str]:
    return {target.text: target.verdict for target in report.targets(measured)}


def test_every_target_is_named_with_its_verdict() -> None:
    """Each target of the project has a line, met or not."""
    assert set(verdicts(results()).values()) == {"met"}
    assert len(verdicts(results())) == 7


@pytest.mark.parametrize(
    "changes, missed",
    [
        (
            {
                "round_seconds": results()["round_seconds"]
                | {"hanse": [entry(MB, 0.026), entry(100 * MB, 1.0)]}
            },
            "a round at 1 MB",
        ),
        (
            {
                "round_seconds": results()["round_seconds"]
                | {"hanse": [entry(MB, 0.02), entry(100 * MB, 1.21)]}
            },
            "a round at 100 MB, against the bare channel",
        ),
        (
            {"aggregator_peak_bytes": [{"model_bytes": 100 * MB, "clients": 8, "peak_bytes": 451 * MB}]},
            "the aggregator's peak memory with a 100 MB model",
        ),
    ],
)
def test_a_missed_target_is_said_to_be_missed(changes: dict[str, Any], missed: str) -> None:
    """No figure beyond its limit is called met."""
    assert verdicts(results(**changes))[missed] == "not met"


def test_what_was_not_measured_is_not_called_met() -> None:
    """A measurement that was left out has no verdict but that."""
    bare: dict[str, Any] = {"hanse": [], "nothing_kept": [], "flower": [], "channel": []}
    said = verdicts(results(round_seconds=bare, aggregator_peak_bytes=[], hospitals={}))
    assert set(said.values()) == {"not measured"}


def test_the_table_begins_with_ratios_and_names_what_is_missing() -> None:
    """Ratios come first, then targets; what was left out is listed."""
    table = report.markdown(results(left_out=["stock Flower, 100 MB: not within 240 s"]))
    assert table.index("## Ratios") < table.index("## Targets") < table.index("## Seconds a round")
    assert "| stock Flower's round / Hanse's round | 600 | 20 |" in table
    assert "- stock Flower, 100 MB: not within 240 s" in table


def test_only_the_part_between_the_markers_changes() -> None:
    """What people wrote around the table stays; a page without markers is refused."""
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.put_between_markers(page, "new")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.put_between_markers(once, "new") == once
    with pytest.raises(ValueError, match="no"):
        report.put_between_markers("a page", "new")


def test_the_first_round_does_not_count() -> None:
    """The first round pays for connections and imports."""
    rounds = [{"seconds": 9.0}, {"seconds": 1.0}, {"seconds": 3.0}, {"seconds": 2.0}]
    assert figures.after_the_first(rounds) == figures.Spread(2.0, 1.0, 3.0, 3)
    with pytest.raises(ValueError):
        figures.after_the_first(rounds[:1])


def test_the_page_has_its_markers() -> None:
    """`make bench` finds the place of its table."""
    page = hanse.ROOT.joinpath("docs", "benchmarks.md").read_text(encoding="utf-8")
    assert report.BEGIN in page
    assert report.END in page


def test_the_scenario_is_one_that_hanse_simulate_takes(tmp_path: Any) -> None:
    """The manifests are valid, with as many edges as clients and the model's size in the run config."""
    directory = tmp_path / "scenario"
    hanse.write_scenario(directory, tmp_path / "t.jsonl", clients=3, model_bytes=10 * MB, rounds=2)
    plan = scenario.read(directory)
    assert len(plan.edges) == len(plan.clusters) == 3
    config = plan.training.spec.app.run_config
    assert config["array-count"] * config["array-bytes"] == 10 * MB
    assert json.dumps(plan.training.manifest())
    assert manifests.load_directory(directory)
