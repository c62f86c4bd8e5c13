"""An aggregator that cannot open its journal ends with a status that says so, and touches nothing."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.aggregator import app, config
from coordinator.journal import book, holding
from coordinator.planning import restarts
from federation.flower import host
from federation.runtime import pod_states

SPEC = {"app": {"source": {"path": "app"}}, "dataset": "heart"}


def aggregator(place: Path) -> app.Aggregator:
    return app.Aggregator(
        config.AggregatorConfig(
            namespace="cardiology",
            name="hospitals",
            uid="u1",
            spec=SPEC,
            hub_address="127.0.0.1:1",
            hub_server_name="coordinator.hanse.local",
            credential_directory=place / "credentials",
            trust_domain="hanse.local",
            work_directory=place / "work",
            journal_directory=place / "journal",
            model_store=(place / "models").as_uri(),
            termination_log=place / "termination-log",
        )
    )


def later_version(journal: Path, patch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(journal / book.INDEX) as connection:
        connection.execute("update facts set value = '99' where name = 'format'")
    connection.close()


def fails(number: int) -> Callable[[Path, pytest.MonkeyPatch], None]:
    """The volume does not give the journal, with this error."""

    def arrange(journal: Path, patch: pytest.MonkeyPatch) -> None:
        def hold(directory: Path) -> int:
            raise OSError(number, os.strerror(number), str(directory))

        patch.setattr(holding, "hold", hold)

    return arrange


def sqlite_fails(journal: Path, patch: pytest.MonkeyPatch) -> None:
    def connect(*args: object, **kwargs: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("disk I/O error")

    patch.setattr(book.sqlite3, "connect", connect)


CASES: dict[str, tuple[Callable[[Path, pytest.MonkeyPatch], None], str]] = {
    "of a later version": (later_version, "format is 99"),
    "a stale handle": (fails(errno.ESTALE), "Stale file handle"),
    "an error of the disk": (fails(errno.EIO), "Input/output error"),
    "an error that SQLite met": (sqlite_fails, "disk I/O error"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_journal_that_is_not_given_now_is_waited_for(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no death; what it said of it outlives its pod, and the journal stays as it is."""
    arrange, want = CASES[case]
    monkeypatch.setattr(host, "prepare_process", lambda *args, **kwargs: None)
    facts = {"training": "cardiology/hospitals", "uid": "u1", "app": ""}
    book.Book(tmp_path / "journal", facts).close()
    arrange(tmp_path / "journal", monkeypatch)
    before = (tmp_path / "journal" / book.INDEX).read_bytes()
    assert aggregator(tmp_path).run() == restarts.UNREADABLE
    assert (tmp_path / "journal" / book.INDEX).read_bytes() == before
    reason, message = pod_states.last_words((tmp_path / "termination-log").read_text())
    assert (reason, want in message) == (restarts.NOT_NOW, True)
