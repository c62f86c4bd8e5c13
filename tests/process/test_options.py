"""--edges, --set, --keep, --timeout, --drill and policies, as real runs of a tiny app."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors import numpy as safetensors

from tests.process import federations, running

pytestmark = [pytest.mark.process, pytest.mark.slow]

PAUSING = {"behaviour": "pause", "seconds": 0.7}


def _spec(rounds: int = 2, minimum: int = 2, deadline_seconds: int = 60) -> dict[str, object]:
    return {
        "app": {"source": {"path": "app"}, "runConfig": {"rounds": rounds}},
        "clusters": {"minimum": minimum},
        "round": {"deadlineSeconds": deadline_seconds},
    }


def test_more_edges_and_a_setting(tmp_path: Path) -> None:
    """--edges 3 of 2: a copy joins in; --set changes the rounds; the partition is divided anew."""
    partition = {"partition-id": 0, "num-partitions": 2}
    edges = {"edge-1": partition, "edge-2": partition | {"partition-id": 1}}
    client = federations.CLIENT_APP.replace(
        '    print(f"training round',
        "    part = context.node_config\n"
        "    print(\"partition\", part['partition-id'], 'of', part['num-partitions'])\n"
        '    print(f"training round',
    )
    federations.Federation(edges, client_app=client).write(tmp_path / "scenario")

    run = running.simulate(
        tmp_path, tmp_path / "scenario", "--edges", 3, "--set", "spec.app.runConfig.rounds=3",
        "--set", "spec.clusters.minimum=3",
    )  # fmt: skip

    assert run.process.returncode == 0, run.told()
    assert {entry["name"] for entry in run.report["clusters"]} == {"edge-1", "edge-2", "edge-1-2"}
    assert run.report["rounds"] == 3
    assert np.all(safetensors.load_file(run.report["model"]["path"])["bias"] == 3)
    logs = Path(run.report["results"]) / "logs"
    for index, name in enumerate(("edge-1", "edge-2", "edge-1-2")):
        assert f"partition {index} of 3" in (logs / f"{name}.client.log").read_text()
    run.assert_nothing_left()


def test_an_installed_app(tmp_path: Path) -> None:
    """An app may be a package that is installed where its processes run: it is named, and travels nowhere."""
    source = {"image": {"clientApp": "tiny.client_app:app", "serverApp": "tiny.server_app:app"}}
    config = {"rounds": 2, "fraction-evaluate": 1.0, "wait-for": 0, "signals": ""}
    spec = _spec() | {"app": {"source": source, "runConfig": config}}
    scenario = federations.Federation(federations.honest(2), spec).write(tmp_path / "scenario")
    (scenario / "app").rename(tmp_path / "installed")

    path = f"{running.ROOT}:{tmp_path / 'installed'}"
    run = running.simulate(tmp_path, scenario, environment={"PYTHONPATH": path})

    assert run.process.returncode == 0, run.told()
    assert np.all(safetensors.load_file(run.report["model"]["path"])["bias"] == 2)


def test_fewer_edges(tmp_path: Path) -> None:
    """--edges 1 of 3 runs the first one alone, if the minimum allows it."""
    federations.Federation(federations.honest(3), _spec()).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario", "--edges", 1, "--set", "spec.clusters.minimum=1")

    assert run.process.returncode == 0, run.told()
    assert [entry["name"] for entry in run.report["clusters"]] == ["edge-1"]


def test_timeout(tmp_path: Path) -> None:
    """After --timeout the command ends: exit code 1, TimedOut, where it stood, and nothing is left."""
    edges = {name: {"behaviour": "hangs"} for name in ("edge-1", "edge-2")}
    federations.Federation(edges, _spec(deadline_seconds=600)).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario", "--timeout", 12)

    assert run.process.returncode == 1, run.told()
    assert run.report["state"] == "TimedOut"
    assert "12 s" in run.report["message"]
    assert run.report["model"] is None
    run.assert_nothing_left()


def test_drill_that_the_quorum_outlives(tmp_path: Path) -> None:
    """Two of three are enough: the killed edge is Lost with a sentence, all rounds are done."""
    federations.Federation(dict.fromkeys(federations.honest(3), PAUSING), _spec(rounds=4)).write(
        tmp_path / "scenario"
    )

    run = running.simulate(tmp_path, tmp_path / "scenario", "--drill", "edge-2@2")

    assert run.process.returncode == 0, run.told()
    assert run.report["state"] == "Completed"
    assert run.report["rounds"] == 4
    lost = run.cluster("edge-2")
    assert lost["state"] == "Lost", lost
    assert lost["reason"] == "LinkLost"
    assert len(lost["message"].split()) > 4
    assert run.cluster("edge-1")["state"] == run.cluster("edge-3")["state"] == "Completed"
    run.assert_nothing_left()


def test_drill_that_breaks_the_quorum(tmp_path: Path) -> None:
    """Three of three are needed: Failed, QuorumLost, and the sentence names the edge; no hang, and what was
    trained before is kept.
    """
    scenario = federations.Federation(
        dict.fromkeys(federations.honest(3), PAUSING), _spec(rounds=4, minimum=3)
    ).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, scenario, "--drill", "edge-2@2")

    assert run.process.returncode == 1, run.told()
    assert run.report["state"] == "Failed"
    assert run.report["reason"] == "QuorumLost", run.report
    assert "edge-2" in run.report["message"]
    kept = run.report["model"]["round"]
    assert kept >= 1
    assert f"The model of round {kept} is kept." in run.report["message"]
    assert np.all(safetensors.load_file(run.report["model"]["path"])["bias"] == kept)
    run.assert_nothing_left()


def test_drill_that_kills_the_aggregator(tmp_path: Path) -> None:
    """Another goes on: all rounds are done, with the model of a run without a drill."""
    scenario = federations.Federation(dict.fromkeys(federations.honest(2), PAUSING), _spec(rounds=4)).write(
        tmp_path / "scenario"
    )
    reports = []
    for number, drill in enumerate(((), ("--drill", "aggregator@2"))):
        place = tmp_path / str(number)
        place.mkdir()
        run = running.simulate(place, scenario, *drill)
        assert run.process.returncode == 0, run.told()
        assert "too late" not in run.report["message"]
        run.assert_nothing_left()
        reports.append(run.report)
    assert reports[0]["model"]["sha256"] == reports[1]["model"]["sha256"]


def test_drill_that_comes_too_late(tmp_path: Path) -> None:
    """A drill that was not carried out is not passed over in silence."""
    federations.Federation(federations.honest(2), _spec(rounds=2)).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario", "--drill", "edge-2@3")

    assert run.report["state"] == "Completed"
    assert "edge-2@3" in run.report["message"] + run.stderr


def test_policies(tmp_path: Path) -> None:
    """No policy: Refused, NoPolicy. A policy that denies: its owner's words. The others go on."""
    others_only = federations.allow_all() | {"name": "letters-only", "datasets": ["letters"]}
    federations.Federation(
        federations.honest(5),
        _spec(),
        policies={
            "edge-3": None,
            "edge-4": [others_only],
            "edge-5": [federations.allow_all() | {"effect": "Deny", "name": "not-here"}],
        },
    ).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario")

    assert run.process.returncode == 0, run.told()
    assert {entry["name"]: entry["state"] for entry in run.report["clusters"]} == {
        "edge-1": "Completed",
        "edge-2": "Completed",
        "edge-3": "Refused",
        "edge-4": "Refused",
        "edge-5": "Refused",
    }
    assert run.cluster("edge-3")["reason"] == "NoPolicy"
    assert run.cluster("edge-4")["reason"] == "PolicyDenied"
    assert "letters-only" in run.cluster("edge-4")["message"]
    assert "not-here" in run.cluster("edge-5")["message"]
    run.assert_nothing_left()


