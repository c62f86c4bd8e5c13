"""`hanse simulate simulations/hospitals` end to end: two runs, one as JSON, one as text with --keep."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import runpy
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests.process import running

pytestmark = [pytest.mark.process, pytest.mark.slow]

HOSPITALS = running.ROOT / "simulations" / "hospitals"
EDGES = {"cleveland", "budapest", "zurich", "long-beach"}
ROUNDS = 20
TRAINING_ROWS = {"cleveland": 228, "budapest": 221, "zurich": 93, "long-beach": 151}


@dataclasses.dataclass(frozen=True)
class Runs:
    """The same training twice."""

    as_json: running.Run
    as_text: running.Run
    kept: Path

    @property
    def results(self) -> Path:
        """Where the first run's results are."""
        return Path(self.as_json.report["results"])

    @property
    def card(self) -> dict[str, Any]:
        """The first run's card."""
        found = json.loads((self.results / "card.json").read_text())
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Run the hospitals twice, one after the other."""
    first = running.simulate(tmp_path_factory.mktemp("json"), HOSPITALS)
    place = tmp_path_factory.mktemp("text")
    second = running.Run(place, "simulate", HOSPITALS, "--keep", place / "kept")
    try:
        second.wait()
    finally:
        second.end()
    return Runs(first, second, place / "kept")


def test_both_runs_complete(runs: Runs) -> None:
    """Exit code 0, and nothing on standard error."""
    assert runs.as_json.process.returncode == 0, runs.as_json.told()
    assert runs.as_text.process.returncode == 0, runs.as_text.told()
    assert runs.as_json.stderr == ""
    assert runs.as_text.stderr == ""


def test_json_is_one_object_with_the_documented_keys(runs: Runs) -> None:
    """Standard output is one strict JSON object and nothing else."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    report = json.loads(runs.as_json.stdout, parse_constant=refuse)

    assert report["state"] == "Completed"
    assert report["rounds"] == ROUNDS
    documented = "training, state, reason, message, rounds, metrics, clusters, model, seconds"
    documented += ", phaseSeconds, bytes, peakMemoryBytes, results"
    assert set(documented.split(", ")) == set(report)
    assert {entry["name"] for entry in report["clusters"]} == EDGES
    for entry in report["clusters"]:
        assert {"name", "state", "reason", "examples"} <= set(entry)
        assert entry["state"] == "Completed"
    assert set(report["seconds"]) == {"start", "rounds", "total"}
    assert set(report["bytes"]) == {"up", "down"}


def test_metrics_are_there_for_every_round(runs: Runs) -> None:
    """A training that is quicker than its status loses no round's metrics."""
    found = {(entry["round"], entry["phase"]): entry["values"] for entry in runs.as_json.report["metrics"]}

    assert set(found) == {
        (number, phase) for number in range(1, ROUNDS + 1) for phase in ("Train", "Evaluate")
    }
    assert all(
        {"accuracy", "auc", "loss"} <= set(found[number, "Evaluate"]) for number in range(1, ROUNDS + 1)
    )
    assert 0.7 < found[ROUNDS, "Evaluate"]["accuracy"] < 0.9


def test_seconds_add_up(runs: Runs) -> None:
    """Start and rounds are the total, to the millisecond."""
    seconds = runs.as_json.report["seconds"]

    assert seconds["start"] > 0
    assert seconds["start"] + seconds["rounds"] == pytest.approx(seconds["total"], abs=0.003)


def test_bytes_are_at_least_the_models_that_travelled(runs: Runs) -> None:
    """31 float64 numbers go to each of four hospitals twice a round, and come back once."""
    model = 31 * 8

    assert runs.as_json.report["bytes"]["up"] > ROUNDS * 4 * model
    assert runs.as_json.report["bytes"]["down"] > ROUNDS * 4 * model


def test_peak_memory_is_told_for_every_process(runs: Runs) -> None:
    """Coordinator, aggregator, every agent, every client; each a plausible Python process."""
    peaks = runs.as_json.report["peakMemoryBytes"]

    assert set(peaks) == {"coordinator", "aggregator"} | EDGES | {f"{name}.client" for name in EDGES}
    assert all(20e6 < peak < 1e9 for peak in peaks.values())


def test_model_file_is_what_its_digest_says(runs: Runs) -> None:
    """The SHA-256 is that of the safetensors file, which has the app's two arrays."""
    model = runs.as_json.report["model"]
    data = Path(model["path"]).read_bytes()

    assert hashlib.sha256(data).hexdigest() == model["sha256"]
    assert {name: array.shape for name, array in safetensors.load(data).items()} == {
        "weights": (30,),
        "bias": (1,),
    }


def test_the_same_model_twice(runs: Runs) -> None:
    """Two runs give the same bytes."""
    kept = hashlib.sha256((runs.kept / "model.safetensors").read_bytes()).hexdigest()

    assert kept == runs.as_json.report["model"]["sha256"]
    assert kept in runs.as_text.stdout


