"""What a machine can do is judged from what was found, and each refusal says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer import testing

from coordinator.cli import main
from simulations.lab import machine, port

KIND, BARE = port.Provider.KIND, port.Provider.BARE


@pytest.mark.parametrize(
    ("missing", "want_well", "want_words"),
    [
        ({KIND: "", BARE: ""}, True, "kind and bare can make labs"),
        ({KIND: "no Docker", BARE: ""}, True, "bare can make labs; kind does not: no Docker"),
        ({KIND: "no Docker", BARE: "no root"}, False, "no Docker; or: no root"),
    ],
    ids=["both", "one", "none"],
)
def test_one_provider_is_enough(missing: dict, want_well: bool, want_words: str) -> None:
    """And where there is none, both are told."""
    (found,) = machine.providers(missing)
    assert found.well is want_well
    assert want_words in (found.found, found.to_do)


def test_an_old_python_is_told() -> None:
    """3.10 is too old, 3.11 is not."""
    assert (machine.python((3, 11, 0)).well, machine.python((3, 10, 9)).well) == (True, False)


def test_programs_that_are_not_there_are_no_trouble_but_take_time() -> None:
    """The first lab makes them; how long that takes is said before."""
    assert machine.lab_programs(()).to_do == ""
    found = machine.lab_programs(("etcd", "kubelet"))
    assert (found.well, "etcd kubelet" in found.found, "25 minutes" in found.to_do) == (True, True, True)


def test_room_is_measured_where_it_will_be_needed(tmp_path: Path) -> None:
    """Of a directory that is not there yet, its nearest parent counts."""
    assert machine.disk("clusters", machine.CLUSTERS, 1, tmp_path / "a" / "b").well
    full = machine.disk("clusters", machine.CLUSTERS, 2**62, tmp_path / "a")
    assert not full.well
    assert str(tmp_path) in full.to_do


def test_inotify_is_told_with_the_command_that_raises_it() -> None:
    """As `hanse lab up` tells it."""
    assert machine.inotify(52, 128).well
    assert "sysctl -w fs.inotify.max_user_instances=256" in machine.inotify(10, 128).to_do


def test_the_command_says_each_check_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As text and as JSON; on a machine that runs the tests, processes work."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    printed = testing.CliRunner().invoke(main.app, ["doctor", "-o", "json"])
    assert printed.exit_code == 0, printed.output
    checks = {each["name"]: each for each in json.loads(printed.stdout)}
    assert checks["Python"]["ok"]
    assert {"lab", "programs", "disk for clusters"} <= checks.keys()
    shown = testing.CliRunner().invoke(main.app, ["doctor"])
    assert "for hanse simulate:\n  ok  Python" in shown.stdout
    assert list(tmp_path.iterdir()) == []