def test_policies_that_break_the_quorum(tmp_path: Path) -> None:
    """When too few edges allow it, the command ends with the refusals in its words; it never hangs."""
    federations.Federation(federations.honest(2), _spec(), policies={"edge-2": None}).write(
        tmp_path / "scenario"
    )

    run = running.simulate(tmp_path, tmp_path / "scenario", "--timeout", 8)

    assert run.process.returncode == 1, run.told()
    assert run.cluster("edge-2")["reason"] == "NoPolicy"
    assert "edge-2" in run.report["message"], run.report
    run.assert_nothing_left()


def test_keep_after_ctrl_c(start, tmp_path: Path) -> None:
    """With --keep an interrupted run leaves its private directory and no process; the next run is refused."""
    signals = tmp_path / "signals"
    signals.mkdir()
    spec = _spec(deadline_seconds=600)
    spec["app"] = {"source": {"path": "app"}, "runConfig": {"signals": str(signals)}}
    edges = {name: {"behaviour": "pause", "seconds": 600} for name in ("edge-1", "edge-2")}
    scenario = federations.Federation(edges, spec).write(tmp_path / "scenario")
    kept = tmp_path / "kept"
    run = start("simulate", scenario, "--keep", kept)
    run.until(lambda: len(list(signals.iterdir())) == 2, "both clients train")
    rival = start("simulate", scenario, "--keep", kept, "-o", "json")
    assert rival.wait() == 2, rival.told()
    assert "another simulation" in rival.stderr

    run.signal(signal.SIGINT)
    run.wait(30)

    run.assert_nothing_left()
    assert running.mode(kept / "state") == 0o700
    after = start("simulate", scenario, "--keep", kept, "-o", "json")
    assert after.wait() == 2, after.told()
    assert "earlier run" in after.stderr


def test_kept_state_is_private(tmp_path: Path) -> None:
    """The results are readable as the umask says; the state and logs below them are the user's alone."""
    federations.Federation(federations.honest(2), _spec(rounds=1)).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario", "--keep", tmp_path / "kept")

    assert run.process.returncode == 0, run.told()
    assert running.mode(tmp_path / "kept" / "state") == 0o700
    assert running.mode(tmp_path / "kept" / "logs") == 0o700
    keys = list(run.key_files())
    assert keys
    for key in keys:
        assert running.mode(key) == 0o600, key
        assert running.mode(key.parent) == 0o700, key.parent
    assert json.loads((tmp_path / "kept" / "report.json").read_text())["state"] == "Completed"


def test_slow_import_is_no_slow_round(tmp_path: Path) -> None:
    """A round's deadline is for replies: an app that imports for longer (as torch does) still takes part."""
    client_app = "import time\n\ntime.sleep(4)\n" + federations.CLIENT_APP
    federations.Federation(
        federations.honest(2), _spec(rounds=1, deadline_seconds=2), client_app=client_app
    ).write(tmp_path / "scenario")

    run = running.simulate(tmp_path, tmp_path / "scenario")

    assert run.report["state"] == "Completed", run.report["message"]