def test_the_report_compares_this_very_model(runs: Runs) -> None:
    """The report averages without the network; but for the last bits that is the model which was trained."""
    report = runpy.run_path(str(HOSPITALS / "report.py"))
    training, _ = report["divide"](report["read"](HOSPITALS / "edges"), "0")
    want = safetensors.load(Path(runs.as_json.report["model"]["path"]).read_bytes())
    for name, value in report["federate"](training).items():
        np.testing.assert_allclose(value, want[name], rtol=1e-6, atol=1e-9)


def test_card_is_complete(runs: Runs) -> None:
    """Training, app digest, data set, metrics by round and SHA-256 stand in card.json."""
    card = runs.card

    assert card["training"] == "cardiology/hospitals"
    assert card["app_digest"].startswith("sha256:")
    assert len(card["app_digest"]) == len("sha256:") + 64
    assert card["dataset"] == "heart-disease"
    assert card["sha256"] == runs.as_json.report["model"]["sha256"]
    assert {(entry["round"], entry["phase"]) for entry in card["metrics"]} == {
        (number, phase) for number in range(1, ROUNDS + 1) for phase in ("Train", "Evaluate")
    }


def test_card_and_report_count_training_examples(runs: Runs) -> None:
    """The per-edge example counts are those of training, not of the evaluation that came last."""
    counts = {entry["name"]: entry["examples"] for entry in runs.as_json.report["clusters"]}

    assert set(runs.card["examples"]) == EDGES
    assert runs.card["examples"] == counts
    assert counts == TRAINING_ROWS


def test_curve_is_a_picture(runs: Runs) -> None:
    """curve.png is a PNG of a size that a person can look at."""
    data = (runs.kept / "curve.png").read_bytes()
    width, height = struct.unpack(">II", data[16:24])

    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert width > 300
    assert height > 150


def test_report_file_is_what_was_printed(runs: Runs) -> None:
    """report.json in the results is the object of standard output."""
    assert json.loads((runs.results / "report.json").read_text()) == runs.as_json.report


def test_logs_of_every_process_are_there(runs: Runs) -> None:
    """One log each, none of them empty, none with a traceback in it."""
    logs = {path.stem: path.read_text() for path in (runs.results / "logs").glob("*.log")}

    assert set(logs) == {"coordinator", "aggregator"} | EDGES | {f"{name}.client" for name in EDGES}
    assert all(logs.values())
    assert not [name for name, text in logs.items() if "Traceback" in text]


def test_no_secret_is_logged(runs: Runs) -> None:
    """No log has a private key or a join token in it."""
    tokens = [path.read_text().strip() for path in runs.kept.rglob("*.token")]

    assert len(tokens) == len(EDGES)
    for log in runs.kept.rglob("*.log"):
        text = log.read_text()
        assert "PRIVATE KEY" not in text
        assert not [token for token in tokens if token in text or token.rpartition(".")[2] in text]


def test_hanse_logs_shows_them(runs: Runs) -> None:
    """`hanse logs` finds the latest run by itself, and one process's log by name."""
    everything = _hanse_logs(runs.as_json.place)
    client = _hanse_logs(runs.as_json.place, "--from", "zurich.client")
    as_json = _hanse_logs(runs.as_json.place, "--from", "aggregator", "-o", "json")

    assert "server app starts" in everything
    assert "client app loaded" in client
    assert "aggregator" not in client
    assert {json.loads(line)["process"] for line in as_json.splitlines()} == {"aggregator"}


def test_text_output_tells_the_story(runs: Runs) -> None:
    """Plain lines where there is no terminal: the rounds, the curve, the model, the next command."""
    text = runs.as_text.stdout

    assert "\x1b" not in text
    assert f"round {ROUNDS} of {ROUNDS}" in text
    assert "cardiology/hospitals: Completed" in text
    assert "█" in text
    assert "model.safetensors" in text
    assert f"hanse simulate {running.ROOT}/simulations/hospitals --drill" in text


def test_nothing_is_left(runs: Runs) -> None:
    """No process, no socket, no temporary file."""
    runs.as_json.assert_nothing_left()
    runs.as_text.assert_nothing_left()


def test_kept_keys_are_private(runs: Runs) -> None:
    """With --keep the keys stay, each 0600 in a directory that only the user can enter."""
    keys = list(runs.as_text.key_files())

    assert len(keys) >= 3 + len(EDGES), "the CA's, the coordinator's, the aggregator's, and each agent's"
    for key in keys:
        assert running.mode(key) == 0o600, key
        assert running.mode(key.parent) == 0o700, key.parent
    assert running.mode(runs.kept / "state") == 0o700


def test_without_keep_no_key_stays(runs: Runs) -> None:
    """The first run leaves results and not one key."""
    assert list(runs.as_json.key_files()) == []


def test_no_row_reaches_the_hub(runs: Runs) -> None:
    """Nothing below the coordinator's directory holds a line of any hospital's file."""
    rows = [
        line
        for path in HOSPITALS.glob("edges/*/data/*.csv")
        for line in path.read_text().splitlines()[1:]
        if len(line) > 30
    ]
    kept = b"\n".join(
        path.read_bytes() for path in (runs.kept / "state" / "coordinator").rglob("*") if path.is_file()
    )

    assert len(rows) > 500
    assert not [row for row in rows if row.encode() in kept]


def _hanse_logs(place: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "coordinator.cli.main", "logs", *arguments]
    environment = {"PYTHONPATH": str(running.ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout
