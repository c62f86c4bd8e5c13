"""`hanse journal` as a person types it, over journals in directories."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
from typer import testing

from coordinator.cli import cluster_journal, main, output, reach
from coordinator.journal import book
from tests.unit.coordinator.journal.conftest import closed, nodes, pushed, received

FACTS = {"training": "cardiology/hospitals", "uid": "uid-3"}


def invoke(*arguments: object) -> testing.Result:
    """Run `hanse journal ...` in this process."""
    return testing.CliRunner().invoke(main.app, ["journal", *map(str, arguments)])


def journal(directory: Path, facts: dict[str, str] | None = None) -> Path:
    """A journal of one round."""
    opened = book.Book(directory, facts or FACTS)
    batch = pushed("b1", "a")
    for entry in (nodes(), batch, received("b1-7"), received("b1-9", 9), closed(batch)):
        opened.append(entry)
    opened.close()
    return directory


def break_it(directory: Path) -> None:
    """One entry rots."""
    with sqlite3.connect(directory / book.INDEX) as connection:
        connection.execute("update entries set attachment = x'01' where number = 3")
    connection.close()


def test_show_tells_what_happened(tmp_path: Path) -> None:
    """As a table, and as JSON."""
    where = journal(tmp_path / "run" / "state" / "journal")
    shown = invoke("show", tmp_path / "run")
    assert shown.exit_code == 0, shown.output
    assert shown.output.splitlines()[0] == "cardiology/hospitals  uid uid-3  format 1"
    (line,) = [line for line in shown.output.splitlines() if "basel" in line and "Train" in line]
    assert line.split() == ["2", "1", "Train", "basel", "Accepted", "3", *line.split()[-3:]]
    told = json.loads(invoke("show", where, "-o", "json").output)
    assert told["facts"]["uid"] == "uid-3"
    assert [one["what"] for one in told["happened"]] == ["Nodes", "Batch"]


def test_show_tells_what_an_app_did_otherwise(tmp_path: Path) -> None:
    """The first call that was not repeated after a restart."""
    opened = book.Book(tmp_path, FACTS)
    opened.fact(book.DIVERGED, lambda: "After a restart, call 3 differs.")
    opened.close()
    assert "After a restart, call 3 differs." in invoke("show", tmp_path).output.splitlines()


def test_verify_tells_whole_from_damaged(tmp_path: Path) -> None:
    """By a sentence for each damage, and the exit code."""
    where = journal(tmp_path)
    whole = invoke("verify", where)
    assert (whole.exit_code, whole.output) == (0, "5 entries are as they were written, 0 B of arrays\n")
    break_it(where)
    broken = invoke("verify", where)
    assert broken.exit_code == 1
    assert broken.output == (
        "Entry 3 is not what was written, its checksum differs. An aggregator cuts the journal back to 2 "
        "entries, forgets 3, and goes on in round 1.\n"
    )
    told = invoke("verify", where, "-o", "json")
    assert told.exit_code == 1
    assert [damage["entry"] for damage in json.loads(told.output)["damages"]] == [3]


@pytest.mark.parametrize("name", ["cardiology/hospitals", "hospitals", "uid-3", ""])
def test_a_training_is_found_by_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below hanse-runs/ or a --keep directory; the latest of several."""
    monkeypatch.chdir(tmp_path)
    other = journal(tmp_path / "hanse-runs" / "a" / "journal", FACTS | {"training": "x/y", "uid": "uid-0"})
    older = journal(tmp_path / "hanse-runs" / "b" / "journal")
    for path in (other, older):
        os.utime(path, (1, 1))
    latest = journal(tmp_path / "hanse-runs" / "c" / "journal")
    words = [name] if name else []
    for keep in ([], ["--keep", "hanse-runs"]):
        told = invoke("show", *words, *keep, "-o", "json")
        assert told.exit_code == 0, told.output
        assert (tmp_path / json.loads(told.output)["directory"]) == latest


def test_what_cannot_be_found_or_read_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        journal(tmp_path / "both" / name)
    (tmp_path / "none").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / book.INDEX).write_bytes(b"no database at all" * 1000)
    for arguments, want in (
        (("show", "both"), "2 journals, name one"),
        (("show", "none"), "no journal there"),
        (("verify", "bad"), "not a database"),
        (("show",), "no journal below hanse-runs"),
        (("show", "nosuch"), "no training of this name has a journal"),
        (("verify", "nosuch"), "on a cluster by NAMESPACE/NAME"),
        (("verify", "/nosuch"), "no such directory"),
        (("verify", "./nosuch"), "no such directory"),
        (("show", "x", "--keep", "nosuch"), "no such directory"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 2
        assert want in result.output


def test_a_journal_does_not_steer_the_terminal(tmp_path: Path) -> None:
    """Neither by what it says of itself, nor in a refusal that repeats what it says."""
    hostile = "\x1b]0;gone\x07\x1b[2J"
    where = journal(tmp_path / "one", {"training": hostile, "uid": hostile})
    with sqlite3.connect(where / book.INDEX) as connection:
        connection.execute("insert into facts values ('dropped', ?)", (hostile,))
    connection.close()
    shown = invoke("show", where)
    refused = invoke("show", f"nosuch{hostile}")
    assert (shown.exit_code, refused.exit_code) == (0, 2)
    for result in (shown, refused):
        assert "gone" in result.output
        assert not {"\x1b", "\x07"} & set(result.output)


def test_what_could_not_be_looked_at_is_not_damaged() -> None:
    """A pod that does not start ends other commands with 1, which here says that the journal is damaged."""
    with (
        pytest.raises(reach.Refused, match="does not run") as caught,
        cluster_journal.only_damage_is_failure(),
    ):
        raise reach.Refused("Pod x does not run", output.FAILED)
    assert caught.value.code == output.CANNOT_START


def test_the_help_says_how_a_command_ends() -> None:
    """And how a training is named."""
    told = " ".join(invoke("verify", "--help").output.replace("│", " ").split())
    assert "0, it is whole; 1, it is damaged; 2, it could not be read" in told
