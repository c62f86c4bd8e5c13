"""The commands as a person types them; what needs processes is in tests/process."""

import json
import os
from pathlib import Path

import pytest
from rich.console import Console
from typer import testing

from coordinator.cli import logs, main, simulate, summary
from federation import release
from simulations.local import engine, results
from simulations.local.errors import SimulationFailed
from tests.process import federations


def outcome(**changes: object) -> results.Outcome:
    """A completed run of two rounds."""
    fields = {
        "state": "Completed",
        "reason": "AllRoundsDone",
        "message": "round 2 was the last",
        "rounds": 2,
        "metrics": [
            {"round": number, "phase": phase, "values": {"accuracy": 0.25 * number, "loss": 1 / number}}
            for phase in ("Train", "Evaluate")
            for number in (2, 1)
        ],
        "clusters": [{"name": "a", "state": "Completed"}],
        "model": {"sha256": "ab" * 32, "path": "/runs/x/model.safetensors"},
        "seconds": {"start": 4.0, "rounds": 1.0, "total": 5.0},
        "bytes": {"up": 10, "down": 2000},
        "training": "lab/tiny",
        "results": "/runs/x",
    }
    return results.Outcome(**(fields | changes))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a scenario in it."""
    monkeypatch.chdir(tmp_path)
    federations.Federation(federations.honest(2)).write(tmp_path / "scenario")
    return tmp_path


def invoke(*arguments: str) -> testing.Result:
    """Run `hanse ...` in this process."""
    return testing.CliRunner().invoke(main.app, list(arguments))


def test_version() -> None:
    """`hanse --version` says which release this is, and does nothing else."""
    assert invoke("--version").output == f"hanse {release.version()}\n"


@pytest.mark.parametrize("command", [[], ["simulate"], ["logs"], ["journal", "show"], ["journal", "verify"]])
def test_help(command: list[str]) -> None:
    """Every command has a help text with an example."""
    result = invoke(*command, "--help")

    assert result.exit_code == 0
    assert "Usage" in result.output
    assert not command or "Example" in result.output


def test_curves_take_the_best_measurement() -> None:
    """The server's evaluation before the clients', the clients' before training; in round order."""
    assert summary.curves(outcome()) == {"accuracy": [(1, 0.25), (2, 0.5)], "loss": [(1, 1.0), (2, 0.5)]}
    server = {"round": 1, "phase": "ServerEvaluate", "values": {"auc": 0.5}}
    assert summary.curves(outcome(metrics=[*outcome().metrics, server])) == {"auc": [(1, 0.5)]}
    assert summary.curves(outcome(metrics=[])) == {}


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_curves_leave_gaps(value: float | None) -> None:
    """A round in which a metric was not finite has no point."""
    metrics = [
        {"round": 1, "phase": "Train", "values": {"loss": value}},
        {"round": 2, "phase": "Train", "values": {"loss": 1.0}},
    ]

    assert summary.curves(outcome(metrics=metrics)) == {"loss": [(2, 1.0)]}


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    """State, curve, last metrics, time, bytes, model and the next command."""
    summary.show(Console(width=120), outcome(), Path("here"))
    text = capsys.readouterr().out

    wanted = ("lab/tiny: Completed", "accuracy 0.5000", "4.0 s to the first round", "2.0 kB to the edges")
    for want in (*wanted, "ab" * 32, "/runs/x/model.safetensors", "--drill a@3"):
        assert want in text
    summary.show(Console(width=120), outcome(), Path("here"), drilled=True)
    after_a_drill = capsys.readouterr().out
    assert "--drill" not in after_a_drill
    assert "next         " in after_a_drill


