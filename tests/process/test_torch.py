"""simulations/digits-torch: ten edges with torch fit on a small machine, and their model learns."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process import running

pytestmark = [pytest.mark.torch, pytest.mark.process]

LIMIT_SECONDS = 400.0
"""Ten processes import torch on two cores: a minute on a quiet machine."""


@pytest.fixture(scope="module")
def run_and_peak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[running.Run, int]]:
    """Three rounds of the example, and the most memory that all its processes used at one moment."""
    scenario = running.ROOT / "simulations" / "digits-torch"
    settings = ("--set", "spec.app.runConfig.num-server-rounds=3", "--timeout", "380", "-o", "json")
    started = running.Run(tmp_path_factory.mktemp("digits"), "simulate", scenario, *settings)
    peak = 0
    deadline = time.monotonic() + LIMIT_SECONDS
    try:
        while started.process.poll() is None and time.monotonic() < deadline:
            peak = max(peak, sum(map(_proportional_bytes, started.processes())))
            time.sleep(0.5)
        yield started, peak
    finally:
        started.end()


@pytest.fixture(scope="module")
def run(run_and_peak: tuple[running.Run, int]) -> running.Run:
    """The run alone."""
    return run_and_peak[0]


def _proportional_bytes(pid: int) -> int:
    """What a process uses, with a fair share of the pages that it shares with others."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB$", rollup, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def test_ten_edges_learn_together(run: running.Run) -> None:
    """All ten take part, and three rounds of a small network beat guessing by far."""
    report = run.report
    assert report["state"] == "Completed", run.told()
    assert [cluster["state"] for cluster in report["clusters"]] == ["Completed"] * 10
    accuracies = [entry["values"]["accuracy"] for entry in report["metrics"] if "accuracy" in entry["values"]]
    assert accuracies[-1] > 0.5


def test_ten_edges_fit_in_eight_gibibytes(run_and_peak: tuple[running.Run, int]) -> None:
    """All processes together, pages that they share counted once; and every process is in the report."""
    run, peak = run_and_peak
    assert sum(name.endswith(".client") for name in run.report["peakMemoryBytes"]) == 10
    assert 0 < peak < 8 * 2**30


def test_model_file_has_the_networks_arrays(run: running.Run) -> None:
    """A torch state_dict comes out as safetensors under the names that torch gave."""
    import safetensors.torch

    arrays = safetensors.torch.load_file(Path(run.report["model"]["path"]))
    assert arrays
    assert all("." in name for name in arrays)
