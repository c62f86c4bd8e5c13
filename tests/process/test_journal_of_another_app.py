"""An aggregator that is given another app than the one that wrote its journal leaves the journal alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.aggregator import config
from coordinator.journal import book, entries
from coordinator.planning import restarts

pytestmark = [pytest.mark.process]

BEGUN_WITH, GIVEN = "sha256:" + "1" * 64, "sha256:" + "2" * 64
NODES = entries.NodesGiven(nodes=(), main=True)


def test_it_ends_for_now_and_removes_nothing(tmp_path: Path) -> None:
    """Its exit status says why, for the hub to tell; what was trained is still there for the right app."""
    facts = {"training": "lab/tiny", "uid": "uid-1", "app": BEGUN_WITH}
    written = book.Book(tmp_path / "journal", facts)
    written.append(NODES)
    written.close()
    settings = config.AggregatorConfig(
        namespace="lab",
        name="tiny",
        uid="uid-1",
        spec={"app": {"source": {"path": "app"}}, "dataset": "numbers", "clusters": {"minimum": 1}},
        hub_address="127.0.0.1:1",
        hub_server_name="coordinator.hanse.local",
        credential_directory=tmp_path / "credentials",
        trust_domain="hanse.local",
        app_bundle=tmp_path / "app.fab",
        app_digest=GIVEN,
        work_directory=tmp_path / "work",
        journal_directory=tmp_path / "journal",
        model_store=f"file://{tmp_path}/models",
    )
    (tmp_path / "aggregator.json").write_text(settings.model_dump_json())
    done = subprocess.run(
        [sys.executable, "-m", "coordinator.aggregator", "--config", str(tmp_path / "aggregator.json")],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == restarts.OTHER_APP, done.stderr
    assert f"the journal's app is {BEGUN_WITH}, and this aggregator's is {GIVEN}" in done.stderr
    again = book.Book(tmp_path / "journal", facts)
    assert [entry for entry, _ in again.found] == [NODES]
    again.close()
