"""Which provider makes a lab, and what a person is told where none can."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.cli import lab as command
from simulations.lab import archive, choose, port, releases, state

BARE, KIND = port.Provider.BARE, port.Provider.KIND


@pytest.mark.parametrize(
    ("missing", "wanted", "want"),
    [
        ({KIND: "", BARE: ""}, None, KIND),
        ({KIND: "no Docker", BARE: ""}, None, BARE),
        ({KIND: "", BARE: ""}, BARE, BARE),
    ],
)
def test_kind_where_docker_works_else_bare(
    missing: dict[port.Provider, str], wanted: port.Provider | None, want: port.Provider
) -> None:
    assert choose.provider(choose.Machine(missing), wanted) is want


def test_what_is_missing_is_said_for_each_provider() -> None:
    """One sentence with both reasons; or the one reason of the provider that was asked for."""
    machine = choose.Machine({KIND: "Docker does not answer", BARE: "a bare lab needs root"})
    with pytest.raises(port.LabError, match="Docker does not answer; a bare lab needs root"):
        choose.provider(machine, None)
    with pytest.raises(port.LabError, match=r"^a bare lab needs root$"):
        choose.provider(machine, BARE)


def test_a_lab_stays_with_the_provider_that_made_it(tmp_path: Path) -> None:
    """Whoever asks for the other one is told to take the lab down first."""
    state.State("demo", tmp_path).write(port.Plan("demo", (), "1.36"), BARE, port.Phase.UP)
    assert choose.lab("demo", tmp_path).provider is BARE
    with pytest.raises(port.LabError, match="of the provider bare"):
        choose.lab("demo", tmp_path, KIND)


def test_the_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    """And a record that cannot be read is none: `down` does not need it."""
    kept = state.State("demo", tmp_path)
    assert kept.read() is None
    plan = port.Plan("demo", ("zurich",), "1.36")
    kept.write(plan, BARE, port.Phase.STARTING)
    assert kept.read() == (plan, BARE, port.Phase.STARTING)
    (tmp_path / "demo" / "lab.json").write_text("{")
    assert kept.read() is None
    assert (kept.remove(), kept.remove()) == (True, False)


def test_two_programs_do_not_work_on_one_lab(tmp_path: Path) -> None:
    """The second is told at once; afterwards nothing of the lock is left."""
    with state.State("demo", tmp_path).locked():
        with (
            pytest.raises(port.LabError, match="another `hanse lab` works on lab demo"),
            state.State("demo", tmp_path).locked(),
        ):
            pass
        with state.State("other", tmp_path).locked():
            pass
    assert list(tmp_path.iterdir()) == []


def test_an_archive_is_the_same_every_time() -> None:
    """Same files, same bytes: its layer's digest names it."""
    made = [
        archive.docker_archive("a:1", {"bin/x": b"x"}, links={"bin/y": "x"}, entrypoint=("/bin/x",))
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_the_command_offers_the_newest_kubernetes() -> None:
    """It names it without importing the lab, which not every command needs."""
    assert command.NEWEST == releases.NEWEST
