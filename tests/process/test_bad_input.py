"""What is wrong before anything starts: one sentence, exit code 2, nothing started."""

from __future__ import annotations

import fcntl
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import disks
from tests.process import federations, running

pytestmark = pytest.mark.process

Change = Callable[[Path], Any]


def _training(**spec: Any) -> Change:
    """Change fields of the training's spec; `a__b` stands for a.b."""

    def change(scenario: Path) -> None:
        document = yaml.safe_load((scenario / "training.yaml").read_text())
        for path, value in spec.items():
            *parents, last = path.split("__")
            node = document["spec"]
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        federations.write_yaml(scenario / "training.yaml", document)

    return change


def _text(name: str, text: str) -> Change:
    return lambda scenario: (scenario / name).write_text(text)


def _replace(name: str, old: str, new: str) -> Change:
    def change(scenario: Path) -> None:
        text = (scenario / name).read_text()
        assert old in text
        (scenario / name).write_text(text.replace(old, new))

    return change


def _no_edges(scenario: Path) -> None:
    (scenario / "edges").rename(scenario / "corners")


# what is changed, words of the sentence, further arguments
CASES: dict[str, tuple[Change, list[str], list[str]]] = {
    "not YAML": (_text("training.yaml", "kind: [1, 2\nspec: }"), ["training.yaml", "YAML"], []),
    "binary": (
        lambda scenario: (scenario / "training.yaml").write_bytes(b"\x00\xff\xfe"),
        ["training.yaml"],
        [],
    ),
    "empty file": (_text("training.yaml", ""), ["FederatedTraining"], []),
    "a list": (_text("training.yaml", "- 1\n- 2\n"), ["training.yaml"], []),
    "wrong kind": (
        _replace("training.yaml", "kind: FederatedTraining", "kind: FederatedTrainings"),
        ["training.yaml", "FederatedTrainings", "FederatedTraining"],
        [],
    ),
    "wrong version": (_replace("training.yaml", "hanse.dev/v1alpha1", "hanse.dev/v9"), ["hanse.dev/v9"], []),
    "unknown field": (_training(clusters__minimun=2), ["minimun", "minimum"], []),
    "wrong type": (_training(clusters__minimum="two"), ["spec.clusters.minimum"], []),
    "out of bounds": (_training(clusters__minimum=0), ["spec.clusters.minimum"], []),
    "CEL violation": (
        _training(clusters__minimum=2, clusters__maximum=1),
        ["maximum must be at least minimum"],
        [],
    ),
    "two sources": (_training(app__source__image={"clientApp": "a:b"}), ["exactly one of"], []),
    "bad policy": (
        _replace("edges/edge-2/policy.yaml", "effect: Allow", "effect: Perhaps"),
        ["edge-2", "effect", "Allow"],
        [],
    ),
    "app does not import": (
        _replace("app/tiny/client_app.py", "import os", "import o5"),
        ["tiny.client_app", "ModuleNotFoundError: No module named 'o5'"],
        [],
    ),
    "syntax error": (
        _text("app/tiny/server_app.py", "def main(:\n"),
        ["tiny.server_app", "SyntaxError"],
        [],
    ),
    "app raises at import": (
        _text("app/tiny/server_app.py", "raise RuntimeError('no more paper')\n"),
        ["tiny.server_app", "RuntimeError: no more paper"],
        [],
    ),
    "app exits at import": (
        _text("app/tiny/client_app.py", "import os; os._exit(3)\n"),
        ["tiny.client_app"],
        [],
    ),
    "no such component": (
        _replace("app/pyproject.toml", "tiny.client_app:app", "tiny.client_app:application"),
        ["tiny.client_app", "application"],
        [],
    ),
    "no such module": (
        _replace("app/pyproject.toml", "tiny.client_app:app", "tiny.klient_app:app"),
        ["tiny.klient_app"],
        [],
    ),
    "not a component": (
        _replace("app/pyproject.toml", "tiny.client_app:app", "tiny.client_app:answer"),
        ["tiny.client_app", "ClientApp"],
        [],
    ),
    "no app": (lambda scenario: (scenario / "app").rename(scenario / "ape"), ["app"], []),
    "not TOML": (_text("app/pyproject.toml", "[tool.flwr"), ["pyproject.toml"], []),
    "no components": (_text("app/pyproject.toml", "[project]\nname = 'x'\n"), ["pyproject.toml"], []),
    "unknown run config": (
        _training(app__runConfig={"num-rounds": 3}),
        ["num-rounds"],
        [],
    ),
    "data set that no edge offers": (_training(dataset="letters"), ["letters", "numbers"], []),
    "quorum above the edges": (
        _training(clusters__minimum=3),
        ["spec.clusters.minimum", "3", "2 edges"],
        [],
    ),
    "selector that matches none": (
        _training(clusters__selector={"matchLabels": {"region": "moon"}}),
        ["selector"],
        [],
    ),
    "no edges": (_no_edges, ["edges"], []),
    "no training": (lambda scenario: (scenario / "training.yaml").unlink(), [".yaml"], []),
    "unknown setting": (lambda scenario: None, ["rund", "round"], ["--set", "spec.rund.deadlineSeconds=3"]),
    "setting without value": (lambda scenario: None, ["--set"], ["--set", "spec.dataset"]),
    "setting that is not YAML": (lambda scenario: None, ["--set"], ["--set", "spec.dataset=[1"]),
    "setting that breaks a rule": (
        lambda scenario: None,
        ["maximum must be at least minimum"],
        ["--set", "spec.clusters.maximum=1"],
    ),
    "drill on nobody": (lambda scenario: None, ["edge-9", "no edge"], ["--drill", "edge-9@1"]),
    "drill without a round": (lambda scenario: None, ["EDGE@ROUND"], ["--drill", "edge-1"]),
    "more than can be": (lambda scenario: None, ["1000"], ["--edges", "1001"]),
    "keep is a file": (lambda scenario: None, ["training.yaml"], ["--keep", "{scenario}/training.yaml"]),
}