@pytest.mark.parametrize("changes", [{"metrics": []}, {"clusters": []}, {"model": None}, {"message": ""}])
def test_summary_of_less(changes: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is missing, the rest is told."""
    summary.show(Console(width=120), outcome(**changes), Path("here"))

    assert "lab/tiny: Completed" in capsys.readouterr().out


def test_summary_of_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence as it is, markup or not, what each cluster lacks, and the command that shows the logs."""
    clusters = [{"name": "zurich", "state": "Waiting", "reason": "OutsideSchedule", "message": "At [eight]."}]
    failed = outcome(state="Failed", message="raised [/x]", model=None, clusters=clusters)
    summary.show(Console(width=120), failed, Path("here"))
    text = capsys.readouterr().out
    assert "  zurich: Waiting OutsideSchedule At [eight]." in text

    assert "raised [/x]" in text
    assert "hanse logs /runs/x --tail 20" in text


class Engine:
    """Stands where the engine does; ends as the test says."""

    end: results.Outcome | Exception

    def __init__(self, plan: object, options: engine.Options, shown: object, new_token: object) -> None:
        (options.results / "logs").mkdir()

    async def run(self) -> results.Outcome:
        """End."""
        if isinstance(self.end, Exception):
            raise self.end
        return self.end


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> type[Engine]:
    """Put it there."""
    monkeypatch.setattr(simulate.engine, "Simulation", Engine)
    monkeypatch.setattr(simulate.preflight, "check", lambda plan, results, port: None)
    monkeypatch.setattr(simulate.curve, "picture", lambda path, title, series: path.write_bytes(b"PNG"))
    return Engine


def test_json(run: Path, ends: type[Engine]) -> None:
    """Standard output is the object, and so is report.json."""
    ends.end = outcome()

    result = invoke("simulate", "scenario", "--keep", "kept", "-o", "json")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["state"] == "Completed"
    assert json.loads((run / "kept" / "report.json").read_text()) == json.loads(result.stdout)
    assert not (run / "kept" / "curve.png").exists(), "nobody looks at it, and it takes a second"


@pytest.mark.parametrize(
    ("end", "want_code", "want"),
    [
        (outcome(state="Failed", model=None), 1, ""),
        (outcome(state="TimedOut", model=None), 1, ""),
        (SimulationFailed("the coordinator ended"), 1, "hanse: the coordinator ended\n"),
        (OSError(28, "No space left on device", "/x"), 2, "hanse: /x: No space left on device\n"),
    ],
)
def test_exit_codes(
    end: results.Outcome | Exception, want_code: int, want: str, run: Path, ends: type[Engine]
) -> None:
    """1: it ran and failed. 2: something to mend."""
    ends.end = end

    result = invoke("simulate", "scenario", "-o", "json")

    assert result.exit_code == want_code
    assert result.stderr == want


def test_logs(run: Path) -> None:
    """All logs in name order, one process's, its last lines, and as JSON; the latest run by default."""
    for age, name in enumerate(("older", "newer")):
        logs = run / "hanse-runs" / name / "logs"
        logs.mkdir(parents=True)
        (logs / "zurich.client.log").write_text(f"one of {name}\ntwo\n")
        (logs / "aggregator.log").write_text("hello\n")
        os.utime(logs.parent, (age, age))

    assert invoke("logs").stdout.splitlines() == [
        "        aggregator | hello",
        "     zurich.client | one of newer",
        "     zurich.client | two",
    ]
    assert (
        invoke("logs", "hanse-runs/older", "--from", "zurich.client", "--tail", "1").stdout.split(" | ")[1]
        == "two\n"
    )
    assert json.loads(invoke("logs", "--from", "aggregator", "-o", "json").stdout) == {
        "process": "aggregator",
        "line": "hello",
    }


@pytest.mark.parametrize(
    ("arguments", "want"),
    [
        (["logs"], "no runs below hanse-runs/"),
        (["logs", "scenario"], "scenario: no logs"),
        (["logs", "nowhere"], "nowhere: no logs"),
    ],
)
def test_no_logs(arguments: list[str], want: str, run: Path) -> None:
    """One sentence, exit code 2."""
    result = invoke(*arguments)

    assert result.exit_code == 2
    assert want in result.stderr


def test_log_of_nobody(run: Path) -> None:
    """The names that there are."""
    (run / "x" / "logs").mkdir(parents=True)
    (run / "x" / "logs" / "aggregator.log").touch()

    result = invoke("logs", "x", "--from", "zurich")

    assert result.exit_code == 2
    assert "no such process; this run has aggregator" in result.stderr


def test_a_log_line_of_an_app_that_nests_too_deeply_is_shown_as_it_is() -> None:
    """An app prints what it likes; reading its log goes on."""
    assert logs._readable("[" * 5000) == "[" * 5000


def test_the_environment_may_name_the_lab(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands without --name mean the lab of HANSE_LAB; --name goes before it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(run))
    monkeypatch.setenv("HANSE_LAB", "mine")

    assert "there is no lab mine" in invoke("lab", "status").output
    assert "there is no lab other" in invoke("lab", "status", "--name", "other").output