def _scenario(tmp_path: Path) -> Path:
    return federations.Federation(federations.honest(2)).write(tmp_path / "scenario")


def _refused(run: running.Run, words: list[str]) -> None:
    """Check that the run ended with one sentence and started nothing."""
    assert run.wait() == 2, run.told()
    assert run.stdout == ""
    assert "Traceback" not in run.stderr, run.stderr
    assert run.stderr.startswith("hanse: "), run.stderr
    assert run.stderr.count("\n") == 1, run.stderr
    assert not [word for word in words if word not in run.stderr], run.stderr
    run.assert_nothing_left()
    assert not (run.place / "hanse-runs").exists() or not list((run.place / "hanse-runs").iterdir())


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str, start, tmp_path: Path) -> None:
    """One sentence that names what is wrong, exit code 2, no process and no file."""
    change, words, arguments = CASES[case]
    scenario = _scenario(tmp_path)
    change(scenario)

    run = start("simulate", scenario, "-o", "json", *(text.format(scenario=scenario) for text in arguments))

    _refused(run, words)


def test_no_such_directory(start, tmp_path: Path) -> None:
    """The directory is named."""
    _refused(start("simulate", tmp_path / "nowhere", "-o", "json"), ["nowhere", "no such directory"])


def test_a_file_is_no_directory(start, tmp_path: Path) -> None:
    """A file in the directory's place is no traceback either."""
    (tmp_path / "file.yaml").write_text("kind: x")
    _refused(start("simulate", tmp_path / "file.yaml", "-o", "json"), ["file.yaml", "directory"])


def test_port_in_use(start, tmp_path: Path) -> None:
    """The port is named, and whoever has it keeps it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start("simulate", _scenario(tmp_path), "--port", port, "-o", "json")
        _refused(run, [str(port), "in use"])


def test_clusters_that_this_machine_cannot_make(start, tmp_path: Path) -> None:
    """What is missing is said before anything starts, and no simulation without clusters runs instead."""
    state = {"PATH": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    run = start("simulate", _scenario(tmp_path), "--on", "kind", "-o", "json", environment=state)
    _refused(run, ["a lab of kind needs"])


def test_full_disk(start, tmp_path: Path) -> None:
    """A disk without room is named before anything starts."""
    with disks.mounted(tmp_path, 1) as disk:
        run = start("simulate", _scenario(tmp_path), "--keep", disk.path / "kept", "-o", "json")
        _refused(run, [str(disk.path), "full"])
        assert list(disk.path.iterdir()) == []


def test_second_run_in_the_same_directory(start, tmp_path: Path) -> None:
    """A directory that holds a run is not written over."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "model.safetensors").write_bytes(b"precious")

    run = start("simulate", _scenario(tmp_path), "--keep", kept, "-o", "json")

    _refused(run, ["kept", "earlier run"])
    assert (kept / "model.safetensors").read_bytes() == b"precious"


def test_second_run_at_the_same_time(start, tmp_path: Path) -> None:
    """A directory that another run holds is left to it."""
    kept = tmp_path / "kept"
    kept.mkdir()
    with (kept / ".hanse-run").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = start("simulate", _scenario(tmp_path), "--keep", kept, "-o", "json")
        _refused(run, ["kept", "another simulation"])
        assert kept.exists(), "it is the other run's"


def test_unknown_option(start, tmp_path: Path) -> None:
    """A wrong option is exit code 2 and no traceback as well."""
    run = start("simulate", _scenario(tmp_path), "--edgse", "3")

    assert run.wait() == 2
    assert "Traceback" not in run.stderr
    assert "--edgse" in run.stderr
